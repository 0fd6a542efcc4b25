"""Figures of notebook 10: the networks that architecture search finds, what they are good for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from bregman.suite.experiments import Results
from bregman.suite.plots.browser import browse, curves, layered, path, paths
from bregman.suite.plots.browser import epochs as recorded
from bregman.suite.plots.browser import network as growing
from bregman.suite.plots.grammar import (
    Look,
    color,
    curve,
    legend,
    panels,
    styled,
    tint,
    whole_epochs,
)
from bregman.suite.plots.style import BLUE, GRAY, GREEN, OCHRE, PINK, PURPLE, RED

LABELLED = 6
# of the skips that are named
SEQUENCE = (BLUE, RED, GREEN, PURPLE, OCHRE, PINK)
SIGNS = {"positive skip": {"color": BLUE, "lw": 2}, "negative skip": {"color": RED, "lw": 2}}


@styled
def networks(results: Results) -> Figure:
    """The networks at the end of training: layers as bars, skips as arcs.

    Args:
        results: the rows to draw, two side by side.

    Returns:
        A panel per row. A bar's height is the number of active neurons, x_0 is the input. Positive
        skips run above the bars and negative ones below, the wider the larger; the largest carry
        their weight, as far as there is room.
    """
    fig, axes = _pairs(results, 2.3, sharey=True)
    for ax, label in zip(axes, results.runs.index, strict=True):
        neurons, skips = _network(results, label, results.history["epoch"].max())
        _draw_network(ax, neurons, skips)
        ax.set(title=f"{label}: {np.count_nonzero(skips)} skips")
    legend(fig, SIGNS)
    return fig


@styled
def growth(results: Results, epochs: Sequence[int]) -> Figure:
    """One network while it grows, drawn as in ``networks``.

    Args:
        results: of one row.
        epochs: one panel each; 0 is the initialization.

    Returns:
        The panels in one line, on one scale.
    """
    fig, axes = panels(1, len(epochs), 2.4, sharey=True)
    for ax, epoch in zip(axes.flat, epochs, strict=True):
        _draw_network(ax, *_network(results, results.label, epoch))
        ax.set(title=f"Epoch {epoch}")
    for ax in axes.flat[1:]:
        ax.set(ylabel=None)
    fig.suptitle(results.label, fontsize=9)
    return fig


def browse_networks(results: Results) -> None:
    """Each network as it grows, the weights of its skips, and how good it is.

    Args:
        results: of the experiment ``architecture_search``; its first seed.
    """
    history = results.history[results.history["seed"] == results.history["seed"].min()]
    looks = {str(label): {"color": color(run)} for label, run in results.runs.iterrows()}
    networks, weights = [], []
    for label in looks:
        measured = history[(history["run"] == label) & (history["split"] == "weights")]
        table = measured.pivot_table(index="epoch", columns="metric", values="value")
        nodes = table[[f"neurons_{i}" for i in range(table.columns.str.match("neurons_").sum())]]
        links = {(int(name.split("_")[1]), int(name.split("_")[2])): table[name]
                 for name in table if name.startswith("skip_") and table[name].any()}  # fmt: skip
        networks.append(layered(nodes, links, run=label))
        weights += [
            path(
                f"x{i} → x{j}",
                # one that is gone at the end has the sign that it had
                {"color": BLUE if values[values.abs().idxmax()] > 0 else RED},
                values,
                run=label,
            )
            for (i, j), values in links.items()
        ]
    browse(
        [
            growing("Active Neurons and Skips", networks, (f"x{i}" for i in range(len(nodes.T)))),
            paths(weights, "epoch", "Skip Weight"),
            curves(results, "validation", "psnr", "Validation PSNR [dB]", looks),
            curves(
                results, "validation", "accuracy", "Validation Accuracy [%]", looks, 100, (80, 92)
            ),
        ],
        "A network over the epochs: active neurons as bars, skip connections as arcs.",
        frames=recorded(results),
        one=("run",),
    )


@styled
def skips(results: Results) -> Figure:
    """The weights of all possible skips over the epochs: which appear, and when.

    Args:
        results: the rows to draw, a panel each; their first seed.

    Returns:
        One curve per skip; those that were ever largest are coloured and named, the others gray.
    """
    chosen = results.history[results.history["metric"].str.startswith("skip_")]
    chosen = chosen[chosen["seed"] == chosen["seed"].min()]
    fig, axes = _pairs(results, 2.4)
    for ax, label in zip(axes, results.runs.index, strict=True):
        curves = chosen[chosen["run"] == label].pivot(
            index="epoch", columns="metric", values="value"
        )
        largest = curves.abs().max()
        named = largest[largest > 0].nlargest(LABELLED).index
        ax.plot(curves.index, curves.drop(columns=named), color=GRAY, lw=0.7)
        for metric, shade in zip(named, SEQUENCE, strict=False):
            _, source, target = metric.split("_")
            name = rf"$x_{source} \to x_{target}$"
            ax.plot(curves.index, curves[metric], color=shade, label=name)
        if len(named):
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        ax.set(title=label, ylabel="Skip Weight")
    whole_epochs(*axes)
    return fig


@styled
def quality(results: Results) -> Figure:
    """How good the networks are: PSNR of the restored images, accuracy of the classifiers.

    Args:
        results: of the experiment.

    Returns:
        Two panels over the epochs, both on the validation images; dashed without skips, the lighter
        the later in the table. The accuracy is shown from 5 points below the worst network's last
        one.
    """
    fig, axes = panels(1, 2, 3.0)
    for ax, metric, factor, name, tasks in (
        (axes[0, 0], "psnr", 1, "Validation PSNR [dB]", ["denoise", "deblur"]),
        (axes[0, 1], "accuracy", 100, "Validation Accuracy [%]", ["classify"]),
    ):
        chosen = results.where(config_task=tasks)
        # what differs in more than whether skips are allowed has another shade
        kinds = {name: [*dict.fromkeys(map(_kind, runs.to_dict("records")))]
                 for name, runs in chosen.runs.groupby("config_optimizer")}  # fmt: skip
        for label, run in chosen.runs.iterrows():
            look: Look = {
                "color": tint(color(run), 0.3 * kinds[run["config_optimizer"]].index(_kind(run))),
                "ls": "--" if math.isnan(run["config_skip_lam"] or 0.0) else "-",
            }
            curve(ax, chosen, str(label), "validation", metric, factor=factor, label=label, **look)
        ax.set(ylabel=name)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    # the first epochs would flatten all that comes later
    last = [line.get_ydata()[-1] for line in axes[0, 1].lines]
    axes[0, 1].set_ylim(min(last) - 5, max(last) + 1)
    whole_epochs(*axes[0])
    return fig


@styled
def images(rows: Mapping[str, np.ndarray]) -> Figure:
    """Images in rows, such as blurred, restored and clean ones.

    Args:
        rows: by the name of their row; N x 1 x H x W each, values in [0, 1].

    Returns:
        One row of N images per name.
    """
    fig, axes = panels(len(rows), 1, 0.66 * len(rows))
    for ax, (name, row) in zip(axes.flat, rows.items(), strict=True):
        ax.imshow(np.concatenate(row[:, 0], axis=1), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.grid(False)
    return fig


def _kind(run: Mapping[str, object]) -> tuple[object, ...]:
    price = run["config_skip_lam"] if run["config_task"] == "classify" else None
    return run["config_task"], price


def _pairs(results: Results, height: float, **options: bool) -> tuple[Figure, list[Axes]]:
    """A panel per row of results, two side by side."""
    n = len(results.runs)
    fig, axes = panels(math.ceil(n / 2), 2, height * math.ceil(n / 2), **options)
    for ax in axes.flat[n:]:
        ax.remove()
    return fig, list(axes.flat[:n])


def _network(results: Results, label: str, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    # active neurons per layer from the input on, and s_{i,j} as a matrix over all pairs of layers
    chosen = results.history.query("run == @label and epoch == @epoch and split == 'weights'")
    values = chosen[chosen["seed"] == chosen["seed"].min()].set_index("metric")["value"]
    if values.empty:
        raise KeyError(f"no run {label!r} with epoch {epoch} in the history")
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
    ends = np.argwhere(strength > 0)
    # the panels of a figure share their axis: it must hold all of them
    longest = {side: np.max(np.argwhere(side * skips > 0) @ [1, -1], initial=0) for side in (1, -1)}
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
    for i, j in sorted(ends, key=lambda end: -strength[tuple(end)]):
        side = np.sign(skips[i, j])
        middle, foot, height = (i + j) / 2, side * 1.06 * half, 0.3 * half * (i - j)
        shade = BLUE if side > 0 else RED
        width = 0.5 + 3 * strength[i, j] / strength.max()
        angles = {"theta1": 0, "theta2": 180} if side > 0 else {"theta1": 180, "theta2": 360}
        ax.add_patch(
            Arc((middle, foot), i - j, 2 * height, lw=width, color=shade, alpha=0.85, **angles)
        )
        top = foot + side * height
        room = all(abs(middle - x) > label_width or abs(top - y) > label_height for x, y in taken)
        # two decimals must be able to say it
        if len(taken) < LABELLED and strength[i, j] >= 0.01 and room:
            taken.append((middle, top))
            ax.text(
                middle, top, f"{skips[i, j]:+.2f}".replace("-", "\N{MINUS SIGN}"),
                ha="center", va="center", fontsize=6, zorder=5,
                bbox={"boxstyle": "round,pad=0.12", "fc": ax.get_facecolor(), "ec": "none"},
            )  # fmt: skip
