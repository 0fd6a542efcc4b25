"""Notebook 12's comparison: complete, whatever was run, and with the right numbers."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bregman.suite import experiments
from bregman.suite.plots import paper_and_ours as figures

KEYS = ["artifact", "strategy", "optimizer"]
TABLE_1 = ("Table 1", "Bregman", "LinBreg")


def run_of(label: str, seed: int, n_total: float, row: tuple[str, str, str] = TABLE_1) -> dict:
    measured = {**dict.fromkeys(experiments.paper_reference()), **dict(zip(KEYS, row, strict=True))}
    measured |= {"n_total_pct": n_total, "test_acc_pct": 89.0}
    settings = {"config_optimizer": row[2].partition(" ")[0], "config_lam": 0.1}
    common = {"label": label, "seed": seed, "epochs": 100, "seconds": 60.0 + seed}
    return measured | common | settings


def write(folder, scale: str, name: str, runs: list[dict]) -> None:
    path = folder / scale / name / "summary.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame(runs).to_csv(path, index=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    return tmp_path


def test_every_number_of_the_paper_stands_there_even_if_nothing_was_run(folder):
    table = experiments.beside_paper(experiments.stored_summaries("paper"))
    reference = experiments.paper_reference()
    numbers = reference.drop(columns=[*KEYS, "dataset", "model"]).notna().to_numpy().sum()
    assert len(table) == numbers == table["paper"].notna().sum()
    assert table[["ours", "std", "difference"]].isna().all(axis=None)


def test_runs_stand_beside_the_numbers_they_are_of(folder):
    runs = [run_of("a", 0, 1.5), run_of("a", 1, 2.5), run_of("b", 0, 3.0)]
    write(folder, "paper", "fashion_mnist_cnn", [*runs, run_of("c", 0, 9.0, ("Own", "x", "y"))])
    table = experiments.beside_paper(experiments.stored_summaries("paper"))
    table = table.sort_index(kind="stable")
    density = table.loc[(*TABLE_1, "n_total_pct")]
    assert density["paper"].tolist() == [1.9, 1.9]
    np.testing.assert_allclose(density["ours"], [2.0, 3.0])
    np.testing.assert_allclose(density["std"], [np.sqrt(0.5), np.nan])
    np.testing.assert_allclose(density["difference"], [0.1, 1.1])
    assert "c" not in table.index.get_level_values("run")
    # the train accuracy was not measured
    assert table.loc[(*TABLE_1, "train_acc_pct"), "ours"].isna().all()


def test_a_run_that_two_experiments_share_counts_once(folder):
    write(folder, "paper", "mnist_comparison", [run_of("here", 0, 1.0), run_of("here", 1, 3.0)])
    write(folder, "paper", "mnist_acceleration", [run_of("there", 0, 1.0)])
    runs = experiments.stored_summaries("paper")
    assert runs[["label", "seed"]].to_numpy().tolist() == [["here", 0], ["here", 1]]


def test_an_unknown_scale_is_refused(folder):
    with pytest.raises(
        ValueError, match="unknown scale 'huge', allowed: smoke, quick, narrow, paper"
    ):
        experiments.stored_summaries("huge")


def test_the_figure_draws_our_numbers_over_the_papers_and_names_what_is_far_off(folder):
    write(folder, "quick", "fashion_mnist_cnn", [run_of("a", 0, 2.0), run_of("b", 0, 9.0)])
    autoencoder = run_of("d", 0, None, ("Figure 5", "Bregman", "LinBreg"))
    measured = {"test_acc_pct": None, "ssim": 0.91, "active_neurons_4": 100}
    write(folder, "quick", "denoising_autoencoder", [autoencoder | measured])
    runs = experiments.stored_summaries("quick")
    figure = figures.paper_against_ours(experiments.beside_paper(runs), runs)
    points = {
        ax.get_title(): sorted(p for c in ax.containers for p in c.lines[0].get_xydata().tolist())
        for ax in figure.axes
    }
    assert points["Non-Zero Weights or Kernels [%]"] == [[1.9, 2.0], [1.9, 9.0]]
    assert points["Validation and Test Accuracy [%]"] == [[89.2, 89.0]] * 2
    assert points["SSIM"] == [[0.93, 0.91]]
    assert points["Active Neurons per Layer"] == [[73, 100]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["b"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["LinBreg", "Table 1", "Figure 5"], "what was not measured is not in the legend"
    plt.close(figure)


def test_nothing_measured_is_an_empty_figure(folder):
    runs = experiments.stored_summaries("paper")
    figure = figures.paper_against_ours(experiments.beside_paper(runs), runs)
    assert not any(ax.containers for ax in figure.axes)
    figures.browse_numbers(experiments.beside_paper(runs), runs)
    plt.close(figure)


def test_a_zero_has_no_place_on_logarithmic_axes(folder):
    runs = [run_of("a", 0, 2.0), run_of("b", 0, 0.0), run_of("c", 0, 0.1), run_of("c", 1, 4.0)]
    write(folder, "smoke", "fashion_mnist_cnn", runs)
    runs = experiments.stored_summaries("smoke")
    figure = figures.paper_against_ours(experiments.beside_paper(runs), runs)
    assert "b" not in [text.get_text() for text in figure.axes[0].texts]
    assert figure.get_tightbbox().width < 2 * figure.get_figwidth(), "nothing is written far away"
    assert min(figure.axes[0].get_xlim()) > 0
    plt.close(figure)
