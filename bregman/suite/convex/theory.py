"""The theorems of section 3, term by term along real paths of LinBreg; the proofs: notebook 03.

theta, v is the state at step k and theta', v' the next one, Delta = theta' - theta, g the gradient
used. Expectations are over g given the past, and exact, since g has finitely many outcomes. sigma^2
is the variance at theta itself, so each statement is a little stronger than with a bound over all
theta.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bregman.suite.convex import checks
from bregman.suite.convex.bounds import Bound
from bregman.suite.convex.problems import LeastSquares, Problem
from bregman.suite.convex.solvers import Path


def theorem_2(path: Path) -> Bound:
    """Loss decay, with C = 2 - delta tau Lip and c = 1/2.

        E[L(theta')] + E[D_J^sym] / tau + C E||Delta||^2 / (2 delta tau)
            <= L(theta) + delta tau sigma^2 / (2 c)

    The inequality holds for every step size; it says that the loss decays where C >= 0, that is
    tau <= 2 / (delta Lip).

    Args:
        path: a path with every iterate, without momentum.

    Returns:
        The two sides at steps 0 to K - 1, with constants C (its least over the steps) and c.

    Raises:
        ValueError: iterates are missing, or momentum is not zero.
    """
    step = _Steps(path)
    C = 2 - path.delta * path.taus * path.problem.lipschitz
    left = {
        "loss": step.mean(step.losses),
        "symmetric": step.mean(step.symmetric) / path.taus,
        "C": C / (2 * path.delta * path.taus) * step.mean(step.moved),
    }
    right = {"before": path.losses[:-1], "noise": path.delta * path.taus * step.variance}
    return Bound(left, right, {"C": float(C.min()), "c": 0.5})


def corollary_3(path: Path) -> Bound:
    """Summability for non-increasing steps, with C = c = 1 - delta tau_0 Lip / 2 > 0.

        sum_k D_J^sym + C/(2 delta) sum_k ||Delta||^2
            <= tau_0 (L(theta^0) - inf L) + delta/(2 c) sum_k tau_k^2 ||r_k||^2

    Here every quantity is that of the path itself; the expectation of the right side is finite if
    the tau_k are square-summable.

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
    left = {"symmetric": symmetric.cumsum(0), "C": C / (2 * delta) * moved.cumsum(0)}
    start = float(taus[0]) * (path.losses[0] - _infimum(problem))
    right = {
        "start": start.expand(len(taus)),
        "noise": delta / (2 * C) * (taus.square() * errors).cumsum(0),
    }
    return Bound(left, right, {"C": C, "c": C})


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
    left = {
        "distance": step.mean(_distances(path, step.theta, step.v)),
        "mu": mu * path.taus / 4 * step.mean(_inner(e, e, e.ndim - 2)),
    }
    right = {
        "before": distances(path)[:-1],
        "noise": step.variance.sqrt() / 2 * (path.taus.square() + step.mean(step.moved)),
    }
    return Bound(left, right, {"mu": mu, "tau_max": mu / (2 * path.delta * lipschitz**2)})


def sharp_theorem_6(path: Path) -> Bound:
    """Theorem 6 with the constants that cannot be bettered, for tau <= 2 / (delta (mu + Lip)).

        E[d'] + tau mu (1 - delta tau mu / 2) ||theta - theta*||^2 <= d + delta tau^2 sigma^2 / 2

    An equality for J = 0 where the Hessian is mu times the identity.

    Args:
        path: a path with every iterate, without momentum; its steps may violate the condition.

    Returns:
        The two sides at steps 0 to K - 1, with mu and tau_max, the largest step allowed.

    Raises:
        ValueError: as for ``theorem_6``.
    """
    problem, tau, delta = path.problem, path.taus, path.delta
    mu = problem.strong_convexity
    checks.positive("the strong convexity of L", mu)
    step = _Steps(path)
    e = problem.minimizer() - path.theta[:-1]
    left = {
        "distance": step.mean(_distances(path, step.theta, step.v)),
        "mu": tau * mu * (1 - delta * tau * mu / 2) * _inner(e, e, e.ndim - 1),
    }
    right = {"before": distances(path)[:-1], "noise": delta * tau.square() / 2 * step.variance}
    return Bound(left, right, {"mu": mu, "tau_max": 2 / (delta * (mu + problem.lipschitz))})


def strong_bregman_convexity(problem: Problem, lam: float, delta: float = 1.0) -> float:
    """nu > 0 of Theorem 11 for J = lam ||.||_1, towards the minimizer theta* of L.

        L(theta*) >= L(theta) + <grad L(theta), theta* - theta> + nu D_{J_delta}^v(theta*, theta)

    for all theta and v: this is all that the proof of Theorem 11 uses. Between any two points no
    nu > 0 does for l1 (at theta = 0, D_J is linear in z near 0, while L is quadratic there).

        nu = mu delta / (1 + 4 lam delta / min |theta*_i|), the minimum over theta*_i != 0

    For lam = 0 it is mu = nu / delta.

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

    The inequality holds for every tau.

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
    before = distances(path)[:-1]
    right = {
        "before": before,
        "nu": -tau * nu * before,
        "Lip": 2 * (tau * delta * lipschitz).square() * before,
        "noise": delta * tau.square() * step.variance,
    }
    return Bound({"distance": step.mean(_distances(path, step.theta, step.v))}, right, {"nu": nu})


def sharp_theorem_11(path: Path, nu: float) -> Bound:
    """Theorem 11 for least squares, with the constants that cannot be bettered.

        E[d'] <= (1 - 2 tau nu (1 - delta tau Lip / 2)) d + delta tau^2 sigma^2 / 2

    for tau <= 2 / (delta Lip): twice the nu, since a quadratic loss is its own second-order model.

    Args:
        path: a path on a least-squares loss, with every iterate, without momentum.
        nu: the constant, see ``strong_bregman_convexity``.

    Returns:
        The two sides at steps 0 to K - 1, with nu.

    Raises:
        ValueError: as for ``theorem_11``, or the loss is another one.
    """
    checks.positive("nu", nu)
    if not isinstance(path.problem, LeastSquares):
        raise ValueError(f"path must be one on least squares, got {type(path.problem).__name__}")
    step = _Steps(path)
    tau, delta, before = path.taus, path.delta, distances(path)[:-1]
    right = {
        "before": before,
        "nu": -2 * tau * nu * (1 - delta * tau * path.problem.lipschitz / 2) * before,
        "noise": delta * tau.square() / 2 * step.variance,
    }
    return Bound({"distance": step.mean(_distances(path, step.theta, step.v))}, right, {"nu": nu})


def corollary_12(paths: Sequence[Path], nu: float, c: float, offset: float) -> Bound:
    """The rate E[d_k] <= C / (k + offset) for steps tau_k = c / (k + offset), k = 0, 1, ...

        C = max(offset d_0, delta c^2 sigma^2 / (2 (c nu - 1)))

    for c > 1/nu and offset >= c delta Lip. (The offset is the number of steps of c/k that are left
    out, being too long.)

    The left side is the mean over the runs plus three standard errors of it.

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
    d = torch.stack([distances(path) for path in paths])
    sigma2 = max(float(_variances(path).max()) for path in paths)
    C = max(offset * float(d[0, 0]), delta * c**2 * sigma2 / (2 * (c * nu - 1)))
    errors = d.std(0) / math.sqrt(len(d)) if len(d) > 1 else torch.zeros_like(d[0])
    return Bound(
        {"mean": d.mean(0), "three errors": 3 * errors},
        {"C": C / n},
        {"C": C, "sigma": math.sqrt(sigma2)},
    )


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
