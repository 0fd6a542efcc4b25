"""The theorems of section 3: each inequality along paths, and violated where it should be."""

import dataclasses
import math

import pytest
import torch

from bregman.regularizers import L1, GroupL12, NonNegative, Nuclear, Regularizer, Zero
from bregman.suite.convex import (
    AdditiveNoise,
    Bound,
    ExactGradient,
    LeastSquares,
    Minibatch,
    Path,
    Problem,
    compressed_sensing,
    corollary_3,
    corollary_12,
    distances,
    elastic_bregman_distance,
    example_1,
    group_sparse,
    linbreg_path,
    logistic_regression,
    low_rank,
    strong_bregman_convexity,
    theorem_2,
    theorem_6,
    theorem_11,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CASES = {
    "l1": (compressed_sensing(rng(0), 60, 15, 4), L1(0.4)),
    "l1, noisy data": (compressed_sensing(rng(1), 60, 15, 4, noise=0.3), L1(0.4)),
    "groups": (group_sparse(rng(2), 60, 5, 3, 2), GroupL12(0.2, 1)),
    "low rank": (low_rank(rng(3), 60, 4, 4, 1), Nuclear(0.3)),
    "logistic": (logistic_regression(rng(4), 60, 10, 3, ridge=0.1), L1(0.05)),
    "none": (compressed_sensing(rng(5), 60, 15, 4), Zero()),
}
STEPS = 80


def gradients(problem: Problem) -> list[ExactGradient]:
    return [ExactGradient(problem), AdditiveNoise(problem, 0.5), Minibatch(problem, 5)]


def paths(
    problem: Problem, reg: Regularizer, tau: float, *, delta: float = 1.0, power: float = 0.0
) -> list[Path]:
    """One path per kind of gradient, steps tau/(k+1)^power, from a start that is not zero."""
    taus = [tau / (k + 1) ** power for k in range(STEPS)]
    theta = torch.randn(problem.theta_shape, generator=rng(9), dtype=torch.float64)
    return [
        linbreg_path(g, reg, taus, STEPS, delta=delta, theta0=theta, generator=rng(10))
        for g in gradients(problem)
    ]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[Problem, Regularizer]:
    return request.param


@pytest.mark.parametrize("delta", [0.5, 3.0])
@pytest.mark.parametrize("share", [0.1, 1.0, 1.8])
def test_theorem_2(case: tuple[Problem, Regularizer], delta: float, share: float) -> None:
    problem, reg = case
    tau = share / (delta * problem.lipschitz)
    for path in paths(problem, reg, tau, delta=delta):
        bound = theorem_2(path)
        assert bound.holds()
        assert bound.constants["C"] == pytest.approx(2 - share)
        if len(path.gradient.outcomes(path.theta[0])) == 1:
            assert (path.losses.diff() <= 1e-14).all()


def test_theorem_2_has_the_terms_of_the_paper() -> None:
    # against a plain loop over the outcomes
    problem, reg = CASES["groups"]
    delta, tau = 0.8, 0.3
    path = paths(problem, reg, tau, delta=delta)[1]
    bound = theorem_2(path)
    C = 2 - delta * tau * problem.lipschitz
    for k in (0, 7, STEPS - 1):
        terms = []
        for g in path.gradient.outcomes(path.theta[k]):
            v = path.v[k] - tau * g
            theta = reg.prox(delta * v, delta)
            change, p = theta - path.theta[k], v - theta / delta
            symmetric = ((p - path.p[k]) * change).sum()
            moved = change.square().sum()
            terms.append(problem.f(theta) + symmetric / tau + C / (2 * delta * tau) * moved)
        torch.testing.assert_close(bound.lhs[k], torch.stack(terms).mean())
        rhs = problem.f(path.theta[k]) + tau * delta * 0.5**2 / (2 * bound.constants["c"])
        torch.testing.assert_close(bound.rhs[k], rhs)


def test_theorem_2_is_sharp_and_the_loss_may_grow_beyond_its_step() -> None:
    # one unknown, no regularizer: equality; no larger C would do
    problem = LeastSquares(torch.ones(1, 1).double(), torch.ones(1).double())
    path = linbreg_path(problem, Zero(), 0.7, 10)
    bound = theorem_2(path)
    torch.testing.assert_close(bound.lhs, bound.rhs)
    more = 0.01 / (2 * 0.7) * path.theta.diff(dim=0).square().sum(1)
    assert not dataclasses.replace(bound, lhs=bound.lhs + more).holds()
    # tau > 2/(delta Lip)
    wild = linbreg_path(problem, Zero(), 2.1, 10)
    assert (wild.losses.diff() > 0).all()
    assert theorem_2(wild).holds()
    assert theorem_2(wild).constants["C"] < 0


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_corollary_3(case: tuple[Problem, Regularizer], power: float) -> None:
    problem, reg = case
    for path in paths(problem, reg, 1.5 / problem.lipschitz, power=power):
        bound = corollary_3(path)
        assert bound.holds()
        assert (bound.lhs.diff() >= -1e-14).all()
        assert bound.constants["C"] == pytest.approx(0.25)


def test_corollary_3_needs_the_noise_term() -> None:
    problem, reg = CASES["l1"]
    noisy = AdditiveNoise(problem, 5.0)
    path = linbreg_path(noisy, reg, 1 / problem.lipschitz, STEPS, generator=rng(1))
    bound = corollary_3(path)
    assert bound.holds()
    without_noise = torch.full_like(bound.rhs, float(path.taus[0] * path.losses[0]))
    assert not dataclasses.replace(bound, rhs=without_noise).holds()


def test_distances_are_those_of_lemma_13(case: tuple[Problem, Regularizer]) -> None:
    problem, reg = case
    path = paths(problem, reg, 0.5 / problem.lipschitz, delta=0.7)[1]
    expected = [
        elastic_bregman_distance(reg, problem.minimizer(), theta, v, 0.7)
        for theta, v in zip(path.theta, path.v, strict=True)
    ]
    torch.testing.assert_close(distances(path), torch.stack(expected), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("delta", [0.5, 2.0])
@pytest.mark.parametrize("power", [0.0, 0.6])
def test_theorem_6(case: tuple[Problem, Regularizer], delta: float, power: float) -> None:
    problem, reg = case
    tau = problem.strong_convexity / (2 * delta * problem.lipschitz**2)
    for path in paths(problem, reg, tau, delta=delta, power=power):
        bound = theorem_6(path)
        assert bound.holds()
        assert bound.constants["tau_max"] == pytest.approx(tau)
    # Remark 8: with exact gradients d_k falls
    exact = paths(problem, reg, tau, delta=delta, power=power)[0]
    assert not theorem_6(exact).rhs.any()
    assert (distances(exact).diff() < 0).all()


def test_theorem_6_fails_for_large_steps() -> None:
    problem, reg = CASES["none"]
    exact = paths(problem, reg, 2.1 / problem.lipschitz)[0]
    assert not theorem_6(exact).holds()
    assert distances(exact)[-1] > distances(exact)[0]


def test_corollary_10_the_distance_vanishes() -> None:
    problem, reg = CASES["l1"]
    path = linbreg_path(problem, reg, 1 / problem.lipschitz, 400)
    assert distances(path)[-1] < 1e-12


def test_strong_bregman_convexity_towards_the_minimizer() -> None:
    for name in ("l1", "l1, noisy data", "logistic"):
        problem, _ = CASES[name]
        z = problem.minimizer()
        for lam in (0.0, 0.1, 2.0):
            for delta in (0.3, 5.0):
                nu = strong_bregman_convexity(problem, lam, delta)
                for seed in range(60):
                    v = 3 * torch.randn(z.shape, generator=rng(seed), dtype=torch.float64)
                    theta = L1(lam).prox(delta * v, delta)
                    gap = problem.f(z) - problem.f(theta)
                    gap = gap - (problem.grad(theta) * (z - theta)).sum()
                    distance = elastic_bregman_distance(L1(lam), z, theta, v, delta)
                    assert gap >= nu * distance - 1e-12
    problem, _ = CASES["l1"]
    for delta in (0.3, 5.0):
        assert strong_bregman_convexity(problem, 0.0, delta) == pytest.approx(
            delta * problem.strong_convexity
        )


def test_strong_bregman_convexity_has_no_global_constant_for_l1() -> None:
    # at theta = 0 with p = 0, towards z = epsilon e_1: D_J is linear in epsilon, L quadratic
    problem, _ = CASES["l1"]
    theta = torch.zeros(15, dtype=torch.float64)
    ratios = []
    for epsilon in (1e-1, 1e-3, 1e-5):
        z = theta.clone()
        z[0] = epsilon
        gap = problem.f(z) - problem.f(theta) - (problem.grad(theta) * (z - theta)).sum()
        ratios.append(float(gap / elastic_bregman_distance(L1(0.4), z, theta, theta)))
    assert ratios[1] < 0.02 * ratios[0]
    assert ratios[2] < 0.02 * ratios[1]


@pytest.mark.parametrize("delta", [0.5, 2.0])
@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("name", ["l1", "l1, noisy data", "logistic", "none"])
def test_theorem_11(name: str, delta: float, share: float) -> None:
    problem, reg = CASES[name]
    nu = strong_bregman_convexity(problem, reg.lam if isinstance(reg, L1) else 0.0, delta)
    for path in paths(problem, reg, share / (delta * problem.lipschitz), delta=delta):
        assert theorem_11(path, nu).holds()


def test_theorem_11_fails_for_a_wrong_constant() -> None:
    # no regularizer, small steps: d shrinks by about (1 - tau mu) in the slowest direction
    problem, reg = CASES["none"]
    path = linbreg_path(problem, reg, 0.01 / problem.lipschitz, 2000)
    nu = strong_bregman_convexity(problem, 0.0)
    assert theorem_11(path, nu).holds()
    assert not theorem_11(path, 3 * nu).holds(tol=1e-9)


def rate_paths(problem: Problem, sigma: float, nu: float, runs: int) -> tuple[list[Path], float]:
    c = 2 / nu
    offset = c * problem.lipschitz
    taus = [c / (k + offset) for k in range(300)]
    gradient = AdditiveNoise(problem, sigma) if sigma else problem
    made = [linbreg_path(gradient, L1(0.1), taus, 300, generator=rng(seed)) for seed in range(runs)]
    return made, offset


@pytest.mark.parametrize(("sigma", "runs"), [(0.0, 1), (2.0, 15)])
def test_corollary_12(sigma: float, runs: int) -> None:
    problem, _ = CASES["l1"]
    nu = strong_bregman_convexity(problem, 0.1)
    made, offset = rate_paths(problem, sigma, nu, runs)
    bound = corollary_12(made, nu, 2 / nu, offset)
    assert bound.holds()
    assert bound.constants["sigma"] == pytest.approx(sigma)
    # C/k and not a constant: k times the bound does not change
    k = torch.arange(len(bound.rhs)) + offset
    torch.testing.assert_close(k * bound.rhs, torch.full_like(bound.rhs, bound.constants["C"]))


def test_example_1() -> None:
    start = torch.tensor([2.0], dtype=torch.float64)
    path = linbreg_path(example_1(), NonNegative(), 0.2, 60, theta0=start)
    # the loss decays as Theorem 2 says, to a point that is not critical; theta* is out of reach
    assert theorem_2(path).holds()
    assert corollary_3(path).holds()
    assert path.theta[-1] == 0
    for evaluate in (distances, theorem_6):
        with pytest.raises(ValueError, match="J must be finite at the minimizer of L"):
            evaluate(path)


def test_bound() -> None:
    one = torch.ones(3, dtype=torch.float64)
    assert Bound(one, one, {}).holds()
    assert Bound(one, one - 1e-14, {}).holds()
    assert not Bound(one, one - 1e-9, {}).holds()
    assert not Bound(one, one * math.nan, {}).holds()
    assert torch.equal(Bound(one, 3 * one, {}).slack, 2 * one)


def test_bad_input() -> None:
    problem, reg = CASES["l1"]
    flat = compressed_sensing(rng(0), 10, 20, 2)
    good = linbreg_path(problem, reg, 0.1, 4)
    gappy = linbreg_path(problem, reg, 0.1, 4, every=2)
    heavy = linbreg_path(problem, reg, 0.1, 4, momentum=0.5)
    growing = linbreg_path(problem, reg, [0.1, 0.2], 2)
    unsure = linbreg_path(flat, reg, 0.1, 4)
    cases = [
        (lambda: theorem_2(gappy), "path must hold every iterate"),
        (lambda: theorem_2(linbreg_path(problem, reg, 0.1, 0)), "path must hold every iterate"),
        (lambda: theorem_2(heavy), "path must be without momentum, got momentum=0.5"),
        (lambda: corollary_3(growing), "do not increase"),
        (lambda: corollary_3(linbreg_path(problem, reg, 9.0, 2)), "first step size must be below"),
        (lambda: distances(unsure), "the minimizer is not unique"),
        (lambda: theorem_6(unsure), "strong convexity of L must be positive"),
        (lambda: strong_bregman_convexity(flat, 0.1), "strong convexity of L must be positive"),
        (lambda: strong_bregman_convexity(problem, -1.0), "lam must be at least 0"),
        (lambda: theorem_11(good, 0.0), "nu must be positive"),
        (lambda: corollary_12([], 0.1, 20.0, 99.0), "at least one path"),
        (lambda: corollary_12([good], 0.1, 1.0, 99.0), "c must be above 1/nu"),
        (lambda: corollary_12([good], 0.1, 20.0, 1.0), "offset must be at least"),
        (lambda: corollary_12([good], 0.1, 20.0, 99.0), "their steps be c / "),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
