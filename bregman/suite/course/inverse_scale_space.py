"""Checks of the exercises of notebook 01."""

from collections.abc import Callable

import torch
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite.convex import compressed_sensing, linbreg_path
from bregman.suite.course import ask, demand, exercise, same


@exercise
def check_shrinkage(shrink: Callable[[Tensor, float, float], Tensor]) -> str:
    """The prox of J(x) = up max(x, 0) + down max(-x, 0): shrinkage with two thresholds."""
    x, up, down = torch.linspace(-3, 3, 61, dtype=torch.float64), 1.0, 0.5
    z = ask(shrink, x, up, down)
    demand(z.shape == x.shape, f"the result must have the shape of x, {tuple(x.shape)}")
    between = (x <= up) & (x >= -down)
    demand(not z[between].any(), "from -down to up every x must become exactly 0")
    demand(same(z[x > up], x[x > up] - up), "a positive x beyond up must move down by up")
    demand(
        same(z[x < -down], x[x < -down] + down),
        "a negative x beyond -down must move up by down, not by up",
    )
    return "shrinkage with two thresholds"


@exercise
def check_linbreg(linbreg: Callable[..., Tensor]) -> str:
    """LinBreg from any theta0: the first v is a subgradient of J_delta there."""
    problem = compressed_sensing(torch.Generator().manual_seed(1), m=20, n=12, nonzeros=3)
    theta0 = torch.tensor([1.0, -2.0, 0.5, *[0.0] * 9], dtype=torch.float64)
    lam, delta, tau = 0.4, 2.0, 0.1

    def after(steps: int) -> Tensor:
        return ask(linbreg, theta0, problem.grad, lam, delta, tau, steps)

    demand(
        same(after(0), theta0),
        "after no step theta must be theta0: the first v must be a subgradient of J_delta at "
        "theta0, lam * sign(theta0) + theta0 / delta",
    )
    path = linbreg_path(problem, L1(lam), tau, 30, delta=delta, theta0=theta0)
    shrunk = L1(lam).prox(theta0 - tau * problem.grad(theta0), tau)
    demand(not same(after(1), shrunk), "this is a step of ISTA: v must move, not theta")
    demand(
        same(after(1), path.theta[1]),
        "the first step is wrong: v - tau * grad(theta), then delta times shrinkage by lam",
    )
    demand(same(after(30), path.theta[-1]), "the first step is right, later ones are not")
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
    demand(heights.min() >= 0 and same(heights[12000], 0), "J must be 0 at 0, and nowhere less")
    middle = heights[1:-1] - (heights[:-2] + heights[2:]) / 2
    demand(middle[middle.isfinite()].max() < 1e-9, "J is not convex: a chord lies below its graph")
    for step in (0.5, 2.0):
        z = ask(prox, x, step)
        demand(z.shape == x.shape, f"prox must have the shape of x, {tuple(x.shape)}")
        reached = (z - x).square() / 2 + step * value(z)
        best, at = ((grid - x[:, None]).square() / 2 + step * heights).min(1)
        worse = int((reached - best).argmax())
        demand(
            reached[worse] <= best[worse] + 1e-6,
            f"with step {step:g} your prox sends {x[worse]:.2f} to {z[worse]:.2f}, but "
            f"{grid[at[worse]]:.2f} makes (z - x)^2 / 2 + step J(z) smaller",
        )
    return "a convex J with its prox: LinBreg can take it"
