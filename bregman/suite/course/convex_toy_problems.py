"""Checks of the exercises of notebook 02."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bregman.regularizers import NonNegativeL1
from bregman.suite.convex import compressed_sensing
from bregman.suite.course import ask, demand, exercise, same

Array = NDArray[np.float64]


@exercise
def check_nonnegative_flow(flow: Callable[[Array, Array, float], tuple[Array, Array]]) -> str:
    """The exact flow for lam times the sum of theta, theta >= 0."""
    problem = compressed_sensing(torch.Generator().manual_seed(2), m=40, n=15, nonzeros=6)
    A, y, lam = problem.A.numpy(), problem.y.numpy(), 0.5
    answer = ask(flow, A, y, lam)
    demand(len(answer) == 2, "return two things: the times, and the theta from each time on")
    times, thetas = (np.array(x) for x in answer)
    demand(thetas.shape == (len(times), 15), "one theta of 15 entries belongs to every time")
    demand(times[0] == 0 and not thetas[0].any(), "it starts at time 0 with theta = 0")
    demand(thetas.min() > -1e-9, "theta has a negative entry: only the wall at +lam is a door")
    demand((np.diff(times) > 0).all(), "the times of events must increase")
    reg, p = NonNegativeL1(lam), np.zeros(15)
    for k in range(len(times)):
        inside = reg.subdiff_distance(torch.tensor(p), torch.tensor(thetas[k]))
        demand(inside < 1e-7, f"at event {k}, p is no subgradient of J at theta")
        speed = A.T @ (y - A @ thetas[k]) / len(y)
        if k + 1 < len(times):
            p = p + (times[k + 1] - times[k]) * speed
    demand((speed < 1e-7).all(), "it stops too early: some p still moves towards the door")
    return "the non-negative flow, event by event"


@exercise
def check_group_shrink(shrink: Callable[[Tensor, float, Sequence[Sequence[int]]], Tensor]) -> str:
    """The prox of lam sum_g sqrt(n_g) ||x_g|| for groups of different sizes."""
    x = torch.tensor([3.0, 4.0, 1.0, -1.0, 1.0, -1.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    groups, lam = [[0, 1], [2, 3, 4, 5], [6], [7, 8]], 1.1
    z = ask(shrink, x, lam, groups)
    demand(z.shape == x.shape, f"the result must have the shape of x, {tuple(x.shape)}")
    demand(not z.isnan().any(), "a group that is zero divides by its norm: mind 0 / 0")

    def expected(weighted: bool) -> Tensor:
        result = torch.zeros_like(x)
        for g in groups:
            norm = float(x[g].norm())
            level = lam * (math.sqrt(len(g)) if weighted else 1.0)
            result[g] = x[g] * max(1 - level / norm, 0) if norm else 0.0
        return result

    entries = x.sign() * (x.abs() - lam).clamp(min=0)
    demand(not same(z, entries), "this shrinks every entry alone: a group shares one norm")
    demand(not same(z, expected(False)), "the weight sqrt(n_g) of each group is missing")
    right = expected(True)
    for g in groups:
        demand(same(z[g], right[g]), f"the group {g} of {x[g].tolist()} is wrong")
    return "group shrinkage"


@exercise
def check_stop(stop: Callable[[Array, float], int]) -> str:
    """The first index at which the loss is at most sigma^2 / 2."""
    losses = np.array([2.0, 0.9, 0.46, 0.52, 0.45, 0.2, 0.1])
    found = ask(stop, losses, 1.0)
    demand(np.ndim(found) == 0, "one index is asked for")
    demand(int(found) != 3, "index 3 is the closest to sigma^2 / 2 but above it: the noise is not "
           "yet explained")  # fmt: skip
    demand(int(found) != 6, "the last one has fitted the noise: stop at the first that is enough")
    demand(int(found) != 0 or losses[0] <= 0.5, "at index 0 nothing is explained")
    demand(int(found) == 2, f"the first loss of at most sigma^2 / 2 is at index 2, not {found}")
    demand(int(ask(stop, losses, 0.5)) == 6, "for sigma = 0.5 the level is 0.125, not 0.25 or 0.5")
    return "the discrepancy principle"
