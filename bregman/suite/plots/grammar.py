"""The few words that all figures are written in.

``panels`` make a figure; in each are lines, images and bars, and ``frame`` is what stands around
them. A figure of results chooses runs by the columns of their summary, what was measured and what
was set (``config_...``); a label is the key that joins summary and history, and a text in a legend.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from bregman.suite.experiments import Results
from bregman.suite.plots.style import BLACK, GRAY, PALETTE, STYLE

Look = dict[str, Any]
P = ParamSpec("P")

NO_RUNS = "no runs yet"

# of what a theory says, beside what is measured
DASHED = (0, (3, 1.5))


class Measure(NamedTuple):
    """What runs recorded over the epochs, as figures show it.

    Attributes:
        split: of the history.
        metric: likewise.
        name: of the axis.
        factor: 100 for percent.
        limits: of the axis, where some value is above the lower one: those of a network that has
            not learned much yet would show nothing.
    """

    split: str
    metric: str
    name: str
    factor: float = 1.0
    limits: tuple[float, float] | None = None


DENSITY = Measure("weights", "n_total", "Non-Zero Weights [%]", 100)
ENTRIES = DENSITY._replace(name="Non-Zero Entries [%]")
ACCURACY = Measure("validation", "accuracy", "Validation Accuracy [%]", 100)


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


def looks(results: Results, **look: Any) -> dict[str, Look]:
    """The look of each run, by label: the colour of its algorithm, and what all share."""
    return {str(label): {"color": color(run), **look} for label, run in results.runs.iterrows()}


def algorithms(names: Iterable[str], **look: Any) -> dict[str, Look]:
    """The looks of some algorithms, in the order of the palette."""
    named = {*names}
    return {name: {"color": PALETTE[name], **look} for name in PALETTE if name in named}


def tint(value: str, share: float) -> str:
    """A colour, mixed with that share of white."""
    red, green, blue = ((1 - share) * part + share for part in to_rgb(value))
    return to_hex((red, green, blue))


@contextmanager
def panels(
    rows: int,
    columns: int,
    height: float,
    width: float = 7.2,
    *,
    title: str | None = None,
    count: int | None = None,
    minor: bool = True,
    **options: Any,
) -> Iterator[tuple[Figure, Any]]:
    """A figure to draw in, in the style of all figures.

    Args:
        rows: of panels.
        columns: likewise.
        height: in inches.
        width: likewise; a page has 7.2.
        title: above all panels.
        count: how many of the panels are needed, all if None.
        minor: keep the minor ticks of logarithmic axes; they take half the time of drawing.
        options: as for ``plt.subplots``.

    Yields:
        The figure, and its rows x columns array of axes.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
        if title is not None:
            fig.suptitle(title, fontsize=9)
        for ax in () if count is None else axes.flat[count:]:
            ax.remove()
        yield fig, axes
        for ax in () if minor else fig.axes:
            ax.minorticks_off()


def of_runs(
    figure: Callable[Concatenate[Results, P], Figure],
) -> Callable[Concatenate[Results, P], Figure]:
    """Let a figure of results say "no runs yet" where there are none."""

    @functools.wraps(figure)
    def drawn(results: Results, *args: P.args, **kwargs: P.kwargs) -> Figure:
        if not results.summary.empty:
            return figure(results, *args, **kwargs)
        with panels(1, 1, 1.0) as (fig, [[ax]]):
            ax.text(0.5, 0.5, NO_RUNS, color=GRAY, ha="center", va="center")
            ax.axis("off")
        return fig

    return drawn


def frame(
    ax: Axes,
    title: str | None = None,
    x: str | None = None,
    y: str | None = None,
    key: str | None = None,
    columns: int = 1,
    log: str = "",
    **axes: Any,
) -> None:
    """What stands around the marks of a panel.

    Args:
        ax: the panel.
        title: above it.
        x: the name of what is across.
        y: of what is up.
        key: the place of the legend, such as "upper left"; there is none if None.
        columns: of the legend.
        log: "x", "y" or "xy", the axes that are logarithmic.
        axes: as for ``Axes.set``: limits and ticks.
    """
    names = {"title": title, "xlabel": x, "ylabel": y}
    names |= {f"{axis}scale": "log" for axis in log}
    ax.set(**{name: text for name, text in names.items() if text is not None}, **axes)
    place: Any = key  # one of those that matplotlib knows
    if key is not None:
        ax.legend(loc=place, ncols=columns)


def legend(fig: Figure, looks: Mapping[str, Look], columns: int | None = None) -> None:
    """One legend for all panels, above them.

    Args:
        fig: the figure.
        looks: of the lines, by their names.
        columns: names side by side; all if None.
    """
    lines = [Line2D([], [], **look) for look in looks.values()]
    fig.legend(lines, [*looks], loc="outside upper center", ncols=columns or len(lines))


def shared_legend(fig: Figure, title: str | None = None) -> None:
    """The legend of the first panel for all panels, above them."""
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), title=title)


def lines(ax: Axes, curves: Mapping[str, Any], looks: Iterable[Look], x: Any = None) -> None:
    """Draw curves by name, each in a look of its own; over their numbers if x is None."""
    for (name, values), look in zip(curves.items(), looks, strict=False):
        ax.plot(range(len(values)) if x is None else x, values, label=name, **look)


def spread(results: Results, run: str, measure: Measure) -> pd.DataFrame:
    """Mean and standard deviation over the seeds (columns), by epoch."""
    history = results.history
    chosen = history[(history["run"] == run) & (history["split"] == measure.split)]
    chosen = chosen[chosen["metric"] == measure.metric]
    return measure.factor * chosen.groupby("epoch")["value"].agg(["mean", "std"])


def curves(
    ax: Axes, results: Results, measure: Measure, looks: Mapping[str, Look], *, band: bool = False
) -> None:
    """Draw what runs recorded over the epochs, averaged over the seeds.

    Args:
        ax: where; its vertical axis gets name and limits of the measure.
        results: with the runs.
        measure: what was recorded.
        looks: of the runs, by label.
        band: shade by one standard deviation over the seeds.
    """
    for run, look in looks.items():
        values = spread(results, run, measure)
        ax.plot(values.index, values["mean"], **look)
        if band and values["std"].notna().any():
            low, high = values["mean"] - values["std"], values["mean"] + values["std"]
            ax.fill_between(values.index, low, high, color=look["color"], alpha=0.15, lw=0)
    ax.set(ylabel=measure.name)
    if measure.limits is not None and max(map(peak, ax.lines), default=-np.inf) > measure.limits[0]:
        ax.set(ylim=measure.limits)


def peak(line: Line2D) -> float:
    """The highest number of a line that is finite; -inf if there is none."""
    values = np.asarray(line.get_ydata(), dtype=float)
    return float(values[np.isfinite(values)].max(initial=-np.inf))


def image(
    ax: Axes, pixels: Any, low: float = 0, high: float = 1, cmap: str = "gray", **look: Any
) -> None:
    """Draw an image without axes; the look is as for ``imshow``."""
    ax.imshow(np.squeeze(pixels), cmap=cmap, vmin=low, vmax=high, **look)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def support(ax: Axes, matrix: Any, aspect: Literal["auto", "equal"] = "auto") -> None:
    """Draw which entries of a matrix are not zero."""
    colors = ListedColormap(["#E5E5E5", BLACK])
    ax.imshow(np.asarray(matrix) != 0, cmap=colors, aspect=aspect, interpolation="none")
    ax.grid(False)


def few_ticks(*axes: Any) -> None:
    """On logarithmic axes, ticks at 1, 2 and 5 as plain numbers."""
    for axis in axes:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def whole_numbers(*axes: Any) -> None:
    """Ticks at integers."""
    for axis in axes:
        axis.set_major_locator(MaxNLocator(integer=True))


def whole_epochs(*axes: Axes) -> None:
    """Name the axis of the epochs, with ticks at round numbers."""
    for ax in axes:
        ax.set(xlabel="Epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
