"""Figures of notebook 04: sparse initialization, measured beside the formulas of section 4.1.

Black stands for dense, vermilion for a mask alone, blue for a mask with rescaled weights; dashed
lines are formulas, orange where they lie on curves.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bregman.suite.plots.style import BLACK, BLUE, GREEN, OCHRE, PINK, PURPLE, RED, STYLE

COLORS = {"dense": BLACK, "masked": RED, "rescaled": BLUE}
FORMULA = (0, (3, 1.5))

Array = npt.NDArray[np.floating]


def masks(examples: Mapping[str, Array]) -> Figure:
    """Which weights a mask keeps.

    Args:
        examples: by title, a matrix that is not zero where a weight is kept.

    Returns:
        One panel per matrix.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(examples), figsize=(7.2, 2.7), squeeze=False)
        for ax, (title, matrix) in zip(axes[0], examples.items(), strict=True):
            kept = np.asarray(matrix) != 0
            ax.imshow(kept, cmap=ListedColormap(["#E5E5E5", BLACK]), interpolation="none")
            ax.set(title=title, xticks=[], yticks=[])
    return fig


def variance_ratios(table: pd.DataFrame) -> Figure:
    """Measured variances over those of the formula, with their sampling error.

    Args:
        table: one row per initialization with the columns ``layer``, ``r``, ``ratio`` (Var W /
            alpha) and ``error`` (its standard deviation).

    Returns:
        One panel; the bars are two standard deviations about the formula's value, one.
    """
    rows = range(len(table))
    densities = sorted(table["r"].unique())
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 0.9 + 0.2 * len(table)))
        ax.barh(rows, 4 * table["error"], left=1 - 2 * table["error"], color="#BBBBBB", height=0.6)
        ax.axvline(1, color=BLACK, ls=FORMULA)
        for r, color in zip(densities, (RED, BLUE, GREEN, PINK), strict=False):
            chosen = (table["r"] == r).to_numpy()
            ax.plot(
                table["ratio"][chosen], np.flatnonzero(chosen), color=color, marker="o", ms=4.5,
                ls="", label=f"$r = {r:g}$",
            )  # fmt: skip
        ax.set_yticks(rows, table["layer"].mask(table["layer"].duplicated(), ""))
        ax.grid(False, axis="y")
        reach = 2.2 * float(table["error"].max())
        ax.set(xlim=(1 - reach, 1 + reach))
        ax.invert_yaxis()
        ax.set(xlabel=r"measured Var $W$ / $\alpha$, with two standard deviations (grey)")
        ax.legend(loc="upper right")
    return fig


def through_depth(
    measured: Mapping[tuple[str, str], Mapping[str, Array]],
    formulas: Mapping[tuple[str, str], Mapping[str, Array]],
    title: str | None = None,
) -> Figure:
    """Variances from layer to layer, for some initializations.

    Args:
        measured: by (activation, direction) and by initialization, (seeds, depth).
        formulas: the same for what the formulas say, (depth,); may lack some.
        title: above all panels.

    Returns:
        One panel per (activation, direction), two a row: means over the seeds on a logarithmic
        axis, shaded from the least to the largest.
    """
    count = (len(measured) + 1) // 2
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(count, 2, figsize=(7.2, 2.4 * count + 0.4), squeeze=False)
        for ax, (key, curves) in zip(axes.flat, measured.items(), strict=False):
            for name, values in curves.items():
                values = np.atleast_2d(values)
                layers = range(1, values.shape[1] + 1)
                look = {"color": COLORS[name], "alpha": 0.4, "lw": 4} if name == "dense" else {}
                ax.semilogy(
                    layers, values.mean(0), label=name,
                    **({"color": COLORS[name], "marker": "o", "ms": 3} | look),
                )  # fmt: skip
                ax.fill_between(
                    layers, values.min(0), values.max(0), color=COLORS[name], alpha=0.2, lw=0
                )
                if name in formulas.get(key, {}):
                    expected = formulas[key][name]
                    ax.semilogy(layers, expected, color=OCHRE, ls=FORMULA, lw=1.1, zorder=3)
            ax.set(title=", ".join(key), xlabel="layer")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.minorticks_off()
        for ax in axes[:, 0]:
            ax.set(ylabel="variance")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        if any(formulas.values()):
            handles.append(Line2D([], [], color=OCHRE, ls=FORMULA, lw=1.1))
            labels.append("formula")
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), title=title)
    return fig


def isolated_gradients(gradients: Mapping[str, Array]) -> Figure:
    """Gradients with respect to the outgoing weights of neurons that have no weights.

    Args:
        gradients: by kind of bias, (outputs, neurons).

    Returns:
        One panel per kind, one column per neuron, all on one colour scale.
    """
    limit = max(float(np.abs(values).max()) for values in gradients.values())
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(gradients), figsize=(7.2, 2.5), squeeze=False, sharey=True)
        for ax, (title, values) in zip(axes[0], gradients.items(), strict=True):
            picture = ax.imshow(
                values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="none"
            )
            ax.set(title=f"{title} biases", xlabel="isolated neuron")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.grid(False)
        axes[0, 0].set(ylabel="output")
        fig.colorbar(picture, ax=list(axes[0]), label="gradient", shrink=0.9)
    return fig


def revival(alive: Mapping[str, Sequence[int]], distinct: Mapping[str, Sequence[int]]) -> Figure:
    """How neurons without weights come to life in the course of training.

    Args:
        alive: by kind of bias, over the epochs, how many got an outgoing weight.
        distinct: how many different ones there are among them.

    Returns:
        Two panels.
    """
    colors = dict(zip(alive, (RED, OCHRE, BLUE, PURPLE), strict=False))
    marks = dict(zip(alive, "s^oD", strict=False))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), sharey=True)
        for ax, counts, title in (
            (axes[0], alive, "with an outgoing weight"),
            (axes[1], distinct, "different from one another"),
        ):
            for name, values in counts.items():
                ax.plot(values, color=colors[name], marker=marks[name], ms=4, label=name)
            ax.set(title=title, xlabel="epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set(ylabel="isolated neurons")
        handles, labels = axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), title="biases")
    return fig


def last_layer(
    weights: Array, expected_weights: Array, outputs: Array, expected_outputs: Array
) -> Figure:
    """How few weights the last layer starts with, over many draws.

    Args:
        weights: (draws,), the non-zero weights of the layer.
        expected_weights: (K,), the binomial probability of 0, 1, ... of them.
        outputs: (draws,), the outputs with no weight at all.
        expected_outputs: (K,), their binomial probability.

    Returns:
        Two panels: shares of the draws as bars, probabilities as dashed lines.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.7))
        for ax, counts, expected, label in (
            (axes[0], weights, expected_weights, "non-zero weights in the last layer"),
            (axes[1], outputs, expected_outputs, "outputs without any weight"),
        ):
            _histogram(ax, counts, expected)
            ax.set(xlabel=label)
        axes[0].set(ylabel="share of the draws")
        axes[0].legend(loc="upper right")
    return fig


def _histogram(ax: Axes, counts: Array, expected: Array) -> None:
    values = np.arange(len(expected))
    shares = np.bincount(np.asarray(counts, dtype=int), minlength=len(values)) / len(counts)
    ax.bar(values, shares[: len(values)], color=BLUE, alpha=0.6, label=f"{len(counts):,} draws")
    ax.plot(values, expected, color=BLACK, ls=FORMULA, marker="o", ms=2.5, label="binomial")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
