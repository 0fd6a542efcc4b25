"""What recorded trainings cost: in theory, and on the clock."""

from collections.abc import Iterable, Mapping

import pandas as pd
from torch import nn

from bregman.chains import links
from bregman.flops import layer_densities, sparse_share
from bregman.layers import weight_layers
from bregman.suite.training import Record


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
    alive: dict[nn.Module, float] = {layer: densities[name] for name, layer in weight_layers(model)}
    coming = {layer: alive[before] for layer, (before, _) in links(model).items()}
    return {name: densities[name] * coming.get(layer, 1.0) for name, layer in weight_layers(model)}


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
