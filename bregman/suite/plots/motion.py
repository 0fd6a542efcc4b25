"""Figures that move: controls that redraw a figure, and animations that can be paused.

Both leave a still picture with a description where no code runs: on paper, or on a static page.
"""

import html
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import traitlets
from IPython.display import display
from matplotlib.figure import Figure

from bregman.suite.plots.style import STYLE, as_data, bundle, picture

_HERE = resources.files("bregman.suite.plots")
_CONTROLS = (_HERE / "controls.js").read_text()

# no element needs a name and no script runs at loading, so it works wherever handlers may run
_ANIMATION = (_HERE / "animation.html").read_text().strip()


@dataclass(frozen=True)
class Slider:
    """One control of an explorer: a name, and the values on its way.

    Args:
        label: what stands beside it, such as "λ".
        values: numbers or words, in order.
        start: where it begins; of numbers, the nearest value is taken.

    Raises:
        ValueError: fewer than two values, or a word that is none of them.
    """

    label: str
    values: Sequence[Any]
    start: Any

    def __post_init__(self) -> None:
        words = any(isinstance(value, str) for value in self.values)
        # short numbers: what is read beside the track is what is used
        values = [v if isinstance(v, str | int) else float(f"{v:.3g}") for v in self.values]
        object.__setattr__(self, "values", values)
        if len(values) < 2:
            raise ValueError(f"values must be at least two, got {values}")
        if words and self.start not in values:
            raise ValueError(f"start must be one of {values}, got {self.start!r}")

    @property
    def position(self) -> int:
        """The index of the value to start from."""
        if isinstance(self.start, str):
            return self.values.index(self.start)
        return min(range(len(self.values)), key=lambda k: abs(self.values[k] - self.start))

    @property
    def texts(self) -> list[str]:
        """What is read beside the track."""
        return [v if isinstance(v, str) else f"{v:g}" for v in self.values]


class Controls(anywidget.AnyWidget):
    """The sliders of an explorer, with play and reset, and a place for an error."""

    _esm = _CONTROLS
    sliders: traitlets.List[Any] = traitlets.List().tag(sync=True)
    start: traitlets.List[Any] = traitlets.List().tag(sync=True)
    positions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    wait = traitlets.Int(0).tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)


def explore(draw: Callable[..., Figure], alt: str, wait: int = 0, **sliders: Slider) -> None:
    """Show a figure, and below it sliders that redraw it.

    The layout stays that of the first drawing; the limits of the axes are ``draw``'s to fix. An
    error of ``draw`` is told under the figure, which then stays as it was.

    Args:
        draw: from the sliders' values, by name, to a figure.
        alt: what the first figure shows, for those who do not see it.
        wait: milliseconds for which the sliders rest before it is drawn, where that takes long.
        sliders: by the name of the argument of ``draw``.

    Raises:
        ValueError: alt is empty, or a slider is no argument of ``draw``.
    """
    if unknown := set(sliders) - set(inspect.signature(draw).parameters):
        raise ValueError(f"sliders must be arguments of draw, got {sorted(unknown)[0]!r}")
    start = [slider.position for slider in sliders.values()]
    shapes = [{"label": slider.label, "texts": slider.texts} for slider in sliders.values()]
    controls = Controls(sliders=shapes, start=start, positions=start, wait=wait)
    layout: list[Any] = []

    def drawn(positions: Iterable[int]) -> Any:
        pairs = zip(sliders.items(), positions, strict=True)
        with plt.style.context(STYLE):
            figure = draw(**{name: slider.values[k] for (name, slider), k in pairs})
            return bundle(*_laid_out(figure, layout), alt)

    shown = display(drawn(start), raw=True, display_id=True)

    def redraw(change: Any) -> None:
        try:
            update = drawn(change["new"])
        except Exception as error:
            controls.error = f"{type(error).__name__}: {error}"
        else:
            controls.error = ""
            shown.update(update, raw=True)

    controls.observe(redraw, names="positions")
    view = {"model_id": controls.model_id, "version_major": 2, "version_minor": 0}
    names = ", ".join(slider.label for slider in sliders.values())
    hint = f"Run this cell in JupyterLab, and sliders appear here: {names}."
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": hint}, raw=True)


def animate(
    frames: Iterable[Figure],
    texts: Sequence[str],
    alt: str,
    *,
    label: str = "frame",
    still: int = -1,
    pause: int = 250,
) -> None:
    """Show figures of one size as an animation, with play, pause and a slider.

    The layout stays that of the first frame.

    Args:
        frames: the figures, in order; they may be made on the way.
        texts: what is read beside the slider at each, without "|".
        alt: what the animation shows.
        label: the name of the slider.
        still: the index of the frame to see before it plays, and on paper.
        pause: milliseconds from one frame to the next.

    Raises:
        ValueError: alt is empty, or the numbers of frames and texts differ.
    """
    layout: list[Any] = []
    pictures = [_laid_out(figure, layout, dpi=110, colors=32) for figure in frames]
    if len(texts) != len(pictures):
        raise ValueError(f"texts must be {len(pictures)}, one per frame, got {len(texts)}")
    at = range(len(pictures))[still]
    data, (width, height) = pictures[at]
    shown = bundle(data, (width, height), alt)
    shown["text/html"] = _ANIMATION.format(
        frames=" ".join(as_data(frame).split(",")[1] for frame, _ in pictures),
        still=as_data(data), alt=html.escape(alt), width=width, height=height,
        last=len(pictures) - 1, at=at, label=html.escape(label), at_text=html.escape(texts[at]),
        texts=html.escape("|".join(texts)), pause=pause,
    )  # fmt: skip
    display(shown, raw=True)


def _laid_out(figure: Figure, layout: list[Any], **options: Any) -> tuple[bytes, tuple[int, int]]:
    """A picture in the layout of the first figure, which is kept in ``layout``.

    To find one is most of the time that a drawing takes.
    """
    if layout:
        figure.set_layout_engine("none")
        for ax, place in zip(figure.axes, layout, strict=True):
            ax.set_position(place)
    made = picture(figure, tight=False, **options)
    if not layout:
        layout.extend(ax.get_position(original=True) for ax in figure.axes)
    plt.close(figure)
    return made
