"""Checks of the exercises of notebook 02."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bregman.regularizers import NonNegativeL1
from bregman.suite.convex import compressed_sensing
from bregman.suite.course import ask, ask_two, demand, exercise, precision, same

Array = NDArray[np.float64]


@exercise
def check_nonnegative_flow(flow: Callable[[Array, Array, float], tuple[Array, Array]]) -> str:
    """The exact flow for lam times the sum of theta, theta >= 0."""
    for seed, m, n, lam in ((2, 40, 15, 0.5), (3, 30, 12, 1.3)):
        problem = compressed_sensing(torch.Generator().manual_seed(seed), m, n, nonzeros=6)
        A, y = problem.A, problem.y
        wanted = "return two things: the times, and the theta from each time on"
        times, thetas = ask_two(wanted, flow, A.numpy(), y.numpy(), lam)
        demand(times.ndim == 1 and len(times), wanted)
        demand(thetas.shape == (len(times), n), f"one theta of {n} entries belongs to every time")
        tol = 100 * precision(thetas)
        times, thetas = times.double(), thetas.double()
        demand(times[0] == 0 and not thetas[0].any(), "it starts at time 0 with theta = 0")
        demand(thetas.min() > -1e-9, "theta has a negative entry: only the wall at +lam is a door")
        demand((times.diff() > 0).all(), "the times of events must increase")
        reg, p = NonNegativeL1(lam), torch.zeros(n, dtype=torch.float64)
        for k, theta in enumerate(thetas):
            demand(
                reg.subdiff_distance(p, theta) < tol,
                f"at event {k}, p is no subgradient of J at theta (lam = {lam})",
            )
            speed = A.T @ (y - A @ theta) / m
            demand(
                (speed[theta > 0].abs() < tol).all(),
                f"at event {k}, theta is not the best fit where it is positive: p moves on there",
            )
            if k + 1 < len(times):
                p = p + (times[k + 1] - times[k]) * speed
        demand((speed < tol).all(), "it stops too early: some p still moves towards the door")
    return "the non-negative flow, event by event"


@exercise
def check_group_shrink(shrink: Callable[[Tensor, float, Sequence[Sequence[int]]], Tensor]) -> str:
    """The prox of lam sum_g sqrt(n_g) ||x_g|| for groups of different sizes."""
    x = torch.tensor([3.0, 4.0, 1.0, -1.0, 1.0, -1.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    for groups, lam in (
        ([[0, 1], [2, 3, 4, 5], [6], [7, 8]], 1.1),
        ([[0, 2, 4], [7], [5, 1], [8, 6, 3]], 0.6),
    ):
        z = ask(shrink, x, lam, groups)
        demand(z.shape == x.shape, f"the result must have the shape of x, {tuple(x.shape)}")
        demand(not z.isnan().any(), "a group that is zero divides by its norm: mind 0 / 0")
        entries = x.sign() * (x.abs() - lam).clamp(min=0)
        demand(not same(z, entries), "this shrinks every entry alone: a group shares one norm")
        unweighted = _group_shrink(x, lam, groups, weighted=False)
        demand(not same(z, unweighted), "the weight sqrt(n_g) of each group is missing")
        right = _group_shrink(x, lam, groups, weighted=True)
        for g in groups:
            fault = f"the group {g} of {x[g].tolist()} is wrong (lam = {lam})"
            demand(same(z[g], right[g]), fault)
    return "group shrinkage"


def _group_shrink(x: Tensor, lam: float, groups: Sequence[Sequence[int]], weighted: bool) -> Tensor:
    result = torch.zeros_like(x)
    for g in groups:
        norm = float(x[g].norm())
        level = lam * (math.sqrt(len(g)) if weighted else 1.0)
        result[g] = x[g] * max(1 - level / norm, 0) if norm else 0.0
    return result


@exercise
def check_stop(stop: Callable[[Array, float], int]) -> str:
    """The first index at which the loss is at most sigma^2 / 2."""

    def index(losses: Array, sigma: float) -> int:
        found = ask(stop, losses, sigma)
        demand(found.ndim == 0, "one index is asked for")
        whole = not found.is_floating_point() and found.dtype != torch.bool
        demand(whole, f"an index is an integer, not {found.item()!r}")
        return int(found)

    losses = np.array([2.0, 0.9, 0.46, 0.52, 0.45, 0.2, 0.1])
    found = index(losses, 1.0)
    demand(found != 3, "index 3 is the closest to sigma^2 / 2 but above it: the noise is not "
           "yet explained")  # fmt: skip
    demand(found != 6, "the last one has fitted the noise: stop at the first that is enough")
    demand(found != 0, "at index 0 nothing is explained")
    demand(found == 2, f"the first loss of at most sigma^2 / 2 is at index 2, not {found}")
    demand(index(losses, 0.5) == 6, "for sigma = 0.5 the level is 0.125, not 0.25 or 0.5")
    demand(index(losses[::-1] + 0.4, 1.0) == 0, "of other losses, 0.5, ..., the first is enough")
    return "the discrepancy principle"
