"""The figures of notebook 02: paths, bias, two planes, exact regularization, structure, stopping.

Colours follow the algorithm through all notebooks: LinBreg blue, with momentum green, AdaBreg pink,
ISTA red, the Lasso ochre, exact flows black; what is to be found is purple.
"""

from bregman.suite.plots.convex_toy_problems.structure import (
    classification,
    early_stopping,
    matrices,
    random_groups,
    singular_values,
    stopping_rules,
    stopping_time,
)
from bregman.suite.plots.convex_toy_problems.trajectories import (
    bias,
    coefficients,
    event_errors,
    exact_regularization,
    inertia,
    sparse_paths,
    time_average,
    two_planes,
)

__all__ = ["bias", "classification", "coefficients", "early_stopping", "event_errors",
           "exact_regularization", "inertia", "matrices", "random_groups", "singular_values",
           "sparse_paths", "stopping_rules", "stopping_time", "time_average",
           "two_planes"]  # fmt: skip
