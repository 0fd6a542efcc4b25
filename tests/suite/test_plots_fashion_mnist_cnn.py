"""The figures of notebook 07, drawn from invented results: what is shown is what was stored."""

import dataclasses

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.signal import correlate2d

from bregman.suite.experiments import Results, get, paper_reference
from bregman.suite.plots import fashion_mnist_cnn as figures

EXPERIMENT = get("fashion_mnist_cnn")
ROWS = EXPERIMENT.rows


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def arrays(epochs: int = 3) -> dict[str, np.ndarray]:
    """One more kernel appears with each epoch."""
    generator = np.random.default_rng(0)
    kernels = generator.standard_normal((64, 1, 5, 5)).astype(np.float32)
    kept = {}
    for epoch in range(epochs + 1):
        kept[f"kernels_{epoch:03d}"] = np.where(np.arange(64) < epoch, kernels.T, 0).T
    image = generator.integers(0, 256, (1, 28, 28), dtype=np.uint8)
    return {"image": image, **kept}


def results() -> Results:
    history, summary = [], []
    for offset, row in enumerate(ROWS):
        config = EXPERIMENT.config(EXPERIMENT.scale("paper"), 0, **row.settings)
        for seed in range(2):
            for epoch in range(4):
                for split, metric, value in (
                    ("validation", "accuracy", 0.8), ("weights", "n_total", 0.1),
                    ("weights", "kernels_conv1", 20), ("weights", "kernels_conv2", 300),
                ):  # fmt: skip
                    factor = 1 + 0.001 * offset + 0.01 * seed + 0.02 * epoch
                    history.append((row.label, seed, epoch, split, metric, value * factor))
            summary.append({
                **{name: getattr(row, name) for name in ("artifact", "strategy", "optimizer")},
                **dict.fromkeys(("n_total_pct", "n_linear_pct", "n_conv_pct"), 3.0 + offset + seed),
                "label": row.label, "seed": seed, "test_acc_pct": 85.0 + 0.1 * offset + seed,
                **{f"config_{name}": value for name, value in dataclasses.asdict(config).items()},
            })  # fmt: skip
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    return Results(pd.DataFrame(summary), pd.DataFrame(history, columns=columns))


def means(results, metric, run):
    return (
        results.history.query("metric == @metric and run == @run").groupby("epoch")["value"].mean()
    )


def tiles(mosaic: np.ndarray, side: int) -> np.ndarray:
    """Cut the 8 x 8 tiles out of a mosaic, with their frames."""
    pitch = mosaic.shape[0] // 8
    assert mosaic.shape == (8 * pitch, 8 * pitch)
    cells = mosaic.reshape(8, pitch, 8, pitch).swapaxes(1, 2).reshape(64, pitch, pitch)
    edge = (pitch - side) // 2
    return cells[:, edge:-edge, edge:-edge]


def test_the_second_layers_maps_are_stretched_and_constant_ones_left_blank():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(64, 8, 8)).astype(np.float32)
    maps[5:] = 0.25
    figure = figures.second_feature_maps(
        {"conv2_maps_000": maps, "conv2_maps_005": 0 * maps}, [0, 5]
    )
    assert [ax.get_title() for ax in figure.axes] == ["Epoch 0: 5 of 64", "Epoch 5: 0 of 64"]
    drawn = tiles(figure.axes[0].images[0].get_array(), 8)
    for shown, known in zip(drawn[:5], maps[:5], strict=True):
        expected = (known - known.min()) / np.ptp(known)
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert (drawn[5:] == figures.BLANK).all()


def test_figure_1_shows_the_correlations_of_the_image_with_the_kernels():
    stored = arrays()
    figure = figures.feature_maps(stored, [0, 1, 3])
    assert [ax.get_title() for ax in figure.axes] == [
        "Epoch 0: 0 of 64", "Epoch 1: 1 of 64", "Epoch 3: 3 of 64",
    ]  # fmt: skip
    for ax, active in zip(figure.axes, (0, 1, 3), strict=True):
        maps = tiles(ax.images[0].get_array(), 24)
        assert (maps[active:] == 1).all(), "blank"
        for drawn, kernel in zip(maps[:active], stored["kernels_003"][:, 0], strict=False):
            expected = correlate2d(stored["image"][0].astype(float), kernel, mode="valid")
            expected = (expected - expected.min()) / (expected.max() - expected.min())
            np.testing.assert_allclose(drawn, expected, atol=1e-4)


def half_precision(artifact):
    """The rows of a table without those in float32."""
    return [
        (i, row) for i, row in enumerate(ROWS)
        if row.artifact == artifact and row.settings.get("autocast", "bfloat16")
    ]  # fmt: skip


def test_the_growth_is_the_mean_over_the_seeds():
    table = results().where(config_groups=True, config_optimizer=["LinBreg", "AdaBreg"])
    axes = figures.kernel_growth(table).axes
    for ax, layer in zip(axes, ("conv1", "conv2"), strict=True):
        for line, run in zip(ax.lines, table.runs.index, strict=True):
            np.testing.assert_allclose(line.get_ydata(), means(table, f"kernels_{layer}", run))


def test_each_table_has_its_runs_over_the_epochs():
    table = results()
    for i, ax in enumerate(figures.density_over_epochs(table).axes):
        metric, artifact = ("n_total", "accuracy")[i // 2], ("Table 1", "Table 2")[i % 2]
        for line, (_, row) in zip(ax.lines, half_precision(artifact), strict=True):
            np.testing.assert_allclose(line.get_ydata(), 100 * means(table, metric, row.label))


def test_ours_is_filled_with_its_spread_and_the_papers_is_hollow():
    reference = paper_reference().set_index(["artifact", "strategy", "optimizer"])
    measures = ("n_total_pct", "n_linear_pct", "n_conv_pct")
    figure = figures.accuracy_against_density(results())
    panels = zip(figure.axes, ("Table 1", "Table 2", "Table 2"), measures, strict=True)
    assert len({ax.get_title() for ax in figure.axes}) == 3
    for ax, artifact, measure in panels:
        chosen = half_precision(artifact)
        filled = [container.lines[0] for container in ax.containers]
        hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
        for (i, row), ours, theirs in zip(chosen, filled, hollow, strict=True):
            assert ours.get_xydata() == pytest.approx(np.array([[3.5 + i, 85.5 + 0.1 * i]]))
            known = reference.loc[(artifact, row.strategy, row.optimizer)]
            assert theirs.get_xydata() == pytest.approx(
                np.array([[known[measure], known["test_acc_pct"]]])
            )
        deviation = np.std([0, 1], ddof=1)
        for container in ax.containers:
            horizontal, vertical = (bars.get_segments()[0] for bars in container.lines[2])
            assert np.ptp(horizontal[:, 0]) == pytest.approx(2 * deviation)
            assert np.ptp(vertical[:, 1]) == pytest.approx(2 * deviation)
