"""Regularizers J: value, prox, subgradient and distance to the subdifferential.

A regularizer is a frozen bag of plain numbers. To change one in the course of training, give the
optimizer's group a new one (``dataclasses.replace``).
"""

from bregman.regularizers.base import Regularizer, Zero
from bregman.regularizers.entries import L1, ElasticNet, NonNegative, NonNegativeL1
from bregman.regularizers.groups import GroupL12, Nuclear, SparseGroup

__all__ = [
    "L1",
    "ElasticNet",
    "GroupL12",
    "NonNegative",
    "NonNegativeL1",
    "Nuclear",
    "Regularizer",
    "SparseGroup",
    "Zero",
]
