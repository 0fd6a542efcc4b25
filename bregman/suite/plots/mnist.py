"""Figures 2 and 3: the training curves on MNIST."""

from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bregman.suite.plots.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    OCHRE,
    PINK,
    PURPLE,
    RED,
    STYLE,
)


def mnist_comparison(history: pd.DataFrame) -> Figure:
    """Figure 2: accuracies, l1 norm and non-zero weights of SGD, LinBreg and ProxGD.

    Args:
        history: of the experiment ``mnist_comparison``.

    Returns:
        Four panels; means over the seeds, shaded by one standard deviation (validation accuracy
        without, as in the paper). Only the runs with tau = 0.1.
    """
    history = history[~history["run"].str.contains("τ")]
    runs = list(history["run"].unique())
    palette = dict(zip(runs, [BLACK, BLUE, GREEN, PINK, RED, OCHRE, PURPLE], strict=True))
    dashes = {run: (1, 1) if run.startswith("ProxGD") else "" for run in runs}
    look = {"hue": "run", "style": "run", "palette": palette, "dashes": dashes}
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, 2, figsize=(7.2, 4.6))
        panels = (
            ("train", "accuracy", "Train Accuracy [%]", (90, 100.5), "sd"),
            ("validation", "accuracy", "Validation Accuracy [%]", (95, 99), None),
            ("weights", "l1_norm", r"$\ell_1$-Norm", None, "sd"),
            ("weights", "n_total", "Non-Zero Entries [%]", None, "sd"),
        )
        for ax, (split, metric, label, limits, spread) in zip(axes.flat, panels, strict=True):
            _curves(ax, history, split, metric, limits, errorbar=spread, **look)
            ax.set(ylabel=label)
        lines = [_line(palette[run], ":" if dashes[run] else "-") for run in runs]
        axes[0, 0].legend(lines, runs, loc="lower right")
    return fig


def mnist_acceleration(history: pd.DataFrame) -> Figure:
    """Figure 3: validation accuracy and non-zero weights of the accelerated Bregman optimizers.

    Args:
        history: of the experiment ``mnist_acceleration``.

    Returns:
        Two panels, the right one with a broken axis; means over the seeds, shaded by one standard
        deviation.
    """
    runs = list(history["run"].unique())
    palette = dict(zip(runs, [GRAY, PINK, GREEN, OCHRE, BLUE], strict=True))
    look = {"hue": "run", "palette": palette, "errorbar": "sd"}
    sparse = history.query("run != 'SGD' and split == 'weights' and metric == 'n_total'")
    # as in the paper, but what lies between its two axes must not vanish from sight
    upper = (98, 100.7) if sparse["value"].max() <= 0.15 else (15, 104)
    with plt.style.context(STYLE):
        fig = plt.figure(figsize=(7.2, 3.1))
        grid = fig.add_gridspec(2, 2, height_ratios=(1, 3))
        left = fig.add_subplot(grid[:, 0])
        low = fig.add_subplot(grid[1, 1])
        high = fig.add_subplot(grid[0, 1], sharex=low)
        _curves(left, history, "validation", "accuracy", (96, 98.5), **look)
        left.set(ylabel="Validation Accuracy [%]")
        for ax, limits in ((high, upper), (low, (0, 15))):
            _curves(ax, history, "weights", "n_total", limits, **look)
            ax.yaxis.tick_right()
            ax.yaxis.set_label_position("right")
        high.set(xlabel=None, ylabel=None)
        high.tick_params(labelbottom=False, bottom=False)
        low.set(ylabel="Non-Zero Entries [%]")
        slanted: dict[str, Any] = {"marker": [(-1, -0.6), (1, 0.6)], "ms": 7, "color": "#444444"}
        for ax, end in ((high, 0), (low, 1)):
            ax.plot([0, 1], [end, end], transform=ax.transAxes, ls="", clip_on=False, **slanted)
        lines = [_line(palette[run], "-") for run in runs]
        fig.legend(lines, runs, loc="outside upper center", ncols=len(runs))
    return fig


def _curves(
    ax: Axes,
    history: pd.DataFrame,
    split: str,
    metric: str,
    limits: tuple[float, float] | None,
    **look: Any,
) -> None:
    """Draw a metric over the epochs, within the paper's limits if anything can be seen there."""
    chosen = history.query("split == @split and metric == @metric")
    if metric != "l1_norm":
        chosen = chosen.assign(value=100 * chosen["value"])
    sns.lineplot(chosen, x="epoch", y="value", ax=ax, legend=False, **look)
    ax.set(xlabel="Epoch")
    if limits is not None and chosen["value"].max() > limits[0]:
        ax.set(ylim=limits)


def _line(color: str, style: Literal["-", ":"]) -> Line2D:
    return Line2D([], [], color=color, linestyle=style)
