"""The exact flow against its definition, scipy, Bregman iteration and LinBreg; elastic flows."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch

from bregman.regularizers import L1, GroupL12
from bregman.suite.convex import (
    LeastSquares,
    bregman_iteration,
    compressed_sensing,
    elastic_flow,
    inverse_scale_space_flow,
    linbreg_path,
    logistic_regression,
)

LAM = 0.7


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PROBLEMS = {
    "basis pursuit": compressed_sensing(rng(0), 30, 80, 4),
    "too few data": compressed_sensing(rng(1), 12, 40, 8),
    "noise": compressed_sensing(rng(2), 25, 60, 4, noise=0.3),
    "more data than unknowns": compressed_sensing(rng(3), 60, 20, 5, noise=0.3),
    "correlated": LeastSquares(
        torch.randn(20, 30, generator=rng(4), dtype=torch.float64)
        + 2 * torch.randn(20, 1, generator=rng(5), dtype=torch.float64),
        torch.randn(20, generator=rng(6), dtype=torch.float64),
    ),
}


@pytest.fixture(params=PROBLEMS.values(), ids=PROBLEMS.keys())
def problem(request: pytest.FixtureRequest) -> LeastSquares:
    return request.param


def test_flow_solves_its_equation(problem: LeastSquares) -> None:
    flow, reg = inverse_scale_space_flow(problem, LAM), L1(LAM)
    assert flow.times[0] == 0
    assert (flow.times.diff() > 0).all()
    assert not flow.theta[0].any()
    for k in range(len(flow) - 1):
        gap = flow.times[k + 1] - flow.times[k]
        # dp/dt = -grad L(theta)
        change = flow.p[k + 1] - flow.p[k] + gap * problem.grad(flow.theta[k])
        assert change.abs().max() < 1e-9 * LAM
        # p in dJ(theta) at both ends of the piece, hence in between
        assert reg.subdiff_distance(flow.p[k], flow.theta[k]) < 1e-12
        assert reg.subdiff_distance(flow.p[k + 1], flow.theta[k]) < 1e-12
    assert reg.subdiff_distance(flow.p[-1], flow.theta[-1]) < 1e-12
    # it rests where L is least, and L falls on the way
    assert problem.grad(flow.theta[-1]).norm() < 1e-9
    losses = torch.stack([problem.f(theta) for theta in flow.theta])
    assert (losses.diff() < 0).all()


def test_every_theta_is_a_sign_constrained_least_squares_solution(problem: LeastSquares) -> None:
    flow = inverse_scale_space_flow(problem, LAM)
    A, y = problem.A.numpy(), problem.y.numpy()
    for theta, p in zip(flow.theta, flow.p, strict=True):
        signs = (p.sign() * (p.abs() == LAM)).numpy()
        solution, residual = scipy.optimize.nnls(A * signs, y)
        assert np.linalg.norm(A @ theta.numpy() - y) == pytest.approx(residual, abs=1e-9)
        np.testing.assert_allclose(theta.numpy(), signs * solution, atol=1e-8)


@pytest.mark.parametrize("name", ["basis pursuit", "too few data", "noise", "correlated"])
def test_flow_ends_in_a_basis_pursuit_solution(name: str) -> None:
    problem = PROBLEMS[name]
    flow = inverse_scale_space_flow(problem, LAM)
    n = problem.A.shape[1]
    A = problem.A.numpy()
    answer = scipy.optimize.linprog(np.ones(2 * n), A_eq=np.hstack([A, -A]), b_eq=problem.y.numpy())
    np.testing.assert_allclose(A @ flow.theta[-1].numpy(), problem.y.numpy(), atol=1e-9)
    assert float(flow.theta[-1].abs().sum()) == pytest.approx(answer.fun, abs=1e-9)
    np.testing.assert_allclose(flow.theta[-1].numpy(), answer.x[:n] - answer.x[n:], atol=1e-8)
    if name == "basis pursuit":
        torch.testing.assert_close(flow.theta[-1], problem.truth, rtol=0, atol=1e-10)
        assert torch.equal(flow.theta[-1] != 0, problem.truth != 0), "exact zeros"


def test_flow_scales_with_lam(problem: LeastSquares) -> None:
    one, three = (inverse_scale_space_flow(problem, lam) for lam in (1.0, 3.0))
    torch.testing.assert_close(three.times, 3 * one.times)
    torch.testing.assert_close(three.theta, one.theta, rtol=0, atol=1e-8)


def test_flow_between_events() -> None:
    problem = PROBLEMS["noise"]
    flow = inverse_scale_space_flow(problem, LAM)
    middle = (flow.times[1:] + flow.times[:-1]) / 2
    assert torch.equal(flow.theta_at(middle), flow.theta[:-1])
    assert torch.equal(flow.theta_at(flow.times), flow.theta)
    torch.testing.assert_close(flow.p_at(flow.times), flow.p)
    torch.testing.assert_close(flow.p_at(middle), (flow.p[1:] + flow.p[:-1]) / 2)
    end = float(flow.times[-1])
    assert torch.equal(flow.theta_at(end + 5), flow.theta[-1])
    assert torch.equal(flow.p_at(end + 5), flow.p[-1])
    assert flow.p_at(torch.zeros(2, 3)).shape == (2, 3, 60)
    with pytest.raises(ValueError, match="t must be non-negative, got -1"):
        flow.theta_at(-1.0)


def test_flow_at_rest_and_with_ties() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    rest = inverse_scale_space_flow(LeastSquares(eye, torch.zeros(4).double()), 1.0)
    assert len(rest) == 1
    assert not rest.p_at(3.0).any()
    # denoising: entry i enters at lam m / |y_i|, at its full size; equal ones enter together
    y = torch.tensor([2.0, -1.0, 1.0, 0.5], dtype=torch.float64)
    flow = inverse_scale_space_flow(LeastSquares(eye, y), 1.0)
    torch.testing.assert_close(flow.times, torch.tensor([0.0, 2.0, 4.0, 8.0]).double())
    for size, theta in zip((3.0, 2.0, 1.0, 0.1), flow.theta, strict=True):
        torch.testing.assert_close(theta, y.where(y.abs() >= size, 0.0))


def test_flow_keeps_the_shape_of_theta() -> None:
    flat = PROBLEMS["noise"]
    shaped = LeastSquares(flat.A, flat.y, shape=(10, 6))
    flow = inverse_scale_space_flow(shaped, LAM)
    assert flow.theta.shape[1:] == flow.p.shape[1:] == (10, 6)
    assert torch.equal(flow.theta.flatten(1), inverse_scale_space_flow(flat, LAM).theta)


def test_bregman_iteration_with_steps_between_events_is_the_flow(problem: LeastSquares) -> None:
    flow = inverse_scale_space_flow(problem, LAM)
    gaps = flow.times.diff().tolist()[:12]
    steps = bregman_iteration(problem, L1(LAM), gaps, len(gaps))
    count = len(gaps)
    torch.testing.assert_close(steps.times, flow.times[: count + 1])
    # theta^{k+1} is the theta before the event at times[k + 1]
    torch.testing.assert_close(steps.theta[1:], flow.theta[:count], rtol=0, atol=1e-7)
    torch.testing.assert_close(steps.p, flow.p[: count + 1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("count", [3, 7, 20])
def test_bregman_iteration_is_exact_on_any_grid_while_nothing_leaves(count: int) -> None:
    # theta^{k+1} is then the mean of the flow's theta over the step: p(t_{k+1}) is a subgradient
    # at every theta in between, hence at their mean
    problem = PROBLEMS["basis pursuit"]
    flow = inverse_scale_space_flow(problem, LAM)
    supports = flow.theta[:-1] != 0  # what leaves at the very end no longer matters
    assert (supports[1:] | ~supports[:-1]).all()
    steps = bregman_iteration(problem, L1(LAM), float(flow.times[-1]) / count, count)
    torch.testing.assert_close(steps.p, flow.p_at(steps.times), rtol=0, atol=1e-9)
    fine = torch.linspace(0, float(flow.times[-1]), 20_000 * count + 1, dtype=torch.float64)[:-1]
    means = flow.theta_at(fine).reshape(count, -1, 80).mean(1)
    torch.testing.assert_close(steps.theta[1:], means, rtol=0, atol=1e-3)


def test_bregman_iteration_converges_to_the_flow_where_entries_leave() -> None:
    # only a step across an event at which an entry leaves is in error: no smooth order in tau
    problem = PROBLEMS["noise"]
    flow = inverse_scale_space_flow(problem, LAM)
    left = ((flow.theta[:-1] != 0) & (flow.theta[1:] == 0)).any(1)
    end = float(flow.times[int(left.int().argmax()) + 3])
    errors = []
    for count in (16, 128):
        steps = bregman_iteration(problem, L1(LAM), end / count, count)
        errors.append(float((steps.p - flow.p_at(steps.times)).abs().max()))
    assert errors[0] > 1e-4
    assert errors[1] < errors[0] / 4


def observed_order(errors: list[float]) -> float:
    """The slope of log error over log tau, when tau is halved from one to the next."""
    x = -math.log(2) * np.arange(len(errors))
    return float(np.polyfit(x, np.log(errors), 1)[0])


def test_linbreg_converges_to_the_flow_with_order_one() -> None:
    # the l1 flow is the limit tau -> 0 with delta = 1/(tau Lip) -> infinity
    problem = PROBLEMS["basis pursuit"]
    flow = inverse_scale_space_flow(problem, LAM)
    p_errors, theta_errors = [], []
    for count in (1000, 2000, 4000):
        tau = float(flow.times[-1]) / count
        path = linbreg_path(problem, L1(LAM), tau, count, delta=1 / (tau * problem.lipschitz))
        times = tau * path.iterations
        p_errors.append(float((path.p - flow.p_at(times)).abs().max()))
        # theta jumps: it converges in the mean over time
        theta_errors.append(float((path.theta - flow.theta_at(times)).abs().mean()))
    assert 0.85 < observed_order(p_errors) < 1.15
    assert 0.85 < observed_order(theta_errors) < 1.15
    assert p_errors[-1] < 2e-3 * LAM


@pytest.mark.parametrize("gamma", [0.0, 0.4])
@pytest.mark.parametrize("reg", [L1(0.3), GroupL12(0.1, 0)], ids=repr)
def test_elastic_flow_agrees_with_scipy(reg: L1 | GroupL12, gamma: float) -> None:
    problem, delta = PROBLEMS["more data than unknowns"], 0.8
    times = torch.linspace(0, 4, 9, dtype=torch.float64)
    flow = elastic_flow(problem, reg, times, delta=delta, gamma=gamma, max_step=2e-3)
    n = problem.A.shape[1]

    def right_side(t: float, state: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(state[:n])
        force = -problem.grad(reg.prox(delta * v, delta)).numpy()
        return np.concatenate([state[n:], (force - state[n:]) / gamma]) if gamma else force

    start = np.zeros(2 * n if gamma else n)
    tight = dict(t_eval=times.numpy(), rtol=1e-10, atol=1e-12, method="RK45", max_step=0.02)
    answer = scipy.integrate.solve_ivp(right_side, (0, 4), start, **tight)
    v = flow.p + flow.theta / delta
    np.testing.assert_allclose(v.numpy(), answer.y[:n].T, rtol=0, atol=1e-6)
    for theta, p in zip(flow.theta, flow.p, strict=True):
        assert reg.subdiff_distance(p, theta) < 1e-12


def test_inertia_is_a_gradient_memory() -> None:
    # (2.5): v(t) = -integral_0^t (1 - exp(-(t - s)/gamma)) grad L(theta_s) ds
    problem, gamma = PROBLEMS["more data than unknowns"], 0.5
    times = torch.linspace(0, 3, 3001, dtype=torch.float64)
    flow = elastic_flow(problem, L1(0.3), times, gamma=gamma)
    grads = torch.stack([problem.grad(theta) for theta in flow.theta])
    memory = 1 - ((times - times[-1]) / gamma).exp()
    v = -torch.trapezoid(memory[:, None] * grads, times, dim=0)
    torch.testing.assert_close(v, flow.p[-1] + flow.theta[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_linbreg_converges_to_the_elastic_flow_with_order_one(gamma: float) -> None:
    problem, reg, end = PROBLEMS["more data than unknowns"], L1(0.3), 2.0
    times = torch.tensor([0.0, end], dtype=torch.float64)
    limit = elastic_flow(problem, reg, times, gamma=gamma, max_step=1e-3).theta[-1]
    errors = []
    for count in (50, 100, 200, 400):
        tau = end / count
        path = linbreg_path(problem, reg, tau, count, momentum=gamma / (tau + gamma))
        errors.append(float((path.theta[-1] - limit).abs().max()))
    assert 0.85 < observed_order(errors) < 1.15


def test_elastic_flow_of_a_constant_loss_rests() -> None:
    flat = LeastSquares(torch.zeros(3, 2).double(), torch.ones(3).double())
    for gamma in (0.0, 0.5):
        flow = elastic_flow(flat, L1(1.0), torch.tensor([0.0, 5.0]).double(), gamma=gamma)
        assert not flow.theta.any()
        assert not flow.p.any()


def test_bad_input() -> None:
    problem, logistic = PROBLEMS["noise"], logistic_regression(rng(7), 20, 5, 2)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    cases = [
        (lambda: inverse_scale_space_flow(problem, 0.0), "lam must be positive and finite, got 0"),
        (lambda: inverse_scale_space_flow(problem, math.nan), "lam must be positive"),
        (
            lambda: inverse_scale_space_flow(logistic, 1.0),
            "problem must be LeastSquares, got LogisticRegression",
        ),
        (lambda: elastic_flow(problem, L1(1), times, delta=1e12), "more than 1,000,000 of them"),
        (lambda: elastic_flow(problem, L1(1), times, gamma=1e-12), "up to 1 need steps of at most"),
        (lambda: elastic_flow(problem, L1(1), times, max_step=1e-9), "at most 1.0e-09"),
        (lambda: elastic_flow(problem, L1(1), 1e12 * times), "an earlier end, a smaller delta"),
        (lambda: elastic_flow(problem, L1(1), times, delta=0), "delta must be positive"),
        (lambda: elastic_flow(problem, L1(1), times, gamma=-1), "gamma must be at least 0"),
        (lambda: elastic_flow(problem, L1(1), times, max_step=0), "max_step must be positive"),
        (lambda: elastic_flow(problem, L1(1), times.flip(0)), "times must increase from 0"),
        (lambda: elastic_flow(problem, L1(1), times.float()), "times must be float64"),
        (lambda: bregman_iteration(problem, L1(1), -0.1, 3), "tau must be positive"),
        (lambda: bregman_iteration(problem, L1(1), [0.1], 3), "one number or 3"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message):
            make()
