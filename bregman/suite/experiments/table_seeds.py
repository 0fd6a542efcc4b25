"""Tables 1 and 2 with seeds: four of their methods in bfloat16, and Table 1's in float32, too.

Notebook 07's table has three seeds for some rows and one for others. Here LinBreg, AdaBreg, pruning
and Lasso have three in both tables, and those of Table 1 are run with the same seeds in both
precisions, to be compared in pairs. Runs that the notebook made are shared.
"""

from dataclasses import replace

from bregman.suite.experiments import fashion_mnist_cnn
from bregman.suite.experiments.experiment import Row

METHODS = ("LinBreg", "AdaBreg", "Pruning", "Lasso")
_KNOWN = {row.label: row for row in fashion_mnist_cnn.ROWS}


def exact(row: Row) -> Row:
    """A row of Table 1 in float32."""
    settings = {**row.settings, "autocast": None}
    return replace(row, label=f"{row.label} (float32)", settings=settings)


ROWS = tuple(
    replace(row, seeds=None)
    for method in METHODS
    for row in (_KNOWN[method], exact(_KNOWN[method]), _KNOWN[f"{method} (groups)"])
)

EXPERIMENT = replace(fashion_mnist_cnn.EXPERIMENT, name="table_seeds", rows=ROWS)
