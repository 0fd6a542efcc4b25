"""Figures of notebook 07: the network on Fashion-MNIST grows its kernels, Figure 1, Tables 1, 2."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bregman.suite.experiments import Results, paper_reference
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK

BORDER, BLANK = 0.6, 1.0
TABLES = ("Table 1", "Table 2")
Array = npt.NDArray[np.floating]


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
    layers = []
    for epoch in epochs:
        kernels = arrays[f"kernels_{epoch:03d}"][:, 0]
        layers.append((_maps(arrays["image"][0], kernels), (kernels != 0).any(axis=(1, 2))))
    return _mosaics(layers, epochs)


def second_feature_maps(arrays: Mapping[str, Array], epochs: Sequence[int]) -> Figure:
    """Figure 1, one layer on: what the second convolution makes of the same image.

    Args:
        arrays: of a run that kept ``conv2_maps_000``, ... (64 x 8 x 8), every fifth epoch.
        epochs: one panel each.

    Returns:
        As ``feature_maps``; blank, and not counted, where a map is the same everywhere.
    """
    maps = [_stretched(arrays[f"conv2_maps_{epoch:03d}"]) for epoch in epochs]
    return _mosaics([(each, np.asarray((each > 0).any(axis=(1, 2)))) for each in maps], epochs)


def _mosaics(
    layers: Sequence[tuple[Array, npt.NDArray[np.bool_]]], epochs: Sequence[int]
) -> Figure:
    """Maps, and which of them are shown, one panel per epoch."""
    with draw.panels(1, len(epochs), 2.1, 1.8 * len(epochs)) as (fig, axes):
        for ax, epoch, (maps, active) in zip(axes[0], epochs, layers, strict=True):
            ax.imshow(_mosaic(maps, active), cmap="gray", vmin=0, vmax=1, interpolation="none")
            ax.axis("off")
            ax.set(title=f"Epoch {epoch}: {active.sum()} of {len(active)}")
    return fig


@draw.of_runs
def kernel_growth(results: Results) -> Figure:
    """The number of active kernels in each convolution over the epochs.

    Args:
        results: the runs to draw.

    Returns:
        One panel per convolution; means over the seeds.
    """
    with draw.panels(1, 2, 2.8) as (fig, axes):
        layers = (("conv1", "First", 64), ("conv2", "Second", 64 * 64))
        for ax, (layer, place, total) in zip(axes.flat, layers, strict=True):
            kernels = draw.Measure("weights", f"kernels_{layer}", f"Active Kernels of {total:,}")
            draw.curves(ax, results, kernels, draw.looks(results))
            ax.set(title=f"{place} Convolution", ylim=(0, None))
        draw.whole_epochs(*axes.flat)
        draw.legend(fig, _algorithms(results))
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
    views = [
        moving.tiles("Kernels", {"": stack}, "kernels", 8, blank=True),
        moving.tiles("Feature Maps", maps, "image", 8, kernels=0),
        moving.tiles("Image", maps, "image", 1),
    ]
    alt = "64 kernels of a convolution over the epochs of a training, and their feature maps."
    moving.browse(views, alt, frames=range(len(stack)), one=("image",))


@moving.of_runs
def browse_runs(results: Results) -> None:
    """The runs of one table after the other: density and accuracy of each seed over the epochs.

    Args:
        results: of the experiment ``fashion_mnist_cnn``.
    """
    kernels = draw.Measure("weights", "kernels_conv1", "Active Kernels, First Convolution")
    views = []
    for artifact in TABLES:
        rows, tags = results.where(artifact=artifact), {"table": artifact}
        if rows.summary.empty:
            continue
        looks = draw.looks(rows, ls="-") | draw.looks(rows.where(config_autocast=None), ls=":")
        views += [
            moving.curves(rows, draw.DENSITY, looks, tags, log="y"),
            moving.curves(rows, kernels, looks, tags),
            moving.curves(rows, draw.ACCURACY._replace(limits=(80, 94)), looks, tags),
        ]
    alt = "Density, active kernels and accuracy over the epochs, one curve per run and seed."
    frames = moving.epochs(results)
    moving.browse(views, alt, frames=frames, one=("table",), many=("run", "seed"))


@draw.of_runs
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
    with draw.panels(1, 3, 3.1, sharey=True) as (fig, axes):
        half = results.where(config_autocast="bfloat16")
        for ax, (artifact, measure, name, part) in zip(axes.flat, shown, strict=True):
            for _, runs in half.where(artifact=artifact).summary.groupby("label", sort=False):
                shade, theirs = draw.color(runs.iloc[0]), paper.loc[tuple(runs.iloc[0][row])]
                x, y = runs[measure], runs["test_acc_pct"]
                there = theirs[measure], theirs["test_acc_pct"]
                ax.plot(*zip((x.mean(), y.mean()), there, strict=True), color=shade, lw=0.6)
                bars = {"xerr": x.std(), "yerr": y.std()} if len(runs) > 1 else {}
                ax.errorbar(x.mean(), y.mean(), fmt="o", color=shade, capsize=2, lw=1, **bars)
                ax.plot(*there, "o", mec=shade, mfc="white")
            ax.set(xlabel=name, title=f"{artifact}, {part}")
            draw.few_ticks(ax.xaxis)
        axes[0, 0].set(ylabel="Test Accuracy [%]")
        hollow = {"mec": BLACK, "mfc": "white", "marker": "o", "ls": ""}
        draw.legend(fig, _algorithms(half, marker="o", ls="") | {"the paper's": hollow}, 4)
    return fig


@draw.of_runs
def density_over_epochs(results: Results) -> Figure:
    """The non-zero weights and the validation accuracy over the epochs.

    Args:
        results: of the experiment ``fashion_mnist_cnn``; before any thresholding.

    Returns:
        Above the density on a logarithmic axis, below the validation accuracy; on the left the runs
        of Table 1, on the right those of Table 2. Means over the seeds. Without float32.
    """
    with draw.panels(2, 2, 4.4, sharex=True, sharey="row") as (fig, axes):
        half = results.where(config_autocast="bfloat16")
        for (above, below), artifact in zip(axes.T, TABLES, strict=True):
            rows = half.where(artifact=artifact)
            draw.curves(above, rows, draw.DENSITY, draw.looks(rows))
            draw.curves(below, rows, draw.ACCURACY, draw.looks(rows))
            draw.whole_epochs(below)
            above.set(title=artifact)
        draw.few_ticks(axes[0, 0].yaxis)
        # the first epochs and a network that does not learn yet would flatten the rest
        ends = [line.get_ydata()[-1] for ax in axes[1] for line in ax.lines]
        axes[1, 0].set(ylim=(min(80, 10 * (min(ends) // 10)), None))
        for ax in axes.flat:
            ax.label_outer()
        draw.legend(fig, _algorithms(half))
    return fig


def _algorithms(results: Results, **look: str) -> dict[str, draw.Look]:
    """The looks of the algorithms that were run."""
    return draw.algorithms((draw.algorithm(run) for _, run in results.runs.iterrows()), **look)


def _maps(image: Array, kernels: Array) -> Array:
    """The image correlated with each kernel, without padding, stretched over [0, 1]."""
    image, size = image.astype(kernels.dtype), kernels.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(image, size)
    return _stretched(np.einsum("hwij,kij->khw", windows, kernels))


def _stretched(maps: Array) -> Array:
    """Each map over [0, 1]; 0 where it is the same everywhere."""
    low, high = (end(axis=(1, 2), keepdims=True) for end in (maps.min, maps.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def _mosaic(tiles: Array, active: npt.NDArray[np.bool_], columns: int = 8) -> Array:
    """Arrange tiles of shades in [0, 1] in rows, framed; those that are not active are blank."""
    tiles = np.where(active[:, None, None], tiles, BLANK)
    framed = np.pad(tiles, ((0, 0), (1, 1), (1, 1)), constant_values=BORDER)
    spaced = np.pad(framed, ((0, 0), (1, 1), (1, 1)), constant_values=BLANK)
    lines = spaced.reshape(-1, columns, *spaced.shape[1:])
    return np.concatenate([np.concatenate([*line], axis=1) for line in lines])
