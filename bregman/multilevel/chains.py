"""Layers that follow one another, and what becomes of a neuron that is dead."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bregman.chains import ELEMENTWISE, LAYERS, altered, chain, feeds
from bregman.multilevel.layers import Layer
from bregman.multilevel.supports import missing


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
        if type(module) in ELEMENTWISE:
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
    modules = list(chain(model))
    often = Counter(modules)
    found: dict[nn.Module, tuple[nn.Module, list[nn.Module]]] = {}
    weighted = [i for i, module in enumerate(modules) if type(module) in LAYERS]
    for a, b in pairwise(weighted):
        first, second, between = modules[a], modules[b], modules[a + 1 : b]
        if often[first] == often[second] == 1 and _passes_on(first, second, between):
            found[second] = first, between
    return found


def _passes_on(first: Any, second: Any, between: list[nn.Module]) -> bool:
    # at the rim a padded constant is none
    padding = getattr(second, "padding", "valid")
    unpadded = padding == "valid" or not any(padding)
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in (first, second))
    altered_between = any(map(altered, between))
    return unpadded and not hooked and not altered_between and feeds(first, between, second)
