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

import torch
from torch import Tensor, nn

from bregman.layers import CONV, weight_layers


def forward_flops(model: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Count the FLOPs per sample of each linear and convolution layer, all its weights non-zero.

    Args:
        model: run once, in eval mode; a layer that it uses twice counts twice.
        inputs: N x ..., a batch as the model takes it, N >= 1.

    Returns:
        Per layer name two FLOPs (multiply, add) per output entry and weight that leads into it.
    """
    flops = {name: 0.0 for name, _ in weight_layers(model)}

    def count(name: str, layer: nn.Linear | CONV, output: Tensor) -> None:
        flops[name] += 2 * output.numel() / len(inputs) * layer.weight[0].numel()

    handles = [
        layer.register_forward_hook(
            lambda layer, arguments, output, name=name: count(name, layer, output)
        )
        for name, layer in weight_layers(model)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(inputs)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return flops


@torch.no_grad()
def layer_densities(model: nn.Module) -> dict[str, float]:
    """The share of non-zero weights of each linear and convolution layer, in [0, 1]."""
    return {
        name: int(layer.weight.count_nonzero()) / layer.weight.numel()
        for name, layer in weight_layers(model)
    }


def sparse_share(flops: Mapping[str, float], densities: Mapping[str, float]) -> float:
    """f_S / f_D: the layers' densities, weighted by their FLOPs.

    Args:
        flops: per layer, dense, of ``forward_flops``.
        densities: per layer, of ``layer_densities``.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the two don't have the same layers.
    """
    if flops.keys() != densities.keys():
        raise ValueError(
            f"densities must have the layers {', '.join(flops)}, got {', '.join(densities)}"
        )
    return sum(flops[name] * densities[name] for name in flops) / sum(flops.values())


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
    """
    costs = [step_share(share, frozen_steps) for share in shares]
    return sum((a + b) / 2 for a, b in pairwise(costs)) / (len(costs) - 1)
