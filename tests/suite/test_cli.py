"""The command line, as a person types it."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from bregman.suite import cli
from bregman.suite.data import DataError

runner = CliRunner()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path / "figures"))
    return tmp_path


def call(*words: str):
    return runner.invoke(cli.app, list(words))


def test_runs_without_notebooks_write_the_tables_and_show_them(folder):
    words = ["run", "mnist_acceleration", "--scale", "smoke", "--no-notebooks", "--jobs", "1"]
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "val_acc_pct" in done.output
    tables = folder / "results" / "smoke" / "mnist_acceleration"
    assert len(pd.read_csv(tables / "summary.csv")) == 5
    assert not list(folder.rglob("*.ipynb"))


def test_list_names_the_notebooks_and_their_scales():
    done = call("list")
    assert done.exit_code == 0
    assert "05_mnist_comparison" in done.output
    assert "paper" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "mnist"], "unknown notebook 'mnist', allowed: "),
        (["run", "--scale", "big"], "unknown scale 'big', allowed: smoke, quick, narrow, paper"),
        (
            ["run", "mnist_comparison", "--scale", "smoke", "--device", "gpu"],
            "device 'gpu' can't be used here",
        ),
        (["run", "mnist_comparison", "--scale", "smoke", "--jobs", "0"], "jobs must be at least 1"),
        (
            ["run", "mnist_comparison", "--scale", "smoke", "-p", "sed=3"],
            "05_mnist_comparison.ipynb has no parameter 'sed', allowed: scale, seed",
        ),
        (["run", "mnist_comparison", "-p", "seed"], "-p must be NAME=VALUE, got 'seed'"),
        (["fetch", "mnits"], "unknown data set 'mnits', allowed: mnist, fashion_mnist, cifar10"),
    ],
)
def test_bad_words_are_named_in_one_line(words, message, folder):
    done = call(*words)
    assert done.exit_code == 1
    assert f"error: {message}" in done.output
    assert "Traceback" not in done.output
    assert not list(folder.rglob("*.json")), "found out before any run"


def test_no_data_is_one_clear_error(monkeypatch):
    def unreachable(name):
        raise DataError("mnist can't be fetched: no network")

    monkeypatch.setattr(cli, "load", unreachable)
    done = call("fetch", "mnist")
    assert done.exit_code == 1
    assert "error: mnist can't be fetched: no network" in done.output
    assert "Traceback" not in done.output
