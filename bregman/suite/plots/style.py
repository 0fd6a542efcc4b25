"""What all figures share: fonts, grid (``paper.mplstyle``), colours, how they are saved and shown.

Colours are safe for the colour-blind; line styles tell families apart without them.
"""

import html
import io
from base64 import b64encode
from importlib import resources
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

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


def show(fig: Figure, alt: str) -> None:
    """Show a figure in a notebook, sharp on fine screens, with a text for those who do not see it.

    Args:
        fig: the figure; it is closed.
        alt: what it shows, in one or two sentences.

    Raises:
        ValueError: alt is empty.
    """
    data, size = picture(fig)
    plt.close(fig)
    display(bundle(data, size, alt), raw=True)


def picture(
    fig: Figure, *, tight: bool = True, dpi: float = 220, colors: int = 255
) -> tuple[bytes, tuple[int, int]]:
    """A figure as a small PNG, and the width and height in pixels at which it is meant to be seen.

    Args:
        fig: the figure.
        tight: whether to cut off empty margins; frames of one size are not cut.
        dpi: pixels per inch of the figure; 110 of them are seen as one inch.
        colors: how many colours are kept.
    """
    buffer, small = io.BytesIO(), io.BytesIO()
    with plt.style.context([STYLE, {"savefig.bbox": "tight" if tight else None}]):
        fig.savefig(buffer, dpi=dpi, format="png", pil_kwargs={"compress_level": 0})
    image = Image.open(buffer).convert("RGB")
    image.quantize(colors, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    width, height = (round(110 / dpi * side) for side in image.size)
    return small.getvalue(), (width, height)


def bundle(data: bytes, size: tuple[int, int], alt: str) -> dict[str, str]:
    """A PNG for a notebook: JupyterLab and static pages take the HTML, all others the image."""
    if not alt.strip():
        raise ValueError("alt must say what the figure shows, got nothing")
    width, height = size
    return {
        "text/html": f'<img src="{as_data(data)}" alt="{html.escape(alt)}" width="{width}" '
        f'height="{height}">',
        "image/png": b64encode(data).decode(),
        "text/plain": alt,
    }


def as_data(data: bytes) -> str:
    """A PNG as an address that holds it whole."""
    return "data:image/png;base64," + b64encode(data).decode()
