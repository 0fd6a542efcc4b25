"""The figures of notebook 03: what is drawn is what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from bregman.suite.convex import Bound
from bregman.suite.plots import convergence_theory as figures


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def falling(start: float, count: int = 30) -> torch.Tensor:
    return start * 0.8 ** torch.arange(count, dtype=torch.float64)


def drawn(ax) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


BOUND = Bound({"left": falling(1.0)}, {"right": falling(2.0)})


def test_loss_decay_and_summability():
    losses = {"short": falling(3.0), "long": falling(5.0)}
    promised = {"short": falling(0.9), "long": falling(0.5)}
    left, middle, right = figures.loss_decay(losses, promised, BOUND).axes
    for line, label in zip(left.lines, losses, strict=True):
        assert line.get_label() == label
        np.testing.assert_allclose(line.get_ydata(), losses[label])
    np.testing.assert_allclose(drawn(middle)[1], promised["long"])
    for ax in (right, *figures.summability({"a": BOUND, "b": BOUND}).axes):
        np.testing.assert_allclose(drawn(ax)[0], BOUND.lhs)
        np.testing.assert_allclose(drawn(ax)[1], BOUND.rhs)
        assert ax.lines[0].get_linestyle() == "-"
        assert ax.lines[1].get_linestyle() == "--", "bounds are dashed"


def test_distances():
    parts, total = (falling(1.0), falling(2.0)), falling(3.0)
    left, right = figures.distance_parts(*parts, total).axes
    top = left.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(3.0), "stacked parts reach the whole"
    for values, expected in zip(drawn(right), (*parts, total), strict=True):
        np.testing.assert_allclose(values, expected)
    d = {"exact": falling(4.0), "noisy": falling(5.0)}
    left, middle, right = figures.distance_decay(d, falling(3.0), BOUND, every=10).axes
    np.testing.assert_allclose(drawn(left), [d["exact"], d["noisy"]])
    np.testing.assert_array_equal(left.lines[1].get_xdata(), 1 + 10 * np.arange(30))
    np.testing.assert_allclose(drawn(middle)[0], falling(3.0))
    np.testing.assert_allclose(drawn(right)[:2], [BOUND.lhs, BOUND.rhs])


def test_rounding_is_left_out_of_logarithmic_axes():
    values = torch.tensor([1.0, 1e-8, 1e-15, 1e-13], dtype=torch.float64)
    figure = figures.step_condition({"a": values}, {"a": values})
    np.testing.assert_array_equal(drawn(figure.axes[0])[0], [1.0, 1e-8, np.nan, np.nan])


def test_a_diverging_curve_leaves_the_others_visible():
    curves = {"good": falling(1.0), "bad": 10.0 ** torch.arange(30, dtype=torch.float64)}
    ax = figures.step_condition(curves, curves).axes[0]
    assert ax.get_ylim()[1] <= 1e3
    np.testing.assert_allclose(drawn(ax)[1], curves["bad"])


def test_rates_and_levels():
    taus = (0.1, 0.2)
    means = {tau: falling(tau) for tau in taus}
    bounds = {tau: falling(10 * tau) for tau in taus}
    levels, limits = {0.1: 1.0, 0.2: 2.0}, {0.1: 3.0, 0.2: 6.0}
    left, right = figures.constant_steps(means, bounds, levels, limits).axes
    np.testing.assert_allclose(drawn(left), [means[0.1], bounds[0.1], means[0.2], bounds[0.2]])
    np.testing.assert_allclose(drawn(right), [[1, 2], [3, 6]])
    runs = torch.stack([falling(1.0), falling(2.0)])
    mean = Bound({"mean": runs.mean(0), "errors": 0.1 * falling(1.0)}, {"C": falling(3.0)})
    (ax,) = figures.rate(runs, mean, slow=falling(9.0)).axes
    np.testing.assert_allclose(drawn(ax), [*runs, runs.mean(0), mean.rhs, falling(9.0)])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "mean of 2 runs ± 3 errors" in texts
    (ax,) = figures.vanishing_steps(falling(1.0), falling(2.0), falling(0.5), 100).axes
    np.testing.assert_allclose(drawn(ax), [falling(1.0), falling(2.0), falling(0.5)])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), 100 * np.arange(1, 31))


def test_rooms_and_explored_steps():
    table = pd.DataFrame({"ours": [1.5, 0.4], "bad": [1.0, 0.5]}, index=["C", "noise"])
    (ax,) = figures.rooms(table).axes
    np.testing.assert_allclose([line.get_xdata() for line in ax.lines[:2]], [[1.5, 0.4], [1, 0.5]])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["C", "noise"]
    wild = torch.tensor([1.0, 1e40, np.nan, -1.0])
    (ax,) = figures.tried_steps({"d": (wild, falling(1.0, 4))}, "title").axes
    np.testing.assert_array_equal(drawn(ax)[0], [1, np.nan, np.nan, np.nan])
    assert ax.get_ylim() == (1e-6, 1e3)


def test_a_net_on_two_moons():
    curves = {"run 1": falling(1.0), "run 2": falling(0.5)}
    left, middle, right = figures.descent_on_moons(curves, curves, curves).axes
    for ax in (left, middle, right):
        np.testing.assert_allclose(drawn(ax)[:2], [*curves.values()])
    x, labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([-1.0, 1.0])
    weights = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    net, wires = figures.growing_net(x, labels, torch.zeros(4, 4), weights, "step 0").axes
    assert net.get_title() == "step 0"
    np.testing.assert_array_equal(wires.images[0].get_array(), weights != 0)
    curves = {"LinBreg": (falling(1.0), torch.ones(30)), "ProxGD": (falling(2.0), torch.ones(30))}
    error, support = figures.beyond_the_theorems(curves).axes
    np.testing.assert_allclose(drawn(error), [falling(1.0), falling(2.0)])
    np.testing.assert_array_equal(drawn(support)[0], np.ones(30))


def test_bregman_convexity_and_example_1():
    left, right = figures.bregman_convexity(
        falling(1.0), falling(2.0), 1 + falling(1.0), 0.3, 0.4
    ).axes
    np.testing.assert_allclose(drawn(left)[0], falling(2.0))
    assert sum(bar.get_height() for bar in right.patches) == 30
    np.testing.assert_allclose(right.lines[0].get_xdata(), [0.3, 0.3])
    left, right = figures.example_1(falling(2.0), -falling(1.0), falling(4.0)).axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), (falling(2.0) + 1) ** 2)
    np.testing.assert_allclose(drawn(right)[1:], [-falling(1.0), falling(2.0), falling(4.0)])
