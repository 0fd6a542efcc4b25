"""Iterations against cvxpy, linear programs, closed forms and the paper's statements."""

import math
from itertools import pairwise

import cvxpy as cp
import numpy as np
import pytest
import torch

from bregman.regularizers import L1, GroupL12, NonNegative, NonNegativeL1, Nuclear, Regularizer
from bregman.suite.convex import (
    AdditiveNoise,
    LeastSquares,
    Problem,
    bregman_iteration,
    compressed_sensing,
    discrepancy_principle,
    example_1,
    gradient_descent,
    group_sparse,
    inverse_scale_space_flow,
    ista,
    linbreg_path,
    logistic_regression,
    low_rank,
    minimize,
)

ACCURATE = dict(solver=cp.SCS, eps_abs=1e-11, eps_rel=1e-11, max_iters=200_000)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SENSING = compressed_sensing(rng(0), 30, 80, 4)
TALL = compressed_sensing(rng(1), 60, 20, 5, noise=0.3)

LASSO = {
    "underdetermined": (SENSING, L1(0.05)),
    "overdetermined": (TALL, L1(0.2)),
    "non-negative": (TALL, NonNegativeL1(0.2)),
    "groups": (group_sparse(rng(2), 40, 15, 4, 3, noise=0.1), GroupL12(0.05, 1)),
    "nuclear": (low_rank(rng(3), 50, 8, 8, 1, noise=0.1), Nuclear(0.1)),
    "logistic": (logistic_regression(rng(4), 60, 20, 4, ridge=0.01), L1(0.03)),
}


def by_cvxpy(problem: Problem, reg: Regularizer) -> tuple[np.ndarray, float]:
    theta = cp.Variable(problem.theta_shape)
    z = problem.A.numpy() @ cp.vec(theta, order="C")
    y = problem.y.numpy()
    if isinstance(problem, LeastSquares):
        loss = cp.sum_squares(z - y) / (2 * len(y))
    else:
        loss = cp.sum(cp.logistic(cp.multiply(-y, z))) / len(y)
        loss += problem.ridge / 2 * cp.sum_squares(theta)
    constraints = []
    match reg:
        case L1():
            value = cp.sum(cp.abs(theta))
        case NonNegativeL1():
            value, constraints = cp.sum(theta), [theta >= 0]
        case GroupL12():
            value = math.sqrt(theta.shape[1]) * cp.sum(cp.norm(theta, 2, axis=1))
        case Nuclear():
            value = cp.normNuc(theta)
    answer = cp.Problem(cp.Minimize(loss + reg.lam * value), constraints)
    answer.solve(**ACCURATE)
    return theta.value, answer.value


@pytest.mark.parametrize("name", LASSO)
def test_lasso_agrees_with_cvxpy(name: str) -> None:
    problem, reg = LASSO[name]
    theta = minimize(problem, reg)
    # optimality, to the last digits
    assert reg.subdiff_distance(-problem.grad(theta), theta) < 1e-11
    expected, value = by_cvxpy(problem, reg)
    assert float(problem.f(theta) + reg(theta)) == pytest.approx(value, abs=1e-10)
    np.testing.assert_allclose(theta.numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", LASSO)
def test_ista_reaches_the_lasso(name: str) -> None:
    problem, reg = LASSO[name]
    theta, tau = minimize(problem, reg), 1 / problem.lipschitz
    best = problem.f(theta) + reg(theta)
    start = theta.norm().square()

    def gaps(iterates: torch.Tensor) -> torch.Tensor:
        return torch.stack([problem.f(x) + reg(x) for x in iterates[1:]]) - best

    k = torch.arange(1, 401)
    above = gaps(ista(problem, reg, tau, 400))
    # the rate of Beck and Teboulle (2009)
    assert (above <= problem.lipschitz * start / (2 * k) + 1e-12).all()
    assert (above.diff() <= 1e-14).all()


def test_ista_is_forward_backward() -> None:
    theta = torch.randn(20, generator=rng(5), dtype=torch.float64)
    steps = ista(TALL, L1(0.2), 0.1, 3, theta)
    assert torch.equal(steps[0], theta)
    for old, new in pairwise(steps):
        # (old - new)/tau - grad L(old) is a subgradient at new
        assert L1(0.2).subdiff_distance((old - new) / 0.1 - TALL.grad(old), new) < 1e-12


def test_gradient_descent() -> None:
    mu, lipschitz = TALL.strong_convexity, TALL.lipschitz
    theta = TALL.minimizer()
    errors = (gradient_descent(TALL, 1 / lipschitz, 50) - theta).norm(dim=1)
    assert (errors[1:] <= (1 - mu / lipschitz) * errors[:-1] + 1e-14).all()
    wild = gradient_descent(TALL, 2.2 / lipschitz, 50)
    assert TALL.f(wild[-1]) > TALL.f(wild[0])


def test_linbreg_path_is_algorithm_2() -> None:
    reg, tau, beta, delta = GroupL12(0.1, 1), 0.2, 0.8, 0.7
    problem = group_sparse(rng(6), 40, 6, 3, 2)
    theta = torch.randn(6, 3, generator=rng(7), dtype=torch.float64)
    path = linbreg_path(problem, reg, tau, 20, delta=delta, momentum=beta, theta0=theta)
    v, m = reg.subgrad(theta) + theta / delta, torch.zeros_like(theta)
    for k in range(21):
        torch.testing.assert_close(path.theta[k], theta, rtol=0, atol=1e-13)
        torch.testing.assert_close(path.v[k], v, rtol=0, atol=1e-13)
        m = beta * m + (1 - beta) * tau * problem.grad(theta)
        v = v - m
        theta = reg.prox(delta * v, delta)
    assert reg.subdiff_distance(path.p[-1], path.theta[-1]) < 1e-12
    assert path.losses[-1] == problem.f(path.theta[-1])


def test_linbreg_path_records_what_is_asked() -> None:
    whole = linbreg_path(TALL, L1(0.1), 0.1, 10)
    some = linbreg_path(TALL, L1(0.1), [0.1] * 10, 10, every=4)
    assert whole.iterations.tolist() == list(range(11))
    assert some.iterations.tolist() == [0, 4, 8, 10]
    assert torch.equal(some.theta, whole.theta[some.iterations])
    assert torch.equal(some.v, whole.v[some.iterations])
    assert len(some.taus) == 10


def test_noisy_paths_are_reproducible() -> None:
    noisy = AdditiveNoise(TALL, 0.5)
    first, again, other = (
        linbreg_path(noisy, L1(0.1), 0.1, 20, generator=rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.theta, again.theta)
    assert not torch.equal(first.theta, other.theta)


def test_exact_regularization() -> None:
    # LinBreg goes to argmin J + ||.||^2/(2 delta) s.t. A theta = y; for delta above a threshold
    # that is the basis pursuit solution itself
    problem, errors = SENSING, {}
    for delta in (0.05, 10.0):
        tau = 1 / (delta * problem.lipschitz)
        path = linbreg_path(problem, L1(1.0), tau, 2000, delta=delta, every=2000)
        theta = cp.Variable(80)
        cp.Problem(
            cp.Minimize(cp.norm1(theta) + cp.sum_squares(theta) / (2 * delta)),
            [problem.A.numpy() @ theta == problem.y.numpy()],
        ).solve(**ACCURATE)
        np.testing.assert_allclose(path.theta[-1].numpy(), theta.value, atol=1e-6)
        errors[delta] = float((path.theta[-1] - problem.truth).abs().max())
    assert errors[0.05] > 0.01
    assert errors[10.0] < 1e-6


def test_lasso_is_biased_and_bregman_is_not() -> None:
    lasso = minimize(SENSING, L1(0.05))
    end = inverse_scale_space_flow(SENSING, 0.05).theta[-1]
    support = SENSING.truth != 0
    assert (lasso[support].abs() < SENSING.truth[support].abs() - 1e-3).all()
    torch.testing.assert_close(end, SENSING.truth, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("problem", "reg"),
    [
        (group_sparse(rng(8), 40, 20, 4, 2), GroupL12(1.0, 1)),
        (low_rank(rng(9), 60, 10, 10, 1), Nuclear(1.0)),
    ],
    ids=["groups", "low rank"],
)
def test_structured_recovery_from_few_data(problem: LeastSquares, reg: Regularizer) -> None:
    assert len(problem.y) < problem.truth.numel()
    delta = 20.0
    tau = 1 / (delta * problem.lipschitz)
    path = linbreg_path(problem, reg, tau, 3000, delta=delta, every=3000)
    torch.testing.assert_close(path.theta[-1], problem.truth, rtol=0, atol=1e-4)
    steps = bregman_iteration(problem, reg, 50.0, 6)
    torch.testing.assert_close(steps.theta[-1], problem.truth, rtol=0, atol=1e-5)


def test_bregman_steps_are_optimal() -> None:
    for problem, reg in LASSO.values():
        steps = bregman_iteration(problem, reg, 0.5, 4)
        for k in range(4):
            expected = steps.p[k] - 0.5 * problem.grad(steps.theta[k + 1])
            torch.testing.assert_close(steps.p[k + 1], expected)
            assert reg.subdiff_distance(steps.p[k + 1], steps.theta[k + 1]) < 1e-9
        losses = torch.stack([problem.f(theta) for theta in steps.theta])
        assert (losses.diff() <= 1e-12).all()


def test_discrepancy_principle_stops_before_the_noise() -> None:
    problem = compressed_sensing(rng(10), 60, 120, 5, noise=0.3)
    delta = 10.0
    tau = 0.5 / (delta * problem.lipschitz)
    path = linbreg_path(problem, L1(1.0), tau, 4000, delta=delta)
    stop = discrepancy_principle(problem, path.theta, float(problem.f(problem.truth)))
    errors = (path.theta - problem.truth).norm(dim=1)
    assert 0 < stop < 4000
    assert path.losses[stop] <= problem.f(problem.truth) < path.losses[stop - 1]
    assert errors[stop] < 0.5 * errors[-1]
    assert discrepancy_principle(problem, path.theta, float(problem.f(problem.truth)), 1.5) < stop


def test_logistic_regression_by_linbreg() -> None:
    problem = logistic_regression(rng(11), 200, 40, 4, ridge=0.05)
    path = linbreg_path(problem, L1(0.3), 1.0, 3000)
    counts = (path.theta != 0).sum(1)
    assert counts[0] == 0
    assert counts[5] < 10
    torch.testing.assert_close(path.theta[-1], problem.minimizer(), rtol=0, atol=1e-6)


def test_example_1_converges_to_a_point_that_is_not_critical() -> None:
    start = torch.tensor([2.0], dtype=torch.float64)
    path = linbreg_path(example_1(), NonNegative(), 0.1, 200, theta0=start)
    assert path.theta[-1].item() == 0
    assert example_1().grad(path.theta[-1]).item() == pytest.approx(2)
    assert path.v[-1].item() < -30


def test_bad_input() -> None:
    zero = torch.zeros(20, dtype=torch.float64)
    flat = LeastSquares(torch.zeros_like(TALL.A), TALL.y)
    cases = [
        (lambda: ista(TALL, L1(1), 0.0, 3), "tau must be positive and finite, got 0"),
        (lambda: ista(TALL, L1(1), math.inf, 3), "tau must be positive and finite, got inf"),
        (lambda: gradient_descent(TALL, -1.0, 3), "tau must be positive"),
        (lambda: ista(TALL, L1(1), 0.1, -1), "steps must be at least 0"),
        (lambda: ista(TALL, L1(1), 0.1, 3, zero[1:]), r"theta0 must have shape \(20,\)"),
        (lambda: ista(TALL, L1(1), 0.1, 3, zero / 0), "theta0 must be finite"),
        (lambda: ista(TALL, L1(1), 0.1, 3, zero.float()), "theta0 must be float64"),
        (lambda: linbreg_path(TALL, L1(1), [0.1, math.nan], 2), "tau must be positive"),
        (lambda: linbreg_path(TALL, L1(1), [0.1], 2), "one number or 2, one per step, got 1"),
        (lambda: linbreg_path(TALL, L1(1), 0.1, 2, delta=0.0), "delta must be positive"),
        (lambda: linbreg_path(TALL, L1(1), 0.1, 2, momentum=1.0), r"momentum must be in \[0, 1\)"),
        (lambda: linbreg_path(TALL, L1(1), 0.1, 2, every=0), "every must be at least 1"),
        (lambda: linbreg_path(AdditiveNoise(TALL, 1.0), L1(1), 0.1, 2), "generator must be"),
        (
            lambda: linbreg_path(TALL, GroupL12(1, 1), 0.1, 2),
            "dim must be different dimensions of a parameter",
        ),
        (lambda: minimize(TALL, L1(1), weight=0), "weight must be positive"),
        (lambda: minimize(TALL, L1(1), tol=-1), "tol must be positive"),
        (lambda: minimize(TALL, L1(1), max_steps=0), "max_steps must be at least 1 and finite"),
        (lambda: minimize(flat, L1(1)), "A must not be zero: the loss is constant"),
        (lambda: minimize(TALL, L1(1), tilt=zero[1:]), r"tilt must have shape \(20,\)"),
        (lambda: discrepancy_principle(TALL, zero[None], 1e-3), "no iterate reaches the loss"),
        (lambda: discrepancy_principle(TALL, zero[None], 0), "noise_loss must be positive"),
        (lambda: discrepancy_principle(TALL, zero[None], 1, 0.5), "eta must be at least 1"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(RuntimeError, match="not reached within 3 steps"):
        minimize(SENSING, L1(0.01), max_steps=3)
