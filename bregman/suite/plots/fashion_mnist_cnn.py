"""Figures of notebook 07: the network on Fashion-MNIST grows its kernels, Figure 1 and Tables 1, 2.

Black stands for the dense network, vermilion and orange for pruning and Lasso, blue, green and pink
for the Bregman optimizers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from PIL import Image

from bregman.suite.experiments import paper_reference
from bregman.suite.paths import figures_dir, replacing
from bregman.suite.plots.style import BLACK, BLUE, GREEN, OCHRE, PINK, PURPLE, RED, STYLE

COLORS = {
    "Adam": BLACK,
    "Pruning": PURPLE,
    "Lasso": RED,
    "ProxGD": OCHRE,
    "LinBreg": BLUE,
    "LinBreg β=0.9": GREEN,
    "AdaBreg": PINK,
}
BORDER, BLANK = 0.6, 1.0
PLAIN = StrMethodFormatter("{x:g}")

Array = npt.NDArray[np.floating]


def feature_maps(arrays: Mapping[str, Array], epochs: Sequence[int]) -> Figure:
    """Figure 1: what the first convolution makes of one image, in the course of training.

    Args:
        arrays: of a run that kept its kernels: ``image`` (1 x 28 x 28) and ``kernels_000``, ...
            (64 x 1 x 5 x 5), one per epoch.
        epochs: one panel each.

    Returns:
        Panels of 8 x 8 feature maps, before bias and ReLU, each stretched over all grays; blank
        where the kernel is zero.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(epochs), figsize=(1.8 * len(epochs), 2.1), squeeze=False)
        for ax, epoch in zip(axes[0], epochs, strict=True):
            kernels = _kernels(arrays, epoch)
            _show(ax, _mosaic(_maps(arrays["image"][0], kernels), _active(kernels)))
            ax.set(title=f"Epoch {epoch}")
    return fig


def kernel_growth(history: pd.DataFrame, runs: Sequence[str]) -> Figure:
    """The number of active kernels in each convolution over the epochs.

    Args:
        history: of the experiment ``fashion_mnist_cnn``.
        runs: the labels of those to draw.

    Returns:
        One panel per convolution; means over the seeds.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.6))
        for ax, layer, total in zip(axes, ("conv1", "conv2"), (64, 64 * 64), strict=True):
            counts = _curves(history, "weights", f"kernels_{layer}")
            for run in runs:
                ax.plot(counts[run], color=_color(run), label=run)
            ax.set(xlabel="Epoch", ylabel=f"Active kernels of {total:,}", title=layer)
            ax.set_ylim(bottom=0)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].legend()
    return fig


def kernel_frame(arrays: Mapping[str, Array], epoch: int) -> Figure:
    """The 64 kernels of the first convolution at one epoch, and their feature maps beside them.

    Args:
        arrays: as for ``feature_maps``.
        epoch: which of those kept.

    Returns:
        Two panels; gray is zero in a kernel, and a kernel that is zero is blank.
    """
    kernels = _kernels(arrays, epoch)
    active = _active(kernels)
    peak = np.abs(kernels).max(axis=(1, 2), keepdims=True)
    shades = 0.5 + 0.5 * kernels / np.where(peak > 0, peak, 1)
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(5.6, 3.0))
        _show(left, _mosaic(shades.repeat(5, axis=1).repeat(5, axis=2), active))
        _show(right, _mosaic(_maps(arrays["image"][0], kernels), active))
        left.set(title="Kernels")
        right.set(title="Feature maps")
        fig.suptitle(f"Epoch {epoch}: {active.sum()} of {len(active)} kernels")
    return fig


def kernel_animation(
    arrays: Mapping[str, Array], name: str, scale: str, seconds: float = 10.0
) -> Path:
    """Write ``kernel_frame`` over all epochs as a GIF to ``figures/<scale>/``.

    Args:
        arrays: as for ``feature_maps``.
        name: of the file, without suffix.
        scale: of the run.
        seconds: how long it lasts; then it starts again.

    Returns:
        The path of the GIF.
    """
    frames = []
    for epoch in range(sum(key.startswith("kernels_") for key in arrays)):
        fig = kernel_frame(arrays, epoch)
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L"))
        plt.close(fig)
    path = figures_dir() / scale / f"{name}.gif"
    with replacing(path) as temporary:
        duration = int(1000 * seconds / len(frames))
        frames[0].save(temporary, "GIF", append_images=frames[1:], save_all=True,
                       duration=duration, loop=0, optimize=True)  # fmt: skip
    return path


def accuracy_against_density(summary: pd.DataFrame) -> Figure:
    """Tables 1 and 2 as a picture: test accuracy against what is left of the network.

    Args:
        summary: of the experiment ``fashion_mnist_cnn``.

    Returns:
        Three panels: N_total of Table 1, N_linear and N_conv of Table 2. Ours (filled, means over
        the seeds) and the paper's (hollow) are joined.
    """
    measures = ("n_total_pct", "n_linear_pct", "n_conv_pct")
    means = summary.groupby(["artifact", "optimizer", "strategy", "label"], sort=False)
    ours = means[[*measures, "test_acc_pct"]].mean().reset_index()
    ours = ours[~ours["label"].str.contains("float32")]
    table = ours.merge(
        paper_reference(), on=["artifact", "optimizer", "strategy"], suffixes=("", "_paper")
    )
    panels = (
        ("Table 1", "n_total_pct", "Non-zero weights [%]"),
        ("Table 2", "n_linear_pct", "Non-zero linear weights [%]"),
        ("Table 2", "n_conv_pct", "Non-zero kernels [%]"),
    )
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.9), sharey=True)
        for ax, (artifact, measure, label) in zip(axes, panels, strict=True):
            for row in table[table["artifact"] == artifact].to_dict("records"):
                color = _color(row["label"])
                x = [row[measure], row[f"{measure}_paper"]]
                y = [row["test_acc_pct"], row["test_acc_pct_paper"]]
                ax.plot(x, y, color=color, lw=0.6)
                ax.plot(x[0], y[0], "o", color=color)
                ax.plot(x[1], y[1], "o", mec=color, mfc="white")
            ax.set(xscale="log", xlabel=label, title=artifact)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(PLAIN)
            ax.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set(ylabel="Test accuracy [%]")
        handles = [Line2D([], [], color=c, marker="o", ls="") for c in COLORS.values()]
        handles += [Line2D([], [], mec=BLACK, mfc="white", marker="o", ls="")]
        fig.legend(handles, [*COLORS, "the paper's"], loc="outside upper center", ncols=4)
    return fig


def density_over_epochs(history: pd.DataFrame) -> Figure:
    """The non-zero weights and the validation accuracy over the epochs.

    Args:
        history: of the experiment ``fashion_mnist_cnn``; before any thresholding.

    Returns:
        Above the density on a logarithmic axis, below the validation accuracy; on the left the runs
        of Table 1, on the right those of Table 2. Means over the seeds.
    """
    rows = (
        ("weights", "n_total", "Non-zero weights [%]"),
        ("validation", "accuracy", "Validation accuracy [%]"),
    )
    # Adam's run stands in both tables
    runs = [run for run in history["run"].unique() if "float32" not in run and "Table" not in run]
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, 2, figsize=(7.2, 4.4), sharex=True, sharey="row")
        for line, (split, metric, label) in zip(axes, rows, strict=True):
            curves = 100 * _curves(history, split, metric)
            for run in runs:
                for ax in line if run == "Adam" else [line[int("(groups)" in run)]]:
                    ax.plot(curves[run], color=_color(run))
            line[0].set(ylabel=label)
        axes[0, 0].set(yscale="log", title="Table 1")
        axes[0, 0].yaxis.set_major_formatter(PLAIN)
        axes[0, 1].set(title="Table 2")
        # the first epochs and a network that does not learn yet would flatten the rest
        axes[1, 0].set_ylim(bottom=min(80, 10 * (curves.iloc[-1].min() // 10)))
        for ax in axes[1]:
            ax.set(xlabel="Epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles = [Line2D([], [], color=color) for color in COLORS.values()]
        fig.legend(handles, COLORS, loc="outside upper center", ncols=len(COLORS))
    return fig


def _curves(history: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    chosen = history[(history["split"] == split) & (history["metric"] == metric)]
    return chosen.pivot_table(index="epoch", columns="run", values="value")


def _color(label: str) -> str:
    return COLORS[label.partition(" (")[0]]


def _kernels(arrays: Mapping[str, Array], epoch: int) -> Array:
    return arrays[f"kernels_{epoch:03d}"][:, 0]


def _active(kernels: Array) -> npt.NDArray[np.bool_]:
    return (kernels != 0).any(axis=(1, 2))


def _maps(image: Array, kernels: Array) -> Array:
    """The image correlated with each kernel, without padding, stretched over [0, 1]."""
    windows = np.lib.stride_tricks.sliding_window_view(
        image.astype(kernels.dtype), kernels.shape[1:]
    )
    maps = np.einsum("hwij,kij->khw", windows, kernels)
    low, high = (end(axis=(1, 2), keepdims=True) for end in (maps.min, maps.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def _mosaic(tiles: Array, active: npt.NDArray[np.bool_], columns: int = 8) -> Array:
    """Arrange tiles of shades in [0, 1] in rows, framed; those that are not active are blank."""
    tiles = np.where(active[:, None, None], tiles, BLANK)
    framed = np.pad(tiles, ((0, 0), (1, 1), (1, 1)), constant_values=BORDER)
    spaced = np.pad(framed, ((0, 0), (1, 1), (1, 1)), constant_values=BLANK)
    lines = spaced.reshape(-1, columns, *spaced.shape[1:])
    return np.concatenate([np.concatenate([*line], axis=1) for line in lines])


def _show(ax: Axes, mosaic: Array) -> None:
    ax.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="none")
    ax.axis("off")
