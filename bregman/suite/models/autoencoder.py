"""The denoising autoencoder of section 4.6."""

import math
from collections.abc import Sequence

from torch import nn

from bregman.suite.models.mlp import MLP


class Autoencoder(MLP):
    """A fully connected ReLU network whose layers are all as wide as its image, section 4.6.

    Nothing in it is narrow: where it becomes narrow is for training to find. The output passes a
    ReLU too, since no pixel is darker than black.

    Args:
        shape: of an image, C x H x W.
        hidden: the number of hidden layers.

    Shape:
        Input and output: (batch, C, H, W).
    """

    def __init__(self, shape: Sequence[int] = (1, 28, 28), hidden: int = 5) -> None:
        super().__init__([math.prod(shape)] * (hidden + 2))
        self.append(nn.ReLU())
        self.append(nn.Unflatten(1, tuple(shape)))
