"""Checks of the exercises of notebook 01."""

from collections.abc import Callable

import torch
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite.convex import compressed_sensing, linbreg_path
from bregman.suite.course import ask, demand, exercise, precision, same


@exercise
def check_shrinkage(shrink: Callable[[Tensor, float, float], Tensor]) -> str:
    """The prox of J(x) = up max(x, 0) + down max(-x, 0): shrinkage with two thresholds."""
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    for up, down in ((1.05, 0.55), (0.35, 1.25)):
        z, case = ask(shrink, x, up, down), f" (up = {up}, down = {down})"
        demand(z.shape == x.shape, f"the result must have the shape of x, {tuple(x.shape)}")
        between = (x <= up) & (x >= -down)
        demand(not z[between].any(), "from -down to up every x must become exactly 0" + case)
        demand(
            same(z[x > up], x[x > up] - up), "a positive x beyond up must move down by up" + case
        )
        demand(
            same(z[x < -down], x[x < -down] + down),
            "a negative x beyond -down must move up by down, not by up" + case,
        )
    return "shrinkage with two thresholds"


@exercise
def check_linbreg(linbreg: Callable[..., Tensor]) -> str:
    """LinBreg from any theta0: the first v is a subgradient of J_delta there."""
    start = torch.tensor([1.0, -2.0, 0.5, *[0.0] * 9], dtype=torch.float64)
    for seed, theta0, lam, delta, tau in ((1, start, 0.4, 2.0, 0.1), (2, -start, 0.7, 0.6, 0.2)):
        problem = compressed_sensing(torch.Generator().manual_seed(seed), m=20, n=12, nonzeros=3)
        case = f" (lam = {lam}, delta = {delta}, tau = {tau})"
        none, one, many = (
            ask(linbreg, theta0, problem.grad, lam, delta, tau, steps) for steps in (0, 1, 30)
        )
        demand(
            same(none, theta0),
            "after no step theta must be theta0: the first v must be a subgradient of J_delta at "
            "theta0, lam * sign(theta0) + theta0 / delta" + case,
        )
        path = linbreg_path(problem, L1(lam), tau, 30, delta=delta, theta0=theta0)
        shrunk = L1(lam).prox(theta0 - tau * problem.grad(theta0), tau)
        demand(not same(one, shrunk), "this is a step of ISTA: v must move, not theta")
        demand(
            same(one, path.theta[1]),
            "the first step is wrong: v - tau * grad(theta), then delta times shrinkage by lam"
            + case,
        )
        demand(same(many, path.theta[-1]), "the first step is right, later ones are not" + case)
    return "LinBreg, from wherever you like"


@exercise
def check_own_regularizer(
    value: Callable[[Tensor], Tensor], prox: Callable[[Tensor, float], Tensor]
) -> str:
    """A convex J of one variable with J(0) = 0, and its prox."""
    grid = torch.arange(-12000, 12001, dtype=torch.float64) / 2000
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)
    heights = ask(value, grid)
    demand(heights.shape == grid.shape, "value must work entry by entry: one J for every x")
    demand(not heights.isnan().any(), "J is not a number (nan) for some x")
    finite = heights.isfinite().nonzero().flatten()
    demand(finite.numel(), "J is nowhere finite")
    inside, tol = heights[finite], precision(heights) * float(heights[finite].abs().max())
    demand(
        heights.min() >= -tol and abs(heights[12000]) <= tol,
        "J must be 0 at 0, and nowhere less",
    )
    hole = (finite.diff() > 1).nonzero().flatten()[:1]
    ends = [f"{float(grid[k]):g}" for i in hole for k in finite[i : i + 2]]
    demand(
        not ends,
        f"J is not convex: it is finite at {' and '.join(ends)}, but not between",
    )
    for reach in (1, 10, 100, 1000):
        chord = (inside[: -2 * reach] + inside[2 * reach :]) / 2
        demand(
            (inside[reach:-reach] - chord <= tol).all(),
            "J is not convex: a chord lies below its graph",
        )
    for step in (0.5, 2.0):
        z = ask(prox, x, step)
        demand(z.shape == x.shape, f"prox must have the shape of x, {tuple(x.shape)}")
        reached = (z - x).square() / 2 + step * ask(value, z)
        best, at = ((grid - x[:, None]).square() / 2 + step * heights).min(1)
        worse = int((reached - best).argmax())
        demand(
            reached[worse] <= best[worse] + max(1e-6, 4 * precision(z), 4 * precision(heights)),
            f"with step {step:g} your prox sends {x[worse]:.2f} to {z[worse]:.2f}, but "
            f"{grid[at[worse]]:.2f} makes (z - x)^2 / 2 + step J(z) smaller",
        )
    return "a convex J with its prox: LinBreg can take it"
