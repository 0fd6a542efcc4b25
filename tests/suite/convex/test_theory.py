"""The theorems of section 3: each inequality along paths, and violated where it should be."""

import math

import pytest
import torch
from torch import Tensor

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
    sharp_theorem_6,
    sharp_theorem_11,
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
    assert bound.room("C") == pytest.approx(1)
    assert not bound.scaled("C", 1.01).holds()
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
    assert not bound.scaled("noise", 0.0).holds()


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
    assert not theorem_6(exact).right["noise"].any()
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

    def bound(left: Tensor, right: Tensor) -> Bound:
        return Bound({"left": left}, {"right": right})

    assert bound(one, one).holds()
    assert bound(one, one - 1e-14).holds()
    assert not bound(one, one - 1e-9).holds()
    assert not bound(one, one * math.nan).holds()
    assert torch.equal(bound(one, 3 * one).slack, 2 * one)
    assert not bound(0 * one, 0 * one).holds(), "nothing that counts is no evidence"


def test_the_room_of_a_term_is_where_the_inequality_breaks() -> None:
    # 2 + 1 <= 6 - 1 at the first step, 0.5 + 1 <= 6 - 4 at the second; the third is rounding
    tiny = 1e-20
    bound = Bound(
        {"a": torch.tensor([2.0, 0.5, 9 * tiny]), "b": torch.tensor([1.0, 1.0, tiny])},
        {"c": torch.tensor([6.0, 6.0, tiny]), "d": torch.tensor([-1.0, -4.0, tiny])},
    )
    assert bound.counts().tolist() == [True, True, False]
    rooms = {"a": 2.0, "b": 1.5, "c": 5.5 / 6, "d": 1.125}
    for term, room in rooms.items():
        assert bound.room(term) == pytest.approx(room)
        beyond = 1 + 1.01 * (room - 1)
        assert bound.scaled(term, 1 + 0.99 * (room - 1)).holds(), term
        assert not bound.scaled(term, beyond).holds(), term
    with pytest.raises(ValueError, match=r"term must be one of .*, got 'e'"):
        bound.room("e")


def easy() -> LeastSquares:
    """Orthogonal columns, so that Lip = mu = 1: here the theorems' constants can be sharp."""
    A = math.sqrt(60) * torch.linalg.qr(
        torch.randn(60, 8, generator=rng(3), dtype=torch.float64)
    ).Q  # fmt: skip
    truth = torch.tensor([1.0, -1, 1, 0, 0, 0, 0, 0], dtype=torch.float64)
    return LeastSquares(A, A @ truth, truth=truth)


def from_the_worst_state(problem: LeastSquares, lam: float, tau: float) -> Path:
    """A path from theta* without its first entry, with the subgradient of the wrong sign there."""
    theta = problem.minimizer().clone()
    v = theta + lam * theta.sign()
    theta[0], v[0] = 0, -lam * theta[0].sign()
    thetas, vs = [theta], [v]
    for _ in range(50):
        v = v - tau * problem.grad(theta)
        theta = L1(lam).prox(v, 1.0)
        thetas.append(theta)
        vs.append(v)
    taus = torch.full((50,), tau, dtype=torch.float64)
    gradient = ExactGradient(problem)
    numbers = torch.arange(51)
    return Path(
        gradient, L1(lam), 1.0, 0.0, taus, numbers, torch.stack(thetas), torch.stack(vs)
    )  # fmt: skip


def test_the_constants_can_be_pinned_down() -> None:
    problem, tau = easy(), 0.01
    start = torch.randn(8, generator=rng(1), dtype=torch.float64)
    exact = linbreg_path(problem, Zero(), tau, 300, theta0=start)
    noisy = linbreg_path(
        AdditiveNoise(problem, 1.0), Zero(), tau, 300,
        theta0=problem.minimizer(), generator=rng(2),
    )  # fmt: skip
    nu = strong_bregman_convexity(problem, 0.0)
    # theorem, term, path, the factor by which the term may be wrong and no more
    cases = [
        (theorem_2, "C", exact, 1.0),
        (theorem_2, "noise", noisy, 1.0),
        (theorem_6, "mu", exact, 4 * (1 - tau / 2) / (1 - tau) ** 2),
        (theorem_6, "noise", noisy, 0.5),
        (sharp_theorem_6, "mu", exact, 1.0),
        (sharp_theorem_6, "noise", noisy, 1.0),
        (lambda path: theorem_11(path, nu), "nu", exact, 2 + 1.5 * tau),
        (lambda path: theorem_11(path, nu), "noise", noisy, 0.5),
        (lambda path: sharp_theorem_11(path, nu), "nu", exact, 1.0),
        (lambda path: sharp_theorem_11(path, nu), "noise", noisy, 1.0),
    ]
    for theorem, term, path, room in cases:
        bound = theorem(path)
        assert bound.holds(1e-14)
        assert bound.room(term) == pytest.approx(room, rel=0.01), (theorem, term)
        broken = 1.02 * room if room >= 1 and term != "noise" else 0.98 * room
        assert not bound.scaled(term, broken).holds(), (theorem, term)


def test_nu_is_pinned_down_by_the_worst_state() -> None:
    problem, lam = easy(), 0.3
    nu = strong_bregman_convexity(problem, lam)
    path = from_the_worst_state(problem, lam, 0.001)
    assert theorem_11(path, 1.9 * nu).holds()
    assert not theorem_11(path, 2.1 * nu).holds()
    assert sharp_theorem_11(path, nu).holds()
    assert not sharp_theorem_11(path, 1.02 * nu).holds()


@pytest.mark.parametrize("delta", [0.5, 2.0])
def test_the_sharp_forms_hold(case: tuple[Problem, Regularizer], delta: float) -> None:
    problem, reg = case
    mu, lipschitz = problem.strong_convexity, problem.lipschitz
    for path in paths(problem, reg, 2 / (delta * (mu + lipschitz)), delta=delta):
        assert sharp_theorem_6(path).holds()
    if isinstance(problem, LeastSquares) and isinstance(reg, L1 | Zero):
        nu = strong_bregman_convexity(problem, getattr(reg, "lam", 0.0), delta)
        for path in paths(problem, reg, 1.9 / (delta * lipschitz), delta=delta):
            assert sharp_theorem_11(path, nu).holds()


def test_corollary_12_is_pinned_down_without_a_regularizer() -> None:
    # from theta* with c = 2/nu the first step leads to d_1 = 1/2 exactly, under C/3 = 2/3
    problem = easy()
    taus = [2 / (k + 2.001) for k in range(12)]
    made = [
        linbreg_path(
            AdditiveNoise(problem, 1.0), Zero(), taus, 12,
            theta0=problem.minimizer(), generator=rng(seed),
        )
        for seed in range(200)
    ]  # fmt: skip
    bound = corollary_12(made, strong_bregman_convexity(problem, 0.0), 2.0, 2.001)
    assert bound.holds()
    assert bound.room("C") == pytest.approx(0.75, rel=0.01)
    assert not bound.scaled("C", 0.74).holds()


def test_the_level_under_noise_is_known_without_a_regularizer() -> None:
    # E d' = (1 - tau)^2 d + tau^2 sigma^2 / 2 exactly, so d tends to tau sigma^2 / (2 (2 - tau))
    problem, tau, sigma = easy(), 0.2, 1.5
    made = [
        linbreg_path(AdditiveNoise(problem, sigma), Zero(), tau, 400, generator=rng(seed))
        for seed in range(20)
    ]
    d = torch.stack([distances(path)[100:] for path in made]).mean(1)
    level, error = float(d.mean()), float(d.std()) / math.sqrt(len(d))
    assert error < 0.05 * level
    assert abs(level - tau * sigma**2 / (2 * (2 - tau))) < 4 * error


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
