"""Figures of notebook 10: the networks that architecture search finds, what they are good for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from bregman.suite.experiments import Results
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLUE, GRAY, GREEN, OCHRE, PINK, PURPLE, RED

LABELLED = 6
# of the skips that are named
SEQUENCE = (BLUE, RED, GREEN, PURPLE, OCHRE, PINK)
SIGNS = {"positive skip": {"color": BLUE, "lw": 2}, "negative skip": {"color": RED, "lw": 2}}
PSNR = draw.Measure("validation", "psnr", "Validation PSNR [dB]")

# from two layers to the weight of what links them
Skips = Mapping[tuple[int, int], float]


@draw.of_runs
def networks(results: Results) -> Figure:
    """The networks at the end of training: layers as bars, skips as arcs.

    Args:
        results: the rows to draw, two side by side.

    Returns:
        A panel per row. A bar's height is the number of active neurons, x_0 is the input. Positive
        skips run above the bars and negative ones below, the wider the larger; the largest carry
        their weight, as far as there is room.
    """
    labels = results.runs.index
    rows = math.ceil(len(labels) / 2)
    with draw.panels(rows, 2, 2.3 * rows, count=len(labels), sharey=True) as (fig, axes):
        for ax, label in zip(axes.flat, labels, strict=False):
            neurons, skips = _network(results, label, results.history["epoch"].max())
            _draw_network(ax, neurons, skips)
            ax.set(title=f"{label}: {len(skips)} skips")
        draw.legend(fig, SIGNS)
    return fig


@draw.of_runs
def growth(results: Results, epochs: Sequence[int]) -> Figure:
    """One network while it grows, drawn as in ``networks``.

    Args:
        results: of one row.
        epochs: one panel each; 0 is the initialization.

    Returns:
        The panels in one line, on one scale.
    """
    with draw.panels(1, len(epochs), 2.4, sharey=True, title=results.label) as (fig, axes):
        for ax, epoch in zip(axes.flat, epochs, strict=True):
            _draw_network(ax, *_network(results, results.label, epoch))
            ax.set(title=f"Epoch {epoch}")
        for ax in axes.flat[1:]:
            ax.set(ylabel=None)
    return fig


@moving.of_runs
def browse_networks(results: Results) -> None:
    """Each network as it grows, the weights of its skips, and how good it is.

    Args:
        results: of the experiment ``architecture_search``; its first seed.
    """
    looks = draw.looks(results)
    networks, weights = [], []
    for label in looks:
        nodes, links = _growth(results, label)
        networks.append(moving.layered(nodes, links, run=label))
        for (i, j), values in links.items():
            # one that is gone at the end has the sign that it had
            look = {"color": BLUE if values[values.abs().idxmax()] > 0 else RED}
            weights.append(moving.path(f"x{i} → x{j}", look, values, run=label))
    names = (f"x{i}" for i in range(len(nodes.T)))
    views = [
        moving.network("Active Neurons and Skips", networks, names),
        moving.paths(weights, "epoch", "Skip Weight"),
        moving.curves(results, PSNR, looks),
        moving.curves(results, draw.ACCURACY._replace(limits=(80, 92)), looks),
    ]
    alt = "A network over the epochs: active neurons as bars, skip connections as arcs."
    moving.browse(views, alt, frames=moving.epochs(results), one=("run",))


@draw.of_runs
def skips(results: Results) -> Figure:
    """The weights of all possible skips over the epochs: which appear, and when.

    Args:
        results: the rows to draw, a panel each; their first seed.

    Returns:
        One curve per skip; those that were ever largest are coloured and named, the others gray.
    """
    chosen = results.history[results.history["metric"].str.startswith("skip_")]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    labels = results.runs.index
    rows = math.ceil(len(labels) / 2)
    with draw.panels(rows, 2, 2.4 * rows, count=len(labels)) as (fig, axes):
        for ax, label in zip(axes.flat, labels, strict=False):
            of_run = chosen[chosen["run"] == label]
            curves = of_run.pivot(index="epoch", columns="metric", values="value")
            largest = curves.abs().max()
            named = largest[largest > 0].nlargest(LABELLED).index
            ax.plot(curves.index, curves.drop(columns=named), color=GRAY, lw=0.7)
            for metric, shade in zip(named, SEQUENCE, strict=False):
                _, source, target = metric.split("_")
                name = rf"$x_{source} \to x_{target}$"
                ax.plot(curves.index, curves[metric], color=shade, label=name)
            if len(named):
                ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
            draw.frame(ax, label, y="Skip Weight")
        draw.whole_epochs(*fig.axes)
    return fig


@draw.of_runs
def quality(results: Results) -> Figure:
    """How good the networks are: PSNR of the restored images, accuracy of the classifiers.

    Args:
        results: of the experiment.

    Returns:
        Two panels over the epochs, both on the validation images; dashed without skips, the lighter
        the later in the table. The accuracy is shown from 5 points below the worst network's last
        one.
    """
    with draw.panels(1, 2, 3.0) as (fig, [[left, right]]):
        restoring = results.where(config_task=["denoise", "deblur"])
        classifying = results.where(config_task="classify")
        for ax, measure, chosen in ((left, PSNR, restoring), (right, draw.ACCURACY, classifying)):
            looks = draw.looks(chosen)
            for _, runs in chosen.runs.groupby("config_optimizer"):
                # what differs in more than whether skips are allowed has another shade
                kinds = [*dict.fromkeys(map(_kind, runs.to_dict("records")))]
                for label, run in runs.iterrows():
                    shade = draw.tint(draw.color(run), 0.3 * kinds.index(_kind(run)))
                    style = "--" if math.isnan(run["config_skip_lam"] or 0.0) else "-"
                    looks[str(label)] = {"color": shade, "ls": style, "label": label}
            draw.curves(ax, chosen, measure, looks)
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        # the first epochs would flatten all that comes later
        last = [line.get_ydata()[-1] for line in right.lines]
        right.set_ylim(min(last) - 5, max(last) + 1)
        draw.whole_epochs(left, right)
    return fig


def images(rows: Mapping[str, np.ndarray]) -> Figure:
    """Images in rows, such as blurred, restored and clean ones.

    Args:
        rows: by the name of their row; N x 1 x H x W each, values in [0, 1].

    Returns:
        One row of N images per name.
    """
    with draw.panels(len(rows), 1, 0.66 * len(rows)) as (fig, axes):
        for ax, (name, row) in zip(axes.flat, rows.items(), strict=True):
            draw.image(ax, np.concatenate(row[:, 0], axis=1))
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
    return fig


def _kind(run: Mapping[str, object]) -> tuple[object, ...]:
    price = run["config_skip_lam"] if run["config_task"] == "classify" else None
    return run["config_task"], price


def _growth(
    results: Results, label: str
) -> tuple[pd.DataFrame, dict[tuple[int, int], "pd.Series[float]"]]:
    """By epoch: active neurons per layer from the input on, the weights of the skips that came."""
    chosen = results.history.query("run == @label and split == 'weights'")
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    table = chosen.pivot_table(index="epoch", columns="metric", values="value")
    neurons = table[[f"neurons_{i}" for i in range(table.columns.str.match("neurons_").sum())]]
    return neurons, {
        (int(name.split("_")[1]), int(name.split("_")[2])): table[name]
        for name in table
        if name.startswith("skip_") and table[name].any()
    }


def _network(results: Results, label: str, epoch: int) -> tuple[np.ndarray, Skips]:
    """A network at one epoch: its active neurons, and the skips that are not zero."""
    neurons, skips = _growth(results, label)
    if epoch not in neurons.index:
        raise KeyError(f"no run {label!r} with epoch {epoch} in the history")
    there = {ends: weights[epoch] for ends, weights in skips.items() if weights[epoch]}
    return neurons.loc[epoch].to_numpy(), there


def _draw_network(ax: Axes, neurons: np.ndarray, skips: Skips) -> None:
    layers = np.arange(len(neurons))
    half = neurons.max() / 2
    ax.bar(layers, neurons, bottom=-neurons / 2, width=0.55, color="#7A8594")
    # the panels of a figure share their axis: it must hold all of them
    longest = {
        side: max((j - i for (i, j), weight in skips.items() if side * weight > 0), default=0)
        for side in (1, -1)
    }
    low, high = (side * half * (1.25 + 0.3 * longest[side]) for side in (-1, 1))
    ax.set_ylim(min(low, ax.dataLim.y0, ax.get_ylim()[0]), max(high, ax.get_ylim()[1]))
    ax.set_xticks(layers, [f"$x_{i}$\n{n:.0f}" for i, n in enumerate(neurons)], fontsize=7)
    ax.set(yticks=[], ylabel="Active neurons")
    ax.grid(False)
    # about the size of a label in inches, in data units
    box, inch = ax.get_position(), ax.figure.dpi
    wide, tall = ax.figure.bbox.width / inch, ax.figure.bbox.height / inch
    label_width = 0.3 * len(neurons) / (box.width * wide)
    label_height = 0.1 * (ax.get_ylim()[1] - ax.get_ylim()[0]) / (box.height * tall)
    taken: list[tuple[float, float]] = []
    for (j, i), weight in sorted(skips.items(), key=lambda skip: -abs(skip[1])):
        side, strength = np.sign(weight), abs(weight)
        middle, foot, height = (i + j) / 2, side * 1.06 * half, 0.3 * half * (i - j)
        width = 0.5 + 3 * strength / max(map(abs, skips.values()))
        start = 0 if side > 0 else 180
        ax.add_patch(
            Arc((middle, foot), i - j, 2 * height, theta1=start, theta2=start + 180, lw=width,
                color=BLUE if side > 0 else RED, alpha=0.85)
        )  # fmt: skip
        top = foot + side * height
        room = all(abs(middle - x) > label_width or abs(top - y) > label_height for x, y in taken)
        # two decimals must be able to say it
        if len(taken) < LABELLED and strength >= 0.01 and room:
            taken.append((middle, top))
            ax.text(
                middle, top, f"{weight:+.2f}".replace("-", "\N{MINUS SIGN}"),
                ha="center", va="center", fontsize=6, zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": ax.get_facecolor(), "ec": "none"},
            )  # fmt: skip
