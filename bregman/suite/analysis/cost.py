"""What recorded trainings cost in theory."""

from collections.abc import Iterable, Mapping

from bregman.flops import sparse_share
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
