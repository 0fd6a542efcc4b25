"""The exercises of notebook 04."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bregman.suite.course import FaultError, ask, demand, exercise


def _blocks(weights: Tensor, group: str) -> Tensor:
    """One row per group."""
    size = {"entry": 1, "row": weights[0].numel(), "kernel": weights[0, 0].numel()}[group]
    return weights.reshape(-1, size)


@exercise
def check_sparse_weights(answer: Callable[..., Any]) -> str:
    """Masks per entry, row and kernel, with the variance of a dense network."""
    r, alpha = 0.2, 0.03
    shapes = {"entry": (300, 200), "row": (600, 30), "kernel": (60, 50, 3, 3)}
    for group, shape in shapes.items():
        draws = [
            ask(answer, shape, r, alpha, group, torch.Generator().manual_seed(number))
            for number in range(8)
        ]
        demand(
            all(torch.is_tensor(W) and W.shape == shape for W in draws),
            f"{group}: return a tensor of the shape asked for",
        )
        again = answer(shape, r, alpha, group, torch.Generator().manual_seed(0))
        demand(torch.equal(draws[0], again), f"{group}: one generator, two results: pass it on")
        kept = torch.cat([_blocks(W, group) for W in draws]) != 0
        whole = kept.all(1) | ~kept.any(1)
        demand(whole.all(), f"{group}: a {group} is kept in part: one decision for all of it")
        share = float(kept.double().mean())
        demand(abs(share - r) < 0.03, f"{group}: {share:.0%} are kept, asked for were {r:.0%}")
        if group == "entry":
            rows = float((draws[0] != 0).any(1).double().mean())
            demand(rows > 0.9, "entry: whole rows are kept together: decide for each entry")
        found = float(torch.stack([W.square().mean() for W in draws]).mean()) / alpha
        for wrong, fault in (
            (r, "the mask costs a factor r, and nothing pays it back"),
            (1 / r, "divided by r twice: the standard deviation wants the root of alpha / r"),
            (alpha / r, "alpha / r is a variance: the standard deviation wants its root"),
        ):
            if abs(found / wrong - 1) < 0.15:
                raise FaultError(f"{group}: the variance is {found:.2g} alpha: {fault}")
        demand(abs(found - 1) < 0.15, f"{group}: the variance is {found:.2g} alpha after masking")
    return "the variance of a dense network, for entries, rows and kernels"


@exercise
def check_leaky_alpha(answer: Callable[..., Any]) -> str:
    """The variance that keeps that of the signal under leaky ReLU, against a simulation."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for n_in, s in ((50, 0.0), (50, 0.3), (200, 1.0)):
        energy = float(torch.where(z > 0, z, s * z).square().mean())
        alpha = float(ask(answer, n_in, s))
        gain = n_in * alpha * energy
        demand(
            not math.isclose(alpha, 2 / ((1 + s) ** 2 * n_in)) or s in (0, 1),
            "the slope is squared, not one plus the slope",
        )
        demand(
            abs(gain - 1) < 0.02,
            f"n_in = {n_in}, s = {s}: the variance is multiplied by {gain:.2f} in each layer",
        )
    return "the variance is kept, from ReLU (s = 0) to the identity (s = 1)"
