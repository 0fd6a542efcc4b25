"""The networks of section 4, and their parameters sorted into groups by kind of layer."""

from bregman.models.autoencoder import Autoencoder
from bregman.models.convnet import ConvNet
from bregman.models.groups import CONV, param_groups, weight_layers
from bregman.models.mlp import MLP
from bregman.models.resnet import ResNet18
from bregman.models.skip import SkipMLP

__all__ = [
    "CONV",
    "MLP",
    "Autoencoder",
    "ConvNet",
    "ResNet18",
    "SkipMLP",
    "param_groups",
    "weight_layers",
]
