"""The figures, drawn from invented histories: what is shown must be what was stored."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bregman.suite import plots
from bregman.suite.experiments import get


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def history(name: str) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for offset, row in enumerate(get(name).rows):
        for seed in range(3):
            for epoch in range(6):
                for split, metric, value in (
                    ("train", "accuracy", 0.95), ("validation", "accuracy", 0.965),
                    ("weights", "l1_norm", 900.0), ("weights", "n_total", 0.1),
                ):  # fmt: skip
                    noisy = value * (1 + 0.001 * offset + 1e-4 * generator.standard_normal())
                    rows.append((row.label, seed, epoch, split, metric, noisy))
    return pd.DataFrame(rows, columns=["run", "seed", "epoch", "split", "metric", "value"])


def means(table, split, metric, run):
    chosen = table[(table.split == split) & (table.metric == metric) & (table.run == run)]
    return chosen.groupby("epoch")["value"].mean().to_numpy()


def test_figure_2_draws_the_means_over_the_seeds():
    table = history("mnist_comparison")
    figure = plots.mnist_comparison(table)
    panels = [("train", "accuracy", 100), ("validation", "accuracy", 100),
              ("weights", "l1_norm", 1), ("weights", "n_total", 100)]  # fmt: skip
    labels = [row.label for row in get("mnist_comparison").rows if "τ" not in row.label]
    for ax, (split, metric, factor) in zip(figure.axes, panels, strict=True):
        drawn = [line.get_ydata() for line in ax.lines]
        assert len(drawn) == len(labels)
        for values, run in zip(drawn, labels, strict=True):
            np.testing.assert_allclose(values, factor * means(table, split, metric, run))
        shaded = len(ax.collections)
        assert shaded == (0 if split == "validation" else len(labels)), "as in the paper"
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == labels
    dotted = [line.get_linestyle() == ":" for line in figure.axes[0].get_legend().get_lines()]
    assert dotted == [label.startswith("ProxGD") for label in labels]


def test_figure_3_has_a_broken_axis_that_hides_no_sparse_run():
    table = history("mnist_acceleration")
    many = (table.run == "AdaBreg (λ=0.1)") & (table.metric == "n_total")
    table.loc[many, "value"] = 0.4
    table.loc[(table.run == "SGD") & (table.metric == "n_total"), "value"] = 1.0
    left, low, high = plots.mnist_acceleration(table).axes
    assert left.get_ylim() == (96, 98.5)
    assert low.get_ylim() == (0, 15)
    assert high.get_ylim()[0] == 15
    assert high.get_ylim()[1] > 100
    table.loc[many, "value"] = 0.14
    _, low, high = plots.mnist_acceleration(table).axes
    assert low.get_ylim() == (0, 15)
    assert high.get_ylim()[0] == 98


def test_the_papers_limits_give_way_when_nothing_would_be_seen():
    table = history("mnist_acceleration")
    table.loc[table.metric == "accuracy", "value"] = 0.5
    left, *_ = plots.mnist_acceleration(table).axes
    low, high = left.get_ylim()
    assert low < 50 < high


def test_figures_are_saved_as_png_and_pdf_and_the_same_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path))
    contents = []
    for _ in range(2):
        plots.save(plots.mnist_acceleration(history("mnist_acceleration")), "figure", "smoke")
        files = sorted((tmp_path / "smoke").iterdir())
        assert [path.name for path in files] == ["figure.pdf", "figure.png"]
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
