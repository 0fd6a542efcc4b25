"""The figure of notebook 12: the paper's numbers against ours."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bregman.suite.plots.style import BLUE, GRAY, GREEN, PINK, PURPLE, RED, STYLE

COLORS = {
    "Figure 2": BLUE,
    "Figure 3": GREEN,
    "Table 1": RED,
    "Table 2": PINK,
    "Table 3": PURPLE,
}
DENSITIES = ["n_total_pct", "n_linear_pct", "n_conv_pct"]
ACCURACIES = ["val_acc_pct", "test_acc_pct"]


def paper_against_ours(table: pd.DataFrame) -> Figure:
    """Densities and accuracies: the paper's to the right, ours up; on the line both are equal.

    Args:
        table: of ``beside_paper``.

    Returns:
        Two panels, densities on logarithmic axes. Numbers that were not measured are left out.
    """
    numbers = table.reset_index().dropna(subset="ours")
    panels = ((DENSITIES, "Non-zero weights or kernels [%]"), (ACCURACIES, "Accuracy [%]"))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 3.7))
        for ax, (measures, label) in zip(axes, panels, strict=True):
            chosen = numbers[numbers["measure"].isin(measures)]
            for artifact, color in COLORS.items():
                mine = chosen[chosen["artifact"].str.startswith(artifact)]
                name = artifact if len(mine) else None
                ax.errorbar(mine["paper"], mine["ours"], mine["std"].fillna(0), color=color,
                            fmt="o", ms=4, lw=0.8, label=name)  # fmt: skip
            ax.axline((90, 90), (91, 91), color=GRAY, lw=0.8, zorder=0)
            ax.set(xlabel=f"{label}, the paper", ylabel=f"{label}, ours")
        axes[1].set(xlim=(86, 99), ylim=(min([87, *chosen["ours"]]) - 1, 99))
        axes[0].set(xscale="log", yscale="log", xlim=(0.7, 120), ylim=(0.7, 120))
        for axis in (axes[0].xaxis, axes[0].yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_formatter(NullFormatter())
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return fig
