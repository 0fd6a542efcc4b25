"""The exercises of notebook 03."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite import convex as cx
from bregman.suite.course import ask, ask_two, demand, exercise, precision, same


def _problem(seed: int) -> tuple[cx.Problem, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    problem = cx.compressed_sensing(generator, 60, 12, 4)
    return problem, torch.randn(12, generator=generator, dtype=torch.float64)


@exercise
def check_momentum(answer: Callable[..., Any]) -> str:
    """Algorithm 2, against ``bregman.LinBreg``."""
    for seed, lam, tau, beta, delta, steps in ((3, 0.3, 0.2, 0.9, 0.7, 25),
                                               (4, 0.5, 0.1, 0.6, 1.5, 10)):  # fmt: skip
        problem, start = _problem(seed)
        v = lam * start.sign() + start / delta
        given = ask_two("return two tensors, theta and v",
                        answer, problem.grad, start, v, tau, beta, lam, delta, steps)  # fmt: skip
        _judge_momentum(given, problem, start, v, tau, beta, lam, delta, steps)
    return "Algorithm 2, as bregman.LinBreg(momentum=beta) does it"


def _judge_momentum(
    given: tuple[Tensor, Tensor],
    problem: cx.Problem,
    start: Tensor,
    v: Tensor,
    tau: float,
    beta: float,
    lam: float,
    delta: float,
    steps: int,
) -> None:
    def heavy_ball(mean: float, on_theta: bool = False) -> Tensor:
        theta, slope, m = start, v, torch.zeros_like(start)
        for _ in range(steps):
            m = beta * m + mean * tau * problem.grad(theta)
            slope = slope - (tau * problem.grad(theta) if on_theta else m)
            theta = L1(lam).prox(delta * slope, delta) - (m if on_theta else 0)
        return theta

    theta, slope = given
    right = cx.linbreg_path(problem, L1(lam), tau, steps, delta=delta, momentum=beta, theta0=start)
    plain = cx.linbreg_path(problem, L1(lam), tau, steps, delta=delta, theta0=start)
    case = f" (beta = {beta}, lam = {lam}, delta = {delta}, tau = {tau}, {steps} steps)"
    demand(not same(theta, plain.theta[-1]), "this is LinBreg without momentum: m forgets the past")
    demand(
        not same(theta, heavy_ball(1.0)),
        "new gradients enter m with weight one: the average wants 1 - beta, or it is "
        f"{1 / (1 - beta):g} times too long",
    )
    demand(
        not same(theta, heavy_ball(1 - beta, on_theta=True)),
        "the momentum acts on theta: here it belongs to v, before the prox",
    )
    demand(not same(theta, right.theta[-2]), "one step is missing")
    demand(same(slope, right.v[-1]), "v is not that of Algorithm 2" + case)
    demand(
        same(theta, right.theta[-1]),
        "v is right, theta is not: is it delta * shrink(v, lam)?" + case,
    )


@exercise
def check_proxgd(answer: Callable[..., Any]) -> str:
    """Proximal gradient descent, against ``cx.ista``, and against the Lasso's conditions."""
    for seed, lam, tau, steps in ((3, 0.3, 0.2, 25), (4, 0.5, 0.1, 10)):
        problem, start = _problem(seed)
        given = ask(answer, problem.grad, start, tau, lam, steps)
        demand(
            given.shape == (steps + 1, 12),
            "return the start and all iterates, stacked: shape (steps + 1, n)",
        )
        demand(same(given[0], start), "the first iterate is the start itself")
        right = cx.ista(problem, L1(lam), tau, steps, start)
        first = start - tau * problem.grad(start)
        demand(
            not same(given[1], L1(lam).prox(first, 1.0)),
            "the threshold is lam: in prox_(tau J) it is tau * lam",
        )
        demand(
            not same(given[1], first),
            "nothing is shrunk: the prox is missing after the gradient step",
        )
        memory = cx.linbreg_path(problem, L1(lam), tau, steps, theta0=start)
        demand(
            not same(given, memory.theta),
            "this is LinBreg: ProxGD starts each step from theta, and remembers no v",
        )
        demand(
            same(given[1], right[1]),
            f"the first step is not prox_(tau J)(theta - tau grad) (tau = {tau}, lam = {lam})",
        )
        demand(same(given, right), "the first step is right, the later ones are not")
        far = ask(answer, problem.grad, start, 1 / problem.lipschitz, lam, 2000)[-1]
        demand(
            float(L1(lam).subdiff_distance(-problem.grad(far.double()), far.double()))
            < 10 * precision(far),
            "in the long run it does not solve the Lasso",
        )
    return "ProxGD, and its limit solves the Lasso"
