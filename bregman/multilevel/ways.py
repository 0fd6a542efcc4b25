"""Products with the support of a weight alone: forward pass and both gradients.

Masked     any layer and any support: the entries are put back in their places
Csr        single entries of a linear layer, on a CPU: sparse times dense products
Gathered   rows and columns, that is neurons, filters and channels: a smaller dense layer
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bregman.multilevel.supports import Entries, Support

# (x, weight, bias) to the output of a layer of this kind with another weight and bias
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Way:
    """How a layer computes while its support is frozen.

    Args:
        full: its whole weight.
        support: of the weight.
        trained: what moves; None for all of the support.

    Attributes:
        dead: the rows outside of the support, None if it is not made of whole rows.
        steady: whether the next layer counts on what comes of dead rows to stay as it is; set by
            that one. Then their biases rest.
        bias: the restriction of the bias, if some of it rests.
    """

    def __init__(self, full: Tensor, support: Support, trained: Support | None = None) -> None:
        self.whole, self.support = full.detach(), support
        self.trained = support if trained is None else trained
        self.dead: Tensor | None = None
        self.steady = False
        self.bias: Any = None  # what restricts the bias, where it rests too

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        """The output of the layer.

        Args:
            dense: see above.
            x: the input.
            part: of the weight: what moves.
            bias: whole, as the layer has it.
        """
        raise NotImplementedError

    def masked(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        """The same with the entries put back: right for all supports, and no faster."""
        return dense(x, self.trained.spread(part, self.whole), self.whole_bias(bias))

    def whole_bias(self, bias: Tensor | None) -> Tensor | None:
        """The bias, of which what rests gets no gradient."""
        if self.bias is None or bias is not self.bias.full:
            return bias
        return self.bias.support.spread(self.bias.values(), self.bias.whole)


class Masked(Way):
    """The layer itself, with the entries put back."""

    __call__ = Way.masked


class Sparse(Way):
    """A layer whose products leave out what is zero.

    Attributes:
        version: torch's count of the changes of the whole weight, when it was whole again.
    """

    version: int

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        return self.forward(dense, x, part, bias)

    def forward(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        """The output, all features in and out, for the entries of a weight at ``support``."""
        raise NotImplementedError

    def with_full_gradient(
        self, dense: Product, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """The output of a linear layer that has its whole weight, of which all gets a gradient.

        The forward product and the gradient of x still leave out what is zero. In autocast, and if
        someone put numbers outside of the support (but through ``data``), the layer is just dense.
        """
        part = self.support.restrict(weight.detach())
        edited = weight._version != self.version
        outside = edited and part.count_nonzero() != weight.count_nonzero()
        if outside or torch.is_autocast_enabled(x.device.type):
            return dense(x, weight, bias)
        return _AttachWeight.apply(self.forward(dense, x, part, bias), x, weight)


class _AttachWeight(torch.autograd.Function):
    """y as it is, and to the weight the gradient that it has in y = x W^T."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.mark_dirty(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        (x,) = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        return grad, None, rows.t() @ x.reshape(-1, x.shape[-1])


class Csr(Sparse):
    """A linear layer in compressed sparse rows, in float32 or float64 on a CPU.

    Its products are of matrices features x batch, so that a row of W adds up contiguous rows of x.
    Between two such layers activations keep this layout in memory.

    Args:
        full: the weight of a linear layer.
        support: single entries in ascending order.
        before: what the layer in front is, if it is known that only activations are in between.
    """

    support: Entries

    def __init__(self, full: Tensor, support: Entries, before: Way | None = None) -> None:
        super().__init__(full, support)
        self.by_features = False
        if isinstance(before, Csr):
            before.by_features = True
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

    def forward(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
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


class Timed(Way):
    """Of several ways the fastest, by their times on the first batch.

    Args:
        ways: by name; for the same weight and support.
        report: is given the name of the fastest and the seconds of each.
    """

    def __init__(
        self, ways: Mapping[str, Way], report: Callable[[str, dict[str, float]], None]
    ) -> None:
        one = next(iter(ways.values()))
        super().__init__(one.whole, one.support)
        self.ways, self.report = ways, report
        self.fastest: Way | None = None

    def __call__(self, dense: Product, x: Tensor, part: Tensor, bias: Tensor | None) -> Tensor:
        if self.fastest is None:
            seconds = {name: _seconds(way, dense, x, part) for name, way in self.ways.items()}
            fastest = min(seconds, key=lambda name: seconds[name])
            self.report(fastest, seconds)
            self.fastest = self.ways[fastest]
        return self.fastest(dense, x, part, bias)


def _seconds(way: Way, dense: Product, x: Tensor, part: Tensor) -> float:
    """The time of a forward and a backward pass, the least of three."""
    times = []
    part = part.detach().requires_grad_()
    x = x.detach().clone().requires_grad_(x.requires_grad)
    wanted = [t for t in (x, part) if t.requires_grad]
    # hooks of an activation checkpoint around it must not see this
    with torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is):
        for _ in range(3):
            start = time.perf_counter()
            y = way(dense, x, part, None)
            torch.autograd.grad(y, wanted, torch.ones_like(y))
            times.append(time.perf_counter() - start)
    return min(times)


def _as_it_is(saved: Any) -> Any:
    return saved
