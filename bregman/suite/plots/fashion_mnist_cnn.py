"""Figures of notebook 07: the network on Fashion-MNIST grows its kernels, Figure 1, Tables 1, 2."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bregman.suite.experiments import Results, paper_reference
from bregman.suite.plots.browser import browse, curves, tiles
from bregman.suite.plots.browser import epochs as recorded
from bregman.suite.plots.grammar import (
    Look,
    algorithm,
    color,
    curve,
    few_ticks,
    legend,
    panels,
    styled,
    whole_epochs,
)
from bregman.suite.plots.style import BLACK, PALETTE

BORDER, BLANK = 0.6, 1.0
Array = npt.NDArray[np.floating]


@styled
def feature_maps(arrays: Mapping[str, Array], epochs: Sequence[int]) -> Figure:
    """Figure 1: what the first convolution makes of one image, in the course of training.

    Args:
        arrays: of a run that kept its kernels: ``image`` (1 x 28 x 28) and ``kernels_000``, ...
            (64 x 1 x 5 x 5), one per epoch.
        epochs: one panel each.

    Returns:
        Panels of 8 x 8 feature maps, before bias and ReLU, each stretched over all grays; blank
        where the kernel is zero. The titles count the others.
    """
    fig, axes = plt.subplots(1, len(epochs), figsize=(1.8 * len(epochs), 2.1), squeeze=False)
    for ax, epoch in zip(axes[0], epochs, strict=True):
        kernels, active = _kernels(arrays, epoch)
        _show(ax, _mosaic(_maps(arrays["image"][0], kernels), active))
        ax.set(title=f"Epoch {epoch}: {active.sum()} of {len(active)}")
    return fig


@styled
def kernel_growth(results: Results) -> Figure:
    """The number of active kernels in each convolution over the epochs.

    Args:
        results: the runs to draw.

    Returns:
        One panel per convolution; means over the seeds.
    """
    fig, axes = panels(1, 2, 2.8)
    layers = (("conv1", "First", 64), ("conv2", "Second", 64 * 64))
    for ax, (layer, place, total) in zip(axes.flat, layers, strict=True):
        for label, run in results.runs.iterrows():
            curve(ax, results, str(label), "weights", f"kernels_{layer}", color=color(run))
        ax.set(ylabel=f"Active Kernels of {total:,}", title=f"{place} Convolution")
        ax.set_ylim(bottom=0)
    whole_epochs(*axes.flat)
    legend(fig, _looks(results))
    return fig


def browse_kernels(arrays: Mapping[str, Array], images: Mapping[str, Array]) -> None:
    """The kernels of the first convolution over the epochs, and what they make of an image.

    Args:
        arrays: as for ``feature_maps``.
        images: of 28 x 28 pixels from 0 to 255, by their names.
    """
    found = [arrays[name][:, 0] for name in sorted(arrays) if name.startswith("kernels_")]
    stack = np.stack(found)
    peak = np.abs(stack).max(axis=(2, 3), keepdims=True)
    stack = np.round(128 + 127 * stack / np.where(peak > 0, peak, 1))
    maps = {name: image.reshape(1, 1, 28, 28) for name, image in images.items()}
    browse(
        [
            tiles("Kernels", {"": stack}, "kernels", 8, blank=True),
            tiles("Feature Maps", maps, "image", 8, kernels=0),
            tiles("Image", maps, "image", 1),
        ],
        "64 kernels of a convolution over the epochs of a training, and their feature maps.",
        frames=range(len(stack)),
        one=("image",),
    )


def browse_runs(results: Results) -> None:
    """The runs of one table after the other: density and accuracy of each seed over the epochs.

    Args:
        results: of the experiment ``fashion_mnist_cnn``.
    """
    panels_ = []
    for artifact in ("Table 1", "Table 2"):
        rows = results.where(artifact=artifact)
        looks: dict[str, Look] = {
            str(label): {"color": color(run), "ls": "-" if run["config_autocast"] else ":"}
            for label, run in rows.runs.iterrows()
        }
        for what, name, axes in (
            (("weights", "n_total"), "Non-Zero Weights [%]", {"log": "y"}),
            (("weights", "kernels_conv1"), "Active Kernels, First Convolution", {}),
            (("validation", "accuracy"), "Validation Accuracy [%]", {"limits": (80, 94)}),
        ):
            factor = 1 if "kernels" in what[1] else 100
            panels_.append(
                curves(rows, *what, name, looks, factor, tags={"table": artifact}, **axes)
            )
    browse(
        panels_,
        "Density, active kernels and accuracy over the epochs, one curve per run and seed.",
        frames=recorded(results),
        one=("table",),
        many=("run", "seed"),
    )


@styled
def accuracy_against_density(results: Results) -> Figure:
    """Tables 1 and 2 as a picture: test accuracy against what is left of the network.

    Args:
        results: of the experiment ``fashion_mnist_cnn``.

    Returns:
        Three panels: all weights of Table 1, linear weights and kernels of Table 2. Ours (filled,
        means over the seeds, with one standard deviation where there are several) and the paper's
        (hollow) are joined. Without the runs in float32.
    """
    shown = (
        ("Table 1", "n_total_pct", "Non-Zero Weights [%]", "all weights"),
        ("Table 2", "n_linear_pct", "Non-Zero Weights [%]", "linear layers"),
        ("Table 2", "n_conv_pct", "Non-Zero Kernels [%]", "convolutions"),
    )
    row = ["artifact", "strategy", "optimizer"]
    paper = paper_reference().set_index(row)
    fig, axes = panels(1, 3, 3.1, sharey=True)
    half = results.where(config_autocast="bfloat16")
    for ax, (artifact, measure, name, part) in zip(axes.flat, shown, strict=True):
        for _, runs in half.where(artifact=artifact).summary.groupby("label", sort=False):
            shade, theirs = color(runs.iloc[0]), paper.loc[tuple(runs.iloc[0][row])]
            x, y = runs[measure], runs["test_acc_pct"]
            ends = [x.mean(), theirs[measure]], [y.mean(), theirs["test_acc_pct"]]
            ax.plot(*ends, color=shade, lw=0.6)
            bars = {"xerr": x.std(), "yerr": y.std()} if len(runs) > 1 else {}
            ax.errorbar(ends[0][0], ends[1][0], fmt="o", color=shade, capsize=2, lw=1, **bars)
            ax.plot(ends[0][1], ends[1][1], "o", mec=shade, mfc="white")
        ax.set(xlabel=name, title=f"{artifact}, {part}")
        few_ticks(ax.xaxis)
    axes[0, 0].set(ylabel="Test Accuracy [%]")
    looks = {name: look | {"marker": "o", "ls": ""} for name, look in _looks(half).items()}
    hollow = {"mec": BLACK, "mfc": "white", "marker": "o", "ls": ""}
    legend(fig, looks | {"the paper's": hollow}, 4)
    return fig


@styled
def density_over_epochs(results: Results) -> Figure:
    """The non-zero weights and the validation accuracy over the epochs.

    Args:
        results: of the experiment ``fashion_mnist_cnn``; before any thresholding.

    Returns:
        Above the density on a logarithmic axis, below the validation accuracy; on the left the runs
        of Table 1, on the right those of Table 2. Means over the seeds. Without float32.
    """
    fig, axes = panels(2, 2, 4.4, sharex=True, sharey="row")
    half = results.where(config_autocast="bfloat16")
    ends = []
    for column, artifact in zip(axes.T, ("Table 1", "Table 2"), strict=True):
        for label, run in half.where(artifact=artifact).runs.iterrows():
            look: Look = {"factor": 100, "color": color(run)}
            curve(column[0], half, str(label), "weights", "n_total", **look)
            curve(column[1], half, str(label), "validation", "accuracy", **look)
            ends.append(column[1].lines[-1].get_ydata()[-1])
        column[0].set(title=artifact)
    few_ticks(axes[0, 0].yaxis)
    axes[0, 0].set(ylabel="Non-Zero Weights [%]")
    # the first epochs and a network that does not learn yet would flatten the rest
    axes[1, 0].set(ylabel="Validation Accuracy [%]", ylim=(min(80, 10 * (min(ends) // 10)), None))
    whole_epochs(*axes[1])
    legend(fig, _looks(half))
    return fig


def _looks(results: Results) -> dict[str, Look]:
    """The colours of the algorithms that were run."""
    run = {algorithm(run) for _, run in results.runs.iterrows()}
    return {name: {"color": value} for name, value in PALETTE.items() if name in run}


def _kernels(arrays: Mapping[str, Array], epoch: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The kernels, and which of them are not zero."""
    kernels = arrays[f"kernels_{epoch:03d}"][:, 0]
    return kernels, (kernels != 0).any(axis=(1, 2))


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
