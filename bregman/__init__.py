"""Bregman learning: optimizers that train sparse networks from a sparse start.

Bungert, Roith, Tenbrinck, Burger: "A Bregman Learning Framework for Sparse Neural Networks",
JMLR 23(192), 2022. Section, equation and algorithm numbers in the docstrings are the paper's.
"""

from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.regularizers import L1, GroupL12, Regularizer, Zero

__all__ = ["L1", "AdaBreg", "GroupL12", "LinBreg", "ProxGD", "Regularizer", "Zero"]
