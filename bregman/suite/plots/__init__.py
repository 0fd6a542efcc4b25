"""One file per notebook, named as it, with a function per figure, from stored results only."""

from bregman.suite.plots.browser import browse
from bregman.suite.plots.motion import Slider, animate, explore
from bregman.suite.plots.style import save, show
from bregman.suite.plots.tables import settings, tabulate

__all__ = ["Slider", "animate", "browse", "explore", "save", "settings", "show", "tabulate"]
