"""Bregman learning: optimizers that train sparse networks from a sparse start.

Bungert, Roith, Tenbrinck, Burger: "A Bregman Learning Framework for Sparse Neural Networks",
JMLR 23(192), 2022. Section, equation and algorithm numbers in the docstrings are the paper's.
"""

from bregman import regularizers
from bregman.initialization import sparse_init_
from bregman.layers import param_groups
from bregman.multilevel import Multilevel
from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.regularizers import *  # noqa: F403 (what its __all__ offers)
from bregman.sparsity import sparsity_summary
from bregman.steering import SparsityTarget

__all__ = [
    "AdaBreg",
    "LinBreg",
    "Multilevel",
    "ProxGD",
    "SparsityTarget",
    "param_groups",
    "sparse_init_",
    "sparsity_summary",
]
__all__ += regularizers.__all__
