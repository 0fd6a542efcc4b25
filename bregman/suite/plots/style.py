"""What all figures share: fonts and grid (``paper.mplstyle``), colours, and how they are saved.

Colours are safe for the colour-blind; line styles tell families apart without them.
"""

from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bregman.suite.paths import figures_dir, replacing

STYLE = str(resources.files("bregman.suite.plots") / "paper.mplstyle")

# each has a contrast of at least 3 on white, each two differ for the colour-blind (tested)
BLACK, GRAY, BLUE, GREEN = "#111111", "#7F7F7F", "#00518C", "#2F9E5C"
PINK, RED, OCHRE, PURPLE = "#A6114F", "#8C1900", "#B26B00", "#230959"

# one colour per algorithm, in all notebooks
PALETTE = {
    "SGD": GRAY,
    "Adam": BLACK,
    "LinBreg": BLUE,
    "LinBreg β=0.9": GREEN,
    "AdaBreg": PINK,
    "ProxGD": RED,
    "Lasso": OCHRE,
    "Pruning": PURPLE,
}


def save(fig: Figure, name: str, scale: str) -> Path:
    """Write a figure as PNG and PDF to ``figures/<scale>/``.

    Returns:
        The path of the PNG.
    """
    for suffix in ("pdf", "png"):
        path = figures_dir() / scale / f"{name}.{suffix}"
        with replacing(path) as temporary, plt.style.context(STYLE):
            # without a date the same results give the same file
            metadata = {"CreationDate": None} if suffix == "pdf" else {}
            fig.savefig(temporary, format=suffix, metadata=metadata)
    return path
