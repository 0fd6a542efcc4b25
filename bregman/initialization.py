"""Sparse initialization, section 4.1: few weights, the variance of a dense network."""

import math
import warnings
from typing import Any, Literal

import torch
from torch import nn

from bregman.checks import check
from bregman.layers import weights


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

    Attention, recurrent, transposed and foreign layers are drawn alike, each matrix that is packed
    into a weight by itself. Left as they are: embeddings (``bregman.layers.weights`` says what
    counts as one), frozen weights, and biases of two or more dimensions or of layers with more than
    one weight. Behind a parametrization the parameter is drawn: a weight norm gets v and g of W, a
    spectral norm scales W, and what ``torch.nn.utils.prune`` masked stays zero.

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
        ValueError: an argument is out of range, a weight has no entries, is complex or sharded, a
            parametrization can't hold zeros, or module has no linear or convolution layer that
            could be drawn.

    Warns:
        UserWarning: a layer drew no non-zero weight at all, or a weight is shared; it is named.
    """
    for name, value, allowed in (
        ("bias", bias, ("positive", "symmetric", "zero")),
        ("group", group, ("entry", "kernel", "row")),
        ("nonlinearity", nonlinearity, ("relu", "tanh")),
    ):
        check(value in allowed, name, f"one of {allowed}", value)
    check(0 < density <= 1, "density", "in (0, 1]", density)
    check(0 < gain < math.inf, "gain", "positive and finite", gain)
    trained = [weight for weight in weights(module) if weight.trained]
    drawn = [weight for weight in trained if weight.kind != "embedding"]
    check(bool(drawn), "module", "one with a linear or convolution layer", type(module).__name__)
    for weight in drawn:
        name, shape = f"layer {weight.name!r}", tuple(weight.parameter.shape)
        check(0 not in shape, name, "of at least one weight", shape)
        plain = weight.parameter.is_floating_point() and not hasattr(weight.parameter, "placements")
        check(plain, name, "real, and drawn before it is sharded", weight.parameter.dtype)
    for weight in trained:
        if weight.shared:
            names = [repr(name) for name in (weight.name, *(name for name, _ in weight.shared))]
            done = "drawn once" if weight in drawn else "an embedding, it is left as it is"
            _warn(f"layers {', '.join(names)} share one weight: {done}")

    rng: dict[str, Any] = {"generator": generator, "device": getattr(generator, "device", "cpu")}
    for weight in drawn:
        shape = weight.rows(weight.parameter).shape
        n_in, n_out = weight.fans
        alpha = 2 / n_in if nonlinearity == "relu" else 2 / (n_in + n_out)
        kernel = 2 if weight.kind == "conv" else len(shape)
        grouped = {"entry": len(shape), "kernel": kernel, "row": 1}[group]
        mask = torch.rand((*shape[:grouped], *(1 for _ in shape[grouped:])), **rng) < density
        dense = torch.randn(shape, **rng)
        rows = gain * math.sqrt(alpha / density) * dense * mask
        weight.assign(weight.from_rows(rows).to(weight.parameter))
        if not mask.any():
            name = weight.name or type(weight.layer).__name__
            _warn(
                f"layer {name!r} of shape {tuple(weight.parameter.shape)} starts entirely at zero "
                f"(density {density} per {group})"
            )
        if weight.attribute != "weight":
            continue
        low, width = {"positive": (0, 1), "symmetric": (-1, 2), "zero": (0, 0)}[bias]
        for layer in (weight.layer, *(layer for _, layer in weight.shared)):
            biases = dict(layer.named_parameters(recurse=False)).get("bias")
            if biases is not None and biases.requires_grad and biases.dim() < 2:
                biases.copy_((low + width * torch.rand(biases.shape, **rng)) / math.sqrt(n_in))


def _warn(message: str) -> None:
    warnings.warn(f"sparse_init_: {message}", stacklevel=4)  # the caller's line, past a decorator
