"""The figure of notebook 06: Figure 3, the accelerated Bregman optimizers."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots.browser import browse, curves, epochs
from bregman.suite.plots.grammar import (
    Look,
    algorithm,
    color,
    curve,
    highest,
    legend,
    spread,
    styled,
)


@styled
def training_curves(results: Results) -> Figure:
    """Figure 3: validation accuracy and non-zero weights.

    Args:
        results: of the experiment ``mnist_acceleration``.

    Returns:
        Two panels with means over the seeds. Left, one standard deviation is drawn at the last
        epoch, since five bands on each other show nothing. Right, bands, and a broken axis: below
        from 0 to what the sparse runs need, at least the paper's 15 %, above from 98 %.
    """
    looks = {str(label): _look(run, results.runs) for label, run in results.runs.iterrows()}
    fig = plt.figure(figsize=(7.2, 3.4))
    grid = fig.add_gridspec(2, 2, height_ratios=(1, 4))
    left = fig.add_subplot(grid[:, 0])
    low = fig.add_subplot(grid[1, 1])
    high = fig.add_subplot(grid[0, 1], sharex=low)
    needed = 15.0
    for place, (label, look) in enumerate(looks.items()):
        curve(left, results, label, "validation", "accuracy", factor=100, **look)
        end = 100 * spread(results, label, "validation", "accuracy").iloc[-1:]
        left.errorbar(end.index * (1.03 + 0.02 * place), end["mean"], end["std"], fmt=".",
                      color=look["color"], capsize=2, lw=1)  # fmt: skip
        for ax in (low, high):
            curve(ax, results, label, "weights", "n_total", factor=100, band=True, **look)
        densest = 100 * spread(results, label, "weights", "n_total")["mean"].max()
        if densest < 98:
            needed = max(needed, 1.05 * densest)
    left.set(xlabel="Epoch", ylabel="Validation Accuracy [%]")
    # a network that has not learned much yet would not be seen
    if highest(left) > 96:
        left.set(ylim=(96, 98.5))
    low.set(ylim=(0, needed), xlabel="Epoch", ylabel="Non-Zero Entries [%]")
    high.set(ylim=(98, 100.7), yticks=(98, 100))
    high.tick_params(labelbottom=False, bottom=False)
    slanted: dict[str, Any] = {"marker": [(-1, -0.6), (1, 0.6)], "ms": 7, "color": "#444444"}
    for ax, end in ((high, 0), (low, 1)):
        ax.yaxis.tick_right()
        ax.yaxis.set_label_position("right")
        ax.plot([0, 1], [end, end], transform=ax.transAxes, ls="", clip_on=False, **slanted)
    legend(fig, looks)
    return fig


def browse_runs(results: Results) -> None:
    """Figure 3 in motion: each run and seed of the experiment ``mnist_acceleration``."""
    looks = {str(label): _look(run, results.runs) for label, run in results.runs.iterrows()}
    browse(
        [
            curves(results, "validation", "accuracy", "Validation Accuracy [%]", looks, 100,
                   (96, 98.5)),
            curves(results, "weights", "n_total", "Non-Zero Entries [%]", looks, 100, log="y"),
        ],
        "Validation accuracy and non-zero entries over the epochs, one curve per run and seed.",
        frames=epochs(results),
        many=("run", "seed"),
    )  # fmt: skip


def _look(run: "pd.Series[Any]", runs: pd.DataFrame) -> Look:
    """Dashed lies on solid: momentum on LinBreg, and of AdaBreg the smaller lambda."""
    same = runs[runs["config_optimizer"] == run["config_optimizer"]]
    dashed = algorithm(run) == "LinBreg β=0.9" or run["config_lam"] < same["config_lam"].max()
    return {"color": color(run), "ls": (0, (4, 1.5)) if dashed else "-"}
