"""How sparse a network is: the measures of section 4.4."""

from typing import Any

import torch
from torch import nn

from bregman.layers import weight_layers


@torch.no_grad()
def sparsity_summary(model: nn.Module) -> dict[str, Any]:
    """Count what is exactly zero in the weights of the linear and convolution layers.

    Args:
        model: a module with at least one linear or convolution layer.

    Returns:
        A dict with
        ``n_total``: the share of non-zero weights, in [0, 1];
        ``n_linear``: the same over the linear layers, None without one;
        ``n_conv``: the share of kernels K_ij that are not all zero, None without a conv layer;
        ``l1_norm``: the sum of the weights' absolute values;
        ``active_neurons``: a list as in Figure 4: the inputs with a non-zero outgoing weight, then
        the non-zero rows (neurons, or filters) of each layer in the order of definition.

    Raises:
        ValueError: the model has no linear or convolution layer.
    """
    weights = [layer.weight for _, layer in weight_layers(model)]
    if not weights:
        raise ValueError(f"{type(model).__name__} has no linear or convolution layer")
    linear = [w for w in weights if w.dim() == 2]
    kernels = [w.flatten(2).abs().amax(2) for w in weights if w.dim() > 2]
    inputs = weights[0].transpose(0, 1)
    neurons = [w.flatten(1).abs().amax(1) for w in (inputs, *weights)]
    return {
        "n_total": _share_nonzero(weights),
        "n_linear": _share_nonzero(linear),
        "n_conv": _share_nonzero(kernels),
        "l1_norm": float(sum(w.abs().sum(dtype=torch.float64) for w in weights)),
        "active_neurons": [int(n.count_nonzero()) for n in neurons],
    }


def _share_nonzero(tensors: list[torch.Tensor]) -> float | None:
    if not tensors:
        return None
    nonzero = sum(int(t.count_nonzero()) for t in tensors)
    return nonzero / sum(t.numel() for t in tensors)
