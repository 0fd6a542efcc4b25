"""What all figures share: fonts and grid (``paper.mplstyle``), colours, and how they are saved.

Colours are safe for the colour-blind; line styles tell families apart without them.
"""

from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bregman.suite.paths import figures_dir, replacing

STYLE = str(resources.files("bregman.suite.plots") / "paper.mplstyle")

BLACK, BLUE, GREEN, PINK = "#333333", "#0072B2", "#009E73", "#D81B60"
VERMILION, ORANGE, PURPLE, GRAY = "#D55E00", "#E69F00", "#5D3A9B", "#999999"


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
