"""The few forms that the figures of results share.

A figure chooses runs by the columns of their summary, what was measured and what was set
(``config_...``); a label is the key that joins summary and history, and a text in a legend.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from bregman.suite.experiments import Results
from bregman.suite.plots.style import PALETTE, STYLE

P = ParamSpec("P")
Look = dict[str, Any]


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A figure drawn in the style of all figures."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.style.context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def algorithm(run: "pd.Series[Any]") -> str:
    """The key of a run in ``PALETTE``, from what was set."""
    optimizer = str(run["config_optimizer"])
    if pd.notna(run.get("config_prune_to")) or run.get("config_baseline") == "pruning":
        return "Pruning"
    if optimizer in ("SGD", "Adam") and run["config_lam"] > 0:
        return "Lasso"
    momentum = optimizer == "LinBreg" and run.get("config_momentum", 0) > 0
    return "LinBreg β=0.9" if momentum else optimizer


def color(run: "pd.Series[Any]") -> str:
    """The colour of a run's algorithm."""
    return PALETTE[algorithm(run)]


def tint(value: str, share: float) -> str:
    """A colour, mixed with that share of white."""
    red, green, blue = ((1 - share) * part + share for part in to_rgb(value))
    return to_hex((red, green, blue))


def spread(results: Results, run: str, split: str, metric: str) -> pd.DataFrame:
    """Mean and standard deviation over the seeds (columns), by epoch."""
    history = results.history
    chosen = (history["run"] == run) & (history["split"] == split) & (history["metric"] == metric)
    return history[chosen].groupby("epoch")["value"].agg(["mean", "std"])


def highest(ax: Axes) -> float:
    """The largest value of the lines in a panel."""
    return max(float(np.max(line.get_ydata())) for line in ax.lines)


def curve(
    ax: Axes,
    results: Results,
    run: str,
    split: str,
    metric: str,
    *,
    factor: float = 1.0,
    band: bool = False,
    **look: Any,
) -> None:
    """Draw what a run recorded over the epochs, averaged over the seeds.

    Args:
        ax: where.
        results: with the run.
        run: its label.
        split: of the history.
        metric: likewise.
        factor: 100 for percent.
        band: shade by one standard deviation over the seeds.
        look: of the line.
    """
    values = factor * spread(results, run, split, metric)
    ax.plot(values.index, values["mean"], **look)
    if band and values["std"].notna().any():
        low, high = values["mean"] - values["std"], values["mean"] + values["std"]
        ax.fill_between(values.index, low, high, color=look["color"], alpha=0.15, lw=0)


def panels(rows: int, columns: int, height: float, **options: Any) -> tuple[Figure, Any]:
    """A figure as wide as a page, with an array of axes."""
    return plt.subplots(rows, columns, figsize=(7.2, height), squeeze=False, **options)


def few_ticks(*axes: Any) -> None:
    """On logarithmic axes, ticks at 1, 2 and 5 as plain numbers."""
    for axis in axes:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def whole_epochs(*axes: Axes) -> None:
    """Name the axis of the epochs, with ticks at round numbers."""
    for ax in axes:
        ax.set(xlabel="Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def legend(fig: Figure, looks: Mapping[str, Look], columns: int | None = None) -> None:
    """One legend for all panels, above them.

    Args:
        fig: the figure.
        looks: of the lines, by their names.
        columns: names side by side; all if None.
    """
    lines = [Line2D([], [], **look) for look in looks.values()]
    fig.legend(lines, [*looks], loc="outside upper center", ncols=columns or len(lines))


def image(ax: Axes, pixels: np.ndarray, low: float, high: float, cmap: str = "bone_r") -> None:
    """Draw an image without axes, framed if it is a single digit."""
    ax.imshow(np.squeeze(pixels), cmap=cmap, vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(color="#777777", linewidth=0.6 if pixels.shape[-1] == 28 else 0)
