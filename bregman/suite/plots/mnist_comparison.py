"""The figure of notebook 05: Figure 2, the training curves on MNIST."""

from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots.grammar import Look, color, curve, highest, legend, panels, styled, tint

# (split, metric), factor, name, the paper's limits, shaded as in the paper
PANELS = (
    (("train", "accuracy"), 100, "Train Accuracy [%]", (90, 100.5), True),
    (("validation", "accuracy"), 100, "Validation Accuracy [%]", (95, 99), False),
    (("weights", "l1_norm"), 1, r"$\ell_1$-Norm", None, True),
    (("weights", "n_total"), 100, "Non-Zero Entries [%]", None, True),
)


@styled
def training_curves(results: Results) -> Figure:
    """Figure 2: accuracies, l1 norm and non-zero weights of SGD, LinBreg and ProxGD.

    Args:
        results: of the experiment ``mnist_comparison``.

    Returns:
        Four panels; means over the seeds, shaded by one standard deviation (validation accuracy
        without, as in the paper). Within an algorithm the darkest has the largest lambda; ProxGD is
        dotted, and dashed with a learning rate larger than the one that all share.
    """
    looks = _looks(results)
    fig, axes = panels(2, 2, 5.2)
    for ax, (what, factor, name, limits, band) in zip(axes.flat, PANELS, strict=True):
        for label, look in looks.items():
            curve(ax, results, label, *what, factor=factor, band=band, **look)
        ax.set(xlabel="Epoch", ylabel=name)
        # a network that has not learned much yet would not be seen
        if limits is not None and highest(ax) > limits[0]:
            ax.set(ylim=limits)
    legend(fig, looks, 4)
    return fig


def _looks(results: Results) -> dict[str, Look]:
    shared = results.runs["config_lr"].min()
    looks = {}
    for _, family in results.runs.groupby(["config_optimizer", "config_lr"], sort=False):
        lams = sorted(family["config_lam"], reverse=True)
        for label, run in family.iterrows():
            style = "-"
            if run["config_optimizer"] == "ProxGD":
                style = ":" if run["config_lr"] == shared else "--"
            shade = tint(color(run), 0.25 * lams.index(run["config_lam"]))
            looks[str(label)] = {"color": shade, "ls": style, "lw": 0.9 if style == "--" else 1.3}
    return looks
