"""The figure of notebook 12: the paper's numbers against ours."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bregman.suite.experiments import WIDTHS
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import GRAY, PALETTE

KEYS = ["artifact", "strategy", "optimizer"]
# name, measures, on logarithmic axes, how far off a number has its run's name beside it
PANELS = (
    ("Non-Zero Weights or Kernels [%]", ["n_total_pct", "n_linear_pct", "n_conv_pct"], True, 0.3),
    ("Validation and Test Accuracy [%]", ["val_acc_pct", "test_acc_pct"], False, 0.5),
    ("Training Accuracy [%]", ["train_acc_pct"], False, 3.0),
    (r"$\ell_1$-Norm", ["l1_norm"], True, 0.2),
    ("SSIM", ["ssim"], False, 0.0),
    ("Active Neurons per Layer", WIDTHS, True, 0.2),
)
MARKERS = {"Figure 2": "o", "Figure 3": "s", "Table 1": "^", "Table 2": "v", "Table 3": "D",
           "Figure 5": "P"}  # fmt: skip


def paper_against_ours(table: pd.DataFrame, runs: pd.DataFrame) -> Figure:
    """The paper's numbers to the right, ours up; on the line both are equal.

    Args:
        table: of ``beside_paper``.
        runs: the summaries that it was made of.

    Returns:
        A panel per kind of number, with the standard deviation over the seeds. Numbers that were
        not measured are left out, and zeros where axes are logarithmic; those that are far off
        carry the name of their run.
    """
    numbers = _numbers(table, runs)
    with draw.panels(2, 3, 5.4) as (fig, axes):
        for ax, (name, measures, log, far) in zip(axes.flat, PANELS, strict=True):
            chosen, limits = _panel(numbers, measures, log)
            for (artifact, kind), mine in chosen.groupby(["artifact", "algorithm"], sort=False):
                ax.errorbar(mine["paper"], mine["ours"], mine["std"].fillna(0), color=PALETTE[kind],
                            fmt=MARKERS[artifact], ms=3.5, lw=0.8)  # fmt: skip
            ax.set(title=name)
            if log:
                draw.few_ticks(ax.xaxis, ax.yaxis)
            if limits is None:
                continue
            for axis in () if log else (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(5))
            ax.set(xlim=limits, ylim=limits)
            ax.plot(limits, limits, color=GRAY, lw=0.8, zorder=0)
            off = chosen["difference"].abs() / (chosen["paper"] if log else 1)
            _names(ax, chosen[off > far].drop_duplicates(["label", "measure"]))
        fig.supxlabel("the paper", fontsize=9)
        fig.supylabel("ours", fontsize=9)
        colors = draw.algorithms(numbers["algorithm"], lw=3)
        marks = {name: {"color": GRAY, "marker": marker, "ls": "", "ms": 4}
                 for name, marker in MARKERS.items() if name in {*numbers["artifact"]}}  # fmt: skip
        if len(numbers):
            draw.legend(fig, colors | marks, 7)
    return fig


def browse_numbers(table: pd.DataFrame, runs: pd.DataFrame) -> None:
    """The same in motion: each point says which number it is; nothing where nothing was measured.

    See ``paper_against_ours``.
    """
    numbers = _numbers(table, runs)
    if numbers.empty:
        return
    views = []
    for name, measures, log, _ in PANELS:
        chosen, limits = _panel(numbers, measures, log)
        plain = name.replace(r"$\ell_1$", "ℓ1")
        views.append(moving.paths(
            (moving.path(f"{row.artifact}, {row.label}, {row.measure}",
                         {"color": PALETTE[row.algorithm]}, [row.ours], [row.paper],
                         f" ± {row.std:.2g}" if row.std > 0 else "",
                         where=row.artifact, algorithm=row.algorithm)
             for row in chosen.itertuples()),
            "the paper's", f"ours: {plain}", {"numbers": plain},
            log="xy" if log else "", xlim=limits, ylim=limits, diagonal=True,
        ))  # fmt: skip
    moving.browse(
        views,
        "The paper's numbers to the right and ours up; on the line both are equal.",
        one=("numbers",),
        many=("where", "algorithm"),
    )


def _numbers(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """What was measured, with the algorithm of its run."""
    numbers = table.reset_index().dropna(subset="ours").rename(columns={"run": "label"})
    kinds = runs.drop_duplicates([*KEYS, "label"])
    kinds = kinds.assign(algorithm=[draw.algorithm(run) for _, run in kinds.iterrows()])
    numbers = numbers.merge(kinds[[*KEYS, "label", "algorithm"]], on=[*KEYS, "label"])
    numbers["artifact"] = numbers["artifact"].str.replace(r" \(.*", "", regex=True)
    return numbers


def _panel(
    numbers: pd.DataFrame, measures: list[str], log: bool
) -> tuple[pd.DataFrame, tuple[float, float] | None]:
    """The numbers of one panel, those that have a place on its axes, and the limits of both."""
    chosen = numbers[numbers["measure"].isin(measures)]
    chosen = chosen[chosen["ours"] > 0] if log else chosen
    if chosen.empty:
        return chosen, None
    spread = chosen["std"].fillna(0)
    ends = pd.concat([chosen["paper"], chosen["ours"] - spread, chosen["ours"] + spread])
    ends = ends[ends > 0] if log else ends
    low, high = float(ends.min()), float(ends.max())
    pad = max(0.08 * (high - low), 1e-3)
    return chosen, (low / 1.3, high * 1.3) if log else (low - pad, high + pad)


def _names(ax: Axes, numbers: pd.DataFrame) -> None:
    """The runs' names beside their points, away from the line; moved where they would overlap."""
    taken: list[tuple[float, float]] = []
    for row in numbers.sort_values("ours").itertuples():
        x, y = ax.transAxes.inverted().transform(ax.transData.transform((row.paper, row.ours)))
        place = y
        while any(abs(x - a) < 0.45 and abs(place - b) < 0.055 for a, b in taken):
            place += 0.01
        taken.append((x, place))
        left = y > x and x > 0.35
        ax.annotate(
            row.label, (x, y), (x + (-0.03 if left else 0.03), place), "axes fraction", fontsize=5,
            ha="right" if left else "left", va="center", textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": GRAY},
        )  # fmt: skip
