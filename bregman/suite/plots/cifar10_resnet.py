"""Figures of notebook 08: ResNet-18 on CIFAR-10. Table 3 has none; these show what lies behind it.

Gray and black stand for the dense networks, vermilion for Lasso, the rest for Bregman optimizers.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from bregman.suite.experiments import paper_reference
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, PINK, RED, STYLE

COLORS = {
    "SGD": GRAY,
    "Adam": BLACK,
    "Lasso": RED,
    "LinBreg": BLUE,
    "LinBreg β=0.9": GREEN,
    "AdaBreg": PINK,
}
THRESHOLDED = " + threshold"


def resnet_paths(history: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Accuracy against density: the way of each run through training, and where it ends.

    Args:
        history: of the experiment ``cifar10_resnet``.
        summary: likewise.

    Returns:
        Left, validation accuracy over the epochs (means over the seeds): a dot ends each run, a
        dotted line leads to what thresholding makes of it. Right, test accuracy of every row of
        Table 3, ours filled and the paper's hollow.
    """
    ours = summary.groupby("label", sort=False)[["n_total_pct", "val_acc_pct", "test_acc_pct"]]
    rows = summary.drop_duplicates("label").set_index("label")[
        ["artifact", "strategy", "optimizer"]
    ]
    theirs = paper_reference().set_index(["artifact", "strategy", "optimizer"])
    runs = [run for run in COLORS if run in rows.index]
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.2), sharex=True)
        for run in runs:
            density = _curve(history, run, "weights", "n_total")
            accuracy = _curve(history, run, "validation", "accuracy")
            left.plot(density, accuracy, color=COLORS[run])
        for label, (density, *accuracies) in ours.mean().iterrows():
            run = label.removesuffix(THRESHOLDED)
            look = {"marker": "o" if label == run else "s", "ms": 5, "color": COLORS[run]}
            left.plot(density, accuracies[0], **look)
            right.plot(density, accuracies[1], **look)
            paper = theirs.loc[tuple(rows.loc[label])]
            right.plot(paper["n_total_pct"], paper["test_acc_pct"], mfc="none", **look)
            if label != run:
                ends = ours.mean().loc[[run, label]]
                left.plot(ends["n_total_pct"], ends["val_acc_pct"], ":", color=COLORS[run])
        left.set(xscale="log", xlabel="Non-Zero Weights [%]", ylabel="Validation Accuracy [%]")
        right.set(xlabel="Non-Zero Weights [%]", ylabel="Test Accuracy [%]")
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        lines = [Line2D([], [], color=COLORS[run], marker="o", ms=4) for run in runs]
        marks = [
            Line2D([], [], color="#555555", ls="", marker=marker, ms=5, mfc=fill)
            for fill in ("#555555", "none")
            for marker in "os"
        ]
        names = ["as trained", "thresholded", "paper", "paper, thresholded"]
        fig.legend(lines, runs, loc="outside upper center", ncols=len(runs))
        fig.legend(marks, names, loc="outside lower center", ncols=len(names))
    return fig


def resnet_layers(history: pd.DataFrame) -> Figure:
    """What is left in each layer after training: non-zero weights, and kernels that are all zero.

    Args:
        history: of the experiment ``cifar10_resnet``.

    Returns:
        Two panels over the layers in the order of the forward pass, without the runs that end
        dense; means over the seeds.
    """
    last = history[history["epoch"] == history["epoch"].max()]
    last = last.pivot_table(index="metric", columns="run", values="value", sort=False)
    runs = [run for run in COLORS if run in last and last.loc["n_total", run] < 0.9]
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, 1, figsize=(7.2, 4.4), sharex=True)
        for ax, kind in zip(axes, ("density", "dead"), strict=True):
            chosen = 100 * last[last.index.str.startswith(f"{kind}:")]
            layers = chosen.index.str.removeprefix(f"{kind}:")
            for run in runs:
                ax.plot(layers, chosen[run], marker="o", ms=3, color=COLORS[run], label=run)
        axes[0].set(yscale="log", ylabel="Non-Zero Weights [%]")
        axes[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[1].set(ylabel="Dead Kernels [%]", ylim=(0, 103))
        axes[1].tick_params(axis="x", rotation=90)
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def _curve(history: pd.DataFrame, run: str, split: str, metric: str) -> pd.Series:
    chosen = history.query("run == @run and split == @split and metric == @metric")
    return 100 * chosen.groupby("epoch")["value"].mean()
