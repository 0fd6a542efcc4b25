"""The networks of section 4."""

from bregman.suite.models.autoencoder import Autoencoder
from bregman.suite.models.convnet import ConvNet
from bregman.suite.models.mlp import MLP
from bregman.suite.models.resnet import ResNet18
from bregman.suite.models.skip import SkipMLP

__all__ = [
    "MLP",
    "Autoencoder",
    "ConvNet",
    "ResNet18",
    "SkipMLP",
]
