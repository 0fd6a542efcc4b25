"""Layers that follow one another, and what becomes of a neuron that is dead."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from bregman.layers import CONV
from bregman.multilevel.supports import missing

Layer = nn.Linear | CONV

# through these a constant feature stays a constant
_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


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
            if isinstance(module, _ELEMENTWISE):
                values = module.forward(values)
        return values.repeat_interleave(len(self.met) // len(self.dead))


def links(model: nn.Module) -> dict[Layer, tuple[Layer, list[nn.Module]]]:
    """For a layer of a chain the one in front of it, and the modules between the two.

    Only where a neuron or filter of the one is a feature of the other, or several in a row, and
    stays a constant if it is one.
    """
    chain = list(_chain(model))
    often = Counter(chain)
    found: dict[Layer, tuple[Layer, list[nn.Module]]] = {}
    weighted = [i for i, module in enumerate(chain) if isinstance(module, nn.Linear | CONV)]
    for a, b in pairwise(weighted):
        first: Any = chain[a]
        second: Any = chain[b]
        between = chain[a + 1 : b]
        if often[first] == often[second] == 1 and _passes_on(first, second, between):
            found[second] = first, between
    return found


def watched(modules: Iterable[nn.Module]) -> bool:
    """Whether hooks see what goes in and out of a module, or change it."""
    if nn.modules.module._has_any_global_hook():
        return True
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in modules for kind in kinds)


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
