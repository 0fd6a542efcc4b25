"""Inverse scale space flows: exact for l1 with a quadratic loss, by accurate time steps otherwise.

The flow dp/dt = -grad L(theta_t), p_t in dJ(theta_t) (2.2) starts at theta = 0, p = 0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bregman.regularizers import Regularizer
from bregman.suite.convex import checks
from bregman.suite.convex.problems import LeastSquares, Problem

# minutes of work; whoever asks for more has mistaken a number
_MOST_STEPS = 1_000_000


@dataclass(frozen=True, eq=False)
class Trajectory:
    """States of a flow or of an implicit iteration.

    Args:
        times: (K,), increasing.
        theta: (K, *shape), the parameters.
        p: (K, *shape), the subgradients at these times.
    """

    times: Tensor
    theta: Tensor
    p: Tensor

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, eq=False)
class ExactFlow(Trajectory):
    """A flow with theta constant and p linear in time between the events at ``times``.

    ``theta[k]`` holds from times[k] to times[k + 1], the last one for ever; ``p[k]`` is the
    subgradient at times[k].
    """

    def theta_at(self, t: Tensor | float) -> Tensor:
        """theta at the times t >= 0, of shape (*t.shape, *shape); at an event, the new value."""
        return self.theta[self._piece(_as_times(t))]

    def p_at(self, t: Tensor | float) -> Tensor:
        """p at the times t >= 0, of shape (*t.shape, *shape)."""
        t = _as_times(t).clamp(max=float(self.times[-1]))
        if len(self) == 1:
            return self.p[torch.zeros_like(t, dtype=torch.long)]
        piece = self._piece(t).clamp(max=len(self) - 2)
        share = (t - self.times[piece]) / (self.times[piece + 1] - self.times[piece])
        share = share.reshape(*t.shape, *[1] * (self.p.ndim - 1))
        return torch.lerp(self.p[piece], self.p[piece + 1], share)

    def _piece(self, t: Tensor) -> Tensor:
        return torch.searchsorted(self.times, t, right=True) - 1


def inverse_scale_space_flow(problem: LeastSquares, lam: float) -> ExactFlow:
    """The flow (2.2) for J = lam ||.||_1 and a quadratic loss, solved exactly from theta = p = 0.

    While p moves in a straight line, theta rests. An event comes when an entry of |p| reaches lam:
    then theta jumps to the minimizer of L among the theta whose entries are zero where |p| < lam,
    and have the sign of p where |p| = lam (Burger, Moeller, Benning, Osher 2013). After finitely
    many events grad L vanishes and the flow stops, at a basis pursuit solution if the data are
    attainable.

    Args:
        problem: the quadratic loss.
        lam: the weight lambda > 0 of the l1 norm.

    Returns:
        The flow; ``times[0]`` is 0, the others are the events.

    Raises:
        ValueError: lam is not positive, or the loss is not quadratic.
        RuntimeError: the events do not end: columns of A are dependent to within rounding.
    """
    checks.positive("lam", lam)
    if not isinstance(problem, LeastSquares):
        raise ValueError(f"problem must be LeastSquares, got {type(problem).__name__}")
    m, n = problem.A.shape
    gradient_at_zero = problem.A.T @ problem.y / m
    # what counts as zero: gradients by their own scale, subgradients by lam
    tol = 1e-11 * float(gradient_at_zero.abs().max())
    theta, p, t = torch.zeros_like(gradient_at_zero), torch.zeros_like(gradient_at_zero), 0.0
    times, thetas, ps = [t], [theta], [p]
    for _ in range(10 * (m + n)):
        velocity = problem.A.T @ (problem.y - problem.A @ theta) / m
        # entries that carry theta stay at +-lam; the others run to the end of [-lam, lam] ahead
        running = (theta == 0) & (velocity.abs() > tol)
        if not bool(running.any()):
            break
        velocity = velocity.where(running, 0.0)
        ahead = (lam * velocity.sign() - p) / velocity
        wait = float(ahead[running].min())
        p = (p + wait * velocity).clamp(-lam, lam)
        active = p.abs() >= lam * (1 - 1e-10)
        p = torch.where(active, lam * p.sign(), p)
        t += wait
        theta = _signed_least_squares(problem, p.sign() * active, theta, tol)
        times.append(t)
        thetas.append(theta)
        ps.append(p)
    else:
        raise RuntimeError(
            f"the flow did not end after {10 * (m + n)} events: columns of A are nearly dependent"
        )
    shape = (-1, *problem.theta_shape)
    return ExactFlow(
        torch.tensor(times, dtype=torch.float64),
        torch.stack(thetas).reshape(shape),
        torch.stack(ps).reshape(shape),
    )


def elastic_flow(
    problem: Problem,
    reg: Regularizer,
    times: Tensor,
    *,
    delta: float = 1.0,
    gamma: float = 0.0,
    max_step: float = math.inf,
) -> Trajectory:
    """The flow of J_delta, with inertia if gamma > 0: gamma v'' + v' = -grad L(theta), eq. (2.4).

    Here theta = prox_{delta J}(delta v), so v determines theta and the flow is an ordinary
    differential equation; as tau -> 0, LinBreg tends to it, with momentum
    beta = gamma / (tau + gamma). (For the l1 norm alone, delta = infinity, inertia would push p
    against the wall |p| = lam at full speed and theta would need an impulse.) With the velocity
    q = v', gamma q' + q = -grad L(theta), it is the gradient memory (2.5),

        v'(t) = -1/gamma integral_0^t exp(-(t - s)/gamma) grad L(theta_s) ds.

    Steps are those of the classical fourth-order Runge-Kutta method; at a kink of the prox their
    error is of second order.

    Args:
        problem: the loss L.
        reg: J.
        times: (K,), increasing from 0, where the state is wanted.
        delta: the weight of the quadratic term, positive.
        gamma: the inertia, >= 0.
        max_step: an upper bound of the time step, positive; smaller steps are taken where
            stability or times need it.

    Returns:
        The states at ``times``, from theta = v = v' = 0; its p is v - theta / delta.

    Raises:
        ValueError: times is not increasing from 0, delta, gamma or max_step is out of range, or
            they ask for more than a million time steps.
    """
    checks.positive("delta", delta)
    checks.at_least("gamma", gamma, 0)
    if not max_step > 0:
        raise ValueError(f"max_step must be positive, got {max_step}")
    checks.finite("times", times)
    if times.ndim != 1 or not len(times) or times[0] != 0 or bool((times.diff() <= 0).any()):
        raise ValueError(f"times must increase from 0, got {times.tolist()[:5]}")

    def theta_of(v: Tensor) -> Tensor:
        return reg.prox(delta * v, delta)

    def slope(state: Tensor) -> Tensor:
        # state is v, or (v, q) with inertia
        force = -problem.grad(theta_of(state[0]))
        if gamma == 0:
            return force.unsqueeze(0)
        return torch.stack([state[1], (force - state[1]) / gamma])

    # stable and accurate: the fastest rate of the linear parts is at most one per step
    rate = delta * problem.lipschitz
    rate = rate if gamma == 0 else 1 / gamma + math.sqrt(rate / gamma)
    max_step = min(max_step, 0.5 / rate if rate > 0 else math.inf)
    if not float(times[-1]) <= max_step * _MOST_STEPS:
        raise ValueError(
            f"times up to {float(times[-1]):g} need steps of at most {max_step:.1e}, more than "
            f"{_MOST_STEPS:,} of them: an earlier end, a smaller delta or a larger gamma is needed"
        )
    state = problem.A.new_zeros((1 if gamma == 0 else 2, *problem.theta_shape))
    v = [state[0]]
    for gap in times.diff().tolist():
        count = max(1, math.ceil(gap / max_step))
        h = gap / count
        for _ in range(count):
            k1 = slope(state)
            k2 = slope(state + h / 2 * k1)
            k3 = slope(state + h / 2 * k2)
            k4 = slope(state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        v.append(state[0])
    theta = torch.stack([theta_of(x) for x in v])
    return Trajectory(times, theta, torch.stack(v) - theta / delta)


def _signed_least_squares(
    problem: LeastSquares, signs: Tensor, start: Tensor, tol: float
) -> Tensor:
    """argmin L(theta) subject to signs * theta >= 0, theta = 0 where signs is 0.

    Lawson and Hanson's active set method, warm: ``start`` is feasible and optimal on its support.
    """
    A = problem.A * signs
    x = start * signs
    passive = x > 0
    for _ in range(3 * len(x) + 10):
        descent = A.T @ (problem.y - A @ x) / len(problem.y)
        descent = descent.masked_fill(passive | (signs == 0), -math.inf)
        entering = int(descent.argmax())
        if descent[entering] <= tol:
            return x * signs + 0.0  # no -0.0
        passive[entering] = True
        while True:
            solution = torch.zeros_like(x)
            solution[passive] = torch.linalg.lstsq(A[:, passive], problem.y).solution
            # an entry that is zero but for rounding is zero
            shrinking = passive & (solution <= 1e-12 * solution.max())
            if not bool(shrinking.any()):
                break
            # go towards the solution until the first entry is zero, and fix it there
            reach = torch.where(x > 0, x / (x - solution.clamp(max=0)), 0.0)
            reach = reach.masked_fill(~shrinking, math.inf)
            leaving = int(reach.argmin())
            x = x + float(reach[leaving]) * (solution - x)
            passive[leaving] = False
            x = x.where(passive, 0.0).clamp(min=0)
        x = solution
    raise RuntimeError("sign-constrained least squares did not end: A has nearly dependent columns")


def _as_times(t: Tensor | float) -> Tensor:
    t = torch.as_tensor(t, dtype=torch.float64)
    if not bool((t >= 0).all()):
        raise ValueError(f"t must be non-negative, got {t.min().item()}")
    return t
