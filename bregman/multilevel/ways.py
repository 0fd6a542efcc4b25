"""How layers compute in frozen steps: products with the support of a weight alone.

Masked     any layer and any support: the entries are put back in their places
Csr        single entries of a linear layer, on a CPU: sparse times dense products
Gathered   rows and columns, that is neurons, filters and channels: a smaller dense layer
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bregman.chains import ELEMENTWISE, Call, links
from bregman.multilevel.restriction import RestrictedParameter, whole
from bregman.multilevel.supports import Entries, Grid, RestingGrid, Support, missing
from bregman.multilevel.trained import Layer, layers

PATHS = ("auto", "masked", "csr", "gathered")
# "auto" takes sparse products for weights of that many entries, up to that density: there they are
# faster in benchmarks/paths_1.csv, whatever the batch
CSR_ENTRIES, CSR_DENSITY = 500_000, 0.2

# (x, weight, bias) to the output of a layer of this kind with another weight and bias
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Masked:
    """How a layer computes while its support is frozen; this way is right for all and no faster.

    Args:
        full: its whole weight.
        trained: what moves of it.
    """

    def __init__(self, full: Tensor, trained: Support) -> None:
        self.full, self.trained = full.detach(), trained

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        """The output of the layer, here with the entries put back into a weight of full size.

        Args:
            dense: see above.
            x: the input.
            part: of the weight: what moves.
            bias: as the layer has it.
        """
        return dense(x, self.trained.spread(part, self.full), whole(bias))


class Csr(Masked):
    """A linear layer in compressed sparse rows, in float32 or float64 on a CPU.

    Its products are of matrices features x batch, so that a row of W adds up contiguous rows of x.

    Args:
        full: the weight of a linear layer.
        support: single entries in ascending order.

    Attributes:
        by_features: whether the output keeps this layout in memory, for another such layer.
    """

    def __init__(self, full: Tensor, support: Entries) -> None:
        super().__init__(full, support)
        self.by_features = False
        n_out, n_in = full.shape
        index = support.index.int()
        rows = index // n_in
        columns = index - rows * n_in
        self.order = torch.argsort(columns, stable=True)
        self.by_rows = columns, _starts(rows, n_out)
        self.by_columns = rows.index_select(0, self.order), _starts(columns, n_in)
        zeros = torch.zeros(len(columns), dtype=full.dtype)
        with warnings.catch_warnings():  # torch's CSR tensors call themselves beta
            warnings.simplefilter("ignore")
            self.zeros = torch.sparse_csr_tensor(
                self.by_rows[1], columns, zeros, (n_out, n_in), check_invariants=False
            )

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        y = _CsrProduct.apply(x.reshape(-1, x.shape[-1]).t(), part, self)
        if bias is not None:
            y = y.add_(bias.unsqueeze(1))
        # dense layers are slow to take what is transposed
        y = y.t() if self.by_features else y.t().contiguous()
        return y.view(*x.shape[:-1], -1)


class _CsrProduct(torch.autograd.Function):
    """W x with W in CSR, and the gradient of W on its pattern.

    ``embedding_bag`` is this product, one bag per row of W, and on a CPU it is two to four times as
    fast as torch's product of CSR tensors.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, values: Tensor, csr: Csr) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, values)
        ctx.csr = csr
        return _bags(csr.by_rows, values, x)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        csr, (x, values), grad = ctx.csr, ctx.saved_tensors, grad.contiguous()
        if torch.is_grad_enabled():  # to be differentiated again
            weight = csr.trained.spread(values, torch.zeros_like(csr.full))
            return weight.t() @ grad, csr.trained.restrict(grad @ x.t()), None
        grad_x = grad_values = None
        if ctx.needs_input_grad[0]:
            grad_x = _bags(csr.by_columns, values.index_select(0, csr.order), grad)
        if ctx.needs_input_grad[1]:
            grad_values = torch.sparse.sampled_addmm(csr.zeros, grad, x.t(), beta=0).values()
        return grad_x, grad_values, None


def _bags(pattern: tuple[Tensor, Tensor], values: Tensor, x: Tensor) -> Tensor:
    indices, starts = pattern
    return F.embedding_bag(
        indices, x, starts, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def _starts(index: Tensor, size: int) -> Tensor:
    """Where each number in range(size) would start if ``index`` were sorted, and its length."""
    starts = torch.zeros(size + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(index, minlength=size).cumsum(0)
    return starts


class Gathered(Masked):
    """A smaller dense layer made of the rows and columns of the support, on any device.

    A row outside of the support is no silent neuron: its output is its bias. So the output has all
    features, unless the next layer is gathered too and takes those of the support alone. That one
    knows the others, which are constants, and adds what its weights make of them to its bias. Only
    while the model is called, and where no hook of a module looks on: else both are masked.

    Args:
        layer: a linear layer, or a convolution that is not grouped.
        trained: what moves of its weight.

    Attributes:
        dead: the rows that are zero.
    """

    trained: Grid

    def __init__(self, layer: Layer, trained: Grid) -> None:
        super().__init__(layer.weight, trained)
        self.layer = layer
        self.dead = missing(trained.rows, len(layer.weight))
        self._front: Gathered | None = None
        self._met: Tensor | None = None
        # of the model, and the modules from here on to a layer that takes living features alone
        self.call: Call | None = None
        self._modules: Sequence[nn.Module] = ()
        self._narrow = False

    def follow(self, front: "Gathered", between: Sequence[nn.Module], call: Call) -> None:
        """Take the living features of the layer in front alone, if others are constants that rest.

        Args:
            front: the way of that layer.
            between: the modules from there to here.
            call: of the model.
        """
        if self.trained.rest is not None:
            self._front = front
            front.call, front._modules = call, (front.layer, *between, self.layer)

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        live = None if self.trained.rest is None else self.trained.columns
        wide = live is not None and x.shape[1 - part.dim()] != len(live)
        if wide or (part.dim() > 2 and not part.numel()):
            return super().__call__(dense, x, part, bias)
        narrow = bias is self.layer.bias and self._is_narrow()
        small = None if len(self.dead) else bias
        if narrow and isinstance(bias, RestrictedParameter):
            small = bias.restriction.values()
        if live is not None:
            met = self._of_constants(part)
            small = met if small is None else small + met
            part = part[:, : len(live)]
        elif self.trained.columns is not None:
            x = x.index_select(1 - part.dim(), self.trained.columns)
        y = dense(x, part, small)
        return y if narrow or not len(self.dead) else self._widen(y, bias)

    def _widen(self, y: Tensor, bias: Tensor | None) -> Tensor:
        """All features, of those that are given without their biases."""
        dim = 1 - self.full.dim()
        if len(self.dead):
            shape = list(y.shape)
            shape[dim] = len(self.full)
            y = y.new_zeros(shape).index_copy(dim, self.trained.rows, y)
        bias = whole(bias)
        return y if bias is None else y + bias.to(y.dtype).view(-1, *(1 for _ in range(-1 - dim)))

    def _is_narrow(self) -> bool:
        """Whether the output has the features of the support alone."""
        if self.call is None:
            return False
        # what an activation checkpoint computes again, in a backward pass, is as it was
        if torch._C._current_graph_task_id() < 0:
            self._narrow = self.call.inside and not _watched(self._modules)
        return self._narrow

    def _of_constants(self, part: Tensor) -> Tensor:
        """What the weights that rest make of the constants from the front, one number per row."""
        grid, front = self.trained, self._front
        if self._met is None:
            assert front is not None
            # what comes from each dead row of the front, the same for all samples
            values = front.full.new_zeros(len(front.full))
            values = (values if front.layer.bias is None else front.layer.bias.detach())[front.dead]
            for module in front._modules:
                if type(module) in ELEMENTWISE:
                    values = module.forward(values)
            resting = grid.resting.restrict(self.full)
            rest = grid.direction if isinstance(grid, RestingGrid) else resting
            values = values.repeat_interleave(rest.shape[1] // len(values)).to(rest.dtype)
            self._met = (rest.unsqueeze(-1).flatten(2).sum(2) @ values).to(self.full.dtype)
        if isinstance(grid, RestingGrid):
            return self._met * grid.norms(part.detach()).flatten()
        return self._met


def _watched(modules: Sequence[nn.Module]) -> bool:
    """Whether hooks see what goes in and out of a module, or change it."""
    if nn.modules.module._has_any_global_hook():
        return True
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in modules for kind in kinds)


def choose(
    model: nn.Module, supports: dict[Tensor, Support], path: str, call: Call, paths: dict[str, str]
) -> dict[Tensor, Masked]:
    """The ways of all layers whose weights have a support, by weight.

    Args:
        model: the model.
        supports: of its parameters.
        path: as of ``Multilevel``.
        call: of the model.
        paths: is told, by the names of layers, which way each has and why.
    """
    ways: dict[Tensor, Masked] = {}
    for name, layer in layers(model):
        if layer.weight in supports:
            ways[layer.weight], paths[name] = way_of(layer, supports[layer.weight], path)
    for layer, (front, between) in links(model).items():
        first, second = ways.get(front.weight), ways.get(layer.weight)
        if isinstance(first, Csr) and isinstance(second, Csr):
            first.by_features = True
        elif isinstance(first, Gathered) and isinstance(second, Gathered):
            second.follow(first, between, call)
    return ways


def way_of(layer: Layer, support: Support, path: str) -> tuple[Masked, str]:
    """The way of a layer, and why it is this one."""
    weight = layer.weight
    if path == "masked":
        return Masked(weight, support), "masked"
    if isinstance(support, Grid) and path != "csr":
        return Gathered(layer, support), "gathered"
    why = f"{path} has nothing for {type(layer).__name__} with this regularizer"
    if isinstance(support, Entries) and path != "gathered" and _fits_csr(layer, support):
        density = support.index.numel() / max(weight.numel(), 1)
        if path == "csr" or (weight.numel() >= CSR_ENTRIES and density <= CSR_DENSITY):
            return Csr(weight, support), "csr"
        why = f"csr pays from {CSR_ENTRIES:,} entries on, up to a density of {CSR_DENSITY:g}"
    return Masked(weight, support), f"masked: {why}"


def _fits_csr(layer: Layer, support: Entries) -> bool:
    on_cpu = layer.weight.is_cpu and layer.weight.dtype in (torch.float32, torch.float64)
    return on_cpu and isinstance(layer, nn.Linear) and support.index.dim() == 1
