"""Layers whose support is made of neurons, filters or channels: smaller dense layers."""

from torch import Tensor

from bregman.multilevel.chains import Constants
from bregman.multilevel.layers import Layer, Sparse, dense
from bregman.multilevel.supports import Grid, RestingGrid, missing


class Gathered(Sparse):
    """A smaller dense layer made of the rows and columns of the support, on any device.

    A row outside of the support is no silent neuron: its output is its bias. So the output has all
    features, unless the next layer is gathered too and takes those of the support alone. That one
    knows the others, which are constants, and adds what its weights make of them to its bias.

    Args:
        layer: linear, or a convolution that is not grouped.
        support: of its weight.
        constants: among its inputs, which do not come; None if all come.
        trained: what moves of its weight; None for all of the support.
    """

    support: Grid
    dead: Tensor

    def __init__(
        self,
        layer: Layer,
        support: Grid,
        constants: Constants | None = None,
        trained: Grid | RestingGrid | None = None,
    ) -> None:
        super().__init__(layer, support, trained)
        self.n_out = len(layer.weight)
        self.dead = missing(support.rows, self.n_out)
        self.constants = constants
        if constants is not None:
            rest = Grid(support.rows, constants.met).restrict(layer.weight.detach())
            per_input = rest.flatten(2).sum(2) if rest.dim() > 2 else rest
            # what the weights make of the constants; these weights rest, or their row is scaled
            self.met = per_input @ constants.values
            if isinstance(self.trained, RestingGrid):
                part = self.trained.restrict(layer.weight.detach())
                self.trained.measure(layer.weight.detach(), part)
                self.met /= self.trained.norms(part)

    def __call__(self, x: Tensor) -> Tensor:
        widen = len(self.dead) and not self.steady
        weight, bias = self.layer.weight, None if widen else self.layer.bias
        if self.constants is not None:
            met = self.met
            if isinstance(self.trained, RestingGrid):
                met = met * self.trained.norms(weight.detach())
            bias = met if bias is None else bias + met
            weight = weight[:, : len(self.constants.live)]
        y = self._product(x, weight, bias)
        return self._widen(y) if widen else y

    def forward(self, x: Tensor, part: Tensor) -> Tensor:
        return self._widen(self._product(x, part, None))

    def _product(self, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        if self.support.columns is not None:
            x = x.index_select(1 - part.dim(), self.support.columns)
        return dense(self.layer, x, part, bias)

    def _widen(self, y: Tensor) -> Tensor:
        """All features, of those that are given without their biases."""
        dim = 1 - self.layer.weight.dim()
        if len(self.dead):
            shape = list(y.shape)
            shape[dim] = self.n_out
            y = y.new_zeros(shape).index_copy(dim, self.support.rows, y)
        bias = self.layer.bias
        return y if bias is None else y + bias.to(y.dtype).view(-1, *(1 for _ in range(-1 - dim)))
