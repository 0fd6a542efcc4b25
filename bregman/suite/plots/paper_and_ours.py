"""The figure of notebook 12: the paper's numbers against ours."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bregman.suite.experiments import WIDTHS
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import GRAY, PALETTE
from bregman.suite.plots.tables import HEADINGS

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
            _names(ax, chosen, off > far)
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
            (moving.path(f"{row.artifact}, {row.label}, {HEADINGS[row.measure]}",
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


def _names(ax: Axes, numbers: pd.DataFrame, far: "pd.Series[bool]") -> None:
    """The names of the runs that are far off, where they cover no point and no other name."""
    places = ax.transAxes.inverted().transform(
        ax.transData.transform(numbers[["paper", "ours"]].to_numpy(dtype=float))
    )
    points = [(x - 0.02, y - 0.02, x + 0.02, y + 0.02) for x, y in places]
    taken = [*points]
    named = numbers.assign(x=places[:, 0], y=places[:, 1])[far]
    for row in named.drop_duplicates(["label", "measure"]).itertuples():
        # about the size of a name, in parts of the panel
        wide, tall = 0.019 * len(row.label) + 0.01, 0.05
        boxes = [
            (row.x + side - (wide if side < 0 else 0), row.y + lift - tall / 2)
            for lift in (0, *(sign * k * 0.03 for k in range(1, 9) for sign in (1, -1)))
            for side in (0.03, -0.03)
        ]
        left, low = min(
            boxes, key=lambda corner: _covered((*corner, corner[0] + wide, corner[1] + tall), taken)
        )
        taken.append((left, low, left + wide, low + tall))
        before = left < row.x
        ax.annotate(
            row.label, (row.x, row.y), (left + before * wide, low + tall / 2), "axes fraction",
            fontsize=5, ha="right" if before else "left", va="center", textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": GRAY,
                        "relpos": (float(before), 0.5)},
        )  # fmt: skip


Box = tuple[float, float, float, float]


def _covered(box: Box, taken: list[Box]) -> float:
    """How much of other boxes, and of what lies outside of the panel, a box covers."""
    left, low, right, high = box
    shared = sum(
        max(0.0, min(right, r) - max(left, a)) * max(0.0, min(high, h) - max(low, b))
        for a, b, r, h in taken
    )
    outside = (right - left) * (high - low) - max(0.0, min(right, 1) - max(left, 0)) * max(
        0.0, min(high, 1) - max(low, 0)
    )
    return shared + 10 * outside
