"""The figure of notebook 05: Figure 2, the training curves on MNIST."""

from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import PINK

# with the paper's limits
MEASURES = (
    draw.Measure("train", "accuracy", "Train Accuracy [%]", 100, (90, 100.5)),
    draw.ACCURACY._replace(limits=(95, 99)),
    draw.Measure("weights", "l1_norm", r"$\ell_1$-Norm"),
    draw.ENTRIES,
)


@draw.of_runs
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
    with draw.panels(2, 2, 5.2) as (fig, axes):
        for ax, measure in zip(axes.flat, MEASURES, strict=True):
            draw.curves(ax, results, measure, looks, band=measure.split != "validation")
            ax.set(xlabel="Epoch")
        draw.legend(fig, looks, 4)
    return fig


@moving.of_runs
def browse_runs(results: Results) -> None:
    """Figure 2 in motion: each run and seed of the experiment ``mnist_comparison``."""
    looks = _looks(results)
    views = [moving.curves(results, measure, looks) for measure in MEASURES]
    alt = "Accuracies, norm and non-zero entries over the epochs, one curve per run and seed."
    moving.browse(views, alt, frames=moving.epochs(results), many=("run", "seed"))


def beside_stored(results: Results, tried: Results) -> Figure:
    """A run of one's own before the stored ones, which are faint; the axes are always the same.

    Args:
        results: of the experiment ``mnist_comparison``.
        tried: one run, of ``Experiment.try_``.

    Returns:
        Two panels over the epochs of that run: validation accuracy and non-zero entries.
    """
    with draw.panels(1, 2, 2.8) as (fig, [[left, right]]):
        faint = {label: look | {"alpha": 0.3} for label, look in _looks(results).items()}
        own = {tried.label: {"color": PINK, "lw": 2.2, "marker": "o", "ms": 3}}
        for ax, measure in ((left, draw.ACCURACY), (right, draw.ENTRIES)):
            draw.curves(ax, results, measure, faint)
            draw.curves(ax, tried, measure, own)
            ax.set(xlim=(0, tried.history["epoch"].max()))
        left.set(ylim=(40, 100))
        right.set(ylim=(0.08, 120))
        draw.few_ticks(right.yaxis)
        draw.whole_epochs(left, right)
        end = tried.summary.iloc[0]
        fig.suptitle(
            f"λ = {end['config_lam']:g}, r = {end['config_density']:g}: at the end "
            f"{end['n_total_pct']:.1f} % of the weights, test accuracy {end['test_acc_pct']:.1f} %",
            fontsize=9,
        )
    return fig


def _looks(results: Results) -> dict[str, draw.Look]:
    if results.summary.empty:
        return {}
    shared = results.runs["config_lr"].min()
    looks = {}
    for _, family in results.runs.groupby(["config_optimizer", "config_lr"], sort=False):
        lams = sorted(family["config_lam"], reverse=True)
        for label, run in family.iterrows():
            style = "-"
            if run["config_optimizer"] == "ProxGD":
                style = ":" if run["config_lr"] == shared else "--"
            shade = draw.tint(draw.color(run), 0.25 * lams.index(run["config_lam"]))
            looks[str(label)] = {"color": shade, "ls": style, "lw": 0.9 if style == "--" else 1.3}
    return looks
