"""Methods tuned alike: the same trials for all, validated without the test set, then chosen."""

import os
from collections import Counter
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import qmc

from bregman.steering import SparsityTarget
from bregman.suite.baselines import SET, RigL
from bregman.suite.experiments import Results, tuned_rivals, what_sparsity_buys
from bregman.suite.experiments.tuned_rivals import (
    COMPARED,
    COUNTS,
    DENSITIES,
    EXPERIMENT,
    GAIN,
    OWN,
    RATE,
    TRIALS,
    TUNED,
    choose,
    point,
    settings,
)
from bregman.suite.paths import ROOT
from bregman.suite.plots.what_sparsity_buys import accuracy_at_density
from bregman.suite.training import Training, accuracy, evaluate

PAPER, SMOKE = (EXPERIMENT.scale(name) for name in ("paper", "smoke"))


def test_points_are_those_of_the_halton_sequence():
    """scipy's has the bases in the order of the primes."""
    theirs = qmc.Halton(4, scramble=False).random(41)[1:]
    ours = np.array([point(trial) for trial in range(1, 41)])
    np.testing.assert_allclose(ours, theirs[:, [1, 0, 2, 3]], rtol=1e-12)


def test_all_methods_have_as_many_trials_with_the_same_steps_momentum_and_gain():
    rows = [row for row in EXPERIMENT.rows_at("paper") if row.artifact.startswith(TRIALS)]
    assert Counter((row.settings["network"], row.strategy) for row in rows) == {
        (network, method): count for network, count in COUNTS.items() for method in COMPARED
    }
    assert {row.seeds for row in rows} == {1}
    for network, count in COUNTS.items():
        rates = []
        for trial in range(1, count + 1):
            made = {method: settings(network, method, trial) for method in COMPARED}
            assert len({(s["momentum"], s["gain"]) for s in made.values()}) == 1
            # SGD takes 1 / (1 - beta) of its learning rate in the end, LinBreg (2.14a) its tau
            steps = [
                s["lr"] / (1 - s["momentum"]) if s["optimizer"] == "SGD" else s["lr"]
                for s in made.values()
            ]
            assert max(steps) == pytest.approx(min(steps), rel=0.01)
            rates.append(steps[0] / what_sparsity_buys.NETWORKS[network].lr)
            assert GAIN[0] <= made["RigL"]["gain"] <= GAIN[1]
            shares = {
                method: np.log(made[method][name] / low) / np.log(high / low)
                for method, (name, low, high) in OWN.items()
            }
            assert max(shares.values()) == pytest.approx(min(shares.values()), abs=0.01)
        assert RATE[0] <= min(rates) < 3 * RATE[0]
        assert RATE[1] / 3 < max(rates) <= RATE[1]
    betas = Counter(settings("MLP", "SET", trial)["momentum"] for trial in range(1, 33))
    assert betas == {0.0: 16, 0.9: 16}


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_the_same_rate_moves_the_weights_alike(beta):
    """Under a constant gradient SGD's and LinBreg's v go equally far per step in the end."""
    (trial,) = [t for t in (1, 2) if settings("MLP", "SET", t)["momentum"] == beta]
    moved = []
    for method in ("SET", "LinBreg"):
        made = settings("MLP", method, trial)
        run = tuned_rivals.config(SMOKE, 0, tuning=True, target=0.5, **{**made, "lam": 0.0})
        model = torch.nn.Linear(2, 3)
        optimizer = run.make_optimizer(model)
        for _ in range(200):
            before = model.bias.detach().clone()
            model.bias.grad = torch.ones(3)
            optimizer.step()
        moved.append(float((before - model.bias.detach()).mean()))
    assert moved[0] == pytest.approx(moved[1], rel=0.01)


def test_what_is_searched_reaches_the_run():
    for method, kind in (("RigL", RigL), ("SET", SET)):
        run = tuned_rivals.config(SMOKE, 0, tuning=True, target=0.02, **settings("MLP", method, 2))
        parts = run.make_parts("cpu")
        masks = parts.attached["baseline"]
        assert type(masks) is kind
        assert masks.fraction == run.drop_fraction == settings("MLP", method, 2)["drop_fraction"]
        assert parts.optimizer.param_groups[0]["momentum"] == run.momentum
    run = tuned_rivals.config(SMOKE, 0, tuning=True, target=0.02, **settings("MLP", "LinBreg", 3))
    parts = run.make_parts("cpu")
    assert isinstance(parts.attached["target"], SparsityTarget)
    assert parts.optimizer.param_groups[0]["reg"].lam == settings("MLP", "LinBreg", 3)["lam"]
    assert run.gain == settings("MLP", "LinBreg", 3)["gain"]


def test_a_trial_never_sees_the_test_set_and_is_validated_with_all_that_is_held_out():
    made = settings("MLP", "RigL", 1)
    trial, whole = (
        tuned_rivals.config(SMOKE, 0, tuning=tuning, target=0.02, **made)
        for tuning in (True, False)
    )
    parts = trial.make_parts("cpu")
    images, labels = parts.task.test
    parts.task = parts.task._replace(test=(images.new_zeros(0), labels.new_zeros(0)))
    training = Training(history=_records(trial, parts))
    result = trial.results(parts, training)
    assert not [name for name in result if "test" in name]
    assert result["val_acc_pct"] == 75.0
    there = whole.make_parts("cpu")
    tested = evaluate(there.model, there.task.test, accuracy)[0]
    assert whole.results(there, training)["test_acc_pct"] == pytest.approx(100 * tested)

    of_notebook = what_sparsity_buys.config(PAPER, 0, **{**made, "target": 0.02})
    ours = tuned_rivals.config(PAPER, 0, tuning=True, target=0.02, **made)
    drawn = [run.split(60_000, torch.Generator().manual_seed(0)) for run in (of_notebook, ours)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert [len(held_out) for _, held_out in drawn] == [1000, 5000]
    assert torch.equal(drawn[0][1], drawn[1][1][:1000])
    assert (ours.epochs, of_notebook.epochs) == (20, 20)


def _records(run, parts):
    from bregman.suite.training import Record

    measures = run.measure(parts)
    weights = [Record(e, "weights", name, v) for e in (0, 1) for name, v in measures.items()]
    return [*weights, Record(1, "validation", "accuracy", 0.75), Record(1, "train", "accuracy", 1)]


def trials(scores, status="finished"):
    """A table of trials of the MLP, from a method to the scores of its first trials."""
    rows = [
        {"artifact": f"{TRIALS}: MLP", "strategy": method, "label": f"MLP, {method}, trial {i}",
         "status": "diverged" if np.isnan(score) else status, "val_acc_pct": score}
        for method, values in scores.items()
        for i, score in enumerate(values, start=1)
    ]  # fmt: skip
    return Results(pd.DataFrame(rows), pd.DataFrame())


def test_the_best_trial_on_validation_is_chosen_once_all_are_there():
    many = [90.0] * COUNTS["MLP"]
    table = trials({
        "RigL": [*many[:20], 95.0, 95.0, *many[22:]],
        "LinBreg": [float("nan"), 91.0, *many[2:]],
        "SET": many[1:],
        "static": [float("nan")] * COUNTS["MLP"],
    })  # fmt: skip
    assert choose(table) == {"MLP": {"LinBreg": 2, "RigL": 21}}
    # what ended with a high score after it diverged is no trial either
    table.summary.loc[table.summary["label"] == "MLP, RigL, trial 21", "status"] = "diverged"
    assert choose(table)["MLP"]["RigL"] == 22


def test_what_was_chosen_is_run_at_every_density_with_three_seeds():
    chosen = {"MLP": {"RigL": 5, "dense": 3}, "CNN": {"LinBreg, frozen steps": 2}}
    rows = [row for row in tuned_rivals.experiment(chosen).rows_at("paper")
            if row.artifact.startswith(TUNED)]  # fmt: skip
    assert PAPER.seeds == 3
    assert {row.seeds for row in rows} == {None}
    found = [(row.settings["network"], row.strategy, row.settings["target"]) for row in rows]
    assert found == [
        *(("MLP", "RigL", percent / 100) for percent in DENSITIES["MLP"]),
        ("MLP", "dense", None),
        *(("CNN", "LinBreg, frozen steps", percent / 100) for percent in DENSITIES["CNN"]),
    ]
    assert {row.settings["lr"] for row in rows[:4]} == {settings("MLP", "RigL", 5)["lr"]}
    cnn = tuned_rivals.config(PAPER, 0, **rows[-1].settings)
    assert (cnn.epochs, cnn.frozen_steps, cnn.autocast, cnn.tuning) == (10, 9, "bfloat16", False)
    # the densities of notebook 11, and its methods
    known = {
        (row.settings["network"], row.strategy, row.settings.get("target"))
        for row in what_sparsity_buys.EXPERIMENT.rows_at("paper")
        if row.artifact.startswith(what_sparsity_buys.DENSITY)
    }
    every = {network: dict.fromkeys(COMPARED, 1) for network in COUNTS}
    planned = tuned_rivals.experiment(every).rows_at("paper")
    assert known == {(row.settings["network"], row.strategy, row.settings["target"])
                     for row in planned if row.artifact.startswith(TUNED)}  # fmt: skip


def test_trials_and_chosen_runs_at_smoke_scale(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    methods = ("LinBreg", "RigL", "dense")
    labels = [f"MLP, {method}, trial {i}" for method in methods for i in (1, 2)]
    tried = tuned_rivals.experiment({}).run("smoke", rows=labels)
    assert set(tried.summary["label"]) == set(labels)
    assert tried.summary["test_acc_pct"].isna().all()
    chosen = choose(tried, "smoke")
    for method in methods:
        scores = tried.summary.set_index("label")["val_acc_pct"]
        best = max((1, 2), key=lambda i, m=method: scores[f"MLP, {m}, trial {i}"])
        assert chosen["MLP"][method] == best
    tuned = tuned_rivals.experiment(chosen).run("smoke").where(artifact=f"{TUNED}: MLP")
    table = tuned.summary.set_index("strategy")
    assert set(table.index) == set(methods)
    assert table["test_acc_pct"].notna().all()
    assert table.loc["RigL", "n_total_pct"] == pytest.approx(2, rel=0.01)
    # the figure of notebook 11 takes them as they are
    figure = accuracy_at_density(tuned)
    for ax, column in zip(figure.axes, ("n_total_pct", "flops_pct"), strict=True):
        points = {(float(x), float(y)) for line in ax.lines for x, y in line.get_xydata()}
        for method in ("LinBreg", "RigL"):
            assert tuple(table.loc[method, [column, "test_acc_pct"]]) in points
    plt.close(figure)


def test_what_is_stored_was_chosen(tmp_path, monkeypatch):
    if not (ROOT / "results" / "paper" / EXPERIMENT.name).exists():
        assert not tuned_rivals.CHOSEN
        pytest.skip("the trials are not made yet")
    (tmp_path / "paper").mkdir()
    os.symlink(ROOT / "results" / "paper" / "runs", tmp_path / "paper" / "runs")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    stored = replace(EXPERIMENT, rows=tuned_rivals.trial_rows()).run("paper", make=False)
    assert choose(stored) == tuned_rivals.CHOSEN
