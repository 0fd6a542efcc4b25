"""Trained sparse networks with sparse matrix products on a CPU, and their small files."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bregman.chains import altered
from bregman.checks import check

# fewer weights are multiplied by a dense layer in less time than a sparse product takes to start
_SMALLEST = 2**14


class CsrLinear(nn.Module):
    """y = x W^T + b, with W stored as its non-zero weights row by row (CSR).

    It can't be trained. Indices are 32 bits, as the CPU's kernels take them: a non-zero weight is 8
    bytes in float32. For more than one sample the product runs along the batch, with features in
    rows. The output is a transposed view, so that the next such layer, past activations too, gets
    its input in the order that it needs. In autocast the product keeps the precision of W, and the
    output has autocast's. What is loaded is checked first, since the kernels trust their indices.

    Args:
        shape: of W, (out_features, in_features).
        nonzeros: the number of weights that are stored.
        dtype: of weights and biases, float32 or float64.

    Shape:
        Input: (..., in_features). Output: (..., out_features).
    """

    def __init__(self, shape: tuple[int, int], nonzeros: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._shape = self.out_features, self.in_features = shape
        # plain tensors: those of layout CSR can't be copied or told apart by size when loaded
        self.row_starts = nn.Buffer(torch.zeros(shape[0] + 1, dtype=torch.int32))
        self.columns = nn.Buffer(torch.zeros(nonzeros, dtype=torch.int32))
        self.values = nn.Buffer(torch.zeros(nonzeros, dtype=dtype))
        self.bias = nn.Buffer(torch.zeros(shape[0], dtype=dtype))
        with warnings.catch_warnings():  # torch's CSR tensors call themselves beta, once
            warnings.simplefilter("ignore")
            self._weight()

    @classmethod
    def like(cls, layer: nn.Linear) -> "CsrLinear":
        """The same function as a linear layer; where that has no bias, the biases are zero."""
        weight, shape = layer.weight.detach(), (layer.out_features, layer.in_features)
        made = cls(shape, int(weight.count_nonzero()), weight.dtype)
        sparse = weight.to_sparse_csr()
        made.row_starts.copy_(sparse.crow_indices())
        made.columns.copy_(sparse.col_indices())
        made.values.copy_(sparse.values())
        if layer.bias is not None:
            made.bias.copy_(layer.bias.detach())
        return made.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """W as a dense matrix, made anew: for what reads the weight of a layer to use it itself."""
        return self._weight().to_dense()

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise RuntimeError(
                "CsrLinear can't be exported, a graph has no sparse products: export the network "
                "that to_csr was given, or what compact makes of it"
            )
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self(x.to(self.values.dtype)).to(torch.get_autocast_dtype(kind))
        weight = self._weight()
        if x.numel() == self.in_features:
            y = torch.addmv(self.bias, weight, x.reshape(-1))
        else:
            by_features = x.reshape(-1, self.in_features).t().contiguous()
            y = torch.addmm(self.bias[:, None], weight, by_features).t()
        return y.reshape(*x.shape[:-1], self.out_features)

    def _weight(self) -> Tensor:
        parts = self.row_starts, self.columns, self.values
        return torch.sparse_csr_tensor(*parts, self._shape, check_invariants=False)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        names = ("row_starts", "columns", "values")
        starts, columns, values = (state.get(prefix + n, getattr(self, n)) for n in names)
        try:
            # torch's check reads the columns that the starts point to
            if not torch.equal(starts, starts.clamp(0, len(columns))):
                raise RuntimeError(f"row_starts must be in 0 to {len(columns)}")
            torch.sparse_csr_tensor(starts, columns, values, self._shape, check_invariants=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{', '.join(prefix + n for n in names)} must be a matrix in CSR of shape "
                f"{self._shape}, the state is damaged or another layer's: {error}"
            ) from error
        super()._load_from_state_dict(state, prefix, *args)

    def extra_repr(self) -> str:
        density = len(self.values) / (self.in_features * self.out_features)
        return f"{self.in_features}, {self.out_features}, density={density:.4f}"


class DenseLinear(nn.Linear):
    """A linear layer that is as quick for features in rows, the output of a CsrLinear."""

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None and x.dim() == 2 and len(x) > 1 and x.stride(0) == 1:
            return torch.addmm(self.bias[:, None], self.weight, x.t()).t()
        return super().forward(x)


def to_csr(model: nn.Module, max_density: float = 0.1) -> nn.Module:
    """Copy a model, with sparse products in its sparse linear layers; outputs stay the same.

    A linear layer is replaced where that pays: its density is at most ``max_density``, and it has
    16,384 weights or more. All other layers, convolutions among them, stay as they are. Where whole
    neurons are gone ``compact`` gains more, and does so on any device: use it first, and this on
    what it returns if that is still sparse. In a chain of such layers features are in rows from the
    first to the last: ``DenseLinear`` takes the place of the linear layers that stay dense, but of
    those with forward hooks, which stay as they are.

    ``nn.TransformerEncoder`` leaves torch's fast path, which knows dense weights only: where a
    padding mask is given, the fast path has zeros in padded places, and this has other numbers.

    Args:
        model: on the CPU.
        max_density: the largest share of non-zero weights in (0, 1] at which a layer is replaced.
            On one core of an x86 server, 2048 x 2048 weights took the time of a dense product at a
            density of about 0.2 for 128 samples at once and 0.6 for one, 200 x 784 weights at 0.2
            and 0.05.

    Returns:
        A copy that shares nothing with the model, for inference only.

    Raises:
        ValueError: max_density is out of range, no layer is sparse and large enough, or one that
            is has another device than the CPU, another dtype than float32 and float64, forward
            hooks (those of ``torch.nn.utils.prune`` included) or a ``forward`` put in its place.
    """
    check(0 < max_density <= 1, "max_density", "in (0, 1]", max_density)
    model.state_dict()  # a cycle of Multilevel ends
    sparse = {}
    for name, layer in _linear_layers(model):
        weight, n = layer.weight, layer.weight.numel()
        if n < _SMALLEST or int(weight.count_nonzero()) > max_density * n:
            continue
        if found := altered(layer):
            raise ValueError(f"layer {name!r} has {found}; remove it, or do this before")
        here = weight.is_cpu and weight.dtype in (torch.float32, torch.float64)
        got = f"{weight.dtype} on {weight.device}"
        check(here, f"layer {name!r}", "on the CPU, in float32 or float64", got)
        sparse[name] = CsrLinear.like(layer)
    if not sparse:
        raise ValueError(
            f"no linear layer of {type(model).__name__} has {_SMALLEST} weights or more and a "
            f"density of at most {max_density}"
        )
    return _replaced(model, sparse)


def load_csr(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Copy a model with the state of one that ``to_csr`` made.

    Args:
        model: of the same architecture and precision, all its layers dense; its weights don't
            matter.
        state: ``to_csr(...).state_dict()``, such as ``torch.load`` returns it.

    Returns:
        What ``to_csr`` returned.

    Raises:
        RuntimeError: the state belongs to another architecture.
        ValueError: of a sparse layer the tensors are no matrix in CSR of its shape.
    """
    made = {}
    for name, layer in _linear_layers(model):
        if (values := state.get(f"{name}.values".removeprefix("."))) is not None:
            shape, n = (layer.out_features, layer.in_features), torch.as_tensor(values).numel()
            made[name] = CsrLinear(shape, n, layer.weight.dtype).train(layer.training)
    loaded = _replaced(model, made)
    loaded.load_state_dict(state)
    return loaded


def _linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    # a subclass may use its weight in a way of its own
    modules = model.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in modules if type(module) is nn.Linear]


def _replaced(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    if "" in layers:
        return layers[""]
    copied = copy.deepcopy(model)
    for name, layer in layers.items():
        copied.set_submodule(name, layer)
    for _, layer in _linear_layers(copied):
        if altered(layer) is None:
            layer.__class__ = DenseLinear  # with the parameters that it has
    for module in copied.modules():
        # torch's fast paths read dense weights
        if any(isinstance(inner, CsrLinear) for inner in module.modules()):
            if isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0
            if isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
    return copied
