"""The figures of notebook 04: what is drawn is what was given."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bregman.suite.plots import sparse_initialization as figures


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(ax) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


def test_masks():
    matrix = np.array([[0.0, -2.0], [0.5, 0.0]])
    (ax,) = figures.masks({"entries": matrix}).axes
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix != 0)


def test_variance_ratios():
    table = pd.DataFrame(
        {"layer": ["a", "a", "b"], "r": [1.0, 0.1, 0.1], "ratio": [1.0, 0.9, 1.1],
         "error": [0.01, 0.1, 0.02], "masked": [1.0, 0.09, 0.11]}
    )  # fmt: skip
    (ax,) = figures.variance_ratios(table).axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], 10 * table["error"])
    np.testing.assert_allclose(ax.lines[1].get_xdata(), table["ratio"])
    np.testing.assert_allclose(ax.lines[2].get_xdata(), table["masked"])
    texts = [text.get_text().split("  ") for text in ax.get_yticklabels()]
    assert texts == [["a", "r = 1"], ["", "r = 0.1"], ["b", "r = 0.1"]]
    mask, spread = figures.mask_and_spread(np.eye(4), np.array([1.0, 1.02, 9.0]), 0.1, "r").axes
    np.testing.assert_array_equal(mask.images[0].get_array(), np.eye(4) != 0)
    assert sum(bar.get_height() for bar in spread.patches[:60]) == 3


def test_through_depth():
    curves = {"dense": np.ones((2, 4)), "masked": np.array([[1, 0.1, 0.01, 1e-3]] * 2)}
    measured = {("ReLU", "forward"): curves, ("ReLU", "backward"): curves}
    formulas = {("ReLU", "forward"): {"masked": np.array([1, 0.2, 0.04, 8e-3])}}
    left, right = figures.through_depth(measured, formulas).axes
    np.testing.assert_allclose(
        drawn(left),
        [curves["dense"].mean(0), curves["masked"].mean(0), formulas["ReLU", "forward"]["masked"]],
    )
    assert len(drawn(right)) == 2
    assert left.get_title() == "ReLU, forward"


def test_isolated_neurons():
    gradients = {"zero": np.zeros((3, 2)), "equal": np.full((3, 2), 0.5)}
    zero, equal, _ = figures.isolated_gradients(gradients).axes
    np.testing.assert_array_equal(equal.images[0].get_array(), gradients["equal"])
    assert zero.images[0].get_clim() == equal.images[0].get_clim() == (-0.5, 0.5)


def test_a_layer_wakes_up():
    table = pd.DataFrame({"connected": [0, 4], "rank": [0, 2], "accuracy": [10.0, 90.0]})
    for ax, column in zip(
        figures.waking({"zero": [table], "random": [table]}).axes, table, strict=True
    ):
        np.testing.assert_array_equal(drawn(ax), [table[column], table[column]])
    (ax,) = figures.spectrum(np.array([2.0, 1.0, 0.0]), "rank 2").axes
    tops = [segment[1][1] for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(tops, [1, 0.5, 1e-6])
    incoming, outgoing = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[0.0, 3.0]])
    top, bottom = figures.wiring(incoming, outgoing, "epoch 0").axes
    np.testing.assert_array_equal(top.images[0].get_array(), incoming.T != 0)
    np.testing.assert_array_equal(bottom.images[0].get_array(), outgoing != 0)


def test_last_layer():
    left, right = figures.last_layer(
        np.array([1, 1, 2, 0]), np.array([0.25, 0.5, 0.25]), np.array([0, 1]), np.array([0.5, 0.5])
    ).axes
    np.testing.assert_allclose([bar.get_height() for bar in left.patches], [0.25, 0.5, 0.25])
    np.testing.assert_allclose(drawn(right)[0], [0.5, 0.5])
