"""Figures 4 and 5, and more of the autoencoder that finds its own architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator
from PIL import Image

from bregman.suite.paths import figures_dir, replacing
from bregman.suite.plots.style import BLACK, BLUE, GRAY, OCHRE, PINK, RED, STYLE

Arrays = Mapping[str, np.ndarray]

WIDTH = 784
# from the first epoch to the last
SHADES = ("#F2F6FB", "#A9CDE5", "#4F97C9", "#33548A")
PAPER = "bone_r"
PALETTE = {
    "AdaBreg": BLUE,
    "LinBreg": PINK,
    "Adam": RED,
    "Adam (gain 0.5)": OCHRE,
    "SGD": BLACK,
}


def hourglass(history: pd.DataFrame, run: str, seed: int = 0) -> Figure:
    """Figure 4: the active neurons of each layer at 0, 10, 20 and 100 % of the epochs.

    Args:
        history: of the experiment ``denoising_autoencoder``.
        run: the row.
        seed: which of its runs.

    Returns:
        Bars of that height about zero, the darker the later. Layer 1 are the inputs.
    """
    neurons = _neurons(history, run, seed)
    last = neurons.index[-1]
    epochs = list(dict.fromkeys(round(share * last) for share in (0, 0.1, 0.2, 1)))
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 3.3))
        looks = list(zip(epochs, SHADES[-len(epochs) :], (0.5, 0.6, 0.7, 0.8), strict=False))
        for epoch, color, width in reversed(looks):
            _bars(ax, neurons.loc[epoch], color=color, width=width, label=f"Epoch {epoch}")
        _layers_axis(ax)
        ax.legend(loc="upper center")
    return fig


def hourglass_frame(
    history: pd.DataFrame, arrays: Arrays, run: str, epoch: int, seed: int = 0
) -> Figure:
    """The network after one epoch, and below it what it makes of some noisy test digits.

    Args:
        history: of the experiment.
        arrays: of the run, which kept the digits.
        run: the row.
        epoch: 0 is before training.
        seed: which of the row's runs.

    Returns:
        The bars of Figure 4 at that epoch, with the final ones behind them as shadows.
    """
    with plt.style.context(STYLE):
        fig = plt.figure(figsize=(7.2, 4.2))
        _draw_frame(fig, history, arrays, run, epoch, seed)
    return fig


def save_hourglass_animation(
    history: pd.DataFrame, arrays: Arrays, run: str, scale: str, seed: int = 0
) -> Path:
    """Write ``hourglass_frame`` over all epochs to ``figures/<scale>/``.

    Returns:
        The path of the GIF.
    """
    path = figures_dir() / scale / "notebook09_hourglass.gif"
    epochs = list(_neurons(history, run, seed).index)
    images = []
    with plt.style.context([STYLE, {"figure.dpi": 90}]):
        fig = plt.figure(figsize=(7.2, 4.2))
        canvas = FigureCanvasAgg(fig)
        for epoch in epochs:
            fig.clear()
            _draw_frame(fig, history, arrays, run, epoch, seed)
            canvas.draw()
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    plt.close(fig)
    # few colours, the same for all: a small file, and still areas stay still
    palette = images[-1].quantize(48)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    pauses = [1000, *[100] * (len(images) - 2), 3000]
    with replacing(path) as temporary:
        images[0].save(
            temporary, "GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0
        )
    return path


def denoised_digits(arrays: Arrays) -> Figure:
    """Figure 5: noisy test digits, what the network makes of them, and the clean ones.

    Args:
        arrays: of a run.

    Returns:
        Three rows. The noisy digits on a scale of grey from their smallest to their largest value,
        as in the paper, the others from 0 to 1.
    """
    with plt.style.context(STYLE):
        n = len(arrays["noisy"])
        fig, axes = plt.subplots(3, n, figsize=(0.9 * n, 2.8))
        for row, name in zip(axes, ("noisy", "denoised", "clean"), strict=True):
            for ax, digit in zip(row, arrays[name], strict=True):
                low, high = (digit.min(), digit.max()) if name == "noisy" else (0, 1)
                _image(ax, digit, low, high)
            row[0].set(ylabel=name.capitalize())
    return fig


def hourglass_over_seeds(summary: pd.DataFrame, run: str) -> Figure:
    """The final width of each layer, one line per seed.

    Args:
        summary: of the experiment.
        run: the row.
    """
    final = summary[summary["label"] == run].set_index("seed").filter(like="active_neurons_")
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5.4, 3.0))
        for seed, widths in final.iterrows():
            ax.plot(range(1, 8), widths, "o-", ms=3, alpha=0.8, label=f"Seed {seed}")
        ax.axhline(0.2 * WIDTH, color=GRAY, ls="--")
        ax.text(1, 0.2 * WIDTH, f"20 % of {WIDTH}", color="#666666", fontsize=7, va="bottom")
        ax.set(ylabel="Active Neurons", ylim=(0, None))
        ax.set_xticks(range(1, 8), [f"Layer {i}" for i in range(1, 8)])
        ax.legend()
    return fig


def bottleneck_width(summary: pd.DataFrame) -> Figure:
    """How lambda sets the width of the narrowest layer, and the quality that goes with it.

    Args:
        summary: of the experiment; the runs of AdaBreg that have as many epochs as those over
            lambda are drawn.
    """
    sweep = summary[summary["artifact"] == "width against lam"]
    adabreg = summary["label"].str.startswith("AdaBreg") & summary["epochs"].isin(sweep["epochs"])
    runs = summary[adabreg].drop_duplicates("lam").sort_values("lam")
    widths = runs.filter(regex=r"active_neurons_[2-6]")
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        left.plot(runs["lam"], widths.mean(axis=1), "o-", color=GRAY, label="Mean of the five")
        left.plot(runs["lam"], widths.min(axis=1), "o-", color=BLUE, label="Narrowest")
        left.set(ylabel="Active Neurons per Hidden Layer", ylim=(0, None))
        left.legend()
        right.plot(runs["lam"], runs["ssim"], "o-", color=BLUE)
        right.set(ylabel="SSIM (Test)")
        for ax in (left, right):
            ax.set(xscale="log", xlabel=r"$\lambda$")
            ax.set_xticks(runs["lam"], [f"{lam:g}" for lam in runs["lam"]])
            ax.minorticks_off()
    return fig


def denoising_training(history: pd.DataFrame) -> Figure:
    """Validation SSIM and non-zero weights over the epochs, sparse and dense.

    Args:
        history: of the experiment.

    Returns:
        Two panels; means over the seeds, shaded by one standard deviation.
    """
    chosen = history[history["run"].isin(PALETTE) & (history["split"] == "weights")]
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8))
        panels = (("ssim", 1, "SSIM (Validation)"), ("n_total", 100, "Non-Zero Weights [%]"))
        for ax, (metric, factor, label) in zip(axes, panels, strict=True):
            curves = chosen[chosen["metric"] == metric]
            curves = curves.assign(value=factor * curves["value"])
            sns.lineplot(
                curves, x="epoch", y="value", hue="run", palette=PALETTE, errorbar="sd", ax=ax
            )
            ax.set(xlabel="Epoch", ylabel=label)
        axes[0].legend(loc="lower right")
        axes[1].get_legend().remove()
    return fig


def quality_over_noise(arrays: Mapping[str, Arrays], noise: float) -> Figure:
    """SSIM and PSNR of the test images over the noise level, trained at one of them.

    Args:
        arrays: of a run of each row, by its label.
        noise: the level at which all were trained, marked by a line.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8))
        for column, (ax, label) in enumerate(zip(axes, ("SSIM", "PSNR [dB]"), strict=True)):
            for run, kept in arrays.items():
                levels, quality = kept["noise_levels"], kept["denoised_quality"][:, column]
                ax.plot(levels, quality, "o-", ms=3, color=PALETTE[run], label=run)
            untouched = kept["noisy_quality"][:, column]
            seen = np.isfinite(untouched)
            ax.plot(levels[seen], untouched[seen], ":", color=GRAY, label="Noisy image")
            ax.axvline(noise, color="white", lw=3, zorder=0)
            ax.set(xlabel="Noise Level (Pixel Values from 0 to 1)", ylabel=label)
        axes[0].legend()
    return fig


def bottleneck_features(into: np.ndarray, out_of: np.ndarray, most: int = 12) -> Figure:
    """What the neurons of the narrowest layer look for, and what they draw.

    Args:
        into: N x 28 x 28, the change of each neuron with the pixels.
        out_of: N x 28 x 28, the change of the image with each neuron.
        most: how many to show, those first that change the image most.

    Returns:
        Two rows of images, each scaled to its own largest value; blue is negative.
    """
    strength = np.linalg.norm(out_of, axis=(1, 2)) * np.linalg.norm(into, axis=(1, 2))
    order = np.argsort(-strength)[:most]
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, len(order), figsize=(0.65 * len(order), 1.6), squeeze=False)
        for row, images, label in zip(axes, (into, out_of), ("Into", "Out of"), strict=True):
            for ax, image in zip(row, images[order], strict=True):
                size = max(np.abs(image).max(), 1e-12)
                _image(ax, image, -size, size, cmap="RdBu_r")
            row[0].set(ylabel=label)
    return fig


def _neurons(history: pd.DataFrame, run: str, seed: int) -> pd.DataFrame:
    """The active neurons: a row per epoch, a column per layer."""
    chosen = history[
        (history["run"] == run)
        & (history["seed"] == seed)
        & history["metric"].str.startswith("active_neurons_")
    ]
    return chosen.pivot_table(index="epoch", columns="metric", values="value")


def _bars(ax: Axes, neurons: pd.Series, **look: Any) -> None:
    ax.bar(range(1, len(neurons) + 1), neurons, bottom=-neurons / 2, **look)


def _layers_axis(ax: Axes) -> None:
    ax.set(ylabel="Number of Neurons", ylim=(-420, 420))
    ax.set_xticks(range(1, 8), [f"Layer {i}" for i in range(1, 8)])
    ax.yaxis.set_major_locator(MultipleLocator(100))
    # a bar of n neurons ends at n / 2
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{2 * abs(y):.0f}"))


def _draw_frame(
    fig: Figure, history: pd.DataFrame, arrays: Arrays, run: str, epoch: int, seed: int
) -> None:
    neurons = _neurons(history, run, seed)
    widths = neurons.loc[epoch]
    ssim = history.query("run == @run and seed == @seed and epoch == @epoch and metric == 'ssim'")[
        "value"
    ].item()
    digits = arrays[f"digits_after_epoch_{epoch}"]
    ax, above, below = fig.subplots(3, 1, height_ratios=(5, 1, 1))
    _bars(ax, neurons.iloc[-1], color="#D5DCE6", width=0.8)
    _bars(ax, widths, color=SHADES[-1], width=0.8)
    for i, n in enumerate(widths, start=1):
        ax.text(i, n / 2 + 12, f"{n:.0f}", ha="center", va="bottom", fontsize=7)
    _layers_axis(ax)
    ax.set(ylim=(-440, 470), title=f"Epoch {epoch}, SSIM {ssim:.2f}")
    _image(above, _side_by_side(arrays["noisy"]), arrays["noisy"].min(), arrays["noisy"].max())
    _image(below, _side_by_side(digits), 0, 255)


def _side_by_side(digits: np.ndarray) -> np.ndarray:
    """One image of N x 1 x 28 x 28 digits, with gaps that are not drawn."""
    framed = np.pad(digits[:, 0].astype(float), ((0, 0), (0, 0), (2, 2)), constant_values=np.nan)
    return np.concatenate(list(framed), axis=1)


def _image(ax: Axes, image: np.ndarray, low: float, high: float, cmap: str = PAPER) -> None:
    ax.imshow(np.squeeze(image), cmap=cmap, vmin=low, vmax=high)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.set_facecolor("white")
    for spine in ax.spines.values():
        spine.set(color="#777777", linewidth=0.6 if image.shape[-1] == 28 else 0)
