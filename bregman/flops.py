"""What training costs in theory: FLOPs when zero weights are left out of every product.

f_D is the cost of a forward pass with dense weights, f_S with sparse ones, where a layer of density
s costs s times its dense cost. Backpropagation is two more products of the same size: the gradient
with respect to the layer's input meets the weights again (f_S), that with respect to the weights
does not (f_D), unless only the gradients of a fixed support are wanted (f_S). Biases, activations,
pooling and the optimizer's own arithmetic are not counted.

    dense SGD, Adam                     3 f_D per step
    LinBreg, AdaBreg, ProxGD            2 f_S + f_D
    a fixed support, such as pruned     3 f_S
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bregman.layers import Weight, modes_kept, weights


def forward_flops(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Count the FLOPs per sample of the products with each weight, all its entries non-zero.

    A product counts as in ``torch.utils.flop_counter``: two FLOPs (multiply, add) per output entry
    and weight that leads into it, in a transposed convolution per input entry and weight that leads
    out of it. Products without a weight, as of attention's queries with its keys, are left out.

    Args:
        model: run once, in eval mode; a weight that it uses twice counts twice.
        inputs: N x ..., a batch as the model takes it, N >= 1.

    Returns:
        The FLOPs by the weights' names, see ``bregman.layers.weights``: that of the layer, followed
        by the weight's own where that is not "weight". 0 for what is looked up or added.

    Raises:
        ValueError: inputs has no sample.
    """
    if len(inputs) == 0:
        raise ValueError(f"inputs must hold at least one sample, got shape {tuple(inputs.shape)}")
    counted = _Products(weights(model))
    # the fused kernels of attention hide their products
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            with counted:
                model(inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {name: flops / len(inputs) for name, flops in counted.flops.items()}


class _Products(TorchDispatchMode):
    """Counts the FLOPs of products by the weight that takes part.

    Args:
        weights: of the model that runs inside.
    """

    def __init__(self, weights: Sequence[Weight]) -> None:
        super().__init__()
        self.flops = {weight.name: 0 for weight in weights}
        # by storage: a weight, and the part of the storage that is its parameter, or was computed
        # from that alone: the weight cast, masked or normalized
        self.places: dict[int, list[tuple[Weight, Tensor]]] = {}
        for weight in weights:
            self._place(weight, weight.parameter)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry:
            with self:  # in inference mode what is composed of other operations comes whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        found = self._taking_part(tensors)
        kind = func._overloadpacket
        if "rnn" in str(kind):
            # all time steps and weights at once; the first tensor is the input
            steps = tensors[0].numel() // tensors[0].shape[-1]
            for weight in found:
                self.flops[weight.name] += 2 * steps * weight.parameter.numel()
        elif found and kind in flop_registry:
            self.flops[found[0].name] += flop_registry[kind](*args, **kwargs, out_val=out)
        elif found and kind is torch.ops.aten._trilinear:
            # a bilinear layer, which the registry does not have
            self.flops[found[0].name] += 2 * out.numel() * found[0].parameter[0].numel()
        elif found and found[0].kind != "embedding":
            made = (x for x in tree_leaves(out) if isinstance(x, Tensor))
            for x in made:
                if x.numel() == found[0].parameter.numel():
                    self._place(found[0], x)
        return out

    def _place(self, weight: Weight, tensor: Tensor) -> None:
        self.places.setdefault(_storage(tensor), []).append((weight, tensor))

    def _taking_part(self, tensors: Sequence[Tensor]) -> list[Weight]:
        """Weights among tensors: first those that are parameters, then what was computed.

        Of these the last comes first: where activations were scaled by a weight, they stand in
        front of the one that they are multiplied with.
        """
        found: dict[Weight, bool] = {}
        for x in reversed(tensors):
            for weight, whole in self.places.get(_storage(x), ()):
                # several may lie in one storage
                inside = x.storage_offset() - whole.storage_offset()
                if 0 <= inside < whole.numel():
                    found[weight] = whole is weight.parameter
        return sorted(found, key=lambda weight: not found[weight])


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


@torch.no_grad()
def layer_densities(model: nn.Module) -> dict[str, float]:
    """The share of non-zero entries of each weight, in [0, 1], by names as in ``forward_flops``."""
    return {
        weight.name: int(weight.value.count_nonzero()) / max(weight.parameter.numel(), 1)
        for weight in weights(model)
    }


def sparse_share(flops: Mapping[str, float], densities: Mapping[str, float]) -> float:
    """f_S / f_D: the layers' densities, weighted by their FLOPs.

    Args:
        flops: per layer, dense, of ``forward_flops``.
        densities: per layer, of ``layer_densities``.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the two don't have the same layers, a density is not in [0, 1], or the FLOPs are
            negative or all zero.
    """
    if flops.keys() != densities.keys():
        raise ValueError(
            f"densities must have the layers {', '.join(flops)}, got {', '.join(densities)}"
        )
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise ValueError(f"densities must be in [0, 1], got {density} for {name!r}")
    total = sum(flops.values())
    if not total > 0 or min(flops.values()) < 0:
        raise ValueError(f"flops must be non-negative and not all zero, got {dict(flops)}")
    return sum(flops[name] * densities[name] for name in flops) / total


def step_share(sparse: float, frozen_steps: float = 0) -> float:
    """The FLOPs of a training step relative to dense SGD: (3 m s + 2 s + 1) / (3 (m + 1)).

    Args:
        sparse: s = f_S / f_D, in [0, 1].
        frozen_steps: m >= 0, how many steps on a frozen support follow each full step: 0 for
            LinBreg, AdaBreg and ProxGD, m for multilevel training (arXiv 2602.03535), infinite
            where the support is fixed.

    Returns:
        The mean over a cycle of m + 1 steps; 1 where s = 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= sparse <= 1:
        raise ValueError(f"sparse must be in [0, 1], got {sparse}")
    if not frozen_steps >= 0:
        raise ValueError(f"frozen_steps must be non-negative, got {frozen_steps}")
    if math.isinf(frozen_steps):
        return sparse
    m = frozen_steps
    return (3 * m * sparse + 2 * sparse + 1) / (3 * (m + 1))


def training_share(shares: Sequence[float], frozen_steps: float = 0) -> float:
    """The FLOPs of a whole training relative to dense SGD.

    Args:
        shares: f_S / f_D before the first epoch and after each, at least two numbers.
        frozen_steps: m of ``step_share``.

    Returns:
        The mean over the epochs; a step costs the mean of what it costs with the weights that its
        epoch began and ended with.

    Raises:
        ValueError: there are less than two shares, or an argument is out of range.
    """
    if len(shares) < 2:
        raise ValueError(f"shares must be at least two numbers, got {list(shares)}")
    costs = [step_share(share, frozen_steps) for share in shares]
    return sum((a + b) / 2 for a, b in pairwise(costs)) / (len(costs) - 1)
