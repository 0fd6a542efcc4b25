"""The denoising autoencoder of section 4.6."""

from torch import nn

from bregman.suite.models.mlp import MLP


class Autoencoder(MLP):
    """A fully connected ReLU network whose layers are all as wide as its image, section 4.6.

    Nothing in it is narrow: where it becomes narrow is for training to find. The output passes a
    ReLU too, since no pixel is darker than black.

    Shape:
        Input and output: (batch, 1, 28, 28).
    """

    def __init__(self) -> None:
        super().__init__([784] * 7)
        self.append(nn.ReLU())
        self.append(nn.Unflatten(1, (1, 28, 28)))
