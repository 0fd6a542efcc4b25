"""The networks of section 4, and their parameters sorted into groups by kind of layer."""

from bregman.models.groups import CONV, param_groups, weight_layers
from bregman.models.mlp import MLP

__all__ = ["CONV", "MLP", "param_groups", "weight_layers"]
