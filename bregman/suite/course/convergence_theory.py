"""The exercises of notebook 03."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite import convex as cx
from bregman.suite.course import ask, demand, exercise, same

LAM, TAU, BETA, DELTA, STEPS = 0.3, 0.2, 0.9, 0.7, 25


def _problem() -> tuple[cx.Problem, Tensor]:
    generator = torch.Generator().manual_seed(3)
    problem = cx.compressed_sensing(generator, 60, 12, 4)
    return problem, torch.randn(12, generator=generator, dtype=torch.float64)


@exercise
def check_momentum(answer: Callable[..., Any]) -> str:
    """Algorithm 2, against ``bregman.LinBreg``."""
    problem, start = _problem()
    v = LAM * start.sign() + start / DELTA

    def heavy_ball(mean: float, on_theta: bool = False) -> Tensor:
        theta, slope, m = start, v, torch.zeros_like(start)
        for _ in range(STEPS):
            m = BETA * m + mean * TAU * problem.grad(theta)
            slope = slope - (TAU * problem.grad(theta) if on_theta else m)
            theta = L1(LAM).prox(DELTA * slope, DELTA) - (m if on_theta else 0)
        return theta

    given = ask(answer, problem.grad, start, v, TAU, BETA, LAM, DELTA, STEPS)
    demand(isinstance(given, tuple | list) and len(given) == 2, "return two tensors, theta and v")
    theta, slope = given
    right = cx.linbreg_path(problem, L1(LAM), TAU, STEPS, delta=DELTA, momentum=BETA, theta0=start)
    plain = cx.linbreg_path(problem, L1(LAM), TAU, STEPS, delta=DELTA, theta0=start)
    demand(not same(theta, plain.theta[-1]), "this is LinBreg without momentum: m forgets the past")
    demand(
        not same(theta, heavy_ball(1.0)),
        "new gradients enter m with weight one: the average wants 1 - beta, or it is ten times "
        "too long",
    )
    demand(
        not same(theta, heavy_ball(1 - BETA, on_theta=True)),
        "the momentum acts on theta: here it belongs to v, before the prox",
    )
    demand(not same(theta, right.theta[-2]), "one step is missing")
    demand(same(slope, right.v[-1]), "v is not that of Algorithm 2")
    demand(same(theta, right.theta[-1]), "v is right, theta is not: is it delta * shrink(v, lam)?")
    return "Algorithm 2, as bregman.LinBreg(momentum=beta) does it"


@exercise
def check_proxgd(answer: Callable[..., Any]) -> str:
    """Proximal gradient descent, against ``cx.ista``, and against the Lasso's conditions."""
    problem, start = _problem()
    given = ask(answer, problem.grad, start, TAU, LAM, STEPS)
    demand(
        torch.is_tensor(given) and given.shape == (STEPS + 1, 12),
        "return the start and all iterates, stacked: shape (steps + 1, n)",
    )
    demand(same(given[0], start), "the first iterate is the start itself")
    right = cx.ista(problem, L1(LAM), TAU, STEPS, start)
    first = start - TAU * problem.grad(start)
    demand(
        not same(given[1], L1(LAM).prox(first, 1.0)),
        "the threshold is lam: in prox_(tau J) it is tau * lam",
    )
    demand(
        not same(given[1], first), "nothing is shrunk: the prox is missing after the gradient step"
    )
    memory = cx.linbreg_path(problem, L1(LAM), TAU, STEPS, theta0=start)
    demand(
        not same(given, memory.theta),
        "this is LinBreg: ProxGD starts each step from theta, and remembers no v",
    )
    demand(same(given[1], right[1]), "the first step is not prox_(tau J)(theta - tau grad)")
    demand(same(given, right), "the first step is right, the later ones are not")
    far = ask(answer, problem.grad, start, 1 / problem.lipschitz, LAM, 2000)[-1]
    demand(
        float(L1(LAM).subdiff_distance(-problem.grad(far), far)) < 1e-8,
        "in the long run it does not solve the Lasso",
    )
    return "ProxGD, and its limit solves the Lasso"
