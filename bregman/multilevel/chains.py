"""Layers that follow one another, and what becomes of a neuron that is dead."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bregman.chains import ELEMENTWISE, LAYERS, altered, chain, feeds
from bregman.layers import CONV
from bregman.multilevel.supports import missing

Layer = nn.Linear | CONV


@dataclass(frozen=True)
class Constants:
    """What a layer gets from the dead rows of the one in front: the same for all samples.

    Attributes:
        live: the columns of the layer that meet other features, in ascending order.
        met: those that meet constants.
        source: the biases of the layer in front; zeros if it has none.
        dead: its rows that are zero.
        between: the modules between the two.
    """

    live: Tensor
    met: Tensor
    source: Tensor
    dead: Tensor
    between: Sequence[nn.Module]

    @classmethod
    def behind(
        cls, before: Layer, dead: Tensor, between: Sequence[nn.Module], n_in: int
    ) -> "Constants":
        """Those of a layer with ``n_in`` input features or channels."""
        bias = before.weight.new_zeros(len(before.weight)) if before.bias is None else before.bias
        # one column per row in front, or several in a row
        each = torch.arange(n_in // len(before.weight), device=dead.device)
        met = (dead.unsqueeze(1) * len(each) + each).flatten()
        return cls(missing(met, n_in), met, bias.detach(), dead, between)

    def values(self) -> Tensor:
        """The constants, one per column in ``met``."""
        values = self.source.index_select(0, self.dead)
        for module in self.between:
            if type(module) in ELEMENTWISE:
                values = module.forward(values)
        return values.repeat_interleave(len(self.met) // len(self.dead))


def links(model: nn.Module) -> dict[Layer, tuple[Layer, list[nn.Module]]]:
    """For a layer of a chain the one in front of it, and the modules between the two.

    Only where a neuron or filter of the one is a feature of the other, or several in a row, and
    stays a constant if it is one.
    """
    modules = list(chain(model))
    often = Counter(modules)
    found: dict[Layer, tuple[Layer, list[nn.Module]]] = {}
    weighted = [i for i, module in enumerate(modules) if type(module) in LAYERS]
    for a, b in pairwise(weighted):
        first: Any = modules[a]
        second: Any = modules[b]
        between = modules[a + 1 : b]
        if often[first] == often[second] == 1 and _passes_on(first, second, between):
            found[second] = first, between
    return found


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks see what goes in and out of a module, or change it."""
    if nn.modules.module._has_any_global_hook():
        return True
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in modules for kind in kinds)


def _passes_on(first: Any, second: Any, between: list[nn.Module]) -> bool:
    # at the rim a padded constant is none
    padding = getattr(second, "padding", "valid")
    unpadded = padding == "valid" or not any(padding)
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in (first, second))
    altered_between = any(map(altered, between))
    return unpadded and not hooked and not altered_between and feeds(first, between, second)
