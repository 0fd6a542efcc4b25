"""Equal density and equal tuning, and Tables 1 and 2 with seeds."""

import math
import os
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from torch import nn

from bregman.sparsity import sparsity_summary
from bregman.steering import SparsityTarget
from bregman.suite.experiments import equal_density, fashion_mnist_cnn, table_seeds
from bregman.suite.experiments.equal_density import FAMILIES, TARGET, TRIALS, keep_largest_
from bregman.suite.models import ConvNet
from bregman.suite.paths import ROOT
from bregman.suite.runs import RunStore, run_name
from bregman.suite.training import Training, accuracy, evaluate

PAPER_RUNS = ROOT / "results" / "paper" / "runs"


@pytest.fixture
def own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    return tmp_path


def test_every_method_is_tuned_alike():
    assert TRIALS == 6
    assert equal_density.SEARCH_SCALES["paper"].epochs == 8
    lam = {name for name, family in FAMILIES.items() if "lam" in family.space()}
    assert lam == {"Lasso", "ProxGD"}, "of the others lambda is steered, or there is none"
    for family in FAMILIES.values():
        space = family.space()
        assert space["gain"] == (0.25, 1.0)
        assert math.prod(space["lr"]) == pytest.approx(family.lr**2)
        assert space["lr"][1] / space["lr"][0] == pytest.approx(25)
    # the middles are what notebook 07 has
    rows = {row.label: row.settings for row in fashion_mnist_cnn.ROWS}
    for name, family in FAMILIES.items():
        assert rows[name]["lr"] == family.lr
        assert rows[name]["optimizer"] == family.settings["optimizer"]
        assert rows[name].get("momentum", 0.0) == family.settings.get("momentum", 0.0)
        if family.lam is not None:
            assert rows[name]["lam"] == family.lam


def test_the_largest_weights_of_all_layers_together_are_kept():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 6))
    sizes = torch.randperm(20, generator=torch.Generator().manual_seed(0)) + 1.0
    signs = torch.tensor([1.0, -1.0]).repeat(10)
    with torch.no_grad():
        model[0].weight.copy_((sizes * signs)[:8].view(2, 1, 2, 2))
        model[2].weight.copy_((sizes * signs)[8:].view(6, 2))
    biases = [model[0].bias.clone(), model[2].bias.clone()]
    before = [p.clone() for p in (model[0].weight, model[2].weight)]
    keep_largest_(model, 0.25)
    for weight, old in zip((model[0].weight, model[2].weight), before, strict=True):
        assert torch.equal(weight, torch.where(old.abs() > 15, old, 0))
    assert torch.equal(model[0].bias, biases[0])
    assert torch.equal(model[2].bias, biases[1])
    keep_largest_(model, 0.9)
    assert sum(int(w.count_nonzero()) for w in (model[0].weight, model[2].weight)) == 5


def made(name, epochs=2, **settings):
    scale = replace(equal_density.SEARCH_SCALES["smoke"], epochs=epochs)
    family = FAMILIES[name]
    chosen = {"lr": family.lr, "gain": 0.5, "tuning": False}
    if family.lam is not None:
        chosen["lam"] = family.lam
    return equal_density.config(scale, 0, **{**family.settings, **chosen, **settings})


@pytest.mark.parametrize("name", ["Lasso", "LinBreg", "Pruning"])
def test_a_network_ends_with_the_target_and_is_measured_there(name):
    config = made(name)
    parts = config.make_parts("cpu")
    if name == "Pruning":
        parts.attached["pruning"](1)
    before = sum(int(p.count_nonzero()) for p in parts.model.parameters() if p.dim() > 1)
    n = sum(p.numel() for p in parts.model.parameters() if p.dim() > 1)
    kept = round(TARGET * n)
    history = [r for e in range(3) for r in _weights(parts, config, e)]
    result = config.results(parts, Training(history=history))
    there = sum(int(p.count_nonzero()) for p in parts.model.parameters() if p.dim() > 1)
    assert there == min(before, kept)
    assert (there < kept) is (name == "LinBreg")
    assert result["n_total_pct"] == pytest.approx(100 * there / n)
    assert result["trained.n_total_pct"] == pytest.approx(100 * before / n)
    # in float32 here, and in bfloat16 there
    tested = evaluate(parts.model, parts.task.test, accuracy, autocast=torch.bfloat16)[0]
    assert result["test_acc_pct"] == pytest.approx(100 * tested)


def _weights(parts, config, epoch):
    from bregman.suite.training import Record

    return [
        Record(epoch, "weights", metric, value) for metric, value in config.measure(parts).items()
    ]


def test_bregman_methods_are_steered_and_the_others_are_not():
    for name in FAMILIES:
        attached = made(name).make_parts("cpu").attached
        targets = [part for part in attached.values() if isinstance(part, SparsityTarget)]
        steered = FAMILIES[name].settings["optimizer"] in ("LinBreg", "AdaBreg")
        assert [target.density for target in targets] == [TARGET] * steered
        assert ("pruning" in attached) is (name == "Pruning")


def test_a_trial_never_sees_the_test_set():
    config = made("ProxGD", tuning=True)
    parts = config.make_parts("cpu")
    assert parts.task.watched is None
    images, labels = parts.task.test
    parts.task = parts.task._replace(test=(images.new_zeros(0), labels.new_zeros(0)))
    history = [r for e in range(3) for r in _weights(parts, config, e)]
    result = config.results(parts, Training(history=history))
    assert not [name for name in result if "test" in name]
    # but a whole run does, in its last epochs as well
    assert made("ProxGD").make_parts("cpu").task.watched is not None


def test_the_search_is_made_once_and_goes_on_from_what_is_stored(own_results, monkeypatch):
    monkeypatch.setattr(equal_density, "TRIALS", 4)
    whole, table = equal_density.search("smoke", ["ProxGD"])
    assert list(table["label"]) == [f"ProxGD, trial {i}" for i in (1, 2, 3, 4)]
    assert table["test_acc_pct"].isna().all()
    ends = FAMILIES["ProxGD"].space()
    for key, (low, high) in ends.items():
        assert table[f"config_{key}"].between(low, high).all()
        assert table[f"config_{key}"].nunique() == 4
    assert (table["n_total_pct"] <= 100 * TARGET + 1e-3).all()
    csv = own_results / "smoke" / "equal_density_search" / "summary.csv"
    pd.testing.assert_frame_equal(pd.read_csv(csv)[["label", "val_acc_pct"]],
                                  table[["label", "val_acc_pct"]], rtol=1e-5)  # fmt: skip

    def train(*arguments):
        raise AssertionError("made again")

    monkeypatch.setattr(
        equal_density, "_experiment",
        lambda *words: replace(_plain(*words), train=train),
    )  # fmt: skip
    again, stored = equal_density.search("smoke", ["ProxGD"])
    pd.testing.assert_frame_equal(stored, table)
    assert [row.settings for row in again.rows] == [row.settings for row in whole.rows]
    # the third trial lost: the rest would be asked for with what it gave
    store = RunStore(own_results / "smoke" / "runs")
    scale = equal_density.SEARCH_SCALES["smoke"]
    store.path(equal_density.config(scale, 0, **whole.rows[2].settings)).unlink()
    known, _ = equal_density.search("smoke", ["ProxGD"], make=False)
    assert len(known.rows) == 2

    best = table.loc[table["val_acc_pct"].idxmax()]
    assert equal_density.choose(table)["ProxGD"] == {key: best[f"config_{key}"] for key in ends}
    assert equal_density.choose(table[:3]) == {}, "three of four trials"


_plain = equal_density._experiment


def test_the_same_share_of_luck_for_all(own_results, monkeypatch):
    """Methods with the same ranges are asked for the same settings at first."""
    monkeypatch.setattr(equal_density, "TRIALS", 1)
    _, table = equal_density.search("smoke", ["LinBreg", "LinBreg β=0.9"])
    for key in ("config_gain", "config_lr"):
        assert table[key].nunique() == 1


def test_whole_runs_of_the_best_settings(own_results):
    chosen = {"LinBreg": {"gain": 0.5, "lr": 0.1}, "Lasso": {"gain": 0.5, "lr": 0.01, "lam": 3e-4}}
    study = equal_density.experiment(chosen)
    assert [row.seeds for row in study.rows] == [None, None]
    assert study.scale("paper").seeds == 3
    config = study.config(study.scale("paper"), 0, **study.rows[1].settings)
    assert (config.lam, config.lam_conv, config.gain, config.epochs) == (3e-4, 3e-4, 0.5, 100)
    results = study.run("smoke")
    assert results.summary["n_total_pct"].le(100 * TARGET + 1e-3).all()
    tested = results.history.query("split == 'test'")
    assert set(tested["epoch"]) == {1, 2, 3}, "the last ten epochs, if there are as many"


def test_what_is_stored_is_what_was_searched_and_chosen(tmp_path, monkeypatch):
    """The trials follow from the stored runs again, and the settings from the trials."""
    table = ROOT / "results" / "paper" / "equal_density_search" / "summary.csv"
    if not table.exists():
        assert not equal_density.CHOSEN
        pytest.skip("the trials are not made yet")
    (tmp_path / "paper").mkdir()
    os.symlink(PAPER_RUNS, tmp_path / "paper" / "runs")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    _, trials = equal_density.search("paper", make=False)
    assert list(trials["label"]) == list(pd.read_csv(table)["label"])
    assert equal_density.choose(trials) == equal_density.CHOSEN


def test_tables_with_seeds_have_four_methods_in_both_and_pairs_in_two_precisions():
    study = table_seeds.EXPERIMENT
    scale = study.scale("paper")
    rows = {row.label: row for row in study.rows_at("paper")}
    assert len(rows) == 12
    assert scale.seeds == 3
    assert {row.seeds for row in rows.values()} == {None}
    for name in ("LinBreg", "AdaBreg", "Pruning", "Lasso"):
        rounded, exact, groups = (rows[f"{name}{m}"] for m in ("", " (float32)", " (groups)"))
        assert (rounded.artifact, exact.artifact, groups.artifact) == ("Table 1", "Table 1",
                                                                       "Table 2")  # fmt: skip
        one, other = (asdict(study.config(scale, 1, **row.settings)) for row in (rounded, exact))
        assert {key for key in one if one[key] != other[key]} == {"autocast"}
        assert (one["autocast"], other["autocast"]) == ("bfloat16", None)


def test_pairs_in_two_precisions_at_smoke_scale(own_results):
    pair = ["LinBreg", "LinBreg (float32)"]
    results = table_seeds.EXPERIMENT.run("smoke", rows=pair)
    runs = results.summary.set_index("label")
    assert list(runs.index) == pair
    assert runs["config_autocast"].isna().tolist() == [False, True]
    assert runs.loc["LinBreg", "l1_norm"] != runs.loc["LinBreg (float32)", "l1_norm"]
    # the last one is the result, which is measured in the same precision
    tested = results.history.query("split == 'test' and metric == 'accuracy'").set_index("run")
    for label in pair:
        last = tested.loc[[label]].sort_values("epoch")["value"].iloc[-1]
        assert 100 * last == pytest.approx(runs.loc[label, "test_acc_pct"], abs=1e-3)


def test_tables_with_seeds_share_the_runs_of_notebook_07():
    def names(study):
        return {
            run_name(study.config(study.scale("paper"), seed, **row.settings))
            for row in study.rows_at("paper")
            for seed in range(row.seeds or 3)
        }

    shared = names(table_seeds.EXPERIMENT) & names(fashion_mnist_cnn.EXPERIMENT)
    # three seeds of LinBreg, and of AdaBreg in both precisions; one of LinBreg in float32, of
    # pruning and Lasso, and of all four in Table 2
    assert len(shared) == 3 + 6 + 1 + 2 + 4
    stored = {path.stem for path in PAPER_RUNS.glob("*.json")}
    assert shared <= stored


def test_new_runs_record_the_test_accuracy_of_the_last_epochs():
    scale = fashion_mnist_cnn.SCALES["smoke"]
    parts = fashion_mnist_cnn.config(scale, 0, optimizer="Adam", lr=1e-3).make_parts("cpu")
    assert parts.task.watched is parts.task.test


def test_density_of_a_fresh_network_is_what_the_target_is_counted_in():
    model = ConvNet()
    keep_largest_(model, TARGET)
    assert sparsity_summary(model)["n_total"] == pytest.approx(TARGET, rel=1e-4)
