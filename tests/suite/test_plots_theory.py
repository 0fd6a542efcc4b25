"""The figures of notebooks 03 and 04: what is drawn is what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from bregman.suite.convex import Bound
from bregman.suite.plots import initialization, theory


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def falling(start: float, count: int = 30) -> torch.Tensor:
    return start * 0.8 ** torch.arange(count, dtype=torch.float64)


def drawn(ax) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


BOUND = Bound(falling(1.0), falling(2.0), {})


def test_loss_decay_and_summability():
    losses = {"short": falling(3.0), "long": falling(5.0)}
    promised = {"short": falling(0.9), "long": falling(0.5)}
    left, middle, right = theory.loss_decay(losses, promised, BOUND).axes
    for line, label in zip(left.lines, losses, strict=True):
        assert line.get_label() == label
        np.testing.assert_allclose(line.get_ydata(), losses[label])
    np.testing.assert_allclose(drawn(middle)[1], promised["long"])
    for ax in (right, *theory.summability({"a": BOUND, "b": BOUND}).axes):
        np.testing.assert_allclose(drawn(ax)[0], BOUND.lhs)
        np.testing.assert_allclose(drawn(ax)[1], BOUND.rhs)
        assert ax.lines[0].get_linestyle() == "-"
        assert ax.lines[1].get_linestyle() == "--", "bounds are dashed"


def test_distances():
    parts, total = (falling(1.0), falling(2.0)), falling(3.0)
    left, right = theory.distance_parts(*parts, total).axes
    top = left.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(3.0), "stacked parts reach the whole"
    for values, expected in zip(drawn(right), (*parts, total), strict=True):
        np.testing.assert_allclose(values, expected)
    d = {"exact": falling(4.0), "noisy": falling(5.0)}
    left, middle, right = theory.distance_decay(d, BOUND, BOUND).axes
    np.testing.assert_allclose(drawn(left), [d["exact"], d["noisy"]])
    np.testing.assert_allclose(drawn(middle), [BOUND.slack, BOUND.slack])
    np.testing.assert_allclose(drawn(right), [BOUND.lhs, BOUND.rhs])


def test_rounding_is_left_out_of_logarithmic_axes():
    values = torch.tensor([1.0, 1e-8, 1e-15, 1e-13], dtype=torch.float64)
    figure = theory.step_condition({"": values}, {"": values})
    np.testing.assert_array_equal(drawn(figure.axes[0])[0], [1.0, 1e-8, np.nan, np.nan])


def test_a_diverging_curve_leaves_the_others_visible():
    curves = {"good": falling(1.0), "bad": 10.0 ** torch.arange(30, dtype=torch.float64)}
    ax = theory.step_condition(curves, curves).axes[0]
    assert ax.get_ylim()[1] <= 1e3
    np.testing.assert_allclose(drawn(ax)[1], curves["bad"])


def test_rates_and_levels():
    taus = (0.1, 0.2)
    means = {tau: falling(tau) for tau in taus}
    bounds = {tau: falling(10 * tau) for tau in taus}
    levels, limits = {0.1: 1.0, 0.2: 2.0}, {0.1: 3.0, 0.2: 6.0}
    left, right = theory.constant_steps(means, bounds, levels, limits).axes
    np.testing.assert_allclose(drawn(left), [means[0.1], bounds[0.1], means[0.2], bounds[0.2]])
    np.testing.assert_allclose(drawn(right), [[1, 2], [3, 6]])
    runs = torch.stack([falling(1.0), falling(2.0)])
    (ax,) = theory.rate(runs, BOUND, slow=falling(9.0)).axes
    np.testing.assert_allclose(drawn(ax), [*runs, BOUND.lhs, BOUND.rhs, falling(9.0)])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "mean of 2 runs" in texts


def test_bregman_convexity_and_example_1():
    left, right = theory.bregman_convexity(falling(1.0), falling(2.0), 1 + falling(1.0), 0.3).axes
    np.testing.assert_allclose(drawn(left)[0], falling(2.0))
    assert sum(bar.get_height() for bar in right.patches) == 30
    np.testing.assert_allclose(right.lines[0].get_xdata(), [0.3, 0.3])
    left, right = theory.example_1(falling(2.0), -falling(1.0), falling(4.0)).axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), (falling(2.0) + 1) ** 2)
    np.testing.assert_allclose(drawn(right)[1:], [falling(2.0), falling(4.0), -falling(1.0)])


def test_masks():
    matrix = np.array([[0.0, -2.0], [0.5, 0.0]])
    (ax,) = initialization.masks({"entries": matrix}).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix != 0)


def test_variance_ratios():
    table = pd.DataFrame(
        {"layer": ["a", "a", "b"], "r": [1.0, 0.1, 0.1], "ratio": [1.0, 0.9, 1.1],
         "error": [0.01, 0.1, 0.2]}
    )  # fmt: skip
    (ax,) = initialization.variance_ratios(table).axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 4 * table["error"])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), [0.9, 1.1])
    np.testing.assert_allclose(ax.lines[2].get_xdata(), [1.0])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "", "b"]


def test_through_depth():
    curves = {"dense": np.ones((2, 4)), "masked": np.array([[1, 0.1, 0.01, 1e-3]] * 2)}
    measured = {("ReLU", "forward"): curves, ("ReLU", "backward"): curves}
    formulas = {("ReLU", "forward"): {"masked": np.array([1, 0.2, 0.04, 8e-3])}}
    left, right = initialization.through_depth(measured, formulas).axes
    np.testing.assert_allclose(
        drawn(left),
        [curves["dense"].mean(0), curves["masked"].mean(0), formulas["ReLU", "forward"]["masked"]],
    )
    assert len(drawn(right)) == 2
    assert left.get_title() == "ReLU, forward"


def test_isolated_neurons():
    gradients = {"zero": np.zeros((3, 2)), "equal": np.full((3, 2), 0.5)}
    zero, equal, _ = initialization.isolated_gradients(gradients).axes
    np.testing.assert_array_equal(equal.images[0].get_array(), gradients["equal"])
    assert zero.images[0].get_clim() == equal.images[0].get_clim() == (-0.5, 0.5)
    alive, distinct = {"zero": [0, 0], "equal": [0, 5]}, {"zero": [0, 0], "equal": [0, 1]}
    left, right = initialization.revival(alive, distinct).axes
    np.testing.assert_array_equal(drawn(left), list(alive.values()))
    np.testing.assert_array_equal(drawn(right), list(distinct.values()))


def test_last_layer():
    left, right = initialization.last_layer(
        np.array([1, 1, 2, 0]), np.array([0.25, 0.5, 0.25]), np.array([0, 1]), np.array([0.5, 0.5])
    ).axes
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(drawn(right)[0], [0.5, 0.5])
