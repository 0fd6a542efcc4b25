"""The theorems of section 3, both sides of each inequality evaluated along real paths of LinBreg.

Notation of the proofs: theta, v is the state at step k and theta', v' the next one, Delta =
theta' - theta, g = (v - v') / tau the gradient used, r = grad L(theta) - g its error. Expectations
are over g given the past, and exact, since g has finitely many outcomes. sigma^2 is the variance at
theta itself, so each statement is a little stronger than with a bound over all theta. Throughout,

    <v' - v, Delta> = D_J^sym + ||Delta||^2 / delta        (v = p + theta / delta).          (a)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bregman.suite.convex import checks
from bregman.suite.convex.problems import Problem
from bregman.suite.convex.solvers import Path


@dataclass(frozen=True, eq=False)
class Bound:
    """The two sides of lhs <= rhs, step by step.

    Args:
        lhs: (K,), the side that the theorem bounds.
        rhs: (K,), its bound.
        constants: the constants that enter, by name.
    """

    lhs: Tensor
    rhs: Tensor
    constants: dict[str, float]

    @property
    def slack(self) -> Tensor:
        """(K,), rhs - lhs: negative where the inequality fails."""
        return self.rhs - self.lhs

    def holds(self, tol: float = 1e-12) -> bool:
        """Whether lhs <= rhs at every step, up to rounding relative to the largest number seen."""
        scale = max(1.0, float(self.lhs.abs().max()), float(self.rhs.abs().max()))
        return bool((self.slack >= -tol * scale).all())


def theorem_2(path: Path) -> Bound:
    """Loss decay, with C = 2 - delta tau Lip and c = 1/2.

        E[L(theta')] + E[D_J^sym] / tau + C E||Delta||^2 / (2 delta tau)
            <= L(theta) + delta tau sigma^2 / (2 c)

    Proof. The descent lemma and (a) give

        L(theta') <= L(theta) + <g, Delta> + <r, Delta> + Lip/2 ||Delta||^2
                   = L(theta) - D_J^sym / tau - (2 - delta tau Lip) / (2 delta tau) ||Delta||^2
                     + <r, Delta>.

    Let theta^ be the step that grad L would make: it does not depend on g, so E<r, theta^> = 0, and
    the prox is non-expansive, ||theta' - theta^|| <= delta tau ||r||. Hence E<r, Delta> =
    E<r, theta' - theta^> <= delta tau sigma^2. The inequality holds for every step size; it says
    that the loss decays where C >= 0, that is tau <= 2 / (delta Lip).

    Args:
        path: a path with every iterate, without momentum.

    Returns:
        The two sides at steps 0 to K - 1, with constants C (its least over the steps) and c.

    Raises:
        ValueError: iterates are missing, or momentum is not zero.
    """
    step = _Steps(path)
    C = 2 - path.delta * path.taus * path.problem.lipschitz
    lhs = (
        step.mean(step.losses)
        + step.mean(step.symmetric) / path.taus
        + C / (2 * path.delta * path.taus) * step.mean(step.moved)
    )
    rhs = path.losses[:-1] + path.delta * path.taus * step.variance
    return Bound(lhs, rhs, {"C": float(C.min()), "c": 0.5})


def corollary_3(path: Path) -> Bound:
    """Summability for non-increasing steps, with C = c = 1 - delta tau_0 Lip / 2 > 0.

        sum_k D_J^sym + C/(2 delta) sum_k ||Delta||^2
            <= tau_0 (L(theta^0) - inf L) + delta/(2 c) sum_k tau_k^2 ||r_k||^2

    Here every quantity is that of the path itself; the expectation of the right side is finite if
    the tau_k are square-summable.

    Proof. In the proof of Theorem 2 estimate <r, Delta> <= delta tau/(2c) ||r||^2 + c/(2 delta tau)
    ||Delta||^2 instead; this holds on every path and leaves C = 2 - c - delta tau Lip. Multiply by
    tau_k and sum: tau does not increase, so sum_k tau_k (L(theta^k) - L(theta^{k+1})) <=
    tau_0 (L(theta^0) - inf L). The choice c = C splits what there is equally.

    Args:
        path: a path with every iterate, without momentum, from steps that do not increase.

    Returns:
        The partial sums up to steps 0 to K - 1. inf L is that of the minimizer, or 0 where there
        is no unique one (all losses here are non-negative).

    Raises:
        ValueError: the steps increase, tau_0 >= 2 / (delta Lip), iterates are missing, or momentum
            is not zero.
    """
    _check_complete(path)
    problem, taus, delta = path.problem, path.taus, path.delta
    if bool((taus.diff() > 0).any()):
        raise ValueError("path must have step sizes that do not increase")
    C = 1 - delta * float(taus[0]) * problem.lipschitz / 2
    if C <= 0:
        limit = 2 / (delta * problem.lipschitz)
        raise ValueError(f"the first step size must be below {limit}, got {float(taus[0])}")
    grads = torch.stack([problem.grad(theta) for theta in path.theta[:-1]])
    noise = grads + path.v.diff(dim=0) / _column(taus, path.v)
    change = path.theta.diff(dim=0)
    ndim = change.ndim - 1
    errors, moved = _inner(noise, noise, ndim), _inner(change, change, ndim)
    symmetric = _inner(path.p.diff(dim=0), change, ndim)
    lhs = (symmetric + C / (2 * delta) * moved).cumsum(0)
    rhs = float(taus[0]) * (path.losses[0] - _infimum(problem)) + delta / (2 * C) * (
        taus.square() * errors
    ).cumsum(0)
    return Bound(lhs, rhs, {"C": C, "c": C})


def distances(path: Path) -> Tensor:
    """d_k = D_{J_delta}^{v^k}(theta*, theta^k) along a path, theta* the minimizer of L.

    Args:
        path: a path of LinBreg.

    Returns:
        (K,), the distance at each recorded iterate.

    Raises:
        ValueError: L has no unique minimizer, or J is infinite there.
    """
    return _distances(path, path.theta, path.v)


def theorem_6(path: Path) -> Bound:
    """The distance to theta* when L is mu-strongly convex and tau <= mu / (2 delta Lip^2).

        E[d'] - d + mu tau/4 E||theta* - theta'||^2 <= sigma/2 (tau^2 + E||Delta||^2)

    Proof. The three-point identity for J_delta, D^v(theta', theta) >= ||Delta||^2 / (2 delta) and
    v' - v = -tau g give d' - d <= -||Delta||^2 / (2 delta) + tau <g, theta* - theta'>. Write
    g = grad L(theta') + (grad L(theta) - grad L(theta')) - r and e = theta* - theta'. Then
    <grad L(theta'), e> <= -mu ||e||^2 since grad L(theta*) = 0; the second part is at most
    Lip ||Delta|| ||e|| <= mu/2 ||e||^2 + Lip^2/(2 mu) ||Delta||^2, whose last term the step
    condition makes at most ||Delta||^2 / (4 delta tau); and -E<r, e> = E<r, Delta> <=
    sigma sqrt(E||Delta||^2), so tau times it is at most sigma/2 (tau^2 + E||Delta||^2). So the
    inequality holds, even with mu tau/2 in place of mu tau/4.

    For exact gradients the right side is zero: d_k falls at every step (Remark 8).

    Args:
        path: a path with every iterate, without momentum; its steps may violate the condition.

    Returns:
        The two sides at steps 0 to K - 1, with mu and tau_max, the largest step allowed.

    Raises:
        ValueError: L is not strongly convex, J(theta*) is infinite, iterates are missing, or
            momentum is not zero.
    """
    problem = path.problem
    mu, lipschitz = problem.strong_convexity, problem.lipschitz
    checks.positive("the strong convexity of L", mu)
    step = _Steps(path)
    e = problem.minimizer() - step.theta
    lhs = (
        step.mean(_distances(path, step.theta, step.v))
        - distances(path)[:-1]
        + mu * path.taus / 4 * step.mean(_inner(e, e, e.ndim - 2))
    )
    rhs = step.variance.sqrt() / 2 * (path.taus.square() + step.mean(step.moved))
    return Bound(lhs, rhs, {"mu": mu, "tau_max": mu / (2 * path.delta * lipschitz**2)})


def strong_bregman_convexity(problem: Problem, lam: float, delta: float = 1.0) -> float:
    """nu > 0 of Theorem 11 for J = lam ||.||_1, towards the minimizer theta* of L.

        L(theta*) >= L(theta) + <grad L(theta), theta* - theta> + nu D_{J_delta}^v(theta*, theta)

    for all theta and v: this is all that the proof of Theorem 11 uses. Between any two points no
    nu > 0 does for l1 (at theta = 0, D_J is linear in z near 0, while L is quadratic there).

        nu = mu delta / (1 + 4 lam delta / min |theta*_i|), the minimum over theta*_i != 0

    Proof. An entry adds lam |theta*_i| - p_i theta*_i to D_J^p(theta*, theta). That is zero unless
    theta*_i != 0 and theta_i is zero or of the other sign; then it is at most 2 lam |theta*_i| <=
    2 lam (theta*_i - theta_i)^2 / |theta*_i|. So D_{J_delta} is at most
    (2 lam / min |theta*_i| + 1/(2 delta)) ||theta* - theta||^2, and strong convexity gives
    mu/2 ||theta* - theta||^2. For lam = 0 it is mu = nu / delta.

    Args:
        problem: a strongly convex loss.
        lam: the weight lambda >= 0.
        delta: the weight of the quadratic term, positive.

    Returns:
        nu.

    Raises:
        ValueError: L is not strongly convex, or an argument is out of range.
    """
    checks.at_least("lam", lam, 0)
    checks.positive("delta", delta)
    mu = problem.strong_convexity
    checks.positive("the strong convexity of L", mu)
    sizes = problem.minimizer().abs()
    smallest = float(sizes[sizes > 0].min()) if bool(sizes.any()) else math.inf
    return mu * delta / (1 + 4 * lam * delta / smallest)


def theorem_11(path: Path, nu: float) -> Bound:
    """The distance to theta* under strong Bregman convexity with constant nu.

        E[d'] <= (1 - tau nu (1 - tau 2 delta^2 Lip^2 / nu)) d + delta tau^2 sigma^2

    Proof. As for Theorem 6, d' - d <= -||Delta||^2/(2 delta) + tau <g, theta* - theta> -
    tau <g, Delta>, and the last term is at most ||Delta||^2/(2 delta) + delta tau^2/2 ||g||^2. With
    E<g, theta* - theta> <= L(theta*) - L(theta) - nu d and E||g||^2 = ||grad L(theta)||^2 +
    sigma^2,

        E[d'] <= (1 - tau nu) d - tau (L(theta) - L(theta*))
                 + delta tau^2/2 (||grad L(theta)||^2 + sigma^2).                            (b)

    Now ||grad L(theta)||^2 <= Lip^2 ||theta - theta*||^2 <= 2 delta Lip^2 d. So the inequality
    holds, for every tau, even with half of both tau^2 terms.

    Args:
        path: a path with every iterate, without momentum.
        nu: the constant, see ``strong_bregman_convexity``.

    Returns:
        The two sides at steps 0 to K - 1, with nu.

    Raises:
        ValueError: nu is not positive, L has no unique minimizer, iterates are missing, or
            momentum is not zero.
    """
    checks.positive("nu", nu)
    step = _Steps(path)
    tau, delta, lipschitz = path.taus, path.delta, path.problem.lipschitz
    factor = 1 - tau * nu * (1 - tau * 2 * delta**2 * lipschitz**2 / nu)
    rhs = factor * distances(path)[:-1] + delta * tau.square() * step.variance
    return Bound(step.mean(_distances(path, step.theta, step.v)), rhs, {"nu": nu})


def corollary_12(paths: Sequence[Path], nu: float, c: float, offset: float) -> Bound:
    """The rate E[d_k] <= C / (k + offset) for steps tau_k = c / (k + offset), k = 0, 1, ...

        C = max(offset d_0, delta c^2 sigma^2 / (2 (c nu - 1)))

    for c > 1/nu and offset >= c delta Lip. (The offset is the number of steps of c/k that are left
    out, being too long.)

    Proof. In (b), ||grad L(theta)||^2 <= 2 Lip (L(theta) - L(theta*)) and tau <= 1/(delta Lip)
    leave d_{k+1} <= (1 - tau nu) d_k + delta tau^2 sigma^2 / 2. With n = k + offset, a = c nu > 1,
    b = delta c^2 sigma^2 / 2 and d_k <= C/n (1 - a/n >= 0, since nu <= mu delta <= delta Lip):
    d_{k+1} <= C/n - (a C - b)/n^2 <= C/n - C/n^2 <= C/(n + 1), as C >= b/(a - 1).

    Args:
        paths: independent runs from one start, with every iterate and without momentum; their mean
            stands for the expectation, and one path will do where the gradient is exact.
        nu: the constant, see ``strong_bregman_convexity``.
        c: the numerator of the steps.
        offset: what is added to k.

    Returns:
        The mean distance and its bound at iterates 0 to K, with C and sigma, the largest along the
        paths.

    Raises:
        ValueError: there are no paths, c or offset is too small, or the steps are others.
    """
    if not paths:
        raise ValueError("paths must hold at least one path, got none")
    delta, lipschitz = paths[0].delta, paths[0].problem.lipschitz
    if not c * nu > 1:
        raise ValueError(f"c must be above 1/nu = {1 / nu}, got {c}")
    checks.at_least("offset", offset, c * delta * lipschitz)
    n = torch.arange(len(paths[0].taus) + 1, dtype=torch.float64) + offset
    for path in paths:
        _check_complete(path)
        if path.delta != delta or not torch.allclose(path.taus, c / n[:-1], rtol=1e-12):
            raise ValueError("paths must share delta, and their steps be c / (k + offset)")
    mean = torch.stack([distances(path) for path in paths]).mean(0)
    sigma2 = max(float(_variances(path).max()) for path in paths)
    C = max(offset * float(mean[0]), delta * c**2 * sigma2 / (2 * (c * nu - 1)))
    return Bound(mean, C / n, {"C": C, "sigma": math.sqrt(sigma2)})


class _Steps:
    """All states that one step can lead to, for every step of a path at once.

    theta and v are (K, outcomes, *shape); the other attributes are what the theorems need of them.
    """

    def __init__(self, path: Path) -> None:
        _check_complete(path)
        theta, v, delta = path.theta[:-1], path.v[:-1], path.delta
        grads = torch.vmap(path.gradient.outcomes)(theta)
        self.v = v.unsqueeze(1) - _column(path.taus, grads) * grads
        prox = torch.vmap(torch.vmap(lambda x: path.reg.prox(delta * x, delta)))
        self.theta = prox(self.v)
        change = self.theta - theta.unsqueeze(1)
        ndim = change.ndim - 2
        self.moved = _inner(change, change, ndim)
        self.symmetric = _inner(self.v - v.unsqueeze(1) - change / delta, change, ndim)
        self.losses = torch.vmap(torch.vmap(path.problem.f))(self.theta)
        self.variance = _variances(path)[:-1]

    @staticmethod
    def mean(values: Tensor) -> Tensor:
        """The expectation over the outcomes."""
        return values.mean(1)


def _distances(path: Path, theta: Tensor, v: Tensor) -> Tensor:
    # Lemma 13 for a batch of any leading dimensions
    theta_star = path.problem.minimizer()
    value = path.reg(theta_star)
    if not bool(value.isfinite()):
        raise ValueError("J must be finite at the minimizer of L, got an infinite value")
    J = path.reg.__call__
    for _ in range(theta.ndim - theta_star.ndim):
        J = torch.vmap(J)
    p, gap, ndim = v - theta / path.delta, theta_star - theta, theta_star.ndim
    return value - J(theta) - _inner(p, gap, ndim) + _inner(gap, gap, ndim) / (2 * path.delta)


def _variances(path: Path) -> Tensor:
    return torch.vmap(path.gradient.variance)(path.theta)


def _infimum(problem: Problem) -> Tensor:
    try:
        return problem.f(problem.minimizer())
    except ValueError:
        return torch.zeros((), dtype=torch.float64)


def _check_complete(path: Path) -> None:
    if len(path.theta) != len(path.taus) + 1 or not len(path.taus):
        raise ValueError("path must hold every iterate of at least one step: every=1, steps >= 1")
    if path.momentum != 0:
        raise ValueError(f"path must be without momentum, got momentum={path.momentum}")


def _inner(a: Tensor, b: Tensor, ndim: int) -> Tensor:
    # <a, b> over the last ndim dimensions
    return (a * b).flatten(a.ndim - ndim).sum(-1)


def _column(taus: Tensor, like: Tensor) -> Tensor:
    return taus.reshape(-1, *[1] * (like.ndim - 1))
