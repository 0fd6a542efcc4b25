"""Layers that follow one another, and what becomes of a neuron that is dead."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bregman.layers import CONV
from bregman.multilevel.layers import Layer
from bregman.multilevel.supports import missing

# through these a constant feature stays a constant
_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


@dataclass(frozen=True)
class Constants:
    """What a layer gets from the dead rows of the one in front: the same for all samples.

    Attributes:
        live: the columns of the layer that meet other features, in ascending order.
        met: those that meet constants.
        values: the constants.
    """

    live: Tensor
    met: Tensor
    values: Tensor


def constants(layer: Layer, before: Layer, dead: Tensor, between: Sequence[nn.Module]) -> Constants:
    """What comes of dead rows.

    Args:
        layer: gets it.
        before: the layer in front, linked to this one; has its whole bias.
        dead: its rows that are zero.
        between: the modules between the two.
    """
    n_out, n_in = len(before.weight), layer.weight.shape[1]
    bias = before.bias
    values = before.weight.new_zeros(n_out) if bias is None else bias
    values = values.detach().index_select(0, dead)
    for module in between:
        if isinstance(module, _ELEMENTWISE):
            values = module.forward(values)
    # one column per row in front, or several in a row
    each = torch.arange(n_in // n_out, device=dead.device)
    met = (dead.unsqueeze(1) * len(each) + each).flatten()
    return Constants(missing(met, n_in), met, values.repeat_interleave(len(each)))


def links(model: nn.Module) -> dict[nn.Module, tuple[nn.Module, list[nn.Module]]]:
    """For a layer of a chain the one in front of it, and the modules between the two.

    Only where a neuron or filter of the one is a feature of the other, or several in a row, and
    stays a constant if it is one.
    """
    chain = list(_chain(model))
    often = Counter(chain)
    found: dict[nn.Module, tuple[nn.Module, list[nn.Module]]] = {}
    weighted = [i for i, module in enumerate(chain) if isinstance(module, nn.Linear | CONV)]
    for a, b in pairwise(weighted):
        first, second, between = chain[a], chain[b], chain[a + 1 : b]
        if often[first] == often[second] == 1 and _passes_on(first, second, between):
            found[second] = first, between
    return found


def _chain(model: nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        for child in model:
            yield from _chain(child)
    else:
        yield model


def _passes_on(first: Any, second: Any, between: list[nn.Module]) -> bool:
    conv, flat = isinstance(first, CONV), False
    for module in between:
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            flat = True
        elif not isinstance(module, _ELEMENTWISE) and (
            flat or not (conv and isinstance(module, _POOLING))
        ):
            return False
    given, taken = first.weight.shape[0], second.weight.shape[1]
    if isinstance(second, nn.Linear):
        return taken % given == 0 if conv and flat else taken == given and not conv
    # at the rim a padded constant is none
    unpadded = second.padding == "valid" or not any(second.padding)
    return conv and not flat and taken == given and unpadded
