"""The fully connected network of section 4.2."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from bregman.suite.models.chain import Chain


class MLP(Chain):
    """A fully connected ReLU network with a linear output, section 4.2.

    Args:
        sizes: the number of inputs, of neurons per hidden layer, and of outputs.

    Raises:
        ValueError: fewer than two sizes.

    Shape:
        Input: (batch, ...) with sizes[0] entries per sample. Output: (batch, sizes[-1]).
    """

    def __init__(self, sizes: Sequence[int] = (784, 200, 80, 10)) -> None:
        if len(sizes) < 2:
            raise ValueError(f"sizes must name at least inputs and outputs, got {tuple(sizes)}")
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        super().__init__(*layers[:-1])
