"""Figures of notebook 08: ResNet-18 on CIFAR-10. Table 3 has none; these show what is behind it."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bregman.suite.experiments import Results, paper_reference
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw

MEASURES = (draw.DENSITY, draw.ACCURACY)
MARKERS = {"": "o", "thresh": "s"}
PAPER_WIDTH = 64  # only a network of this width is the paper's


@draw.of_runs
def paths(results: Results) -> Figure:
    """Accuracy against density: the way of each run through training, and where it ends.

    Args:
        results: of the experiment ``cifar10_resnet``.

    Returns:
        Left, validation accuracy over the epochs (means over the seeds): a dot ends each run, a
        dotted line leads to what thresholding makes of it. Right, test accuracy of every row of
        Table 3, ours filled and, where the network has its width, the paper's hollow. What was
        refreshed only is not drawn, nor what has no weight left.
    """
    row = ["artifact", "strategy", "optimizer"]
    paper = paper_reference().set_index(row)
    with draw.panels(1, 2, 3.5, sharex=True) as (fig, [[left, right]]):
        ends: dict[str, tuple[float, float]] = {}
        drawn = results.where(variant=[*MARKERS])
        for label, run in drawn.runs.iterrows():
            mean = drawn.where(label=label).summary.mean(numeric_only=True)
            density, shade = mean["n_total_pct"], draw.color(run)
            look = {"marker": MARKERS[run["variant"]], "ms": 5, "color": shade}
            if run["config_width"] == PAPER_WIDTH:
                theirs = paper.loc[tuple(run[row])]
                right.plot(theirs["n_total_pct"], theirs["test_acc_pct"], mfc="none", **look)
            if density > 0:
                left.plot(density, mean["val_acc_pct"], **look)
                right.plot(density, mean["test_acc_pct"], **look)
            end = density, mean["val_acc_pct"]
            if not run["variant"]:
                way = (draw.spread(drawn, str(label), measure)["mean"] for measure in MEASURES)
                left.plot(*way, color=shade)
                ends[draw.algorithm(run)] = end
            elif density > 0:
                left.plot(*zip(ends[draw.algorithm(run)], end, strict=True), ":", color=shade)
        draw.few_ticks(left.xaxis)
        draw.frame(left, x=draw.DENSITY.name, y=draw.ACCURACY.name)
        draw.frame(right, x=draw.DENSITY.name, y="Test Accuracy [%]")
        draw.legend(fig, draw.looks(drawn.where(variant="")))
        marks = [
            Line2D([], [], color="#555555", ls="", marker=marker, ms=5, mfc=fill)
            for fill in ("#555555", "none")
            for marker in MARKERS.values()
        ]
        names = ["as trained", "thresholded", "paper", "paper, thresholded"]
        if not (drawn.runs["config_width"] == PAPER_WIDTH).any():
            marks, names = marks[:2], names[:2]
        fig.legend(marks, names, loc="outside lower center", ncols=len(names))
    return fig


@moving.of_runs
def browse_runs(results: Results) -> None:
    """The way of each run in motion: accuracy against density, and both over the epochs.

    Args:
        results: of the experiment ``cifar10_resnet``.
    """
    plain = results.where(variant="")
    looks = draw.looks(plain)
    density, accuracy = (100 * plain.curves(*measure[:2]) for measure in MEASURES)
    ways = (moving.path(run, looks[run], accuracy[run], density[run], run=run) for run in density)
    views = [
        moving.paths(ways, draw.DENSITY.name, draw.ACCURACY.name, log="x"),
        moving.curves(plain, draw.DENSITY, looks, log="y"),
        moving.curves(plain, draw.ACCURACY, looks),
    ]
    alt = "Accuracy against density, and both over the epochs, one curve per run."
    moving.browse(views, alt, frames=moving.epochs(plain), many=("run",))


@draw.of_runs
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
    looks = draw.looks(plain, marker="o", ms=3)
    looks = {label: look for label, look in looks.items() if last.loc["n_total", label] < 0.9}
    with draw.panels(2, 1, 4.6, sharex=True) as (fig, [[above], [below]]):
        for ax, kind in ((above, "density:"), (below, "dead:")):
            chosen = 100 * last[last.index.str.startswith(kind)]
            for label, look in looks.items():
                ax.plot(chosen.index.str.removeprefix(kind), chosen[label], **look)
        draw.few_ticks(above.yaxis)
        above.set(ylabel=draw.DENSITY.name)
        below.set(ylabel="Dead Kernels [%]", ylim=(0, 103))
        below.tick_params(axis="x", rotation=90)
        draw.legend(fig, looks)
    return fig
