"""Figures 4 and 5, and more of the autoencoder of notebook 09 that finds its own architecture."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bregman.suite.experiments import WIDTHS, Results, paper_reference
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK, GRAY, PALETTE

Arrays = Mapping[str, np.ndarray]

LAYERS = range(1, 8)
NAMES = [f"Layer {i}" for i in LAYERS]
# from the first epoch to the last
SHADES = ("#F2F6FB", "#A9CDE5", "#4F97C9", "#33548A")
SSIM = draw.Measure("weights", "ssim", "SSIM (Validation)")
ADABREG: draw.Look = {"color": PALETTE["AdaBreg"]}


@draw.of_runs
def hourglass(results: Results, seed: int = 0) -> Figure:
    """Figure 4: the active neurons of each layer at 0, 10, 20 and 100 % of the epochs.

    Args:
        results: of one row.
        seed: which of its runs.

    Returns:
        Bars about zero whose height is that number, the darker the later; gray boxes beside them
        are the scale. Layer 1 are the inputs. The paper's widths, as far as they were read off its
        figure, are drawn as brackets.
    """
    neurons = _neurons(results, seed)
    last = neurons.index[-1]
    epochs = list(dict.fromkeys(round(share * last) for share in (0, 0.1, 0.2, 1)))
    with draw.panels(1, 1, 3.5) as (fig, [[ax]]):
        looks = list(zip(epochs, SHADES[-len(epochs) :], (0.5, 0.6, 0.7, 0.8), strict=False))
        for epoch, shade, width in reversed(looks):
            active = neurons.loc[epoch]
            ax.bar(LAYERS, active, width, -active / 2, color=shade, label=f"Epoch {epoch}")
        for i, width in zip(LAYERS, _papers_widths(), strict=True):
            for side in (-1, 1):
                name = "The paper's" if (i, side) == (1, 1) else None
                ax.plot([i - 0.45, i + 0.45], [side * width / 2] * 2, color=BLACK, lw=1, label=name)
        _scale(ax)
        draw.frame(ax, y="Number of Neurons", key="upper center", columns=2, yticks=[])
        ax.set_xticks(LAYERS, NAMES)
        ax.grid(False)
    return fig


@moving.of_runs
def browse_hourglass(results: Results, digits: Mapping[int, Arrays]) -> None:
    """The network as it grows, and what it makes of noisy test digits meanwhile.

    Args:
        results: of one row.
        digits: the arrays of its runs that kept digits, by seed.
    """
    frames = moving.epochs(results)
    networks = (moving.layered(_neurons(results, k), seed=k) for k in results.summary["seed"])
    noisy, denoised = {}, {}
    for seed, kept in digits.items():
        pixels = kept["noisy"][None, :4, 0]
        noisy[str(seed)] = 255 * (pixels - pixels.min()) / np.ptp(pixels)
        images = [kept[f"digits_after_epoch_{epoch}"][:4, 0] for epoch in frames]
        denoised[str(seed)] = np.stack(images)
    views = [
        moving.network("Active Neurons", networks, NAMES),
        moving.curves(results, SSIM, {results.label: ADABREG}),
        moving.tiles("Noisy", noisy, "seed", 4),
        moving.tiles("Denoised", denoised, "seed", 4),
    ]
    alt = "The active neurons of each layer over the epochs, and four digits as they are denoised."
    moving.browse(views, alt, frames=frames, one=("seed",))


@moving.of_runs
def browse_noise(results: Results, arrays: Mapping[str, Arrays], rows: Arrays) -> None:
    """Digits at every noise level, noisy and denoised, and how good the networks are there.

    Args:
        results: the runs whose quality is drawn.
        arrays: of a run of each row, by its label.
        rows: levels x 8 x 28 x 28 pixel values from 0 to 1, noisy ones before denoised ones
            (16 in all), by the name of the set.
    """
    levels = next(iter(arrays.values()))["noise_levels"]
    looks = _looks(results)

    def quality(name: str, column: int) -> moving.Panel:
        return moving.paths(
            (moving.path(run, looks[run], kept["denoised_quality"][:, column], levels, run=run)
             for run, kept in arrays.items()),
            "noise level", name,
        )  # fmt: skip

    shown = {name: 255 * np.clip(stack, 0, 1) for name, stack in rows.items()}
    moving.browse(
        [moving.tiles("Noisy, and Denoised", shown, "digits", 8), quality("SSIM", 0),
         quality("PSNR [dB]", 1)],
        "Noisy test digits at several noise levels, and what a network makes of them.",
        frames=[f"{level:.2f}" for level in levels],
        label="noise",
        one=("digits",),
        many=("run",),
    )  # fmt: skip


def denoised_digits(arrays: Arrays) -> Figure:
    """Figure 5: noisy test digits, what the network makes of them, and the clean ones.

    Args:
        arrays: of a run.

    Returns:
        Three rows. The noisy digits on a scale of grey from their smallest to their largest value,
        as in the paper, the others from 0 to 1.
    """
    n = len(arrays["noisy"])
    with draw.panels(3, n, 2.8, 0.9 * n) as (fig, axes):
        for row, name in zip(axes, ("noisy", "denoised", "clean"), strict=True):
            for ax, digit in zip(row, arrays[name], strict=True):
                _digit(ax, digit, *((digit.min(), digit.max()) if name == "noisy" else (0, 1)))
            row[0].set(ylabel=name.capitalize())
    return fig


@draw.of_runs
def hourglass_over_seeds(results: Results) -> Figure:
    """The final width of each layer, one line per seed of a row; dashed the paper's."""
    with draw.panels(1, 1, 3.0, 5.4) as (fig, [[ax]]):
        for _, run in results.summary.iterrows():
            ax.plot(LAYERS, run[WIDTHS], "o-", ms=3, alpha=0.8, label=f"Seed {run['seed']}")
        ax.plot(LAYERS, _papers_widths(), "s--", ms=3, color=GRAY, label="The paper's")
        ax.set_xticks(LAYERS, NAMES)
        draw.frame(ax, y="Active Neurons", key="best", ylim=(0, None))
    return fig


@draw.of_runs
def bottleneck_width(results: Results) -> Figure:
    """How lambda sets the width of the narrowest layer, and the quality that goes with it.

    Args:
        results: of the experiment; the runs of AdaBreg that have as many epochs as those over
            lambda are drawn.
    """
    sweep = results.where(artifact="width against lam").summary["epochs"]
    runs = results.where(config_optimizer="AdaBreg", epochs=list(sweep)).summary
    runs = runs.drop_duplicates("lam").sort_values("lam")
    widths = runs[WIDTHS[1:6]]
    with draw.panels(1, 2, 2.8, minor=False) as (fig, [[left, right]]):
        left.plot(runs["lam"], widths.mean(axis=1), "o-", color=GRAY, label="Mean of the five")
        left.plot(runs["lam"], widths.min(axis=1), "o-", label="Narrowest", **ADABREG)
        right.plot(runs["lam"], runs["ssim"], "o-", **ADABREG)
        draw.frame(left, y="Active Neurons per Hidden Layer", key="best", ylim=(0, None))
        right.set(ylabel="SSIM (Test)")
        for ax in (left, right):
            ax.set(xscale="log", xlabel=r"$\lambda$")
            ax.set_xticks(runs["lam"], [f"{lam:g}" for lam in runs["lam"]])
    return fig


@draw.of_runs
def training(results: Results) -> Figure:
    """Validation SSIM and non-zero weights over the epochs, sparse and dense.

    Args:
        results: the runs to draw.

    Returns:
        Two panels; means over the seeds, shaded by one standard deviation.
    """
    with draw.panels(1, 2, 3.0) as (fig, axes):
        looks = _looks(results)
        for ax, measure in zip(axes[0], (SSIM, draw.DENSITY), strict=True):
            draw.curves(ax, results, measure, looks, band=True)
        draw.whole_epochs(*axes[0])
        draw.legend(fig, looks)
    return fig


@draw.of_runs
def quality_over_noise(results: Results, arrays: Mapping[str, Arrays]) -> Figure:
    """SSIM and PSNR of the test images over the noise level, trained at one of them.

    Args:
        results: the runs to draw.
        arrays: of a run of each row, by its label.

    Returns:
        Two panels; dotted the noisy images themselves, the line marks the noise of the training.
    """
    with draw.panels(1, 2, 3.1) as (fig, axes):
        looks = _looks(results, marker="o", ms=3)
        noise: draw.Look = {"color": GRAY, "ls": ":"}
        for column, (ax, name) in enumerate(zip(axes[0], ("SSIM", "PSNR [dB]"), strict=True)):
            for label, look in looks.items():
                kept = arrays[label]
                ax.plot(kept["noise_levels"], kept["denoised_quality"][:, column], **look)
            untouched = kept["noisy_quality"][:, column]
            seen = np.isfinite(untouched)
            ax.plot(kept["noise_levels"][seen], untouched[seen], **noise)
            ax.axvline(results.summary["noise"].iloc[0], color="#CCCCCC", lw=3, zorder=0)
            draw.frame(ax, x="Noise Level (Pixel Values from 0 to 1)", y=name)
        draw.legend(fig, looks | {"noisy image": noise})
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
    with draw.panels(2, len(order), 1.6, 0.65 * len(order)) as (fig, axes):
        for row, images, label in zip(axes, (into, out_of), ("Into", "Out of"), strict=True):
            for ax, pixels in zip(row, images[order], strict=True):
                size = max(np.abs(pixels).max(), 1e-12)
                _digit(ax, pixels, -size, size, "RdBu_r")
            row[0].set(ylabel=label)
    return fig


def _digit(ax: Axes, pixels: np.ndarray, low: float, high: float, cmap: str = "bone_r") -> None:
    draw.image(ax, pixels, low, high, cmap)
    ax.spines[:].set(color="#777777")


def _looks(results: Results, **look: object) -> dict[str, draw.Look]:
    """The colour of the algorithm; dashed with another gain than the first of its runs."""
    first = results.runs.groupby("config_optimizer")["config_gain"].transform("first")
    looks = draw.looks(results, ls="-", **look)
    for label in results.runs.index[results.runs["config_gain"] != first]:
        looks[label]["ls"] = "--"
    return looks


def _neurons(results: Results, seed: int) -> pd.DataFrame:
    """The active neurons: a row per epoch, a column per layer."""
    chosen = results.history.query("run == @results.label and seed == @seed and metric in @WIDTHS")
    return chosen.pivot_table(index="epoch", columns="metric", values="value")


def _papers_widths() -> "pd.Series[float]":
    return paper_reference()[WIDTHS].dropna().iloc[0]


def _scale(ax: Axes) -> None:
    """Nested boxes whose full height is the number beside their upper edge, as in the paper."""
    for i, n in enumerate((800, 600, 400, 200)):
        left = -0.35 + 0.12 * i
        shade = str(0.95 - 0.08 * i)
        ax.add_patch(Rectangle((left, -n / 2), 0.35 - left, n, color=shade, zorder=1))
        ax.text(0.33, n / 2 - 4, str(n), ha="right", va="top", fontsize=7)
    ax.set(ylim=(-420, 420), xlim=(-0.4, 7.6))
