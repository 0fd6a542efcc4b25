"""What the Bregman optimizers are compared with, each as a hook of a torch optimizer.

Section 4.4: Lasso by SGD, and iterative magnitude pruning. Beyond the paper, sparse training at a
given density: gradual magnitude pruning, a static random support, SET and RigL.
"""

from bregman.suite.baselines.dynamic import SET, RigL, StaticSupport
from bregman.suite.baselines.lasso import add_subgradients
from bregman.suite.baselines.masks import Masked, layer_budgets
from bregman.suite.baselines.pruning import GradualPruning, MagnitudePruning

__all__ = [
    "SET",
    "GradualPruning",
    "MagnitudePruning",
    "Masked",
    "RigL",
    "StaticSupport",
    "add_subgradients",
    "layer_budgets",
]
