"""FLOPs of the products with a model's weights, and what share of the weights is not zero."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bregman.checks import check
from bregman.layers import Weight, modes_kept, weights, whole

# products that the registry does not have, by the last dimensions of a factor that they sum over
_SUMS = {"mv": 1, "addmv": 1, "dot": 1, "_grouped_mm": 1, "_trilinear": 2}


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
    check(len(inputs) > 0, "inputs", "of at least one sample", tuple(inputs.shape))
    # the fused kernels of attention hide their products
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # in a cache: what a parametrization computes is no product with samples
        with modes_kept(model), torch.no_grad(), parametrize.cached():
            counted = _Products(weights(model.eval()))
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
        self.flops = {weight.name: 0.0 for weight in weights}
        # by storage: a weight, and the part of the storage that is its parameter, or was computed
        # from that alone: the weight, or a part of it, cast, masked or normalized; several joined
        self.places: dict[int, list[tuple[tuple[Weight, ...], Tensor]]] = defaultdict(list)
        for weight in weights:
            for x in (weight.parameter, getattr(weight.layer, weight.attribute)):
                self.places[_storage(x)].append(((weight,), x))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = func._overloadpacket
        if kind not in flop_registry:
            with self:  # in inference mode what is composed of other operations comes whole
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        numbers = [x for x in tensors if x.dim() and x.is_floating_point()]
        found = self._taking_part(tensors)
        every = tuple(dict.fromkeys(weight for joined in found for weight in joined))
        if "rnn" in str(kind):
            # all time steps and weights at once; the first tensor is the input
            for weight in every:
                self.flops[weight.name] += 2 * tensors[0].shape[:-1].numel() * _size([weight])
        elif found and (kind in flop_registry or kind.__name__ in _SUMS):
            if kind in flop_registry:
                total = flop_registry[kind](*args, **kwargs, out_val=out)
            else:
                total = 2 * out.numel() * numbers[-2].shape[-_SUMS[kind.__name__] :].numel()
            for weight in found[0]:
                self.flops[weight.name] += total * _size([weight]) / _size(found[0])
        elif found:
            # what is computed from one weight alone is of it, whole or in part, cast or copied; but
            # nothing that is looked up in a table, and nothing that has a gain
            table = every[0].kind == "embedding"
            given = tensors if table else numbers
            alone = len(found) == 1 and all(self._taking_part([x]) for x in given)
            for x in (leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)):
                made_of = found[0] if alone or x.numel() == _size(found[0]) else every
                if alone or (not table and x.numel() == _size(made_of)):
                    self.places[_storage(x)].append((made_of, x))
        return out

    def _taking_part(self, tensors: Sequence[Tensor]) -> list[tuple[Weight, ...]]:
        """Weights among tensors: first those that are parameters, then what was computed.

        Of these the last comes first: where activations were scaled by a weight, they stand in
        front of the one that they are multiplied with.
        """
        found: dict[tuple[Weight, ...], bool] = {}
        for x in reversed(tensors):
            for made_of, place in self.places.get(_storage(x), ()):
                # several may lie in one storage
                inside = x.storage_offset() - place.storage_offset()
                if 0 <= inside < place.numel():
                    found[made_of] = place is made_of[0].parameter
        return sorted(found, key=lambda made_of: not found[made_of])


def _size(weights: Sequence[Weight]) -> int:
    return sum(weight.parameter.numel() for weight in weights)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


@torch.no_grad()
def layer_densities(model: nn.Module) -> dict[str, float]:
    """The share of non-zero entries of each weight, in [0, 1], by names as in ``forward_flops``."""
    return {
        weight.name: int(whole(weight.value).count_nonzero()) / max(weight.parameter.numel(), 1)
        for weight in weights(model)
    }
