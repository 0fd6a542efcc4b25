"""Figures of notebook 04: sparse initialization, measured beside the formulas of section 4.1.

Black stands for dense, red for a mask alone, blue for a mask with rescaled weights; dashed lines
are formulas, ochre where they lie on curves.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bregman.suite.plots import grammar as draw
from bregman.suite.plots.grammar import DASHED
from bregman.suite.plots.style import BLACK, BLUE, OCHRE, RED

COLORS = {"dense": BLACK, "masked": RED, "rescaled": BLUE}
FORMULA: draw.Look = {"color": BLACK, "ls": DASHED}
ON_CURVES: draw.Look = {"color": OCHRE, "ls": DASHED, "lw": 1.1}

Array = npt.NDArray[np.floating]
Variances = Mapping[tuple[str, str], Mapping[str, Array]]


def masks(examples: Mapping[str, Array]) -> Figure:
    """Which weights a mask keeps.

    Args:
        examples: by title, a matrix that is not zero where a weight is kept.

    Returns:
        One panel per matrix.
    """
    with draw.panels(1, len(examples), 2.7) as (fig, [axes]):
        for ax, (title, matrix) in zip(axes, examples.items(), strict=True):
            draw.support(ax, matrix, "equal")
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
    with draw.panels(1, 2, 2.9, width_ratios=(2, 3), title=title) as (fig, [[left, right]]):
        draw.support(left, mask, "equal")
        left.set(xticks=[], yticks=[])
        right.hist(np.clip(ratios, 0, 3), bins=np.linspace(0, 3, 61), color=BLUE, alpha=0.7)
        right.axvline(1, **FORMULA)
        right.axvspan(max(0, 1 - 2 * error), 1 + 2 * error, color=OCHRE, alpha=0.25, lw=0)
        draw.frame(right, x=r"measured Var $W$ / $\alpha$", y="draws of 200", xlim=(0, 3),
                   ylim=(0, 100))  # fmt: skip
    return fig


def variance_ratios(table: pd.DataFrame) -> Figure:
    """Measured variances over those of the formula, with their sampling error.

    Args:
        table: one row per initialization with the columns ``layer``, ``r``, ``ratio`` (Var W /
            alpha), ``error`` (its standard deviation) and ``masked`` (the ratio without 1/r).

    Returns:
        One panel; the bars are five standard deviations about the formula's value, one.
    """
    rows, error = np.arange(len(table)), table["error"].to_numpy()
    low = np.clip(1 - 5 * error, 1e-2, None)
    with draw.panels(1, 1, 0.9 + 0.2 * len(table)) as (fig, [[ax]]):
        ax.barh(rows, 1 + 5 * error - low, left=low, color="#BBBBBB", height=0.7,
                label="formula ± 5 errors")  # fmt: skip
        ax.axvline(1, lw=0.8, **FORMULA)
        ax.plot(table["ratio"], rows, "o", color=COLORS["rescaled"], ms=4.5, label="rescaled")
        ax.plot(table["masked"], rows, "x", color=COLORS["masked"], ms=4.5, label="mask alone")
        names = table["layer"].mask(table["layer"].duplicated(), "")
        ax.set_yticks(rows, names + table["r"].map("  r = {:g}".format))
        ax.grid(False, axis="y")
        ax.set(xscale="log", xlim=(7e-3, 2.2), xlabel=r"measured Var $W$ / $\alpha$")
        ax.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        ax.invert_yaxis()
        draw.shared_legend(fig)
    return fig


def through_depth(
    measured: Variances, formulas: Variances, limits: tuple[float, float] | None = None
) -> Figure:
    """Variances from layer to layer, for some initializations.

    Args:
        measured: by (activation, direction) and by initialization, (seeds, depth).
        formulas: the same for what the formulas say, (depth,); may lack some.
        limits: of the vertical axes, for an explorer.

    Returns:
        One panel per (activation, direction), two a row: means over the seeds on a logarithmic
        axis, shaded from the least to the largest.
    """
    count = (len(measured) + 1) // 2
    with draw.panels(count, 2, 2.4 * count + 0.4, minor=False) as (fig, axes):
        for ax, (key, curves) in zip(axes.flat, measured.items(), strict=False):
            for name, values in curves.items():
                values, color = np.atleast_2d(values), COLORS[name]
                layers = range(1, values.shape[1] + 1)
                look = {"alpha": 0.4, "lw": 4} if name == "dense" else {}
                ax.semilogy(layers, values.mean(0), "o-", ms=3, color=color, label=name, **look)
                ax.fill_between(layers, values.min(0), values.max(0), color=color, alpha=0.2, lw=0)
                if name in formulas.get(key, {}):
                    ax.plot(layers, formulas[key][name], zorder=3, **ON_CURVES)
            draw.frame(ax, ", ".join(key), "layer")
            draw.whole_numbers(ax.xaxis)
            if limits is not None:
                ax.set(ylim=limits, xlim=(0.6, values.shape[1] + 0.4))
        for ax in axes[:, 0]:
            ax.set(ylabel="variance")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        if any(formulas.values()):
            handles.append(Line2D([], [], **ON_CURVES))
            labels.append("formula")
        fig.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return fig


def isolated_gradients(gradients: Mapping[str, Array]) -> Figure:
    """Gradients with respect to the outgoing weights of neurons that have no weights.

    Args:
        gradients: by kind of bias, (outputs, neurons).

    Returns:
        One panel per kind, one column per neuron, all on one colour scale.
    """
    limit = max(float(np.abs(values).max()) for values in gradients.values())
    with draw.panels(1, len(gradients), 2.5, sharey=True) as (fig, [axes]):
        for ax, (title, values) in zip(axes, gradients.items(), strict=True):
            picture = ax.imshow(values, "PuOr", vmin=-limit, vmax=limit, aspect="auto",
                                interpolation="none")  # fmt: skip
            draw.frame(ax, f"{title} biases", "isolated neuron")
            ax.grid(False)
        axes[0].set(ylabel="output")
        draw.whole_numbers(axes[0].yaxis, *(ax.xaxis for ax in axes))
        fig.colorbar(picture, ax=list(axes), label="gradient", shrink=0.9)
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
    panels = {"connected": "neurons with weights in and out", "rank": "rank of their activations",
              "accuracy": "training accuracy in %"}  # fmt: skip
    with draw.panels(1, 3, 2.8) as (fig, [axes]):
        for ax, (column, title) in zip(axes, panels.items(), strict=True):
            for kind, tables in histories.items():
                mark, color = looks[kind]
                for number, table in enumerate(tables):
                    name = None if number else kind
                    ax.plot(table[column], color=color, marker=mark, ms=3.5, lw=1.1, label=name)
            draw.frame(ax, title, "epoch", ylim=(-2, None))
            draw.whole_numbers(ax.yaxis)
        draw.shared_legend(fig, title="biases of the layer")
    return fig


def spectrum(values: Array, title: str) -> Figure:
    """The singular values of the activations of a layer, for an explorer.

    Args:
        values: in falling order.
        title: above the panel.

    Returns:
        One panel of fixed limits, relative to the largest value.
    """
    with draw.panels(1, 1, 2.7, 6.0, minor=False) as (fig, [[ax]]):
        shown = np.asarray(values) / max(float(values[0]), 1e-30)
        ax.vlines(range(1, len(shown) + 1), 1e-6, np.maximum(shown, 1e-6), color=BLUE, lw=2)
        ax.axhline(1e-3, lw=0.9, **FORMULA)
        draw.frame(ax, title, "number", "singular value", log="y", ylim=(1e-6, 2), xlim=(0, 81))
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
    with draw.panels(2, 1, 4.2, 5.4, sharex=True, height_ratios=(5, 2)) as (fig, [[top], [bottom]]):
        draw.support(top, incoming.T)
        draw.support(bottom, outgoing)
        draw.whole_numbers(bottom.yaxis)
        draw.frame(top, title, y="input")
        draw.frame(bottom, x="neuron of the second hidden layer", y="output")
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
    with draw.panels(1, 2, 2.7) as (fig, [[left, right]]):
        for ax, counts, expected, label in (
            (left, weights, expected_weights, "non-zero weights in the last layer"),
            (right, outputs, expected_outputs, "outputs without any weight"),
        ):
            values = np.arange(len(expected))
            shares = np.bincount(np.asarray(counts, dtype=int), minlength=len(values)) / len(counts)
            name = f"{len(counts):,} draws"
            ax.bar(values, shares[: len(values)], color=BLUE, alpha=0.6, label=name)
            ax.plot(values, expected, marker="o", ms=2.5, label="binomial", **FORMULA)
            ax.set(xlabel=label)
            draw.whole_numbers(ax.xaxis)
        draw.frame(left, y="share of the draws", key="upper right")
    return fig
