"""Sparse initialization, section 4.1: few weights, the variance of a dense network."""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor, nn

from bregman.layers import weight_layers


@torch.no_grad()
def sparse_init_(
    module: nn.Module,
    density: float,
    *,
    gain: float = 1.0,
    bias: Literal["positive", "symmetric", "zero"] = "positive",
    group: Literal["entry", "kernel", "row"] = "entry",
    nonlinearity: Literal["relu", "tanh"] = "relu",
    generator: torch.Generator | None = None,
) -> None:
    """Draw W = W~ * M with a Bernoulli(r) mask M and Var W~ = alpha / r, eqs. (4.3) and (4.5).

    So Var W = alpha, the variance of a dense network: 2 / n_in for ReLU (He), 2 / (n_in + n_out)
    for odd activations (Glorot). Biases are dense; they start in [0, b], b = 1 / sqrt(n_in), so
    that the ReLU neurons without weights are not dead and not all alike.

    Args:
        module: a linear or convolution layer, or a module that contains some; changed in place.
        density: r in (0, 1], the expected share of groups that are not zero.
        gain: factor on the standard deviation of the weights, positive.
        bias: "positive" U(0, b) for ReLU, "symmetric" U(-b, b) for odd activations, or "zero".
        group: what the mask keeps or drops as a whole: every "entry", every "kernel" (one per pair
            of channels), or every "row" (all that leads into one neuron or filter).
        nonlinearity: the activation that follows, "relu" or "tanh".
        generator: the source of randomness, torch's default if None. The numbers are drawn on its
            device, so a CPU generator gives the same weights on every device.

    Raises:
        ValueError: an argument is out of range, or module has no linear or convolution layer.

    Warns:
        UserWarning: a layer drew no non-zero weight at all; it is named.
    """
    for name, value, allowed in (
        ("bias", bias, ("positive", "symmetric", "zero")),
        ("group", group, ("entry", "kernel", "row")),
        ("nonlinearity", nonlinearity, ("relu", "tanh")),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")
    if not 0 < gain < math.inf:
        raise ValueError(f"gain must be positive and finite, got {gain}")
    layers = list(weight_layers(module))
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no linear or convolution layer to initialize"
        )

    device = generator.device if generator is not None else torch.device("cpu")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    for name, layer in layers:
        weight = layer.weight
        n_in = weight[0].numel()
        n_out = weight.shape[0] * weight[0, 0].numel()
        alpha = 2 / n_in if nonlinearity == "relu" else 2 / (n_in + n_out)
        grouped = {"entry": weight.dim(), "kernel": 2, "row": 1}[group]
        mask_shape = weight.shape[:grouped] + (1,) * (weight.dim() - grouped)
        mask = uniform(*mask_shape) < density
        dense = torch.randn(weight.shape, generator=generator, device=device)
        weight.copy_(gain * math.sqrt(alpha / density) * dense * mask)
        if not mask.any():
            warnings.warn(
                f"sparse_init_: layer {name or type(layer).__name__!r} of shape "
                f"{tuple(weight.shape)} starts entirely at zero (density {density} per {group})",
                stacklevel=3,  # the caller's line, past torch's decorator
            )
        if layer.bias is not None:
            low, high = {"positive": (0, 1), "symmetric": (-1, 1), "zero": (0, 0)}[bias]
            draw = uniform(*layer.bias.shape)
            layer.bias.copy_((low + (high - low) * draw) / math.sqrt(n_in))
