"""The exercises of notebook 04."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bregman.suite.course import FaultError, ask, demand, exercise

# one of each group's tensors; a mask has as many of its axes as the group leaves
SHAPES = {"entry": (300, 200), "row": (600, 30), "kernel": (60, 50, 3, 3)}
AXES = {"entry": 2, "row": 1, "kernel": 2}


@exercise
def check_sparse_weights(answer: Callable[..., Any]) -> str:
    """Masks per entry, row and kernel, with the variance of a dense network."""
    for r, alpha in ((0.2, 0.03), (0.4, 0.07)):
        for group, shape in SHAPES.items():
            draws = [
                ask(answer, shape, r, alpha, group, torch.Generator().manual_seed(number))
                for number in (*range(8), 0)
            ]
            demand(
                all(W.shape == shape for W in draws),
                f"{group}: return a tensor of the shape asked for",
            )
            again = draws.pop()
            demand(
                torch.equal(draws[0], again),
                f"{group}: one generator, two results: pass it on",
            )
            demand(
                not torch.equal(draws[0], draws[1]),
                f"{group}: two generators, one result: draw from the one that is given",
            )
            _judge_masks(torch.stack(draws), r, group)
            _judge_weights(torch.stack(draws), r, alpha, group)
    return "the variance of a dense network, for entries, rows and kernels"


def _judge_masks(draws: Tensor, r: float, group: str) -> None:
    kept = draws.reshape(*draws.shape[: 1 + AXES[group]], -1) != 0
    whole = kept.all(-1) | ~kept.any(-1)
    demand(whole.all(), f"{group}: a {group} is kept in part: one decision for all of it")
    mask = kept.any(-1)
    share = float(mask.double().mean())
    demand(abs(share - r) < 0.03, f"{group}: {share:.0%} are kept, asked for were {r:.0%}")
    if group == "entry":
        rows = float(mask.any(2).double().mean())
        demand(rows > 0.9, "entry: whole rows are kept together: decide for each entry")
    # of two that are drawn independently, one alone is kept with probability 2 r (1 - r)
    for axis in range(mask.ndim):
        n = mask.shape[axis] - 1
        differ = float((mask.narrow(axis, 0, n) != mask.narrow(axis, 1, n)).double().mean())
        faults = ("every draw keeps much the same", "neighbours depend on each other")
        demand(
            abs(differ - 2 * r * (1 - r)) < 0.05,
            f"{group}: {faults[axis > 0]}: decide for each {group} at random",
        )


def _judge_weights(draws: Tensor, r: float, alpha: float, group: str) -> None:
    found = float(draws.square().mean()) / alpha
    for wrong, fault in (
        (r, "the mask costs a factor r, and nothing pays it back"),
        (1 / r, "divided by r twice: the standard deviation wants the root of alpha / r"),
        (alpha / r, "alpha / r is a variance: the standard deviation wants its root"),
    ):
        if abs(found / wrong - 1) < 0.15:
            raise FaultError(f"{group}: the variance is {found:.2g} alpha: {fault}")
    demand(abs(found - 1) < 0.15, f"{group}: the variance is {found:.2g} alpha after masking")
    weights = draws[draws != 0]
    demand(
        abs(float(weights.mean())) < 0.1 * math.sqrt(alpha / r),
        f"{group}: the mean of the weights is {float(weights.mean()):.2g}: it must be 0",
    )
    for axis in range(draws.ndim):
        n = draws.shape[axis] - 1
        one, other = draws.narrow(axis, 0, n), draws.narrow(axis, 1, n)
        both = (one != 0) & (other != 0)
        repeated = float((one == other)[both].double().mean())
        fault = (
            "neighbours have the same weight: draw one for each entry"
            if axis
            else "two generators, the same weights: draw them from the one that is given"
        )
        demand(repeated < 0.9, f"{group}: {fault}")


@exercise
def check_leaky_alpha(answer: Callable[..., Any]) -> str:
    """The variance that keeps that of the signal under leaky ReLU, against a simulation."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for n_in, s in ((50, 0.0), (50, 0.3), (200, 1.0)):
        energy = float(torch.where(z > 0, z, s * z).square().mean())
        given = ask(answer, n_in, s)
        demand(given.numel() == 1, "return one number, the variance of a weight")
        alpha = float(given)
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
