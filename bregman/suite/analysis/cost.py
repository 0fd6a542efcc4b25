"""What trainings cost: in theory, where zero weights are left out of every product, and by clock.

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
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import pandas as pd
from torch import nn

from bregman.chains import links
from bregman.flops import layer_densities
from bregman.layers import weights
from bregman.suite.training import Record


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


def recorded_shares(
    flops: Mapping[str, float], history: Iterable[Record], prefix: str
) -> list[float]:
    """f_S / f_D after each epoch of a training.

    Args:
        flops: per layer, dense, of ``forward_flops``.
        history: of ``fit``, with the density of each layer as the metric prefix + its name.
        prefix: of these metrics.

    Returns:
        One number in [0, 1] per recorded epoch, the initial weights first.
    """
    recorded = list(history)
    densities = [[r.value for r in recorded if r.metric == prefix + name] for name in flops]
    return [
        sparse_share(flops, dict(zip(flops, epoch, strict=True)))
        for epoch in zip(*densities, strict=True)
    ]


def product_densities(model: nn.Module, neurons: bool) -> dict[str, float]:
    """The share of each layer's weights that its products need.

    These are the non-zero ones. But where whole neurons and filters go, what leads out of one that
    is gone meets the same constant in all samples, and is no part of a product.

    Args:
        model: with whole weights.
        neurons: whole neurons and filters go.

    Returns:
        Per layer name a number in [0, 1].
    """
    densities = layer_densities(model)
    if not neurons:
        return densities
    found = weights(model)
    alive: dict[nn.Module, float] = {weight.layer: densities[weight.name] for weight in found}
    coming = dict.fromkeys(alive, 1.0)
    coming |= {layer: alive[before] for layer, (before, _) in links(model).items()}
    return {w.name: densities[w.name] * coming[w.layer] for w in found}


def cost_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What whole trainings cost, and what came of them.

    Args:
        runs: rows of a summary, for each network those of its dense training too.

    Returns:
        Per network and method the means over the seeds: the density that was reached, the quality
        (accuracy on the test set in percent, or SSIM) with its standard deviation, seconds, and
        relative to the dense training of the same network the theoretical FLOPs of all epochs, the
        time, and how many times as fast it was.
    """
    by_method = pd.DataFrame(
        {
            "network": runs["config_network"],
            "method": runs["strategy"],
            "density [%]": runs["n_total_pct"],
            "accuracy or SSIM": runs["test_acc_pct"].fillna(runs["ssim"]),
            "FLOPs": runs["flops_pct"] * runs["epochs"],
            "seconds": runs["seconds"],
        }
    ).groupby(["network", "method"], sort=False)
    table = by_method.mean()
    # after the quality
    table.insert(2, "±", by_method["accuracy or SSIM"].std())
    dense = table.xs("dense", level="method")
    for whole, share in (("FLOPs", "FLOPs [%]"), ("seconds", "time [%]")):
        table[share] = 100 * table[whole].div(dense[whole], level="network")
    table["times as fast"] = 100 / table["time [%]"]
    return table.drop(columns="FLOPs")
