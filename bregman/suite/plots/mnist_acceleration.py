"""The figure of notebook 06: Figure 3, the accelerated Bregman optimizers."""

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from bregman.suite.experiments import Results
from bregman.suite.plots import browser as moving
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import STYLE

ACCURACY = draw.ACCURACY._replace(limits=(96, 98.5))


@draw.of_runs
def training_curves(results: Results) -> Figure:
    """Figure 3: validation accuracy and non-zero weights.

    Args:
        results: of the experiment ``mnist_acceleration``.

    Returns:
        Two panels with means over the seeds. Left, one standard deviation is drawn at the last
        epoch, since five bands on each other show nothing. Right, bands, and a broken axis: below
        from 0 to what the sparse runs need, at least the paper's 15 %, above from 98 %.
    """
    with plt.style.context(STYLE):
        looks = _looks(results)
        fig = plt.figure(figsize=(7.2, 3.4))
        grid = fig.add_gridspec(2, 2, height_ratios=(1, 4))
        left = fig.add_subplot(grid[:, 0])
        low = fig.add_subplot(grid[1, 1])
        high = fig.add_subplot(grid[0, 1], sharex=low)
        draw.curves(left, results, ACCURACY, looks)
        for place, (label, look) in enumerate(looks.items()):
            end = draw.spread(results, label, ACCURACY).iloc[-1:]
            left.errorbar(end.index * (1.03 + 0.02 * place), end["mean"], end["std"], fmt=".",
                          color=look["color"], capsize=2, lw=1)  # fmt: skip
        left.set(xlabel="Epoch")
        slanted: dict[str, Any] = {"marker": [(-1, -0.6), (1, 0.6)], "ms": 7, "color": "#444444"}
        for ax, end in ((high, 0), (low, 1)):
            draw.curves(ax, results, draw.ENTRIES, looks, band=True)
            ax.yaxis.tick_right()
            ax.yaxis.set_label_position("right")
            ax.plot([0, 1], [end, end], transform=ax.transAxes, ls="", clip_on=False, **slanted)
        densest = map(draw.peak, low.lines[:-1])
        needed = max([15.0, *(1.05 * density for density in densest if density < 98)])
        low.set(ylim=(0, needed), xlabel="Epoch")
        high.set(ylim=(98, 100.7), yticks=(98, 100), ylabel=None)
        high.tick_params(labelbottom=False, bottom=False)
        draw.legend(fig, looks)
    return fig


@moving.of_runs
def browse_runs(results: Results) -> None:
    """Figure 3 in motion: each run and seed of the experiment ``mnist_acceleration``."""
    looks = _looks(results)
    entries = moving.curves(results, draw.ENTRIES, looks, log="y")
    views = [moving.curves(results, ACCURACY, looks), entries]
    alt = "Validation accuracy and non-zero entries over the epochs, one curve per run and seed."
    moving.browse(views, alt, frames=moving.epochs(results), many=("run", "seed"))


def _looks(results: Results) -> dict[str, draw.Look]:
    """Dashed lies on solid: momentum on LinBreg, and of AdaBreg the smaller lambda."""
    largest = results.runs.groupby("config_optimizer")["config_lam"].max()
    looks = draw.looks(results, ls="-")
    for label, run in results.runs.iterrows():
        smaller = run["config_lam"] < largest[run["config_optimizer"]]
        if smaller or draw.algorithm(run) == "LinBreg β=0.9":
            looks[str(label)]["ls"] = (0, (4, 1.5))
    return looks
