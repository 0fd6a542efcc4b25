"""One file per notebook, named as it, with a function per figure, from stored results only."""

from bregman.suite.plots.explore import explore
from bregman.suite.plots.style import save

__all__ = ["explore", "save"]
