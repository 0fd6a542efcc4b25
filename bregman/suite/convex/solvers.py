"""Iterations: linearized Bregman through the package's LinBreg, its exact form, and comparisons."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import torch
from torch import Tensor

from bregman.optim import LinBreg
from bregman.regularizers import Regularizer, Zero
from bregman.suite.convex import checks
from bregman.suite.convex.flows import Trajectory
from bregman.suite.convex.gradients import ExactGradient
from bregman.suite.convex.problems import Problem


@dataclass(frozen=True, eq=False)
class Path:
    """What LinBreg went through: iterates, and all that made them.

    Args:
        gradient: the exact or noisy gradient that was used.
        reg: J.
        delta: the weight of the quadratic term.
        momentum: beta.
        taus: the step sizes, one per step taken.
        iterations: (K,), which iterations are recorded, from 0 to len(taus).
        theta: (K, *shape), the parameters.
        v: (K, *shape), the subgradients of J_delta.
    """

    gradient: ExactGradient
    reg: Regularizer
    delta: float
    momentum: float
    taus: Tensor
    iterations: Tensor
    theta: Tensor
    v: Tensor

    @property
    def p(self) -> Tensor:
        """(K, *shape), the subgradients of J: v - theta / delta."""
        return self.v - self.theta / self.delta

    @property
    def problem(self) -> Problem:
        """The loss L."""
        return self.gradient.problem

    @property
    def losses(self) -> Tensor:
        """(K,), the loss at every recorded iterate."""
        return torch.stack([self.problem.f(theta) for theta in self.theta])


def linbreg_path(
    problem: Problem | ExactGradient,
    reg: Regularizer,
    tau: float | Sequence[float],
    steps: int,
    *,
    delta: float = 1.0,
    momentum: float = 0.0,
    theta0: Tensor | None = None,
    every: int = 1,
    generator: torch.Generator | None = None,
) -> Path:
    """Linearized Bregman iterations (2.8), or (2.14) with momentum, by ``bregman.LinBreg``.

    Args:
        problem: the loss for exact gradients, or a noisy gradient of it.
        reg: J.
        tau: the step size, positive: one number, or one per step.
        steps: how many steps to take.
        delta: the weight of the quadratic term, positive.
        momentum: beta in [0, 1).
        theta0: where to start, of the problem's shape; None for zero.
        every: record each ``every``-th iterate, the last one in any case.
        generator: draws the noise.

    Returns:
        The recorded path, from iteration 0 on.

    Raises:
        ValueError: an argument is out of range or of the wrong shape, or a noisy gradient came
            without a generator.
    """
    gradient = ExactGradient(problem) if isinstance(problem, Problem) else problem
    checks.at_least("every", every, 1)
    taus = _step_sizes(tau, steps)
    theta = _start(gradient.problem, theta0).clone()
    optimizer = LinBreg([theta], reg=reg, momentum=momentum, delta=delta)
    iterations, thetas, vs = [0], [theta.clone()], [reg.subgrad(theta) + theta / delta]
    for k, lr in enumerate(taus, start=1):
        optimizer.param_groups[0]["lr"] = lr
        theta.grad = gradient.sample(theta, generator)
        optimizer.step()
        if k % every == 0 or k == steps:
            iterations.append(k)
            thetas.append(theta.detach().clone())
            vs.append(optimizer.state[theta]["subgrad"].clone())
    return Path(
        gradient,
        reg,
        delta,
        momentum,
        torch.tensor(taus, dtype=torch.float64),
        torch.tensor(iterations),
        torch.stack(thetas),
        torch.stack(vs),
    )


def bregman_iteration(
    problem: Problem,
    reg: Regularizer,
    tau: float | Sequence[float],
    steps: int,
    *,
    tol: float = 1e-13,
) -> Trajectory:
    """Bregman iteration (2.1) from theta = p = 0, every step solved to high accuracy.

        theta^{k+1} = argmin D_J^{p^k}(theta, theta^k) + tau L(theta)
        p^{k+1} = p^k - tau grad L(theta^{k+1})

    It is the implicit Euler method for the flow (2.2). For l1 with a quadratic loss theta rests
    between the events of the flow, so steps that end at the events follow the flow without error.

    Args:
        problem: the loss L.
        reg: J.
        tau: the step size, positive: one number, or one per step.
        steps: how many steps to take.
        tol: the tolerance of the inner solver, see ``minimize``.

    Returns:
        theta^k and p^k at the times tau_0 + ... + tau_{k-1}, from k = 0 on.

    Raises:
        ValueError: a step is not positive, or their number is wrong.
        RuntimeError: an inner problem was not solved.
    """
    taus = _step_sizes(tau, steps)
    theta = _start(problem, None)
    p = torch.zeros_like(theta)
    thetas, ps = [theta], [p]
    for value in taus:
        # tau L + J - <p, .> has the minimizer of L - <p / tau, .> + J / tau
        theta = minimize(problem, reg, weight=1 / value, tilt=p / value, theta0=theta, tol=tol)
        p = p - value * problem.grad(theta)
        thetas.append(theta)
        ps.append(p)
    times = torch.tensor([0.0, *accumulate(taus)], dtype=torch.float64)
    return Trajectory(times, torch.stack(thetas), torch.stack(ps))


def gradient_descent(
    problem: Problem, tau: float, steps: int, theta0: Tensor | None = None
) -> Tensor:
    """Gradient descent theta <- theta - tau grad L(theta).

    Args:
        problem: the loss L.
        tau: the step size, positive; it converges for tau < 2 / Lip.
        steps: how many steps to take.
        theta0: where to start, None for zero.

    Returns:
        (steps + 1, *shape), the iterates.

    Raises:
        ValueError: tau is not positive, or theta0 does not fit.
    """
    return ista(problem, Zero(), tau, steps, theta0)


def ista(
    problem: Problem, reg: Regularizer, tau: float, steps: int, theta0: Tensor | None = None
) -> Tensor:
    """Proximal gradient descent (1.5) for L + J, ISTA: theta <- prox_{tau J}(theta - tau grad L).

    Args:
        problem: the loss L.
        reg: J.
        tau: the step size, positive; it converges for tau < 2 / Lip.
        steps: how many steps to take.
        theta0: where to start, None for zero.

    Returns:
        (steps + 1, *shape), the iterates.

    Raises:
        ValueError: tau is not positive, or theta0 does not fit.
    """
    iterates = [_start(problem, theta0)]
    for step in _step_sizes(tau, steps):
        theta = iterates[-1]
        iterates.append(reg.prox(theta - step * problem.grad(theta), step))
    return torch.stack(iterates)


def fista(
    problem: Problem, reg: Regularizer, tau: float, steps: int, theta0: Tensor | None = None
) -> Tensor:
    """FISTA for L + J (Beck, Teboulle 2009): ISTA from an extrapolated point, error O(1/k^2).

    Args:
        problem: the loss L.
        reg: J.
        tau: the step size, positive; it converges for tau <= 1 / Lip.
        steps: how many steps to take.
        theta0: where to start, None for zero.

    Returns:
        (steps + 1, *shape), the iterates.

    Raises:
        ValueError: tau is not positive, or theta0 does not fit.
    """
    _step_sizes(tau, steps)
    theta = _start(problem, theta0)
    iterates = _accelerated(problem, reg, tau, 1.0, torch.zeros_like(theta), theta, restart=False)
    return torch.stack([theta, *(x for x, _ in islice(iterates, steps))])


def minimize(
    problem: Problem,
    reg: Regularizer,
    *,
    weight: float = 1.0,
    tilt: Tensor | None = None,
    theta0: Tensor | None = None,
    tol: float = 1e-13,
    max_steps: int = 100_000,
) -> Tensor:
    """argmin L(theta) + weight J(theta) - <tilt, theta>, by restarted FISTA to high accuracy.

    Without tilt this is the Lasso (1.4) for J; tilted by a subgradient, a Bregman step (2.1).

    Args:
        problem: the loss L.
        reg: J.
        weight: the positive factor in front of J.
        tilt: of the problem's shape, None for zero.
        theta0: where to start, None for zero.
        tol: the last step of theta, times Lip, in parts of the largest gradient involved.
        max_steps: the number of steps after which to give up.

    Returns:
        The minimizer, of the problem's shape.

    Raises:
        ValueError: weight, tol or max_steps is not positive, or a shape does not fit.
        RuntimeError: the tolerance was not reached within max_steps.
    """
    checks.positive("weight", weight)
    checks.positive("tol", tol)
    checks.positive("max_steps", max_steps)
    theta = _start(problem, theta0)
    tilt = torch.zeros_like(theta) if tilt is None else tilt
    problem.check(tilt, "tilt")
    lipschitz = problem.lipschitz or 1.0  # a loss without slope takes any step
    scale = max(
        float(torch.linalg.vector_norm(x))
        for x in (problem.grad(torch.zeros_like(theta)), tilt, lipschitz * theta)
    )
    steps = _accelerated(problem, reg, 1 / lipschitz, weight, tilt, theta, restart=True)
    for theta, moved in islice(steps, max_steps):
        if lipschitz * moved <= tol * scale:
            return theta
    raise RuntimeError(
        f"the minimizer was not reached within {max_steps} steps to tol={tol}, the last step is "
        f"{lipschitz * moved / scale:.1e}: raise tol or max_steps"
    )


def discrepancy_principle(
    problem: Problem, thetas: Tensor, noise_loss: float, eta: float = 1.0
) -> int:
    """The first iterate that explains the data as well as the noise allows: stop there.

    Args:
        problem: the loss L.
        thetas: (K, *shape), iterates of falling loss.
        noise_loss: the loss that noise alone leaves, ||noise||^2 / (2 m) for least squares.
        eta: the residual may be eta >= 1 times as large: L(theta) <= eta^2 noise_loss.

    Returns:
        The index of the first such iterate.

    Raises:
        ValueError: no iterate reaches the level, noise_loss is not positive, or eta < 1.
    """
    checks.positive("noise_loss", noise_loss)
    checks.at_least("eta", eta, 1)
    losses = torch.stack([problem.f(theta) for theta in thetas])
    reached = losses <= eta**2 * noise_loss
    if not bool(reached.any()):
        raise ValueError(
            f"no iterate reaches the loss {eta**2 * noise_loss:.3e}, the least is "
            f"{losses.min().item():.3e}: take more steps"
        )
    return int(reached.int().argmax())


def _accelerated(
    problem: Problem,
    reg: Regularizer,
    tau: float,
    weight: float,
    tilt: Tensor,
    theta: Tensor,
    *,
    restart: bool,
) -> Iterator[tuple[Tensor, float]]:
    """FISTA on L + weight J - <tilt, .>: the iterates, and how far each is from its start point."""
    y, t = theta, 1.0
    while True:
        last = theta
        theta = reg.prox(y - tau * (problem.grad(y) - tilt), tau * weight)
        yield theta, float(torch.linalg.vector_norm(theta - y))
        # the momentum points uphill: forget it (O'Donoghue, Candes 2015)
        if restart and bool(((y - theta) * (theta - last)).sum() > 0):
            t = 1.0
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        y, t = theta + (t - 1) / t_next * (theta - last), t_next


def _start(problem: Problem, theta0: Tensor | None) -> Tensor:
    if theta0 is None:
        return problem.A.new_zeros(problem.theta_shape)
    problem.check(theta0, "theta0")
    return theta0


def _step_sizes(tau: float | Sequence[float], steps: int) -> list[float]:
    checks.at_least("steps", steps, 0)
    taus = [float(tau)] * steps if isinstance(tau, int | float) else [float(x) for x in tau]
    if len(taus) != steps:
        raise ValueError(f"tau must be one number or {steps}, one per step, got {len(taus)}")
    for value in [tau] if isinstance(tau, int | float) else taus:
        checks.positive("tau", value)
    return taus
