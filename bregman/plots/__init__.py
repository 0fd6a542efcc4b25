"""One function per figure, from stored results only. Plotting never trains."""

from bregman.plots.architecture_search import (
    architecture_growth,
    architecture_images,
    architecture_networks,
    architecture_quality,
    architecture_skips,
)
from bregman.plots.explore import explore
from bregman.plots.mnist import mnist_acceleration, mnist_comparison
from bregman.plots.style import save

__all__ = [
    "architecture_growth",
    "architecture_images",
    "architecture_networks",
    "architecture_quality",
    "architecture_skips",
    "explore",
    "mnist_acceleration",
    "mnist_comparison",
    "save",
]
