"""The experiments' tables at smoke scale, and how their runs are made."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.regularizers import L1, Zero
from bregman.suite import experiments
from bregman.suite.experiments.tables import paper_reference
from bregman.suite.paths import results_dir
from bregman.suite.runs import run_name


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_tables_of_an_experiment(name, smoke):
    experiment = experiments.get(name)
    results = smoke(name)
    folder = results_dir() / "smoke" / name
    stored = pd.read_csv(folder / "summary.csv")
    assert set(paper_reference().columns) <= set(stored.columns)
    assert {"label", "lam", "seed", "epochs", "seconds", "device"} <= set(stored.columns)
    rows = experiment.rows_at("smoke")
    assert list(stored["label"]) == [row.label for row in rows]
    history = pd.read_csv(folder / "history.csv")
    assert list(history.columns) == ["run", "seed", "epoch", "split", "metric", "value"]
    assert history["epoch"].max() <= experiment.scales["smoke"].epochs
    last = history.query("split == 'validation' and metric == 'accuracy'").groupby("run").last()
    # what a variant says was measured later
    labels = [row.label for row in rows if not row.variant and row.label in last.index]
    joined = stored.set_index("label")["val_acc_pct"] - 100 * last["value"]
    assert (joined[labels].abs() < 1e-3).all()
    keys = set(paper_reference()[["artifact", "strategy", "optimizer"]].itertuples(index=False))
    in_paper = {row.label for row in rows if (row.artifact, row.strategy, row.optimizer) in keys}
    assert set(results.beside_paper().reset_index()["run"]) == in_paper


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_a_row_that_names_a_table_of_the_paper_stands_there(name):
    known = set(paper_reference()[["artifact", "strategy", "optimizer"]].itertuples(index=False))
    artifacts = set(paper_reference()["artifact"])
    # what refreshing batch normalization alone does stands beside the paper's rows, and is ours
    rows = [row for row in experiments.get(name).rows if row.variant != "refreshed"]
    rows = [row for row in rows if row.artifact in artifacts]
    assert all((row.artifact, row.strategy, row.optimizer) in known for row in rows)


def test_jobs_in_processes_give_the_same_numbers(smoke, tmp_path, monkeypatch):
    alone = smoke("mnist_acceleration")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    together = experiments.get("mnist_acceleration").run("smoke", jobs=2)
    pd.testing.assert_frame_equal(alone.history, together.history)


@pytest.mark.parametrize("before", [False, True])
def test_runs_flush_denormal_numbers_and_leave_the_setting(before, tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    experiment = experiments.get("mnist_acceleration")
    halves = []

    def half() -> float:
        return float(torch.tensor(torch.finfo(torch.float32).tiny) / 2)

    def train(*args, **kwargs):
        halves.append(half())
        return experiment.train(*args, **kwargs)

    torch.set_flush_denormal(before)
    try:
        replace(experiment, train=train).run("smoke")
        assert (half() == 0) is before
    finally:
        torch.set_flush_denormal(False)
    assert set(halves) == {0.0}


def test_the_two_figures_share_runs():
    names = [
        run_name(experiment.config(experiment.scale("paper"), 0, **row.settings))
        for experiment in map(experiments.get, ("mnist_comparison", "mnist_acceleration"))
        for row in experiment.rows
    ]
    assert (len(names), len(set(names))) == (10 + 5, 10 + 5 - 2)


def test_another_seed_gives_other_numbers_and_the_same_seed_the_same(smoke, tmp_path, monkeypatch):
    experiment = experiments.get("mnist_acceleration")
    first = smoke("mnist_acceleration").history["value"]
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    other = experiment.run("smoke", seed=1).history["value"]
    again = experiment.run("smoke", seed=0).history["value"]
    assert first.equals(again)
    assert not first.equals(other)


def test_configs_make_the_optimizers_that_they_name():
    from bregman.suite.experiments.classification import make_optimizer
    from bregman.suite.models import MLP

    experiment = experiments.get("mnist_comparison")
    scale = experiment.scale("paper")
    kinds = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "LinBreg": LinBreg,
             "AdaBreg": AdaBreg, "ProxGD": ProxGD}  # fmt: skip
    for name, kind in kinds.items():
        config = experiment.config(scale, 0, optimizer=name, lam=0.25, lr=0.5)
        optimizer = make_optimizer(config, MLP())
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["lr"] == 0.5
        # weights are regularized, biases are not
        regs = [group["reg"] for group in optimizer.param_groups]
        assert regs == [L1(0.25), None if name in ("SGD", "Adam") else Zero()]
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'Sgd'"):
        make_optimizer(experiment.config(scale, 0, optimizer="Sgd"), MLP())


def test_curves_average_over_seeds():
    history = pd.DataFrame(
        {"run": ["a"] * 4, "seed": [0, 0, 1, 1], "epoch": [0, 1, 0, 1], "split": "train",
         "metric": "loss", "value": [1.0, 2.0, 3.0, 6.0]}
    )  # fmt: skip
    results = experiments.Results(pd.DataFrame(), history)
    assert results.curves("train", "loss")["a"].tolist() == [2.0, 4.0]
    with pytest.raises(KeyError, match="no 'accuracy' of 'train' was recorded"):
        results.curves("train", "accuracy")


def test_bad_input_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    experiment = experiments.get("mnist_comparison")
    with pytest.raises(ValueError, match="unknown scale 'huge', allowed: smoke, quick, paper"):
        experiment.run("huge")
    with pytest.raises(ValueError, match=r"device 'cudaa' can't be used here .* allowed: 'cpu'"):
        experiment.run("smoke", device="cudaa")
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        experiment.run("smoke", jobs=0)
    with pytest.raises(ValueError, match="unknown experiment 'mnist', allowed: mnist_comparison"):
        experiments.get("mnist")
