"""Methods at equal density after equal tuning, beside the paper's table."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from bregman.suite.experiments import Results, paper_reference
from bregman.suite.experiments.equal_density import FAMILIES, TARGET
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import GRAY, PALETTE

LEVEL = 0.95


def interval(values: "pd.Series[float]") -> tuple[float, float]:
    """The mean of some values, and half the width of its 95 % interval (Student's t); nan for one.

    Args:
        values: independent, one per seed.
    """
    n = len(values)
    if n < 2:
        return float(values.mean()), float("nan")
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    return float(values.mean()), quantile * float(values.std(ddof=1)) / np.sqrt(n)


def equal_density(results: Results) -> Figure:
    """The paper's Table 1, each method at its own density, and all at one density.

    Args:
        results: of the study ``equal_density``, as far as it was run.

    Returns:
        Test accuracy against density as in the paper, one number each; beside it test accuracy at
        the target, a dot per seed, the mean and its 95 % interval. A method without runs is named
        as such.
    """
    with draw.panels(1, 2, 3.2, sharey=True, width_ratios=(1, 1.4)) as (fig, [[left, right]]):
        paper = (
            paper_reference().query("artifact == 'Table 1'").set_index(["strategy", "optimizer"])
        )
        for place, (name, family) in enumerate(FAMILIES.items()):
            look: draw.Look = {"color": PALETTE[name], "ms": 4}
            row = paper.loc[(family.strategy, family.optimizer)]
            left.plot(row["n_total_pct"], row["test_acc_pct"], "s", **look)
            runs = results.summary[results.summary["label"] == name]
            values = runs.loc[runs["status"] == "finished", "test_acc_pct"]
            if values.empty:
                where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
                right.annotate(
                    "no run yet", (place, 0.05), rotation=90, color=GRAY, size=7, **where
                )
                continue
            mean, half = interval(values)
            right.plot([place] * len(values), values, "o", ms=3, mfc="none", color=PALETTE[name])
            right.errorbar(place + 0.2, mean, np.nan_to_num(half), fmt="s", **look)
        draw.few_ticks(left.xaxis)
        draw.frame(left, "The Paper's Table 1", "Non-Zero Weights [%]", "Test Accuracy [%]",
                   xlim=(1.5, 8))  # fmt: skip
        right.set(
            title=f"Ours: all with {100 * TARGET:g} %, Tuned Alike",
            xlim=(-0.6, len(FAMILIES) - 0.4),
        )
        draw.legend(fig, {name: {"color": PALETTE[name], "lw": 3} for name in FAMILIES})
        right.set_xticks(range(len(FAMILIES)), [*FAMILIES], rotation=30, ha="right")
    return fig
