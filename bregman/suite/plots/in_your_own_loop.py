"""The figure of notebook 13: one training in several loops."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK, BLUE, GREEN, OCHRE, PINK

# each thinner than the one before, so that all are seen where they lie on one another
COLORS, WIDTHS = (BLACK, OCHRE, BLUE, GREEN, PINK), (7, 5, 3.2, 1.8, 0.8)


def densities(tasks: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The density over the steps, in every loop.

    Args:
        tasks: by task and loop, the share of non-zero weights after each step.

    Returns:
        One panel per task.
    """
    with draw.panels(1, len(tasks), 2.9) as (fig, axes):
        for ax, (task, loops) in zip(axes[0], tasks.items(), strict=True):
            for (loop, density), color, width in zip(loops.items(), COLORS, WIDTHS, strict=False):
                steps, percent = range(1, len(density) + 1), [100 * share for share in density]
                ax.plot(steps, percent, color=color, lw=width, label=loop)
            draw.frame(ax, task, "Step", "Non-zero weights [%]", key="best")
    return fig
