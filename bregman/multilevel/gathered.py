"""Layers whose support is made of neurons, filters or channels: smaller dense layers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bregman.models.groups import CONV
from bregman.multilevel.layers import Layer, Sparse, dense
from bregman.multilevel.supports import Grid, missing

# through these a constant feature stays a constant
_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_POOLING = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


class Gathered(Sparse):
    """A smaller dense layer made of the rows and columns of the support, on any device.

    A row outside of the support is no silent neuron: its output is its bias. So the output has all
    features, unless the next layer is gathered too and takes only those of the support. That one
    knows that the others are constants, through the activation as well, and adds what its weights
    make of them to its bias. These weights are trained like the others, or rest.

    Args:
        layer: linear, or a convolution that is not grouped.
        support: of its weight.
        before: the layer in front, to give only its rows of the support; None to get all features.
        between: the modules between the two.
        rests: weights of constants stay as they are.

    Attributes:
        narrow: whether only the rows of the support are given; set by the next layer.
    """

    support: Grid
    dead: Tensor

    def __init__(
        self,
        layer: Layer,
        support: Grid,
        before: "Gathered | None" = None,
        between: Sequence[nn.Module] = (),
        *,
        rests: bool = False,
    ) -> None:
        super().__init__(layer, support)
        self.n_out, self.n_in = layer.weight.shape[:2]
        self.dead = missing(support.rows, self.n_out)
        self.before, self.between, self.narrow = before, between, False
        self.resting: Tensor | None = None
        if before is not None:
            before.narrow = True
            live, dead = columns_of(before.dead, before.n_out, self.n_in)
            if rests:
                self.resting = Grid(support.rows, dead).restrict(layer.weight.detach())
            # the columns of the constants go last
            self.trained = Grid(support.rows, live if rests else torch.cat([live, dead]))

    def __call__(self, x: Tensor) -> Tensor:
        widen = len(self.dead) and not self.narrow
        weight, bias = self.layer.weight, None if widen else self._bias()
        if self.before is None:
            y = self._product(x, weight, bias)
        else:
            constants, dead = self._constants(self.before), self.resting
            linear = isinstance(self.layer, nn.Linear)
            if dead is None and linear and not torch.is_autocast_enabled(x.device.type):
                y = _WithConstants.apply(x, weight, bias, constants)
            else:
                if dead is None:
                    weight, dead = weight.split((x.shape[1 - weight.dim()], len(constants)), 1)
                per_input = dead.flatten(2).sum(2) if dead.dim() > 2 else dead
                y = dense(self.layer, x, weight, F.linear(constants, per_input, bias))
        return self._widen(y) if widen else y

    def forward(self, x: Tensor, part: Tensor) -> Tensor:
        return self._widen(self._product(x, part, None))

    def _product(self, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        if self.support.columns is not None:
            x = x.index_select(1 - part.dim(), self.support.columns)
        return dense(self.layer, x, part, bias)

    def _bias(self) -> Tensor | None:
        bias = self.layer.bias
        if bias is None or not len(self.dead):
            return bias
        return bias.index_select(0, self.support.rows)

    def _widen(self, y: Tensor) -> Tensor:
        """All features, of those that are given without their biases."""
        dim = 1 - self.layer.weight.dim()
        if len(self.dead):
            shape = list(y.shape)
            shape[dim] = self.n_out
            y = y.new_zeros(shape).index_copy(dim, self.support.rows, y)
        bias = self.layer.bias
        return y if bias is None else y + bias.to(y.dtype).view(-1, *(1 for _ in range(-1 - dim)))

    def _constants(self, before: "Gathered") -> Tensor:
        """What the features are that do not come."""
        bias = before.layer.bias
        values = before.layer.weight.new_zeros(before.n_out) if bias is None else bias
        values = values.index_select(0, before.dead)
        for module in self.between:
            if isinstance(module, _ELEMENTWISE):
                values = module.forward(values)
        each = self.n_in // before.n_out
        return values if each == 1 else values.unsqueeze(1).expand(-1, each).flatten()


class _WithConstants(torch.autograd.Function):
    """[x, c] W^T + b, where the features c are the same for the whole batch.

    Spares what autograd would do beside: to copy two parts of a gradient into one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, c: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, c)
        k = x.shape[-1]
        return F.linear(x, weight[:, :k], F.linear(c, weight[:, k:], bias))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, c = ctx.saved_tensors
        k = x.shape[-1]
        grad_x = grad @ weight[:, :k] if ctx.needs_input_grad[0] else None
        rows = grad.reshape(-1, grad.shape[-1])
        grad_bias = rows.sum(0)
        grad_weight = torch.empty_like(weight)
        torch.mm(rows.t(), x.reshape(-1, k), out=grad_weight[:, :k])
        torch.outer(grad_bias, c, out=grad_weight[:, k:])
        grad_c = grad_bias @ weight[:, k:] if ctx.needs_input_grad[3] else None
        return grad_x, grad_weight, grad_bias if ctx.needs_input_grad[2] else None, grad_c


def columns_of(dead: Tensor, n_out: int, n_in: int) -> tuple[Tensor, Tensor]:
    """Which columns of a layer meet neurons or filters that live, and which meet constants.

    Args:
        dead: the rows of the layer in front that are zero.
        n_out: the number of its rows.
        n_in: the number of columns, one per row in front or several in a row.
    """
    each = torch.arange(n_in // n_out, device=dead.device)
    met = (dead.unsqueeze(1) * len(each) + each).flatten()
    return missing(met, n_in), met


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
