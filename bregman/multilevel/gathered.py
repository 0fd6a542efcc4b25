"""Layers whose support is made of neurons, filters or channels: smaller dense layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bregman.multilevel.chains import Constants, watched
from bregman.multilevel.supports import Grid, RestingGrid, missing
from bregman.multilevel.ways import Product, Sparse


class Call:
    """Whether the model is being called, by the hooks of it that these methods are.

    Args:
        begin: is called first.
    """

    def __init__(self, begin: Callable[[], object] = bool) -> None:
        self.begin, self.inside = begin, False

    # a compiler traces neither: what they do is not to be replayed
    @torch._disable_dynamo
    def enter(self, *_: object) -> None:
        self.begin()
        self.inside = True

    @torch._disable_dynamo
    def leave(self, *_: object) -> None:
        self.inside = False

    def __reduce__(self) -> tuple[type["Call"], tuple[()]]:
        # a copy of the model is in no cycle
        return Call, ()


class Gathered(Sparse):
    """A smaller dense layer made of the rows and columns of the support, on any device.

    A row outside of the support is no silent neuron: its output is its bias. So the output has all
    features, unless the next layer is gathered too and takes those of the support alone. That one
    knows the others, which are constants, and adds what its weights make of them to its bias. Only
    while the model is called, and where no hook of a module looks on: else both are masked.

    Args:
        full: the weight of a linear layer, or of a convolution that is not grouped.
        support: of it.
        constants: among its inputs, which do not come; None if all come.
        trained: what moves; None for all of the support.

    Attributes:
        call: of the model; set where the next layer takes the features of the support alone.
        modules: from this layer to the next one, likewise.
    """

    support: Grid
    dead: Tensor

    def __init__(
        self,
        full: Tensor,
        support: Grid,
        constants: Constants | None = None,
        trained: Grid | RestingGrid | None = None,
    ) -> None:
        super().__init__(full, support, trained)
        self.dead = missing(support.rows, len(full))
        self.constants = constants
        self.call: Call | None = None
        self.modules: Sequence[nn.Module] = ()
        self._narrow = False
        self._met: Tensor | None = None

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        live = None if self.constants is None else self.constants.live
        wide = live is not None and x.shape[1 - part.dim()] != len(live)
        if wide or (part.dim() > 2 and not part.numel()):
            return self.masked(dense, x, part, bias)
        narrow = bias is (None if self.bias is None else self.bias.full) and self._is_narrow()
        widen = len(self.dead) > 0 and not narrow
        small = None if widen else bias
        if narrow and self.bias is not None:
            small = self.bias.values()
        if live is not None:
            met = self._of_constants()
            if isinstance(self.trained, RestingGrid):
                met = met * self.trained.norms(part.detach())
            small = met if small is None else small + met
            part = part[:, : len(live)]
        y = self._product(dense, x, part, small)
        return self._widen(y, bias) if widen else y

    def forward(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        return self._widen(self._product(dense, x, part, None), bias)

    def _is_narrow(self) -> bool:
        """Whether the output has the features of the support alone."""
        if self.call is None:
            return False
        # what an activation checkpoint computes again, in a backward pass, is as it was
        if torch._C._current_graph_task_id() < 0:
            self._narrow = self.call.inside and not watched(self.modules)
        return self._narrow

    def _of_constants(self) -> Tensor:
        """What the weights that rest make of the constants, where a row rests for its norm."""
        if self._met is None:
            assert self.constants is not None
            if isinstance(self.trained, RestingGrid):
                rest = self.trained.direction
            else:
                rest = Grid(self.support.rows, self.constants.met).restrict(self.whole)
            per_input = rest.flatten(2).sum(2) if rest.dim() > 2 else rest
            met = per_input @ self.constants.values().to(per_input.dtype)
            self._met = met.to(self.whole.dtype)
        return self._met

    def _product(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        if self.support.columns is not None:
            x = x.index_select(1 - part.dim(), self.support.columns)
        return dense(x, part, bias)

    def _widen(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """All features, of those that are given without their biases."""
        dim = 1 - self.whole.dim()
        if len(self.dead):
            shape = list(y.shape)
            shape[dim] = len(self.whole)
            y = y.new_zeros(shape).index_copy(dim, self.support.rows, y)
        bias = self.whole_bias(bias)
        return y if bias is None else y + bias.to(y.dtype).view(-1, *(1 for _ in range(-1 - dim)))
