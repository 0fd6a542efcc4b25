"""The paper's scale from the store: no run is lost, tables and findings follow from the runs."""

import csv
import json
import os
import runpy
import warnings

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from typer.testing import CliRunner

from bregman.suite import notebooks
from bregman.suite.cli import app
from bregman.suite.experiments import EXPERIMENTS, STUDIES, get
from bregman.suite.experiments.equal_density import search
from bregman.suite.figures import redraw
from bregman.suite.notebooks import NotebookError
from bregman.suite.paths import ROOT
from bregman.suite.runs import run_name

PAPER = ROOT / "results" / "paper"
SEARCHES = runpy.run_path(str(ROOT / "scripts" / "search_fashion_mnist_cnn.py"))["SEARCHES"]
TABLE_3_SEARCH = runpy.run_path(str(ROOT / "scripts" / "search_cifar10_resnet.py"))["search"]
STORED = [e for e in (*EXPERIMENTS.values(), *SEARCHES) if (PAPER / e.name).exists()]
# of these, runs may be missing
BEGUN = [e for e in STUDIES.values() if (PAPER / e.name).exists()]
# nbval executes them all as they are stored, at this scale; these without Jupyter, as
# `bregman figures` does, and in `make test-more` the others
SHORT = ("mnist_acceleration", "paper_and_ours")
NOTEBOOKS = [
    pytest.param(name, marks=[] if name in SHORT else pytest.mark.more)
    for name in ("paper_and_ours", *EXPERIMENTS)
    if name not in EXPERIMENTS or (PAPER / name).exists()
]


def names(experiment, scale):
    """The names of all runs that an experiment has at a scale."""
    meaning = experiment.scale(scale)
    return {
        run_name(experiment.config(meaning, seed, **row.settings))
        for row in experiment.rows_at(scale)
        for seed in range(min(meaning.seeds, row.seeds or meaning.seeds))
    }


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The stored runs in a folder of their own, for tables and figures made anew."""
    (tmp_path / "paper").mkdir()
    os.symlink(PAPER / "runs", tmp_path / "paper" / "runs")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "paper"


def test_every_stored_run_belongs_to_a_row_of_an_experiment_or_a_search(store):
    stored = {path.stem for path in (PAPER / "runs").glob("*.json")}
    trials, _ = search("paper", make=False)
    experiments = [*EXPERIMENTS.values(), *STUDIES.values(), *SEARCHES, TABLE_3_SEARCH(20), trials]
    assert stored
    assert stored <= set().union(*(names(experiment, "paper") for experiment in experiments))


@pytest.mark.parametrize("experiment", STORED, ids=lambda experiment: experiment.name)
def test_no_run_of_a_stored_table_has_to_be_made_again(experiment, store):
    assert experiment.forecast("paper").missing == 0


@pytest.mark.parametrize("experiment", STORED + BEGUN, ids=lambda experiment: experiment.name)
def test_tables_follow_from_the_stored_runs(experiment, store):
    experiment.run("paper", rows=[])
    for table in ("summary.csv", "history.csv"):
        with (
            (PAPER / experiment.name / table).open(newline="") as committed,
            (store / experiment.name / table).open(newline="") as made,
        ):
            assert list(csv.reader(made)) == list(csv.reader(committed))


# the runs of Table 3 take days: those that began before a change have to be found after it
TABLE_3 = {
    "narrow": {
        "cifar10-SGD-seed0-648bdcac37",
        "cifar10-Adam-seed0-fa5325da35",
        "cifar10-Adam-seed0-70a4e3040b",
        "cifar10-LinBreg-seed0-bc40a68c65",
        "cifar10-LinBreg-seed0-142ed7e300",
        "cifar10-AdaBreg-seed0-efabd135d2",
    },
    "paper": {
        "cifar10-SGD-seed0-b7dea973c9",
        "cifar10-Adam-seed0-751192888a",
        "cifar10-Adam-seed0-8bcda81741",
        "cifar10-LinBreg-seed0-5c118bc937",
        "cifar10-LinBreg-seed0-9e4f999ed0",
        "cifar10-AdaBreg-seed0-331b4bdaae",
    },
}


@pytest.mark.parametrize("scale", TABLE_3)
def test_runs_of_table_3_keep_their_names(scale):
    assert names(get("cifar10_resnet"), scale) == TABLE_3[scale]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_findings_of_a_notebook_hold_for_the_stored_runs(name, store):
    if name == "paper_and_ours":
        for experiment in STORED:
            (store / experiment.name).symlink_to(PAPER / experiment.name)
    redraw(notebooks.find([name])[name], "paper")
    assert list((store.parent / "figures" / "paper").glob("*.png"))


def test_figures_whose_runs_are_missing_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    done = CliRunner().invoke(app, ["figures", "cifar10_resnet", "--scale", "narrow"])
    assert done.exit_code == 1
    assert "08_cifar10_resnet: left out, 0 of 6 runs are in the store" in done.output
    assert "bregman run cifar10_resnet --scale narrow" in done.output
    done = CliRunner().invoke(app, ["figures", "mnist_comparison", "--scale", "narrow"])
    assert done.exit_code == 1
    assert "mnist_comparison has no scale 'narrow', allowed: smoke, quick, paper" in done.output


def test_what_a_notebook_sets_is_not_the_next_ones(store):
    path = store.parent / "05_setting.ipynb"
    source = """import warnings, torch, matplotlib.pyplot as plt
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 1)
plt.rcParams["lines.linewidth"] = 17
warnings.simplefilter("error")"""
    cell = {"cell_type": "code", "metadata": {}, "source": [source]}
    path.write_text(json.dumps({"cells": [cell]}))

    def settings():
        width = matplotlib.rcParams["lines.linewidth"]
        return torch.get_default_dtype(), torch.get_num_threads(), width, [*warnings.filters]

    before = settings()
    redraw(path, "paper")
    assert settings() == before


def test_a_failing_cell_is_named(store):
    path = store.parent / "05_broken.ipynb"
    cell = {"cell_type": "code", "metadata": {}, "source": ["assert 1 == 2, 'a finding'"]}
    path.write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(NotebookError, match=r"05_broken.*cell 1: AssertionError: a finding"):
        redraw(path, "paper")
