"""Convex toy problems with exact references: the mathematics behind the teaching notebooks.

problems -> gradients, flows -> solvers -> theory: losses of known constants and solution, inverse
scale space flows, iterations, and the theorems of section 3 along their paths. All is float64.
"""

from bregman.suite.convex.bounds import Bound
from bregman.suite.convex.distances import (
    bregman_distance,
    elastic_bregman_distance,
    symmetric_bregman_distance,
)
from bregman.suite.convex.flows import ExactFlow, Trajectory, elastic_flow, inverse_scale_space_flow
from bregman.suite.convex.gradients import AdditiveNoise, ExactGradient, Minibatch
from bregman.suite.convex.problems import (
    LeastSquares,
    LogisticRegression,
    Problem,
    compressed_sensing,
    example_1,
    group_sparse,
    logistic_regression,
    low_rank,
)
from bregman.suite.convex.solvers import (
    Path,
    bregman_iteration,
    discrepancy_principle,
    gradient_descent,
    ista,
    linbreg_path,
    minimize,
)
from bregman.suite.convex.theory import (
    corollary_3,
    corollary_12,
    distances,
    sharp_theorem_6,
    sharp_theorem_11,
    strong_bregman_convexity,
    theorem_2,
    theorem_6,
    theorem_11,
)

__all__ = [
    "AdditiveNoise",
    "Bound",
    "ExactFlow",
    "ExactGradient",
    "LeastSquares",
    "LogisticRegression",
    "Minibatch",
    "Path",
    "Problem",
    "Trajectory",
    "bregman_distance",
    "bregman_iteration",
    "compressed_sensing",
    "corollary_3",
    "corollary_12",
    "discrepancy_principle",
    "distances",
    "elastic_bregman_distance",
    "elastic_flow",
    "example_1",
    "gradient_descent",
    "group_sparse",
    "inverse_scale_space_flow",
    "ista",
    "linbreg_path",
    "logistic_regression",
    "low_rank",
    "minimize",
    "sharp_theorem_6",
    "sharp_theorem_11",
    "strong_bregman_convexity",
    "symmetric_bregman_distance",
    "theorem_2",
    "theorem_6",
    "theorem_11",
]
