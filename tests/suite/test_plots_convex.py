"""The figures of notebooks 01 and 02: what is drawn must be what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from mpl_toolkits.mplot3d import Axes3D

from bregman import L1, ElasticNet, GroupL12, NonNegativeL1
from bregman.suite.convex import (
    ExactFlow,
    LeastSquares,
    compressed_sensing,
    gradient_descent,
    inverse_scale_space_flow,
    ista,
    linbreg_path,
)
from bregman.suite.plots import convex_toy_problems as convex
from bregman.suite.plots import inverse_scale_space as scale_space
from bregman.suite.plots.convex_toy_problems import trajectories


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def problem():
    return compressed_sensing(torch.Generator().manual_seed(0), m=12, n=20, nonzeros=2)


@pytest.fixture(scope="module")
def flow(problem):
    return inverse_scale_space_flow(problem, 1.0)


@pytest.fixture(scope="module")
def path(problem, flow):
    tau = 0.2 / problem.lipschitz
    steps = int(1.2 * float(flow.times[-1]) / tau)
    return linbreg_path(problem, L1(1.0), tau, steps, delta=5.0)


def lines(ax, label):
    """The x and y of the line with this label."""
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return (np.asarray(data, dtype=float) for data in found.get_data())


def columns(ax, label, count):
    """What a line that is broken after every count points shows, one column per piece."""
    x, y = lines(ax, label)
    x, y = x.reshape(-1, count + 1), y.reshape(-1, count + 1)
    assert np.isnan(y[:, -1]).all()
    np.testing.assert_array_equal(x, np.broadcast_to(x[0], x.shape))
    return y[:, :-1].T


def test_signals_are_drawn_over_the_data():
    signal = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    states = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    flows = {"one": ([0.5, 2.0], states), "two": ([0.1, 3.0], states + 1)}
    axes = scale_space.signal_scale_spaces(signal, flows).axes
    drawn = [ax.lines[1].get_ydata() for ax in axes]
    np.testing.assert_array_equal(drawn, torch.cat([states, states + 1]))
    for ax in axes:
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), signal)
    assert [ax.get_title() for ax in axes] == ["$t$ = 0.5", "$t$ = 2", "$t$ = 0.1", "$t$ = 3"]
    assert axes[2].get_ylabel() == "two"
    alone = scale_space.signal_scale_spaces(signal, {"one": ([0.5], states[:1])})
    assert alone.axes[0].get_title() == "one, $t$ = 0.5"


def test_images_are_drawn_in_their_places():
    images = np.random.default_rng(0).random((4, 3, 3))
    rows = {"up": {"a": images[0], "b": images[1]}, "down": {"c": images[2], "d": images[3]}}
    axes = scale_space.image_scale_spaces(rows).axes
    np.testing.assert_array_equal([ax.images[0].get_array() for ax in axes], images)
    assert [ax.get_title() for ax in axes] == ["a", "b", "c", "d"]
    assert all(ax.images[0].get_clim() == (0, 1) for ax in axes), "gray values are comparable"


def test_tangents_are_told_from_lines_that_are_none():
    left, middle, right = scale_space.subgradients(L1(0.8), [-0.8, 0.3, 1.2]).axes
    x, y = lines(left, "slope outside")
    np.testing.assert_allclose(y, 1.2 * x)
    assert len(left.lines) == 4
    np.testing.assert_allclose(middle.lines[0].get_ydata(), [-0.8, -0.8, 0.8, 0.8])
    x, y = lines(right, "prox")
    np.testing.assert_allclose(y, np.sign(x) * np.maximum(np.abs(x) - 0.8, 0))


def test_the_gap_has_the_length_of_the_bregman_distance():
    cases = {"square": (ElasticNet(0.0, 1.0), 0.5, 0.5, -1.3), "l1": (L1(1.0), 0.0, 0.6, 1.4)}
    square, absolute = scale_space.bregman_gaps(cases).axes
    x, y = lines(square, f"$D$ = {1.8**2 / 2:.2f}")
    np.testing.assert_allclose(x, -1.3)
    np.testing.assert_allclose(y, [0.5 * (-1.3) + 0.5**2 / 2 - 0.5**2, 1.3**2 / 2])
    _, y = lines(absolute, "$D$ = 0.56")
    np.testing.assert_allclose(np.diff(y), 0.4 * 1.4)


def test_one_weight_shows_all_four_algorithms():
    one = torch.ones(1, 1, dtype=torch.float64)
    problem = LeastSquares(one, one[0])
    path = linbreg_path(problem, L1(0.6), 0.1, 40, delta=4.0)
    shrunk, descent = ista(problem, L1(0.6), 0.1, 40), gradient_descent(problem, 0.1, 40)
    flow = inverse_scale_space_flow(problem, 0.6)
    left, right = scale_space.one_weight(flow, path, shrunk, descent).axes
    time, v = lines(left, "LinBreg: $v$")
    np.testing.assert_allclose(time, 0.1 * np.arange(41), atol=1e-7)
    np.testing.assert_allclose(v, path.v[:, 0])
    for label, values in (("LinBreg", path.theta), ("ISTA", shrunk), ("gradient descent", descent)):
        _, drawn = lines(right, label)
        np.testing.assert_allclose(drawn, values[:, 0])
    time, theta = lines(right, "flow")
    np.testing.assert_allclose(theta, np.where(time < 0.6, 0.0, 1.0))


def test_a_weight_waits_and_another_is_pulled():
    v, waiting, pulled = [0.0, 0.5, 1.0], [0.0, 0.0, 0.8], [0.0, 0.1, 0.2]
    limits = set()
    for upto, count in ((0, 1), (None, 3)):
        figure = scale_space.pull_and_wait(v, waiting, pulled, lam=0.6, tau=0.1, upto=upto)
        left, right = figure.axes
        for label, values in (("waiting", waiting), ("pulled", pulled)):
            clock, drawn = lines(right, label)
            np.testing.assert_allclose(clock, 0.1 * np.arange(count))
            np.testing.assert_array_equal(drawn, values[:count])
        np.testing.assert_array_equal(left.lines[1].get_ydata(), v[:count])
        limits.add((*left.get_xlim(), *left.get_ylim(), *right.get_ylim()))
    assert len(limits) == 1


def test_the_prox_is_drawn_at_the_minimum():
    left, right = scale_space.proximal_map(L1(0.8), 1.4).axes
    z, total = lines(left, "their sum")
    at, height = lines(left, "prox$(x)$ = 0.60")
    assert float(at[0]) == pytest.approx(z[total.argmin()], abs=0.01)
    assert float(height[0]) == pytest.approx(total.min(), abs=1e-3)
    x, mapped = lines(right, "prox")
    np.testing.assert_allclose(mapped, np.sign(x) * np.maximum(np.abs(x) - 0.8, 0))


def test_a_flow_touches_the_wall_where_it_jumps():
    f, u = torch.arange(4).double(), torch.tensor([0.5, 0.5, 2.5, 2.5]).double()
    left, right = scale_space.flow_frame(
        f, u, torch.tensor([0.1, 0.2, -0.1]).double(), 0.2, 1.0
    ).axes
    _, drawn = lines(left, "$u(t)$")
    np.testing.assert_array_equal(drawn, u)
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.5, 1.0, -0.5])
    np.testing.assert_allclose(right.lines[1].get_data(), [[1.5], [1.0]])


def test_bands_are_added_up():
    bands = torch.arange(12).reshape(4, 3).double()
    times = torch.tensor([0.0, 1.0, 2.0, 4.0]).double()
    _, band, total = scale_space.band_frame(torch.ones(3).double(), bands, times, 2).axes
    np.testing.assert_array_equal(band.lines[0].get_ydata(), bands[2])
    np.testing.assert_array_equal(total.lines[1].get_ydata(), bands[:3].sum(0))


def test_an_image_grows():
    data, *images = np.random.default_rng(0).random((4, 3, 3))
    left, right = scale_space.growing_image(images, data, 2).axes
    np.testing.assert_array_equal(left.images[0].get_array(), images[1])
    np.testing.assert_allclose(right.images[0].get_array(), (data - images[1]) / 0.6 + 0.5)
    *_, curves = scale_space.denoising_step(data, data + 0.1, images, 2, 0.1).axes
    steps, errors = lines(curves, "error")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    expected = [np.sqrt(np.square(u - data).mean()) for u in images]
    np.testing.assert_allclose(errors, expected)


def test_unit_balls_have_radius_one(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes3D, "plot_surface", lambda self, *xyz, **_: drawn.append(xyz))
    scale_space.unit_balls({"l1": L1(2.0)})
    np.testing.assert_allclose(sum(np.abs(c) for c in drawn[0]), 0.5)


def test_shapes_show_where_the_prox_goes():
    regs = {"l1": L1(1.0), "group": GroupL12(1.0, dim=0), "nonnegative": NonNegativeL1(1.0)}
    axes = scale_space.shapes(regs).axes
    assert [ax.get_title() for ax in axes[:3]] == list(regs)
    x, y = axes[3].lines[0].get_data()
    assert {round(float(c), 6) + 0.0 for c in x} == {-1.0, -0.25, 0.0, 0.25, 1.0}
    x, y = axes[5].lines[0].get_data()
    assert float(x.min()) == float(y.min()) == 0.0


def test_denoising_shows_images_and_residuals():
    clean, noisy, *results = np.random.default_rng(0).random((5, 4, 6))
    estimates = dict(zip(("a", "b", "c"), results, strict=True))
    figure = scale_space.denoising(clean, noisy, estimates, row=2)
    drawn = {ax.get_title(): ax for ax in figure.axes}
    np.testing.assert_array_equal(drawn["b"].images[0].get_array(), estimates["b"])
    residual = drawn["$f - u$, c"].images[0].get_array()
    np.testing.assert_allclose(residual, (noisy - estimates["c"]) / 0.6 + 0.5)
    _, cut = lines(drawn["cut along row 2"], "a")
    np.testing.assert_array_equal(cut, estimates["a"][2])


def test_denoising_errors_are_drawn_from_step_one():
    figure = scale_space.denoising_errors(
        [3.0, 2.0, 4.0], [5.0, 4.0, 3.0], [0.3, 0.2, 0.1], sigma=4.0, stop=2, rof=(2.5, 3.5, 0.25)
    )
    for ax, values in zip(figure.axes, ([3, 2, 4], [5, 4, 3], [30, 20, 10]), strict=True):
        steps, drawn = lines(ax, "Bregman iteration")
        np.testing.assert_array_equal(steps, [1, 2, 3])
        np.testing.assert_allclose(drawn, values)
        x, _ = lines(ax, "stop: residual $\\leq \\sigma$")
        assert set(x) == {2.0}


def test_paths_and_events(problem, flow, path):
    proximal = ista(problem, L1(0.1), 1 / problem.lipschitz, 30)
    figure = convex.sparse_paths(flow, path, proximal, end=3.0, count=40, reach=2.0)
    bregman, subgrad, prox, counts = figure.axes
    dashed = [line.get_xdata()[0] for line in subgrad.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(dashed, flow.times[1:], err_msg="one line per event")
    np.testing.assert_array_equal(columns(bregman, "LinBreg", len(path.theta)), path.theta)
    np.testing.assert_array_equal(columns(prox, "ISTA", len(proximal)), proximal)
    _, drawn = lines(counts, "LinBreg")
    np.testing.assert_array_equal(drawn, (path.theta != 0).sum(1))
    _, drawn = lines(counts, "ISTA")
    np.testing.assert_array_equal(drawn, (proximal != 0).sum(1))


def test_an_entry_that_comes_and_goes_is_told_apart():
    eye = torch.eye(2, dtype=torch.float64)
    flow = ExactFlow(
        torch.tensor([0.0, 1.0, 2.0]).double(),
        torch.tensor([[0.0, 0.0], [0.0, 1.0], [2.0, 0.0]]).double(),
        torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 1.0]]).double(),
    )
    path = linbreg_path(LeastSquares(eye, eye[0]), L1(1.0), 0.1, 30)
    _, subgrad, *_ = convex.sparse_paths(flow, path, path.theta, end=3.0, count=30, reach=2.0).axes
    time, p = lines(subgrad, "come and go")
    np.testing.assert_allclose(p[:-1], np.minimum(time, 1.0)[:-1])


def test_the_lasso_lies_on_the_time_average(flow):
    times = torch.linspace(0.1, 3.0, 13, dtype=torch.float64)
    lassos = torch.rand(13, flow.theta.shape[1], dtype=torch.float64)
    left, right = convex.time_average(times, lassos, lassos + 1, flow).axes
    entry = int((flow.theta != 0).any(0).int().argmax())
    x, drawn = lines(right, "Lasso")
    np.testing.assert_array_equal(drawn, lassos[:, entry])
    x, drawn = lines(right, "time average of the flow")
    np.testing.assert_array_equal(x, times[::6])
    np.testing.assert_array_equal(drawn, lassos[::6, entry] + 1)
    x, drawn = lines(left, "exact flow")
    np.testing.assert_allclose(drawn, flow.theta_at(torch.as_tensor(x.copy()))[:, entry])


def test_two_planes_show_one_trajectory():
    eye = torch.eye(2, dtype=torch.float64)
    pair = LeastSquares(eye, torch.tensor([2.0, 1.0]).double())
    path = linbreg_path(pair, L1(0.3), 0.2, 20)
    axes = [
        convex.two_planes(path, pair.minimizer(), upto=upto, reach=2.0, spread=2.0).axes
        for upto in (5, None)
    ]
    for (left, right), count in zip(axes, (6, 21), strict=True):
        assert any(np.array_equal(line.get_xydata(), path.v[:count]) for line in left.lines)
        walls = {(*line.get_xdata(), *line.get_ydata()) for line in left.lines[:4]}
        assert walls == {w for x in (-0.3, 0.3) for w in ((x, x, 0, 1), (0, 1, x, x))}
        assert any(np.array_equal(line.get_xydata(), path.theta[:count]) for line in right.lines)
        assert left.get_xlim() == right.get_ylim() == (-2.0, 2.0)


def test_errors_flows_norms_and_rules_are_drawn_as_given():
    (ax,) = convex.event_errors([1, 4], {"a": [0.4, 0.1]}).axes
    np.testing.assert_array_equal(list(lines(ax, "a"))[1], [0.4, 0.1])
    times, curve = torch.linspace(0, 1, 5), torch.rand(5, 2)
    dots = (torch.arange(7), torch.rand(7), torch.rand(7))
    curves, points = {"flow": curve, "b": curve}, {"iteration": dots, "c": dots}
    for k, ax in enumerate(convex.inertia(times, curves, points).axes):
        np.testing.assert_array_equal(list(lines(ax, "flow"))[1], curve[:, k].double())
        np.testing.assert_array_equal(list(lines(ax, "iteration"))[1], dots[1 + k][::3].double())
    left, right = convex.random_groups([1, 4], [torch.ones(3), 2 * torch.ones(3)]).axes
    np.testing.assert_array_equal(left.lines[1].get_ydata(), [2, 2, 2])
    np.testing.assert_array_equal(right.lines[1].get_ydata(), [1, 1, 1])
    (ax,) = convex.stopping_rules({"one": [1.0, 2.0, 4.0], "two": [3.0]}).axes
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 4])
    assert set(ax.lines[1].get_xdata()) == {2.0}, "the median"


def test_the_flow_is_stopped_at_its_time(problem, flow):
    t = float(flow.times[2])
    left, right = convex.stopping_time(problem.truth, flow, t, 1.0, top=3.0, end=5.0).axes
    index, values = lines(left, "exact flow")
    np.testing.assert_array_equal(values, flow.theta[2][index.astype(int)])
    assert right.lines[-1].get_xydata()[0] == pytest.approx(
        [t, float((flow.theta[2] - problem.truth).norm())]
    )
    assert (*right.get_xlim(), *right.get_ylim()) == (0, 5, 0, 3)


def test_coefficients_leave_out_zeros(problem, flow):
    (ax,) = convex.coefficients(problem.truth, {"exact flow": flow.theta[-1]}, "found").axes
    index, values = lines(ax, "exact flow")
    np.testing.assert_array_equal(index, flow.theta[-1].nonzero().flatten())
    np.testing.assert_array_equal(values, flow.theta[-1][flow.theta[-1] != 0])
    assert ax.get_title() == "found"


def test_errors_of_zero_have_a_place_on_a_logarithmic_axis(problem):
    truth = problem.truth
    errors = {"Lasso": [0.1, 1.0], "LinBreg": [0.0, 1e-15]}
    _, right = convex.bias(truth, {"Lasso": 0.9 * truth}, [0.1, 1.0], errors, "").axes
    _, drawn = lines(right, "LinBreg")
    np.testing.assert_array_equal(drawn, [trajectories.FLOOR, 1e-15])
    (ax,) = convex.exact_regularization([0.1, 1.0], [0.5, 0.0], 0.4).axes
    _, drawn = lines(ax, "LinBreg, limit")
    np.testing.assert_array_equal(drawn, [0.5, trajectories.FLOOR])
    x, _ = lines(ax, r"computed threshold $\delta^*$")
    assert set(x) == {0.4}


def test_matrices_share_a_scale_and_hide_exact_zeros():
    one = torch.tensor([[0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
    first, second, _ = convex.matrices({"a": one, "b": 3 * one}, limit=6).axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-6, 6)
    np.testing.assert_array_equal(first.images[0].get_array().mask, one == 0)


def test_singular_values_over_time():
    truth = torch.diag(torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64))
    problem = LeastSquares(torch.eye(9, dtype=torch.float64), truth.flatten(), shape=(3, 3))
    path = linbreg_path(problem, L1(0.1), 1.0, 12, delta=2.0)
    (ax,) = convex.singular_values(path, truth, top=3.0, span=(0.1, 20.0)).axes
    assert (*ax.get_xlim(), ax.get_ylim()[1]) == (0.1, 20.0, 3.0)
    np.testing.assert_allclose([line.get_ydata()[0] for line in ax.lines[:2]], [2, 1])
    drawn = columns(ax, "LinBreg, nuclear norm", len(path.theta))
    np.testing.assert_allclose(drawn, torch.linalg.svdvals(path.theta))


def test_the_time_to_stop_is_marked(problem, flow, path):
    figure = convex.early_stopping(flow, path, problem.truth, 0.2, 1, lasso_error=0.5)
    for ax, values in zip(
        figure.axes, ((path.theta - problem.truth).norm(dim=1), path.losses), strict=True
    ):
        x, _ = lines(ax, "discrepancy: stop")
        assert set(x) == {float(flow.times[1])}
        _, drawn = lines(ax, "LinBreg")
        np.testing.assert_array_equal(drawn, values[1:])


def test_relevant_weights_stand_out(problem, path):
    curves = {"LinBreg": ([0, 1], [0.7, 0.5]), "Lasso": ([0, 2], [0.7, 0.6])}
    relevant = problem.truth != 0
    left, right = convex.classification(path, relevant, curves, 0.4).axes
    for label, chosen in (("relevant", relevant), ("irrelevant", ~relevant)):
        drawn = columns(left, label, len(path.theta))
        np.testing.assert_array_equal(drawn, path.theta[:, chosen])
    sizes, losses = lines(right, "Lasso")
    np.testing.assert_array_equal(sizes, [0, 2])
    np.testing.assert_array_equal(losses, [0.7, 0.6])
