"""Figures of notebook 04: sparse initialization, measured beside the formulas of section 4.1.

Black stands for dense, red for a mask alone, blue for a mask with rescaled weights; dashed lines
are formulas, ochre where they lie on curves.
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

from bregman.suite.plots.style import BLACK, BLUE, OCHRE, RED, STYLE

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


def mask_and_spread(mask: Array, ratios: Array, error: float, title: str) -> Figure:
    """One mask, and how much Var W scatters from draw to draw, for an explorer.

    Args:
        mask: a matrix that is not zero where a weight is kept.
        ratios: (draws,), measured Var W / alpha.
        error: the standard deviation of the formula.
        title: above both panels.

    Returns:
        Two panels of fixed limits.
    """
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(
            1, 2, figsize=(7.2, 2.9), gridspec_kw={"width_ratios": (2, 3)}
        )
        left.imshow(mask != 0, cmap=ListedColormap(["#E5E5E5", BLACK]), interpolation="none")
        left.set(xticks=[], yticks=[])
        right.hist(np.clip(ratios, 0, 3), bins=np.linspace(0, 3, 61), color=BLUE, alpha=0.7)
        right.axvline(1, color=BLACK, ls=FORMULA)
        right.axvspan(max(0, 1 - 2 * error), 1 + 2 * error, color=OCHRE, alpha=0.25, lw=0)
        right.set(xlim=(0, 3), ylim=(0, 100), xlabel=r"measured Var $W$ / $\alpha$")
        right.set(ylabel="draws of 200")
        fig.suptitle(title, fontsize=9)
    return fig


def variance_ratios(table: pd.DataFrame) -> Figure:
    """Measured variances over those of the formula, with their sampling error.

    Args:
        table: one row per initialization with the columns ``layer``, ``r``, ``ratio`` (Var W /
            alpha), ``error`` (its standard deviation) and ``masked`` (the ratio without 1/r).

    Returns:
        One panel; the bars are five standard deviations about the formula's value, one.
    """
    rows = np.arange(len(table))
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 0.9 + 0.2 * len(table)))
        error = table["error"].to_numpy()
        low = np.clip(1 - 5 * error, 1e-2, None)
        ax.barh(rows, 1 + 5 * error - low, left=low, color="#BBBBBB", height=0.7,
                label="formula ± 5 errors")  # fmt: skip
        ax.axvline(1, color=BLACK, ls=FORMULA, lw=0.8)
        for column, color, mark, label in (
            ("ratio", COLORS["rescaled"], "o", "rescaled"),
            ("masked", COLORS["masked"], "x", "mask alone"),
        ):
            ax.plot(table[column], rows, color=color, marker=mark, ms=4.5, ls="", label=label)
        names = table["layer"].mask(table["layer"].duplicated(), "")
        ax.set_yticks(
            rows, [f"{name}  r = {r:g}" for name, r in zip(names, table["r"], strict=True)]
        )
        ax.grid(False, axis="y")
        ax.set(xscale="log", xlim=(7e-3, 2.2))
        ax.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        ax.invert_yaxis()
        ax.set(xlabel=r"measured Var $W$ / $\alpha$")
        fig.legend(loc="outside upper center", ncols=3)
    return fig


def through_depth(
    measured: Mapping[tuple[str, str], Mapping[str, Array]],
    formulas: Mapping[tuple[str, str], Mapping[str, Array]],
    title: str | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Variances from layer to layer, for some initializations.

    Args:
        measured: by (activation, direction) and by initialization, (seeds, depth).
        formulas: the same for what the formulas say, (depth,); may lack some.
        title: above all panels.
        limits: of the vertical axes, for an explorer.

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
            if limits is not None:
                ax.set(ylim=limits, xlim=(0.6, values.shape[1] + 0.4))
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
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True))
        fig.colorbar(picture, ax=list(axes[0]), label="gradient", shrink=0.9)
    return fig


def waking(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """How a layer that starts without weights comes to life, or not.

    Args:
        histories: by kind of bias, one table per seed, indexed by epoch, with the columns
            ``connected`` (neurons with weights in and out), ``rank`` (of their activations) and
            ``accuracy`` (on the training set, in percent).

    Returns:
        Three panels, one line per seed.
    """
    looks = dict(zip(histories, (("o", RED), ("s", OCHRE), ("^", BLUE)), strict=False))
    panels = {
        "connected": "neurons with weights in and out",
        "rank": "rank of their activations",
        "accuracy": "training accuracy in %",
    }
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.8))
        for ax, (column, title) in zip(axes, panels.items(), strict=True):
            for kind, tables in histories.items():
                mark, color = looks[kind]
                for number, table in enumerate(tables):
                    ax.plot(
                        table[column], color=color, marker=mark, ms=3.5, lw=1.1,
                        label=None if number else kind,
                    )  # fmt: skip
            ax.set(title=title, xlabel="epoch", ylim=(-2, None))
            ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        fig.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper center",
            ncols=len(histories), title="biases of the layer",
        )  # fmt: skip
    return fig


def spectrum(values: Array, title: str) -> Figure:
    """The singular values of the activations of a layer, for an explorer.

    Args:
        values: in falling order.
        title: above the panel.

    Returns:
        One panel of fixed limits, relative to the largest value.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(6.0, 2.7))
        shown = np.asarray(values) / max(float(values[0]), 1e-30)
        ax.vlines(range(1, len(shown) + 1), 1e-6, np.maximum(shown, 1e-6), color=BLUE, lw=2)
        ax.axhline(1e-3, color=BLACK, ls=FORMULA, lw=0.9)
        ax.set(yscale="log", ylim=(1e-6, 2), xlim=(0, 81), xlabel="number", title=title)
        ax.set(ylabel="singular value")
        ax.minorticks_off()
    return fig


def wiring(incoming: Array, outgoing: Array, title: str) -> Figure:
    """Which weights lead into the neurons of a layer, and out of them.

    Args:
        incoming: (neurons, inputs).
        outgoing: (outputs, neurons).
        title: above both panels.

    Returns:
        Two panels, neurons from left to right.
    """
    colors = ListedColormap(["#E5E5E5", BLACK])
    with plt.style.context(STYLE):
        fig, (top, bottom) = plt.subplots(
            2, 1, figsize=(5.4, 4.2), sharex=True, gridspec_kw={"height_ratios": (5, 2)}
        )
        for ax, matrix, label in ((top, incoming.T, "input"), (bottom, outgoing, "output")):
            ax.imshow(np.asarray(matrix) != 0, cmap=colors, aspect="auto", interpolation="none")
            ax.set(ylabel=label)
            ax.grid(False)
        bottom.yaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.set(xlabel="neuron of the second hidden layer")
        top.set(title=title)
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
