"""The experiments' tables at smoke scale, and how their runs are made."""

import json
import os
import re
import warnings
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.regularizers import L1, Zero
from bregman.suite import experiments
from bregman.suite.data import DataError
from bregman.suite.experiments.tables import WIDTHS, paper_reference
from bregman.suite.paths import ROOT, results_dir
from bregman.suite.runs import run_name
from bregman.suite.workers import check_device, executors


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_tables_of_an_experiment(name, smoke):
    experiment = experiments.get(name)
    results = smoke(name)
    folder = results_dir() / "smoke" / name
    stored = pd.read_csv(folder / "summary.csv")
    assert set(paper_reference().columns) - set(WIDTHS) <= set(stored.columns)
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
    # all settings of a run, at the end
    configs = [asdict(experiment.config(experiment.scale("smoke"), 0, **row.settings))
               for row in rows]  # fmt: skip
    settings = [column for column in stored if column.startswith("config_")]
    assert list(stored.columns)[-len(settings) - 1 :] == ["variant", *settings]
    assert settings == [f"config_{name}" for name in configs[0]]
    for name in configs[0]:
        values = stored[f"config_{name}"].astype(object).where(stored[f"config_{name}"].notna())
        for value, config in zip(values, configs, strict=True):
            if isinstance(config[name], float):
                assert value == pytest.approx(config[name], rel=1e-5)
            else:
                assert value == config[name] or (value is None or value != value)
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


def test_a_run_is_made_where_the_flags_of_torch_are_locked(tmp_path, monkeypatch):
    """As they are once torch.testing's classes for tests have been imported."""
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    torch.backends.disable_global_flags()
    assert len(experiments.get("mnist_acceleration").run("smoke").history)


def test_configs_make_the_optimizers_that_they_name():
    from bregman.suite.models import MLP

    experiment = experiments.get("mnist_comparison")
    scale = experiment.scale("paper")
    kinds = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "LinBreg": LinBreg,
             "AdaBreg": AdaBreg, "ProxGD": ProxGD}  # fmt: skip
    for name, kind in kinds.items():
        config = experiment.config(scale, 0, optimizer=name, lam=0.25, lr=0.5)
        optimizer = config.make_optimizer(MLP())
        assert type(optimizer) is kind
        assert optimizer.param_groups[0]["lr"] == 0.5
        # weights are regularized, biases are not
        regs = [group["reg"] for group in optimizer.param_groups]
        assert regs == [L1(0.25), None if name in ("SGD", "Adam") else Zero()]
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'Sgd'"):
        experiment.config(scale, 0, optimizer="Sgd").make_optimizer(MLP())


def test_a_new_setting_is_one_field_with_a_default_and_renames_no_run(tmp_path, monkeypatch):
    from bregman.suite.experiments import classification, mnist_comparison

    @dataclass(frozen=True, kw_only=True)
    class Classification(classification.Classification):
        label_smoothing: float = 0.0

    experiment = experiments.get("mnist_comparison")
    before = experiment.config(experiment.scale("smoke"), 0, optimizer="SGD")
    monkeypatch.setattr(mnist_comparison, "Classification", Classification)
    after = experiment.config(experiment.scale("smoke"), 0, optimizer="SGD")
    other = experiment.config(experiment.scale("smoke"), 0, optimizer="SGD", label_smoothing=0.1)
    assert run_name(after) == run_name(before) != run_name(other)
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    rows = (replace(experiment.rows[0], settings={"optimizer": "SGD", "label_smoothing": 0.1}),)
    short = {"smoke": replace(experiment.scale("smoke"), epochs=1)}
    summary = replace(experiment, rows=rows, scales=short).run("smoke").summary
    assert summary["config_label_smoothing"].tolist() == [0.1]
    assert "label_smoothing" in experiment.parameter_table("smoke")


def test_runs_are_chosen_by_columns():
    summary = pd.DataFrame(
        {"label": ["a", "b", "b", "c"], "seed": [0, 0, 1, 0], "config_lam": [0.1, 0.5, 0.5, None],
         "config_optimizer": ["LinBreg", "LinBreg", "LinBreg", "SGD"]}
    )  # fmt: skip
    history = pd.DataFrame(
        {"run": ["a", "b", "b", "c"], "seed": [0, 0, 1, 0], "value": [1, 2, 3, 4]}
    )
    results = experiments.Results(summary, history)
    linbreg = results.where(config_optimizer="LinBreg")
    assert list(linbreg.runs.index) == ["a", "b"]
    assert linbreg.history["value"].tolist() == [1, 2, 3]
    assert results.where(config_lam=[0.1, None]).summary["label"].tolist() == ["a", "c"]
    assert results.where(config_lam=0.5, seed=1).label == "b"
    with pytest.raises(ValueError, match="one row was wanted, got a, b"):
        _ = linbreg.label
    with pytest.raises(ValueError, match="one row was wanted, got none"):
        _ = results.where(config_lam=7.0).label


def test_the_history_of_chosen_runs_is_theirs_alone():
    summary = pd.DataFrame(
        {
            "label": ["a", "a", "b"],
            "seed": [0, 1, 1],
            "status": ["finished", "diverged", "diverged"],
        }
    )
    history = pd.DataFrame(
        {"run": ["a", "a", "b"], "seed": [0, 1, 1], "epoch": 1, "split": "train",
         "metric": "loss", "value": [1.0, 5.0, 7.0]}
    )  # fmt: skip
    results = experiments.Results(summary, history)
    assert results.where(seed=1).history["value"].tolist() == [5.0, 7.0]
    assert results.where(status="finished").curves("train", "loss")["a"].tolist() == [1.0]
    assert results.where(seed=0, status="diverged").history.empty


@pytest.mark.parametrize(
    "kind", [list, tuple, set, frozenset, np.array, pd.Series, pd.Index, iter, dict.fromkeys]
)
def test_runs_are_chosen_by_values_in_any_collection(kind):
    summary = pd.DataFrame({"label": ["a", "b", "c"], "seed": [0, 0, 0]})
    history = pd.DataFrame({"run": ["a", "b", "c"], "seed": [0, 0, 0], "value": [1, 2, 3]})
    chosen = experiments.Results(summary, history).where(label=kind(["a", "c"]))
    assert chosen.summary["label"].tolist() == ["a", "c"]
    assert chosen.history["value"].tolist() == [1, 3]


def test_a_column_that_is_not_there_is_named_with_those_that_are():
    results = experiments.Results(pd.DataFrame({"label": ["a"], "seed": [0]}), pd.DataFrame())
    with pytest.raises(KeyError, match="no column 'lamda', only label, seed"):
        results.where(lamda=0.1)


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


def few(**changes):
    """Two rows of an experiment, three seeds at the paper's scale, which is small here."""
    known = experiments.get("mnist_comparison")
    small = experiments.Scale(2, seeds=3, mini=True)
    scales = {"smoke": replace(small, seeds=1), "paper": small}
    return replace(known, scales=scales, rows=known.rows[:2], **changes)


@pytest.fixture
def own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    return tmp_path


def test_a_setting_of_ones_own_is_trained_and_enters_no_table(own_results):
    experiment = few()
    label = experiment.rows[1].label
    tried = experiment.try_(label, epochs=1, lam=0.05)
    assert tried.label == f"{label}: epochs=1, lam=0.05"
    (row,) = tried.summary.to_dict("records")
    assert (row["epochs"], row["config_lam"], row["config_density"]) == (1, 0.05, 0.01)
    assert tried.curves("weights", "n_total").index.tolist() == [0, 1]
    # the same as an experiment whose row says so
    settings = {**experiment.rows[1].settings, "lam": 0.05}
    stated = replace(experiment, rows=(replace(experiment.rows[1], settings=settings),),
                     scales={"smoke": experiments.Scale(1, mini=True)})  # fmt: skip
    assert not (own_results / "smoke" / experiment.name).exists(), "no table was written"
    assert stated.forecast("smoke").missing == 0, "it is that run"
    assert stated.run("smoke", make=False).summary["n_total_pct"].item() == row["n_total_pct"]
    assert stated.run("smoke").summary["label"].tolist() == [label]


def test_a_row_that_is_tried_as_it_is_is_that_row(own_results):
    label = few().rows[1].label
    made = few().run("smoke", rows=[label]).where(label=label)
    tried = few().try_(label)
    assert tried.label == label
    assert tried.summary["seconds"].item() == made.summary["seconds"].item(), "from the store"


@pytest.mark.parametrize(
    ("notebook", "exercise", "measure", "form"),
    [
        ("05_mnist_comparison", "05.3", "non-zero weights [%]", "{:.1f} %"),
        ("05_mnist_comparison", "05.3", "validation accuracy after 5 epochs [%]", "{:.1f} %"),
        ("05_mnist_comparison", "05.4", "l1 norm at first", "{:,.0f}"),
        ("08_cifar10_resnet", "08.3", "threshold", "{:.3f}"),
        ("08_cifar10_resnet", "08.3", "non-zero weights [%]", "{:.1f} %"),
        ("09_denoising_autoencoder", "09.5", "layer 3", "{:.0f}"),
        ("09_denoising_autoencoder", "09.5", "layer 5", "{:.0f}"),
        ("10_architecture_search", "10.4", "test accuracy [%]", "{:.1f}"),
    ],
)
def test_solutions_quote_what_was_measured(notebook, exercise, measure, form):
    values = experiments.answers(notebook[:2]).loc[exercise, measure]
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    (text,) = ("".join(cell["source"]) for cell in cells if "Solutions" in "".join(cell["source"]))
    values = [value for value in values if value != ""]
    assert len(values) > 1
    for value in values:
        assert re.search(rf"\b{re.escape(form.format(value))}", text)


def test_what_can_not_be_tried_is_named(own_results):
    label = few().rows[1].label
    with pytest.raises(ValueError, match="unknown setting 'lambda' of mnist_comparison, allowed: "):
        few().try_(label, **{"lambda": 1.0})
    with pytest.raises(ValueError, match="unknown row 'LinBrag' of mnist_comparison"):
        few().try_("LinBrag")
    with pytest.raises(ValueError, match="unknown scale 'huge'"):
        few().try_(label, "huge")
    assert not [*own_results.rglob("*.*")], "found out before any work"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lam": -1.0}, "lam must be at least 0, got -1.0"),
        ({"lam": None}, "lam must be a number, got None"),
        ({"lam": True}, "lam must be a number, got True"),
        ({"lam": "0.1"}, "lam must be a number, got '0.1'"),
        ({"lam": [1]}, r"lam must be a number, got \[1\]"),
        ({"lam": torch.tensor(0.1)}, "lam must be a number, got tensor"),
        ({"lam": float("nan")}, "lam must be a number, got nan"),
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"density": 1.5}, "density must be above 0, up to 1, got 1.5"),
        ({"gain": float("inf")}, "gain must be a number, got inf"),
        ({"mini": "no"}, "mini must be True or False, got 'no'"),
        ({"mini": 1}, "mini must be True or False, got 1"),
        ({"train_size": -5}, "train_size must be at least 1 or None, got -5"),
        ({"train_size": 0}, "train_size must be at least 1 or None, got 0"),
        ({"train_size": 10.0}, "train_size must be a whole number or None, got 10.0"),
        ({"patience": -1}, "patience must be at least 0, got -1"),
        ({"epochs": True}, "epochs must be a whole number, got True"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"momentum": -0.1}, "momentum must be from 0 to 1, got -0.1"),
        ({"optimizer": 3}, "optimizer must be a word, got 3"),
        ({"dataset": "cifar10"}, "dataset must be mnist or fashion_mnist for this network, got"),
        ({"dataset": "mnits"}, "dataset must be mnist or fashion_mnist for this network, got"),
    ],
)
def test_a_setting_without_meaning_is_named_and_not_trained(settings, message, own_results):
    experiment = few(train=lambda *arguments: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        experiment.try_(experiment.rows[1].label, **settings)
    assert not [*own_results.rglob("*.*")]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"seed": 2**63 - 1}, "seed must be from 0 to"),
        ({"seeds": 1.5}, "seeds must be a whole number, got 1.5"),
        ({"seeds": "2"}, "seeds must be a whole number, got '2'"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": 10**17}, "seeds must be at most 1000, got 100000000000000000"),
        ({"jobs": 0}, "jobs must be at least 1, got 0"),
        ({"jobs": True}, "jobs must be a whole number, got True"),
        ({"jobs": 1.5}, "jobs must be a whole number, got 1.5"),
        ({"jobs": "2"}, "jobs must be a whole number, got '2'"),
        ({"rows": "SGD"}, "rows must be a list of labels, got 'SGD'"),
        ({"rows": 3}, "rows must be a list of labels, got 3"),
        ({"rows": [["SGD"]]}, r"unknown row \['SGD'\]"),
        ({"scale": ["smoke"]}, r"unknown scale \['smoke'\], allowed: smoke, paper"),
        ({"device": None}, "device None can't be used here .* allowed: 'cpu'"),
        ({"device": 0}, "device 0 can't be used here"),
        ({"device": "gpu"}, "device 'gpu' can't be used here"),
        ({"device": "meta"}, "device 'meta' can't be used here"),
    ],
)
def test_a_request_without_meaning_is_named_before_any_work(request_, message, own_results):
    experiment = few(train=lambda *arguments: pytest.fail("trained"))
    with pytest.raises(ValueError, match=message):
        experiment.run(**{"scale": "smoke", **request_})
    assert not [*own_results.rglob("*")]


def test_a_device_may_be_one_of_torch(own_results):
    row = few().rows[0]
    made = few().run("smoke", device=torch.device("cpu"), rows=pd.Index([row.label]))
    assert made.summary["label"].tolist() == [row.label]
    assert few().forecast("smoke", rows=[row.label]).missing == 0, "it is in the store"


def test_the_reason_why_a_device_fails_is_short():
    with pytest.raises(ValueError, match="device 'mps' can't be used here") as told:
        check_device("mps")
    assert len(str(told.value)) < 300


def test_more_jobs_than_runs_are_as_many_as_runs(own_results, monkeypatch):
    opened = executors.opened
    asked = []

    def noted(jobs, cluster):
        asked.append(jobs)
        return opened(1, cluster)

    monkeypatch.setattr(executors, "opened", noted)
    few().run("smoke", jobs=3_000_000_000)
    assert asked == [2]


def test_nothing_is_trained_at_the_papers_scale_unless_told_to(own_results, capsys):
    def train(*arguments):
        raise AssertionError("trained")

    results = few(train=train).run("paper")
    first, second = (row.label for row in few().rows)
    assert results.summary.empty
    assert results.history.empty
    assert set(paper_reference()) - set(WIDTHS) <= set(results.summary.columns)
    assert results.beside_paper().empty
    assert results.missing["seeds"].to_dict() == {first: 3, second: 3}
    assert results.missing["hours"].isna().all()
    command = f'bregman run mnist_comparison --scale paper --no-notebooks --rows "{first}"'
    assert results.missing["command"][first] == command
    assert command in capsys.readouterr().out
    # it is read again as it was written
    assert pd.read_csv(own_results / "paper" / "mnist_comparison" / "summary.csv").empty


def test_hours_of_what_is_missing_follow_from_other_seeds(own_results, capsys):
    first, second = (row.label for row in few().rows)
    made = few().run("paper", rows=[first], seeds=1, make=True, jobs=1)
    results = few().run("paper")
    assert results.summary["label"].tolist() == [first]
    assert results.missing["seeds"].to_dict() == {first: 2, second: 3}
    seconds = made.summary["seconds"].item()
    assert results.missing["hours"][first] == pytest.approx(2 * seconds / 3600)
    assert pd.isna(results.missing["hours"][second])
    few().run("paper", make=True, jobs=1)
    capsys.readouterr()
    assert few().run("paper").missing.empty
    assert capsys.readouterr().out == ""


def test_tables_that_mix_revisions_say_so(own_results):
    first, second = (row.label for row in few().rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = few().run("smoke", rows=[first])
    assert one.summary["revision"].tolist() == [1]
    with pytest.warns(UserWarning, match="mnist_comparison: the tables mix revisions 1, b"):
        both = few(revision="b").run("smoke")
    assert both.summary.set_index("label")["revision"].to_dict() == {first: 1, second: "b"}


def test_data_is_fetched_once_before_any_worker_starts(own_results, monkeypatch):
    fetched = []
    monkeypatch.setattr("bregman.suite.experiments.experiment.ensure", fetched.append)
    few().run("smoke")
    assert fetched == [], "the mini set is in the package"
    whole = few(train=lambda *arguments: 1 / 0)
    whole = replace(whole, scales={"smoke": experiments.Scale(1)})
    with pytest.raises(
        experiments.RunsFailedError, match=r"failed:\n.*division by zero\n.*division by zero"
    ):
        whole.run("smoke")
    assert fetched == ["mnist"]


def test_the_papers_numbers_are_checked(tmp_path, monkeypatch):
    from bregman.suite.experiments import tables

    whole = tables._REFERENCE.read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole.rpartition(b"\n")[0], whole + b"\n"):
        (tmp_path / "paper_reference.csv").write_bytes(content)
        monkeypatch.setattr(tables, "_REFERENCE", tmp_path / "paper_reference.csv")
        with pytest.raises(DataError, match=r"paper_reference\.csv has SHA-256 sum .* expected"):
            paper_reference()


def test_as_many_workers_as_there_are_cpus_for_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert executors.cpu_count() == 3
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert executors.cpu_count() == 2
    (tmp_path / "cpu.max").write_text("10000 100000\n")
    assert executors.cpu_count() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert executors.cpu_count() == 3
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert executors.cpu_count() == 2
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert executors.cpu_count() == 3


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.7])
def test_a_summary_that_is_cut_is_named(own_results, share):
    few().run("smoke")
    path = own_results / "smoke" / "mnist_comparison" / "summary.csv"
    whole = path.read_text()
    assert len(experiments.stored_summaries("smoke")) == 2
    path.write_text(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"summary\.csv can't be read .* writes it anew from the"):
        experiments.stored_summaries("smoke")
    path.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"with seed 0 is in history\.csv alone"):
        experiments.stored_summaries("smoke")
    path.unlink()
    assert experiments.stored_summaries("smoke").empty


def test_what_there_is_to_do_is_told_before_it_is_done(own_results):
    first = few().rows[0].label
    assert few().forecast("paper") == (0, 6, 0, 6)
    assert str(few().forecast("paper")) == (
        "0 of 6 runs are in the store; how long is unknown of 6, whose like was not made yet"
    )
    made = few().run("paper", rows=[first], seeds=1, make=True)
    hours = made.summary["seconds"].item() / 3600
    there = few().forecast("paper")
    assert there == (1, 5, pytest.approx(2 * hours), 3)
    assert "the missing ones take about" in str(there)
    assert few().forecast("paper", rows=[first]) == (1, 2, pytest.approx(2 * hours), 0)
    assert few().forecast("paper", rows=[first], seeds=1) == (1, 0, 0, 0)
    assert str(few().forecast("paper", rows=[first], seeds=1)) == "1 of 1 runs are in the store"
    with pytest.raises(ValueError, match="seeds must be at least 1, got 0"):
        few().forecast("paper", seeds=0)
