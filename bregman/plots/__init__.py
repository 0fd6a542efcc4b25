"""One function per figure, from stored results only. Plotting never trains."""

from bregman.plots.explore import explore
from bregman.plots.mnist import mnist_acceleration, mnist_comparison
from bregman.plots.style import save

__all__ = ["explore", "mnist_acceleration", "mnist_comparison", "save"]
