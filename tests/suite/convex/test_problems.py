"""Losses, constants, gradients and distances, against finite differences, scipy and definitions."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch

from bregman.regularizers import (
    L1,
    ElasticNet,
    GroupL12,
    NonNegative,
    Nuclear,
    Regularizer,
    SparseGroup,
    Zero,
)
from bregman.suite.convex import (
    AdditiveNoise,
    ExactGradient,
    LeastSquares,
    LogisticRegression,
    Minibatch,
    Problem,
    bregman_distance,
    compressed_sensing,
    elastic_bregman_distance,
    example_1,
    group_sparse,
    logistic_regression,
    low_rank,
    symmetric_bregman_distance,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


PROBLEMS = {
    "sparse": compressed_sensing(rng(), 40, 12, 4, noise=0.3),
    "groups": group_sparse(rng(), 40, 4, 3, 2, noise=0.3),
    "low rank": low_rank(rng(), 40, 4, 3, 2, noise=0.3),
    "logistic": logistic_regression(rng(), 40, 8, 3, ridge=0.2),
    "example 1": example_1(),
}


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS.keys())
def problem(request: pytest.FixtureRequest) -> Problem:
    return request.param


def test_gradient_is_the_derivative(problem: Problem) -> None:
    theta = normal(1, *problem.theta_shape)
    assert torch.autograd.gradcheck(problem.f, theta.clone().requires_grad_())
    leaf = theta.clone().requires_grad_()
    problem.f(leaf).backward()
    torch.testing.assert_close(problem.grad(theta), leaf.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(problem.sample_grads(theta).mean(0), leaf.grad)


def test_constants_bound_the_hessian(problem: Problem) -> None:
    n = problem.A.shape[1]
    for seed in range(5):
        theta = normal(seed, *problem.theta_shape)
        hessian = torch.func.hessian(problem.f)(theta).reshape(n, n)
        eigenvalues = torch.linalg.eigvalsh(hessian)
        assert eigenvalues[-1] <= problem.lipschitz * (1 + 1e-12)
        assert eigenvalues[0] >= problem.strong_convexity * (1 - 1e-12)
        if isinstance(problem, LeastSquares):
            assert float(eigenvalues[-1]) == pytest.approx(problem.lipschitz)
            assert float(eigenvalues[0]) == pytest.approx(problem.strong_convexity)


def test_minimizer(problem: Problem) -> None:
    theta = problem.minimizer()
    assert problem.grad(theta).norm() < 1e-11
    answer = scipy.optimize.minimize(
        lambda x: problem.f(torch.from_numpy(x).reshape(problem.theta_shape)).item(),
        np.zeros(problem.A.shape[1]),
        jac=lambda x: problem.grad(torch.from_numpy(x).reshape(problem.theta_shape)).flatten(),
        method="BFGS",
        options=dict(gtol=1e-10),
    )
    np.testing.assert_allclose(theta.numpy().ravel(), answer.x, atol=1e-7)


def test_truth_has_its_structure() -> None:
    sparse = compressed_sensing(rng(1), 20, 50, 5)
    sizes = sparse.truth[sparse.truth != 0].abs()
    assert len(sizes) == 5
    assert sizes.min() >= 0.5
    assert sizes.max() <= 1.5
    groups = group_sparse(rng(1), 20, 10, 4, 3)
    assert int(groups.truth.any(1).sum()) == 3
    matrix = low_rank(rng(1), 20, 8, 6, 2)
    assert torch.linalg.matrix_rank(matrix.truth) == 2
    for p in (sparse, groups, matrix):
        assert p.f(p.truth) < 1e-28
        assert p.truth.dtype == torch.float64
    noisy = compressed_sensing(rng(1), 5000, 50, 5, noise=0.2)
    assert noisy.f(noisy.truth) == pytest.approx(0.2**2 / 2, rel=0.1)
    assert torch.equal(compressed_sensing(rng(1), 20, 50, 5).A, sparse.A)


def test_minimizer_of_exact_data_is_the_truth() -> None:
    p = compressed_sensing(rng(), 30, 10, 3)
    assert torch.equal(p.minimizer(), p.truth)


def test_example_1() -> None:
    p = example_1()
    for x in (-1.0, 0.0, 2.5):
        theta = torch.tensor([x], dtype=torch.float64)
        assert p.f(theta) == pytest.approx((x + 1) ** 2)
        assert p.grad(theta).item() == pytest.approx(2 * (x + 1))
    assert p.lipschitz == pytest.approx(2)
    assert p.strong_convexity == pytest.approx(2)


@pytest.mark.parametrize("theta_seed", [1, 2])
def test_gradients_are_unbiased_with_their_variance(problem: Problem, theta_seed: int) -> None:
    theta = normal(theta_seed, *problem.theta_shape)
    noisy = [AdditiveNoise(problem, 0.7)]
    if len(problem.y) > 1:
        noisy += [Minibatch(problem, 1), Minibatch(problem, 8)]
    for gradient in noisy:
        outcomes = gradient.outcomes(theta)
        torch.testing.assert_close(outcomes.mean(0), problem.grad(theta))
        variance = outcomes.flatten(1).var(0, correction=0).sum()
        torch.testing.assert_close(gradient.variance(theta), variance)
        draws = torch.stack([gradient.sample(theta, rng(k)) for k in range(30)])
        assert all(any(torch.equal(draw, o) for o in outcomes) for draw in draws)
        assert len(draws.unique(dim=0)) > 1
    assert float(noisy[0].variance(theta)) == pytest.approx(0.7**2)
    exact = ExactGradient(problem)
    assert exact.variance(theta) == 0
    assert torch.equal(exact.sample(theta, None), problem.grad(theta))


def test_minibatch_takes_blocks_of_samples() -> None:
    p = PROBLEMS["logistic"]
    theta = normal(3, 8)
    block = LogisticRegression(p.A[10:20], p.y[10:20], ridge=p.ridge)
    torch.testing.assert_close(Minibatch(p, 10).outcomes(theta)[1], block.grad(theta))


REGS = [
    Zero(),
    L1(0.3),
    GroupL12(0.2, 1),
    SparseGroup(0.2, 0.1, 1),
    Nuclear(0.5),
    ElasticNet(0.3, 0.5),
]


def points(reg: Regularizer) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Three points with a subgradient each, from the prox: p = x - prox(x)."""
    pairs = []
    for seed in range(3):
        x = normal(seed, 5, 4)
        theta = reg.prox(x)
        pairs.append((theta, x - theta))
    return pairs


@pytest.mark.parametrize("reg", REGS, ids=repr)
def test_distances(reg: Regularizer) -> None:
    (theta, p), (z, q), _ = points(reg)
    distance = bregman_distance(reg, z, theta, p)
    assert distance >= -1e-12
    assert bregman_distance(reg, theta, theta, p) == 0
    # (1.19), from two distances (1.17)
    both = distance + bregman_distance(reg, theta, z, q)
    symmetric = symmetric_bregman_distance(theta, z, p, q)
    torch.testing.assert_close(symmetric, both, rtol=0, atol=1e-12)
    torch.testing.assert_close(symmetric_bregman_distance(z, theta, q, p), both)
    # no subgradient: the gap is negative somewhere
    wrong = p + 3
    assert min(bregman_distance(reg, theta + t, theta, wrong) for t in (-1.0, -0.1, 0.1, 1)) < 0


@pytest.mark.parametrize("delta", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("reg", REGS, ids=repr)
def test_lemma_13(reg: Regularizer, delta: float) -> None:
    (theta, p), (z, _), _ = points(reg)
    v = p + theta / delta

    def value(x: torch.Tensor) -> torch.Tensor:
        return reg(x) + x.square().sum() / (2 * delta)

    by_definition = value(z) - value(theta) - (v * (z - theta)).sum()
    distance = elastic_bregman_distance(reg, z, theta, v, delta)
    torch.testing.assert_close(distance, by_definition, rtol=0, atol=1e-11)


def test_l1_distance_forgets_theta() -> None:
    # Remark 9: D_J^p(z, theta) = J(z) - <p, z>
    (theta, p), (z, _), _ = points(L1(0.3))
    expected = L1(0.3)(z) - (p * z).sum()
    torch.testing.assert_close(bregman_distance(L1(0.3), z, theta, p), expected)


def test_distance_outside_the_domain() -> None:
    inside, outside = torch.ones(2).double(), -torch.ones(2).double()
    assert bregman_distance(NonNegative(), outside, inside, 0 * inside) == math.inf
    with pytest.raises(ValueError, match=r"theta must have a finite J\(theta\), got inf"):
        bregman_distance(NonNegative(), inside, outside, 0 * inside)


def test_bad_input() -> None:
    A, y = normal(0, 6, 4), normal(1, 6)
    cases = [
        (lambda: LeastSquares(A, y[:5]), r"y must have shape \(6,\), got \(5,\)"),
        (lambda: LeastSquares(A.float(), y), r"A must be float64, got torch.float32"),
        (lambda: LeastSquares(A / 0, y), "A must be finite"),
        (lambda: LeastSquares(y, y), r"A must be a non-empty matrix, got shape \(6,\)"),
        (lambda: LeastSquares(A, y, shape=(3, 2)), r"shape must have 4 entries"),
        (lambda: LeastSquares(A, y, truth=y), r"truth must have shape \(4,\), got \(6,\)"),
        (lambda: LogisticRegression(A, y), "y must hold labels -1 and 1"),
        (lambda: LogisticRegression(A, y.sign(), ridge=-1), "ridge must be at least 0"),
        (lambda: LeastSquares(A, y).f(y), r"theta must have shape \(4,\), got \(6,\)"),
        (lambda: LeastSquares(A, y).grad(A), r"theta must have shape \(4,\), got \(6, 4\)"),
        (lambda: LeastSquares(A.T, y[:4]).minimizer(), r"shape \(4, 6\) has rank 4, needed is 6"),
        (lambda: LogisticRegression(A[:3], y.sign()[:3]).minimizer(), "no unique minimizer"),
        (lambda: compressed_sensing(rng(), 4, 5, 6), "nonzeros must be from 1 to 5, got 6"),
        (lambda: compressed_sensing(rng(), 0, 5, 2), "m must be at least 1"),
        (lambda: compressed_sensing(rng(), 4, 5, 2, noise=-1.0), "noise must be at least 0"),
        (lambda: low_rank(rng(), 9, 4, 3, 4), "rank must be from 1 to 3, got 4"),
        (lambda: group_sparse(rng(), 9, 4, 3, 5), "active must be from 1 to 4, got 5"),
        (lambda: AdditiveNoise(example_1(), math.nan), "sigma must be at least 0"),
        (lambda: Minibatch(LeastSquares(A, y), 4), "batch_size must divide the 6 samples, got 4"),
        (lambda: AdditiveNoise(example_1(), 1).sample(y[:1], None), "generator must be"),
        (lambda: bregman_distance(Zero(), y, y, A), r"p must have shape \(6,\)"),
        (lambda: elastic_bregman_distance(Zero(), y, y, y, 0.0), "delta must be positive"),
        (lambda: symmetric_bregman_distance(y, y, y, A), r"p2 must have shape \(6,\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
