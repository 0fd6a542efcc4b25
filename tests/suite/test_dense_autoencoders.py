"""Dense autoencoders with both gains and three seeds; the architecture search's second seed."""

import os

import numpy as np
import pandas as pd
import pytest

from bregman.suite.experiments import (
    Results,
    architecture_search,
    architecture_seeds,
    denoising_autoencoder,
    dense_autoencoders,
)
from bregman.suite.experiments.dense_autoencoders import (
    CHOSEN,
    COMPARED,
    DENSE,
    EXPERIMENT,
    TRIALS,
    choose,
    experiment,
    trial_rows,
)
from bregman.suite.paths import ROOT
from bregman.suite.runs import run_name

PAPER = EXPERIMENT.scale("paper")
STORED = {path.stem for path in (ROOT / "results" / "paper" / "runs").glob("*.json")}


def test_both_dense_optimizers_have_both_gains_with_the_same_learning_rates():
    rows = trial_rows()
    assert {row.seeds for row in rows} == {1}
    for name, rates in denoising_autoencoder.SEARCH:
        for gain in (1.0, 0.5):
            network = {"optimizer": name, "gain": gain}
            found = [row.settings["lr"] for row in rows if network.items() <= row.settings.items()]
            assert tuple(found) == rates
    assert len(rows) == 16
    sparse = EXPERIMENT.config(PAPER, 0, **denoising_autoencoder.ADABREG)
    assert sparse.gain == 0.5


def names(study, seeds):
    scale = study.scale("paper")
    return {
        run_name(study.config(scale, seed, **row.settings))
        for row in study.rows_at("paper")
        for seed in range(row.seeds or seeds)
    }


def test_runs_of_the_notebook_are_shared():
    every = experiment({"SGD (gain 1)": 1.0, "SGD (gain 0.5)": 2.0, "Adam (gain 1)": 3e-4,
                        "Adam (gain 0.5)": 1e-3})  # fmt: skip
    compared = [row for row in every.rows_at("paper") if row.artifact == COMPARED]
    # with three of AdaBreg's five seeds its worst one would be left out
    assert {row.label: row.seeds or PAPER.seeds for row in compared} == {
        "AdaBreg": 5, "LinBreg": 3, **dict.fromkeys(DENSE, 3)
    }  # fmt: skip
    assert len(compared) == 6
    ours, known = names(every, 5), names(denoising_autoencoder.EXPERIMENT, 5)
    # eight trials with gain 1; five seeds of AdaBreg, one of LinBreg, SGD and both of Adam
    assert len(ours & known) == 8 + 5 + 4
    assert ours & known <= STORED


def made_up(scores):
    """Trials from their labels to their SSIM on validation images."""
    summary = pd.DataFrame([
        {"artifact": TRIALS, "label": label, "ssim": 1 - np.nan_to_num(score),
         "status": "diverged" if np.isnan(score) else "finished"}
        for label, score in scores.items()
    ])  # fmt: skip
    history = pd.DataFrame([
        {"run": label, "seed": 0, "epoch": epoch, "split": "weights", "metric": metric,
         "value": value}
        for label, score in scores.items()
        for epoch, metric, value in (
            (9, "ssim", 0.99), (10, "ssim", score), (10, "l1_norm", 100.0)
        )
    ])  # fmt: skip
    return Results(summary, history)


def test_the_choice_is_by_the_last_validation_ssim_of_complete_searches():
    scores = {row.label: 0.8 + 0.001 * i for i, row in enumerate(trial_rows())}
    scores["SGD (gain 1), τ=4"] = float("nan")
    scores["Adam (gain 0.5), τ=0.0003"] = 0.95
    del scores["SGD (gain 0.5), τ=1"]
    assert choose(made_up(scores)) == {
        "SGD (gain 1)": 2.0, "Adam (gain 1)": 3e-3, "Adam (gain 0.5)": 3e-4
    }  # fmt: skip


def test_the_stored_trials_give_what_is_entered(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    os.symlink(ROOT / "results" / "paper" / "runs", tmp_path / "paper" / "runs")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    assert choose(EXPERIMENT.run("paper", make=False)) == CHOSEN


@pytest.mark.parametrize("label", ["SGD (gain 0.5), τ=0.3"])
def test_a_trial_at_smoke_scale(label, tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    results = EXPERIMENT.run("smoke", rows=[label])
    assert results.summary["status"].tolist() == ["finished"]
    scores = dense_autoencoders.validated(results)
    assert list(scores) == [label]
    assert scores[label] != pytest.approx(results.summary["ssim"].item(), abs=1e-12)
    assert set(DENSE) == {f"{n} (gain {g})" for n in ("SGD", "Adam") for g in ("1", "0.5")}


def test_the_architecture_search_has_a_second_seed_and_shares_the_first():
    study = architecture_seeds.EXPERIMENT
    first = names(architecture_search.EXPERIMENT, 1)
    both = names(study, study.scale("paper").seeds)
    assert (len(first), len(both)) == (8, 16)
    assert first <= both & STORED
