"""How sparse a network is: the measures of section 4.4."""

from typing import Any

import torch
from torch import Tensor, nn

from bregman.checks import check
from bregman.layers import weights, whole


@torch.no_grad()
def sparsity_summary(model: nn.Module) -> dict[str, Any]:
    """Count what is exactly zero in the weights of a model, shared ones once.

    ``bregman.layers.weights`` says what counts as a weight, and as which kind. They are counted as
    their layers compute with them, so behind a pruning's mask or a weight norm; frozen ones too.

    Args:
        model: a module with at least one weight of two or more dimensions.

    Returns:
        A dict with
        ``n_total``: the share of non-zero weights, in [0, 1];
        ``n_linear``: the same over the linear layers, None without one;
        ``n_conv``: the share of kernels K_ij that are not all zero, None without a conv layer;
        ``l1_norm``: the sum of the weights' absolute values;
        ``active_neurons``: a list as in Figure 4: the inputs with a non-zero outgoing weight, then
        the non-zero rows (neurons, or filters) of each linear or conv weight in the order of
        definition.

    Raises:
        ValueError: the model has no such weight, or as in ``weights``.
    """
    found = [(weight, whole(weight.value)) for weight in weights(model)]
    check(bool(found), "model", "one with a linear or convolution layer", type(model).__name__)
    layers = [(weight, value) for weight, value in found if weight.kind != "embedding"]
    neurons = [w.inputs(v) for w, v in layers[:1]] + [w.rows(v) for w, v in layers]
    return {
        "n_total": _share_nonzero([value for _, value in found]),
        "n_linear": _share_nonzero([value for w, value in found if w.kind == "linear"]),
        "n_conv": _share_nonzero([v.flatten(2).any(2) for w, v in found if w.kind == "conv"]),
        "l1_norm": float(sum(value.abs().sum(dtype=torch.float64) for _, value in found)),
        "active_neurons": [int(rows.flatten(1).any(1).count_nonzero()) for rows in neurons],
    }


def _share_nonzero(tensors: list[Tensor]) -> float | None:
    if not tensors:
        return None
    nonzero = sum(int(t.count_nonzero()) for t in tensors)
    return nonzero / max(sum(t.numel() for t in tensors), 1)
