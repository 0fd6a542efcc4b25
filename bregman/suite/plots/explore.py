"""Sliders under a figure, which stays a plain picture where nobody moves them."""

from collections.abc import Callable
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from bregman.suite.plots.style import STYLE


def explore(draw: Callable[..., Figure], **controls: ipywidgets.ValueWidget) -> None:
    """Show a figure, and below it controls that redraw it at once.

    Run headless, or read on paper, the figure is there as drawn with the controls' first values.

    Args:
        draw: from the controls' values, by name, to a figure.
        controls: widgets with a value, such as ``ipywidgets.FloatLogSlider``.
    """

    def drawn() -> Figure:
        figure = draw(**{name: control.value for name, control in controls.items()})
        # shown here and nowhere else
        plt.close(figure)
        return figure

    with plt.style.context(STYLE):
        picture = display(drawn(), display_id=True)

    def redraw(change: Any) -> None:
        with plt.style.context(STYLE):
            picture.update(drawn())

    for name, control in controls.items():
        control.description = control.description or name
        control.observe(redraw, names="value")
    display(ipywidgets.HBox(list(controls.values())))
