"""A model's layers with weights, and its parameters sorted into groups by kind of layer."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from bregman.regularizers import Regularizer

CONV = nn.Conv1d | nn.Conv2d | nn.Conv3d


def weight_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear | CONV]]:
    """Yield (name, layer) for every linear and convolution layer, in the order of definition."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | CONV):
            yield name, module


def param_groups(
    model: nn.Module, linear: Regularizer | None = None, conv: Regularizer | None = None
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups: linear weights, conv weights, all the rest.

    The rest (biases, normalization layers, ...) is never regularized (section 1.1).

    Args:
        model: any module; its linear and convolution layers are found by type.
        linear: the regularizer of the linear weights, None for none.
        conv: the regularizer of the convolution weights, None for none.

    Returns:
        Parameter groups for LinBreg, AdaBreg or ProxGD; groups without parameters are left out.
    """
    # dicts as ordered sets: a weight shared by two layers counts once
    linear_weights: dict[Tensor, None] = {}
    conv_weights: dict[Tensor, None] = {}
    for _, layer in weight_layers(model):
        weights = linear_weights if isinstance(layer, nn.Linear) else conv_weights
        weights[layer.weight] = None
    rest = [p for p in model.parameters() if p not in linear_weights and p not in conv_weights]
    groups: list[dict[str, Any]] = [
        {"params": list(linear_weights), "reg": linear},
        {"params": list(conv_weights), "reg": conv},
        {"params": rest, "reg": None},
    ]
    return [group for group in groups if group["params"]]
