"""Figures of notebook 11: targets, accuracy at equal density, frozen steps, cost of training."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, OCHRE, PALETTE, PINK, PURPLE, RED

# RigL and SET, which have no place in the palette, take those of ProxGD and Lasso; a static support
# is trained by SGD
METHODS: dict[str, draw.Look] = {
    "LinBreg": {"color": PALETTE["LinBreg"], "marker": "o"},
    "LinBreg, frozen steps": {
        "color": PALETTE["LinBreg"], "marker": "o", "mfc": "white", "ls": "--"
    },
    "RigL": {"color": RED, "marker": "s"},
    "SET": {"color": OCHRE, "marker": "D"},
    "static": {"color": PALETTE["SGD"], "marker": "v"},
    "pruning": {"color": PALETTE["Pruning"], "marker": "^"},
}  # fmt: skip
DENSE: draw.Look = {"color": BLACK, "ls": "--", "lw": 1}
# of targets, and of numbers of frozen steps
SEQUENCE = (BLUE, GREEN, OCHRE, PINK, PURPLE, BLACK)
LAMBDA = draw.Measure("weights", "lam", r"$\lambda$")


@draw.of_runs
def sparsity_targets(results: Results) -> Figure:
    """The density over the epochs beside the target, and the lambda that leads there.

    Args:
        results: the rows with a target.

    Returns:
        A column per network and optimizer: above the non-zero weights, dotted where they should
        end, below lambda.
    """
    kinds = results.runs.groupby(["config_network", "config_optimizer"], sort=False)
    with draw.panels(2, kinds.ngroups, 4.2, sharex="col", sharey="row") as (fig, axes):
        targets = sorted(results.runs["config_target"].unique(), reverse=True)
        colors = dict(zip(targets, SEQUENCE, strict=False))
        for (above, below), (kind, rows) in zip(axes.T, kinds, strict=True):
            for label, target in rows["config_target"].items():
                look = {str(label): {"color": colors[target]}}
                draw.curves(above, results, draw.DENSITY, look)
                draw.curves(below, results, LAMBDA, look)
                above.axhline(100 * target, ls=":", lw=1, color=colors[target])
            above.set(title=", ".join(kind))
            draw.whole_epochs(below)
        draw.few_ticks(*(ax.yaxis for ax in axes[:, 0]))
        for ax in axes.flat:
            ax.label_outer()
        looks = {f"target {100 * target:g} %": {"color": c} for target, c in colors.items()}
        draw.legend(fig, looks)
    return fig


@draw.of_runs
def accuracy_at_density(results: Results) -> Figure:
    """Test accuracy against the density that training ended with, and against what it cost.

    Args:
        results: the rows with methods at several densities, and one dense for each network.

    Returns:
        A row of two panels per network; means over the seeds, with the standard deviation where
        there are several. The dashed line is the dense network.
    """
    columns = {"n_total_pct": "Non-Zero Weights [%]",
               "flops_pct": "FLOPs of the Training [% of Dense]"}  # fmt: skip
    networks = results.summary.groupby("config_network", sort=False)
    n = networks.ngroups
    with draw.panels(n, 2, 0.5 + 2.6 * n, sharex="col", sharey="row") as (fig, axes):
        for line, (network, rows) in zip(axes, networks, strict=True):
            dense = rows.loc[rows["strategy"] == "dense", "test_acc_pct"].mean()
            for ax, column in zip(line, columns, strict=True):
                ax.axhline(dense, **DENSE)
                for method, look in METHODS.items():
                    runs = rows[rows["strategy"] == method].groupby("config_target")
                    x, y = runs[column], runs["test_acc_pct"]
                    ax.errorbar(x.mean(), y.mean(), y.std(), ms=4, capsize=2, **look)
            line[0].set(ylabel=f"Test Accuracy [%], {network}")
        for ax, name in zip(axes[-1], columns.values(), strict=True):
            ax.set(xlabel=name)
            draw.few_ticks(ax.xaxis)
        looks = {method: look | {"ms": 4} for method, look in METHODS.items()}
        draw.legend(fig, looks | {"dense": DENSE})
    return fig


@moving.of_runs
def browse_costs(results: Results) -> None:
    """Every run as a point: what it is good for and what it costs, over density or frozen steps.

    Args:
        results: of the experiment ``what_sparsity_buys``.
    """
    across = {"density": ("n_total_pct", "Non-Zero Weights [%]", {"log": "x"}),
              "frozen steps": ("frozen_steps", "Frozen Steps m", {})}  # fmt: skip
    summary = results.summary
    summary = summary.assign(quality=summary["test_acc_pct"].fillna(summary["ssim"]))
    up = {"quality": "Test Accuracy [%] or SSIM", "flops_pct": "FLOPs [% of Dense]",
          "seconds": "Seconds"}  # fmt: skip
    looks = {"dense": DENSE, **METHODS}
    others = [method for method in summary["strategy"].unique() if method not in looks]
    looks |= {method: {"color": shade} for method, shade in zip(others, itertools.cycle(SEQUENCE))}
    moving.browse(
        (
            moving.paths(
                (moving.path(f"{run.label}, seed {run.seed}", looks[run.strategy],
                             [getattr(run, measure)], [getattr(run, column)],
                             method=run.strategy, seed=run.seed)
                 for run in rows.itertuples()),
                x_name, name, {"runs": artifact, "across": x}, **axes,
            )
            for artifact, rows in summary.groupby("artifact")
            for x, (column, x_name, axes) in across.items()
            for measure, name in up.items()
        ),
        "Accuracy, FLOPs and seconds of each run, over its density or its number of frozen steps.",
        one=("runs", "across"),
        many=("method", "seed"),
    )  # fmt: skip


@draw.of_runs
def frozen_steps_map(results: Results) -> Figure:
    """Accuracy, density and FLOPs over the number m of frozen steps and lambda.

    Args:
        results: the rows that differ in these.

    Returns:
        Three heat maps; blank where a run diverged.
    """
    measures = (("test_acc_pct", "Test Accuracy [%]", "Blues"),
                ("n_total_pct", "Non-Zero Weights [%]", "Oranges"),
                ("flops_pct", "FLOPs [% of Dense]", "Greens"))  # fmt: skip
    with draw.panels(1, 3, 2.6, sharey=True) as (fig, axes):
        runs = results.summary
        for ax, (column, title, colors) in zip(axes[0], measures, strict=True):
            shown = runs.assign(shown=runs[column].where(runs["status"] != "diverged"))
            table = shown.pivot(index="config_lam", columns="config_frozen_steps", values="shown")
            sns.heatmap(table, ax=ax, cmap=colors, annot=True, fmt=".1f", cbar=False,
                        annot_kws={"size": 7})  # fmt: skip
            for number, shade in zip(ax.texts, _shades(ax), strict=True):
                # where white and black have the same contrast
                dark = sns.utils.relative_luminance(shade) < 0.18
                number.set_color("white" if dark else "black")
            ax.set(title=title, xlabel="Frozen Steps $m$", ylabel=None)
            ax.tick_params(length=0)
            ax.tick_params(axis="y", rotation=0)
        axes[0, 0].set(ylabel=LAMBDA.name)
    return fig


@draw.of_runs
def support_turnover(results: Results) -> Figure:
    """How many weights enter and leave the support from one full step to the next.

    Args:
        results: the rows that differ in frozen steps and lambda.

    Returns:
        A panel per lambda: shares of the support over the epochs, solid what enters, dashed what
        leaves.
    """
    lams = results.runs.groupby("config_lam")
    steps = sorted(results.runs["config_frozen_steps"].unique())
    colors = dict(zip(steps, SEQUENCE, strict=False))
    with draw.panels(1, lams.ngroups, 2.9, sharex=True, sharey=True) as (fig, axes):
        for ax, (lam, rows) in zip(axes.flat, lams, strict=True):
            for label, m in rows["config_frozen_steps"].items():
                for metric, style in (("entered", "-"), ("left", "--")):
                    measure = draw.Measure("weights", metric, "", 100)
                    share = draw.spread(results, str(label), measure)["mean"]
                    # what is zero has no place on this axis
                    ax.plot(share.index, share.where(share > 0), color=colors[m], ls=style)
            ax.set(title=rf"$\lambda = {lam:g}$")
            draw.few_ticks(ax.yaxis)
        draw.whole_epochs(*axes.flat)
        axes[0, 0].set(ylabel="Share of the Support\nper Cycle [%]")
        looks = {f"$m = {m:g}$": {"color": shade} for m, shade in colors.items()}
        looks |= {"enters": {"color": GRAY}, "leaves": {"color": GRAY, "ls": "--"}}
        draw.legend(fig, looks)
    return fig


def whole_runs(costs: pd.DataFrame) -> Figure:
    """The cost of whole trainings: FLOPs in theory, and seconds on the clock.

    Args:
        costs: of ``cost_table``; indexed by network and method.

    Returns:
        A panel per network with two bars per method, both relative to the dense training.
    """
    networks, methods = (costs.index.unique(level) for level in ("network", "method"))
    with draw.panels(1, len(networks), 2.6, sharex=True, sharey=True) as (fig, axes):
        looks = {"FLOPs in theory": {"color": GRAY}, "time measured": {"color": BLUE}}
        places = np.arange(len(methods))
        for ax, network in zip(axes.flat, networks, strict=True):
            rows = costs.loc[network].reindex(methods)
            bars = zip(("FLOPs [%]", "time [%]"), (-0.2, 0.2), looks.values(), strict=True)
            for column, shift, look in bars:
                drawn = ax.barh(places + shift, rows[column], height=0.38, zorder=2, **look)
                ax.bar_label(drawn, fmt="%.0f", padding=2, fontsize=7)
            ax.set(title=network, xlabel="% of Dense", yticks=places, yticklabels=methods)
            ax.grid(visible=False, axis="y")
            ax.margins(x=0.15)
        axes[0, 0].invert_yaxis()
        wide: draw.Look = {"lw": 5, "solid_capstyle": "butt"}
        draw.legend(fig, {name: look | wide for name, look in looks.items()})
    return fig


def _shades(ax: Axes) -> np.ndarray:
    """The colours of a heat map's cells that hold a number."""
    mesh: Any = ax.collections[0]
    mesh.update_scalarmappable()
    shades: np.ndarray = mesh.get_facecolors()
    return shades[~np.ma.getmaskarray(mesh.get_array()).ravel()]
