"""What sparsity buys: targets, accuracy at equal density, frozen steps, cost of training."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

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

METHODS: dict[str, dict[str, Any]] = {
    "LinBreg": {"color": BLUE, "marker": "o"},
    "LinBreg, frozen steps": {"color": BLUE, "marker": "o", "mfc": "white", "ls": "--"},
    "RigL": {"color": RED, "marker": "s"},
    "SET": {"color": OCHRE, "marker": "D"},
    "static": {"color": PURPLE, "marker": "v"},
    "pruning": {"color": GREEN, "marker": "^"},
}
SEQUENCE = (BLUE, GREEN, OCHRE, PINK, PURPLE, BLACK)
PERCENT = FuncFormatter(lambda value, _: f"{value:g}")


def sparsity_targets(summary: pd.DataFrame, history: pd.DataFrame) -> Figure:
    """The density over the epochs beside the target, and the lambda that leads there.

    Args:
        summary: the rows with a target.
        history: of the experiment.

    Returns:
        A column per network and optimizer: above the non-zero weights, dotted where they should
        end, below lambda.
    """
    kinds = summary.groupby(["artifact", "optimizer"], sort=False)
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            2, kinds.ngroups, figsize=(7.2, 4.2), sharex="col", sharey="row", squeeze=False
        )
        targets = sorted(summary["target_pct"].unique(), reverse=True)
        colors = dict(zip(targets, SEQUENCE, strict=False))
        for column, ((artifact, optimizer), rows) in zip(axes.T, kinds, strict=True):
            for label, target in zip(rows["label"], rows["target_pct"], strict=True):
                for ax, metric, factor in zip(column, ("n_total", "lam"), (100, 1), strict=True):
                    curve = _curve(history, label, metric)
                    ax.plot(curve.index, factor * curve, color=colors[target])
                column[0].axhline(target, color=colors[target], ls=":", lw=1)
            column[0].set(title=f"{_network(artifact)}, {optimizer}")
            column[1].set(xlabel="Epoch")
            column[1].xaxis.get_major_locator().set_params(integer=True)
        for ax, name in zip(axes[:, 0], ("Non-Zero Weights [%]", r"$\lambda$"), strict=True):
            ax.set(yscale="log", ylabel=name)
        axes[0, 0].yaxis.set_major_formatter(PERCENT)
        lines = [plt.Line2D([], [], color=color) for color in colors.values()]
        names = [f"target {target:g} %" for target in colors]
        fig.legend(lines, names, loc="outside upper center", ncols=len(lines))
    return fig


def accuracy_at_density(summary: pd.DataFrame) -> Figure:
    """Test accuracy against the density that training ended with, and against what it cost.

    Args:
        summary: the rows with methods at several densities, and one dense for each network.

    Returns:
        A row of two panels per network; means over the seeds, with the standard deviation where
        there are several. The dashed line is the dense network.
    """
    networks = summary.groupby("artifact", sort=False)
    columns = (
        ("n_total_pct", "Non-Zero Weights [%]"),
        ("flops_pct", "FLOPs of the Training [% of Dense]"),
    )
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            networks.ngroups, 2, figsize=(7.2, 0.5 + 2.6 * networks.ngroups),
            sharex="col", sharey="row", squeeze=False,
        )  # fmt: skip
        for line, (artifact, rows) in zip(axes, networks, strict=True):
            dense = rows.loc[rows["strategy"] == "dense", "test_acc_pct"].mean()
            for ax, (column, _) in zip(line, columns, strict=True):
                ax.axhline(dense, color=BLACK, ls="--", lw=1)
                for method, look in METHODS.items():
                    runs = rows[rows["strategy"] == method].groupby("target_pct")
                    accuracy = runs["test_acc_pct"]
                    ax.errorbar(
                        runs[column].mean(),
                        accuracy.mean(),
                        accuracy.std(),
                        ms=4,
                        capsize=2,
                        **look,
                    )
            line[0].set(ylabel=f"Test Accuracy [%], {_network(artifact)}")
        for ax, (_, label) in zip(axes[-1], columns, strict=True):
            ax.set(xscale="log", xlabel=label)
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(PERCENT)
            ax.minorticks_off()
        lines = [plt.Line2D([], [], ms=4, **look) for look in METHODS.values()]
        lines.append(plt.Line2D([], [], color=BLACK, ls="--", lw=1))
        fig.legend(lines, [*METHODS, "dense"], loc="outside upper center", ncols=len(lines))
    return fig


def frozen_steps_map(summary: pd.DataFrame) -> Figure:
    """Accuracy, density and FLOPs over the number m of frozen steps and lambda.

    Args:
        summary: the rows that differ in ``frozen_steps`` and ``lam``.

    Returns:
        Three heat maps; blank where a run diverged.
    """
    panels = (
        ("test_acc_pct", "Test Accuracy [%]", "Blues", ".1f"),
        ("n_total_pct", "Non-Zero Weights [%]", "Oranges", ".1f"),
        ("flops_pct", "FLOPs [% of Dense]", "Greens", ".1f"),
    )
    measures = [column for column, *_ in panels]
    converged = summary.assign(frozen_steps=summary["frozen_steps"].astype(int))
    converged[measures] = summary[measures].where(summary["status"] != "diverged")
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), sharey=True)
        for ax, (column, title, colors, form) in zip(axes, panels, strict=True):
            table = converged.pivot(index="lam", columns="frozen_steps", values=column)
            sns.heatmap(
                table, ax=ax, cmap=colors, annot=True, fmt=form, cbar=False, annot_kws={"size": 7}
            )
            ax.set(title=title, xlabel="Frozen Steps $m$", ylabel=None)
            ax.tick_params(length=0)
            ax.tick_params(axis="y", rotation=0)
        axes[0].set(ylabel=r"$\lambda$")
    return fig


def support_turnover(summary: pd.DataFrame, history: pd.DataFrame) -> Figure:
    """How many weights enter and leave the support from one full step to the next.

    Args:
        summary: the rows that differ in ``frozen_steps`` and ``lam``.
        history: of the experiment, with what entered and left.

    Returns:
        A panel per lambda: shares of the support over the epochs, solid what enters, dashed what
        leaves.
    """
    panels = summary.groupby("lam")
    steps = sorted(summary["frozen_steps"].unique())
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            1, panels.ngroups, figsize=(7.2, 2.9), sharex=True, sharey=True, squeeze=False
        )
        for ax, (lam, rows) in zip(axes.flat, panels, strict=True):
            for label, m in zip(rows["label"], rows["frozen_steps"], strict=True):
                for metric, style in (("entered", "-"), ("left", "--")):
                    curve = 100 * _curve(history, label, metric)
                    # what is zero has no place on this axis
                    curve = curve.where(curve > 0)
                    ax.plot(curve.index, curve, color=SEQUENCE[steps.index(m)], ls=style)
            ax.set(title=rf"$\lambda = {lam:g}$", xlabel="Epoch", yscale="log")
            ax.yaxis.set_major_formatter(PERCENT)
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0, 0].set(ylabel="Share of the Support\nper Cycle [%]")
        lines = [plt.Line2D([], [], color=color) for color, _ in zip(SEQUENCE, steps, strict=False)]
        lines += [plt.Line2D([], [], color=GRAY, ls=style) for style in ("-", "--")]
        names = [*(f"$m = {m:g}$" for m in steps), "enters", "leaves"]
        fig.legend(lines, names, loc="outside upper center", ncols=len(lines))
    return fig


def whole_runs(costs: pd.DataFrame) -> Figure:
    """The cost of whole trainings: FLOPs in theory, and seconds on the clock.

    Args:
        costs: of ``cost_table``; indexed by network and method.

    Returns:
        A panel per network with two bars per method, both relative to the dense training.
    """
    networks, methods = (costs.index.unique(level) for level in ("network", "method"))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            1, len(networks), figsize=(7.2, 2.6), sharex=True, sharey=True, squeeze=False
        )
        for ax, network in zip(axes.flat, networks, strict=True):
            rows = costs.loc[network].reindex(methods)
            places = np.arange(len(methods))
            look: dict[str, Any] = {"height": 0.38, "zorder": 2}
            for column, shift, color in (
                ("FLOPs [%]", -0.2, GRAY),
                ("time [%]", 0.2, BLUE),
            ):
                bars = ax.barh(places + shift, rows[column], color=color, label=column, **look)
                ax.bar_label(bars, fmt="%.0f", padding=2, fontsize=7)
            ax.set(title=network, xlabel="% of Dense", yticks=places, yticklabels=methods)
            ax.grid(visible=False, axis="y")
            ax.margins(x=0.15)
        axes[0, 0].invert_yaxis()
        handles, _ = axes[0, 0].get_legend_handles_labels()
        names = ["FLOPs in theory", "time measured"]
        fig.legend(handles, names, loc="outside upper center", ncols=2)
    return fig


def _network(artifact: str) -> str:
    # "Sparsity on target: MLP"
    return artifact.split(": ")[1]


def _curve(history: pd.DataFrame, label: str, metric: str) -> pd.Series:
    chosen = history.query("run == @label and split == 'weights' and metric == @metric")
    return chosen.groupby("epoch")["value"].mean()
