"""The figure of notebook 05: Figure 2, the training curves on MNIST."""

from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots.browser import browse, curves, epochs
from bregman.suite.plots.grammar import (
    Look,
    color,
    curve,
    few_ticks,
    highest,
    legend,
    panels,
    styled,
    tint,
    whole_epochs,
)
from bregman.suite.plots.style import PINK

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


def browse_runs(results: Results) -> None:
    """Figure 2 in motion: each run and seed of the experiment ``mnist_comparison``."""
    looks = _looks(results)
    browse(
        [
            curves(results, *what, name.replace(r"$\ell_1$", "ℓ1"), looks, factor, limits)
            for what, factor, name, limits, _ in PANELS
        ],
        "Accuracies, norm and non-zero entries over the epochs, one curve per run and seed.",
        frames=epochs(results),
        many=("run", "seed"),
    )


@styled
def beside_stored(results: Results, tried: Results) -> Figure:
    """A run of one's own before the stored ones, which are faint; the axes are always the same.

    Args:
        results: of the experiment ``mnist_comparison``.
        tried: one run, of ``Experiment.try_``.

    Returns:
        Two panels over the epochs of that run: validation accuracy and non-zero entries.
    """
    fig, axes = panels(1, 2, 2.8)
    for ax, (what, factor, name, *_) in zip(axes.flat, PANELS[1::2], strict=True):
        for label, look in _looks(results).items():
            curve(ax, results, label, *what, factor=factor, **look, alpha=0.3)
        curve(ax, tried, tried.label, *what, factor=factor, color=PINK, lw=2.2, marker="o", ms=3)
        ax.set(ylabel=name, xlim=(0, tried.history["epoch"].max()))
    axes[0, 0].set(ylim=(40, 100))
    axes[0, 1].set(ylim=(0.08, 120))
    few_ticks(axes[0, 1].yaxis)
    whole_epochs(*axes[0])
    end = tried.summary.iloc[0]
    fig.suptitle(
        f"λ = {end['config_lam']:g}, r = {end['config_density']:g}: at the end "
        f"{end['n_total_pct']:.1f} % of the weights, test accuracy {end['test_acc_pct']:.1f} %",
        fontsize=9,
    )  # fmt: skip
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
