"""Figures of notebook 08: ResNet-18 on CIFAR-10. Table 3 has none; these show what is behind it."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bregman.suite.experiments import Results, paper_reference
from bregman.suite.plots.browser import browse, curves, epochs, path
from bregman.suite.plots.browser import paths as panel
from bregman.suite.plots.grammar import algorithm, color, few_ticks, legend, panels, spread, styled

MARKERS = {"": "o", "thresh": "s"}


@styled
def paths(results: Results) -> Figure:
    """Accuracy against density: the way of each run through training, and where it ends.

    Args:
        results: of the experiment ``cifar10_resnet``.

    Returns:
        Left, validation accuracy over the epochs (means over the seeds): a dot ends each run, a
        dotted line leads to what thresholding makes of it. Right, test accuracy of every row of
        Table 3, ours filled and the paper's hollow. What was refreshed only is not drawn, nor what
        has no weight left.
    """
    row = ["artifact", "strategy", "optimizer"]
    paper = paper_reference().set_index(row)
    fig, axes = panels(1, 2, 3.5, sharex=True)
    left, right = axes[0]
    ends: dict[str, tuple[float, float]] = {}
    drawn = results.where(variant=[*MARKERS])
    for label, run in drawn.runs.iterrows():
        mean = drawn.where(label=label).summary.mean(numeric_only=True)
        density, shade = mean["n_total_pct"], color(run)
        look = {"marker": MARKERS[run["variant"]], "ms": 5, "color": shade}
        theirs = paper.loc[tuple(run[row])]
        right.plot(theirs["n_total_pct"], theirs["test_acc_pct"], mfc="none", **look)
        if density > 0:
            left.plot(density, mean["val_acc_pct"], **look)
            right.plot(density, mean["test_acc_pct"], **look)
        end = density, mean["val_acc_pct"]
        if not run["variant"]:
            ways = (("weights", "n_total"), ("validation", "accuracy"))
            left.plot(*(100 * spread(drawn, str(label), *way)["mean"] for way in ways), color=shade)
            ends[algorithm(run)] = end
        elif density > 0:
            left.plot(*zip(ends[algorithm(run)], end, strict=True), ":", color=shade)
    few_ticks(left.xaxis)
    left.set(xlabel="Non-Zero Weights [%]", ylabel="Validation Accuracy [%]")
    right.set(xlabel="Non-Zero Weights [%]", ylabel="Test Accuracy [%]")
    plain = drawn.where(variant="").runs
    legend(fig, {str(label): {"color": color(run)} for label, run in plain.iterrows()})
    marks = [
        Line2D([], [], color="#555555", ls="", marker=marker, ms=5, mfc=fill)
        for fill in ("#555555", "none")
        for marker in MARKERS.values()
    ]
    names = ["as trained", "thresholded", "paper", "paper, thresholded"]
    fig.legend(marks, names, loc="outside lower center", ncols=len(names))
    return fig


def browse_runs(results: Results) -> None:
    """The way of each run in motion: accuracy against density, and both over the epochs.

    Args:
        results: of the experiment ``cifar10_resnet``.
    """
    plain = results.where(variant="")
    looks = {str(label): {"color": color(run)} for label, run in plain.runs.iterrows()}
    density, accuracy = (
        100 * plain.curves(*what) for what in (("weights", "n_total"), ("validation", "accuracy"))
    )
    ways = (path(run, looks[run], accuracy[run], density[run], run=run) for run in density)
    names = "Non-Zero Weights [%]", "Validation Accuracy [%]"
    browse(
        [
            panel(ways, *names, log="x"),
            curves(plain, "weights", "n_total", names[0], looks, 100, log="y"),
            curves(plain, "validation", "accuracy", names[1], looks, 100),
        ],
        "Accuracy against density, and both over the epochs, one curve per run.",
        frames=epochs(plain),
        many=("run",),
    )


@styled
def layers(results: Results) -> Figure:
    """What is left in each layer after training: non-zero weights, and kernels that are all zero.

    Args:
        results: of the experiment ``cifar10_resnet``.

    Returns:
        Two panels over the layers in the order of the forward pass, without the runs that end
        dense; means over the seeds.
    """
    plain = results.where(variant="")
    last = plain.history[plain.history["epoch"] == plain.history["epoch"].max()]
    last = last.pivot_table(index="metric", columns="run", values="value", sort=False)
    looks = {
        str(label): {"color": color(run), "marker": "o", "ms": 3}
        for label, run in plain.runs.iterrows()
        if last.loc["n_total", label] < 0.9
    }
    fig, axes = panels(2, 1, 4.6, sharex=True)
    above, below = axes[:, 0]
    for ax, kind in ((above, "density:"), (below, "dead:")):
        chosen = 100 * last[last.index.str.startswith(kind)]
        for label, look in looks.items():
            ax.plot(chosen.index.str.removeprefix(kind), chosen[label], **look)
    few_ticks(above.yaxis)
    above.set(ylabel="Non-Zero Weights [%]")
    below.set(ylabel="Dead Kernels [%]", ylim=(0, 103))
    below.tick_params(axis="x", rotation=90)
    legend(fig, looks)
    return fig
