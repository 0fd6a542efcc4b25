"""The networks that architecture search finds: drawings, their growth, and what they are good for.

Everything but the images comes from the history of the experiment ``architecture_search``.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Arc

from bregman.suite.plots.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    OCHRE,
    PINK,
    PURPLE,
    RED,
    STYLE,
)

LABELLED = 6
PALETTE = (BLUE, RED, GREEN, PURPLE, OCHRE, PINK)


def architecture_networks(history: pd.DataFrame, runs: Sequence[str]) -> Figure:
    """The networks at the end of training: layers as bars, skips as arcs.

    Args:
        history: of the experiment.
        runs: the rows to draw, two side by side.

    Returns:
        A panel per run. A bar's height is the number of active neurons, x_0 is the input. Positive
        skips run above the bars and negative ones below, the wider the larger; the largest carry
        their weight.
    """
    with plt.style.context(STYLE):
        rows = math.ceil(len(runs) / 2)
        fig, axes = plt.subplots(rows, 2, figsize=(7.2, 2.3 * rows), sharey=True, squeeze=False)
        for ax, run in zip(axes.flat, runs, strict=False):
            neurons, skips = _network(history, run, history["epoch"].max())
            _draw_network(ax, neurons, skips)
            ax.set(title=f"{run}: {np.count_nonzero(skips)} skips")
        for ax in axes.flat[len(runs) :]:
            ax.remove()
        _sign_legend(fig)
    return fig


def architecture_growth(history: pd.DataFrame, run: str, epochs: Sequence[int]) -> Figure:
    """One network while it grows, drawn as in ``architecture_networks``.

    Args:
        history: of the experiment.
        run: the row.
        epochs: one panel each; 0 is the initialization.

    Returns:
        The panels in one line, on one scale.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(epochs), figsize=(7.2, 2.2), sharey=True, squeeze=False)
        for ax, epoch in zip(axes.flat, epochs, strict=True):
            _draw_network(ax, *_network(history, run, epoch))
            ax.set(title=f"Epoch {epoch}")
        for ax in axes.flat[1:]:
            ax.set(ylabel=None)
        fig.suptitle(run, fontsize=9)
    return fig


def architecture_skips(history: pd.DataFrame, runs: Sequence[str]) -> Figure:
    """The weights of all possible skips over the epochs: which appear, and when.

    Args:
        history: of the experiment.
        runs: a panel each.

    Returns:
        One curve per skip; those that end largest are coloured and named, the others gray.
    """
    chosen = history[history["metric"].str.startswith("skip_")]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    with plt.style.context(STYLE):
        rows = math.ceil(len(runs) / 2)
        fig, axes = plt.subplots(rows, 2, figsize=(7.2, 2.4 * rows), squeeze=False)
        for ax, run in zip(axes.flat, runs, strict=False):
            curves = chosen[chosen["run"] == run].pivot(
                index="epoch", columns="metric", values="value"
            )
            last = curves.iloc[-1].abs()
            named = last[last > 0].nlargest(LABELLED).index
            ax.plot(curves.index, curves.drop(columns=named), color=GRAY, lw=0.7)
            for metric, color in zip(named, PALETTE, strict=False):
                ax.plot(curves.index, curves[metric], color=color, label=_arrow(metric))
            if len(named):
                ax.legend(loc="best", ncols=2)
            ax.set(title=run, xlabel="Epoch", ylabel="Skip weight")
            ax.xaxis.get_major_locator().set_params(integer=True)
        for ax in axes.flat[len(runs) :]:
            ax.remove()
    return fig


def architecture_quality(history: pd.DataFrame) -> Figure:
    """How good the networks are: PSNR of the restored images, accuracy of the classifiers.

    Args:
        history: of the experiment.

    Returns:
        Two panels over the epochs, both on the validation images; dashed without skips. The
        accuracy is shown from 5 points below the worst network's last one.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8))
        for ax, metric, factor, label in (
            (axes[0], "psnr", 1, "Validation PSNR [dB]"),
            (axes[1], "accuracy", 100, "Validation Accuracy [%]"),
        ):
            table = history.query("split == 'validation' and metric == @metric")
            for i, (run, curve) in enumerate(table.groupby("run", sort=False)):
                mean = factor * curve.groupby("epoch")["value"].mean()
                # a task with and without skips shares a colour
                forbidden = "forbidden" in str(run)
                color = PALETTE[i // 2 if metric == "psnr" else i]
                if "Adam" in str(run):
                    color = BLACK
                ax.plot(mean.index, mean, color=color, ls="--" if forbidden else "-", label=run)
            ax.set(xlabel="Epoch", ylabel=label)
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
            if metric == "accuracy":  # the first epochs would flatten all that comes later
                last = factor * table.loc[table["epoch"] == table["epoch"].max(), "value"]
                ax.set_ylim(last.min() - 5, last.max() + 1)
    return fig


def architecture_images(images: Mapping[str, np.ndarray]) -> Figure:
    """Images in rows, such as blurred, restored and clean ones.

    Args:
        images: by the name of their row; N x 1 x H x W each, values in [0, 1].

    Returns:
        One row of N images per name.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(len(images), 1, figsize=(7.2, 0.66 * len(images)), squeeze=False)
        for ax, (name, row) in zip(axes.flat, images.items(), strict=True):
            ax.imshow(np.concatenate(row[:, 0], axis=1), cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
            ax.grid(False)
    return fig


def _network(history: pd.DataFrame, run: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    # active neurons per layer from the input on, and s_{i,j} as a matrix over all pairs of layers
    chosen = history.query("run == @run and epoch == @epoch and split == 'weights'")
    values = chosen[chosen["seed"] == chosen["seed"].min()].set_index("metric")["value"]
    if values.empty:
        raise KeyError(f"no run {run!r} with epoch {epoch} in the history")
    layers = sum(name.startswith("neurons_") for name in values.index)
    neurons = np.array([values[f"neurons_{i}"] for i in range(layers)])
    skips = np.zeros((layers, layers))
    for i in range(1, layers):
        for j in range(i):
            skips[i, j] = values[f"skip_{j}_{i}"]
    return neurons, skips


def _draw_network(ax: Axes, neurons: np.ndarray, skips: np.ndarray) -> None:
    layers = np.arange(len(neurons))
    half = neurons.max() / 2
    ax.bar(layers, neurons, bottom=-neurons / 2, width=0.55, color="#7A8594")
    strength = np.abs(skips)
    # the weakest that carries its weight, if two decimals can say it
    labelled = max(np.sort(strength.flat)[-LABELLED], 0.01)
    for i, j in np.argwhere(strength > 0):
        side = np.sign(skips[i, j])
        middle, foot, height = (i + j) / 2, side * 1.06 * half, 0.3 * half * (i - j)
        ax.add_patch(
            Arc(
                (middle, foot),
                i - j,
                2 * height,
                theta1=0 if side > 0 else 180,
                theta2=180 if side > 0 else 360,
                lw=0.5 + 3 * strength[i, j] / strength.max(),
                color=BLUE if side > 0 else RED,
                alpha=0.85,
            )
        )
        if strength[i, j] >= labelled:
            ax.text(
                middle,
                foot + side * height,
                f"{skips[i, j]:+.2f}".replace("-", "\N{MINUS SIGN}"),
                ha="center",
                va="center",
                fontsize=6,
                zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": ax.get_facecolor(), "ec": "none"},
            )
    longest = {side: np.max(np.argwhere(side * skips > 0) @ [1, -1], initial=0) for side in (1, -1)}
    low, high = (side * half * (1.25 + 0.3 * longest[side]) for side in (-1, 1))
    # the panels of a figure share their axis: it must hold all of them
    ax.set_ylim(min(low, ax.dataLim.y0, ax.get_ylim()[0]), max(high, ax.get_ylim()[1]))
    ax.set_xticks(layers, [f"$x_{i}$\n{n:.0f}" for i, n in enumerate(neurons)], fontsize=7)
    ax.set(yticks=[], ylabel="Active neurons")
    ax.grid(False)


def _sign_legend(fig: Figure) -> None:
    lines = [Line2D([], [], color=color, lw=2) for color in (BLUE, RED)]
    fig.legend(lines, ["positive skip", "negative skip"], loc="outside upper center", ncols=2)


def _arrow(metric: str) -> str:
    # skip_0_5: from x_0 to x_5
    _, source, target = metric.split("_")
    return rf"$x_{source} \to x_{target}$"
