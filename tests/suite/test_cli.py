"""The command line, as a person types it."""

import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from bregman.suite import cli, notebooks
from bregman.suite.data import DataError
from bregman.suite.experiments import Experiment, get

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


def test_a_command_starts_without_what_few_runs_need():
    # each takes seconds to import, at every start and in every worker
    heavy = {"torchvision", "torchmetrics", "torch._dynamo", "scipy", "papermill", "optuna"}
    code = f"import sys, bregman.suite.cli; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


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
        (["run", "-p", "scale=paper"], "-p must not set scale, which has an option: --scale paper"),
        (["run", "-p", "seed=010"], "-p must not set seed, which has an option: --seed 010"),
        (["run", "-p", "x=[1, 2"], "-p x must be a word or JSON, such as"),
        (["run", "-p", "x=010"], "-p x must be a word or JSON, such as"),
        (["run", "-p", "x=1", "--no-notebooks"], "-p sets parameters of notebooks, and --no-"),
        (
            ["run", "mnist_comparison", "--scale", "smoke", "--seed", "9" * 23],
            f"seed must be from 0 to {2**63 - 1}, got {'9' * 23}",
        ),
        (["run", "mnist_comparison", "--scale", "smoke", "--seed", "-1"], "seed must be from 0 to"),
        (["run", "mnist_comparison", "--scale", "smoke", "--seeds", "0"], "seeds must be at least"),
        (
            ["run", "mnist_comparison", "--scale", "smoke", "--seeds", "1" + 17 * "0"],
            "seeds must be at most 1000, got 1",
        ),
        (["run", "convex_toy_problems", "--seed", "-1"], "seed must be from 0 to"),
        (["run", "convex_toy_problems", "--seed", "9" * 30], "seed must be from 0 to"),
        (["figures", "convex_toy_problems", "--seed", "-1"], "seed must be from 0 to"),
        (
            ["run", "convex_toy_problems", "--rows", "SGD"],
            "--rows chooses runs, and there are none of convex_toy_problems",
        ),
        *(
            (
                ["run", "mnist_comparison", "--scale", "smoke", "--device", device],
                f"device '{device}' can't be used here",
            )
            for device in ("meta", "privateuseone", "cuda:99", "")
        ),
        (
            ["run", "mnist_comparison", "--scale", "smoke", "--cluster", "tcp://localhost:1"],
            "no Dask scheduler answers at 'tcp://localhost:1'",
        ),
        (["fetch", "mnits"], "unknown data set 'mnits', allowed: mnist, fashion_mnist, cifar10"),
    ],
)
def test_bad_words_are_named_in_one_line(words, message, folder):
    done = call(*words)
    assert done.exit_code == 1
    assert f"error: {message}" in done.output
    assert "Traceback" not in done.output
    assert not (folder / "results").exists(), "found out before any work"


def test_what_has_no_runs_is_left_out_with_a_line():
    done = call("run", "convex_toy_problems", "--no-notebooks")
    assert done.exit_code == 0
    assert done.output == "left out, as they have no runs: convex_toy_problems\n"


def command(line: str):
    shell = f"set -o pipefail; {line}".replace("bregman", f"{sys.executable} -m bregman")
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)


def test_a_reader_that_has_enough_is_no_error():
    done = command("bregman list | head -1")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_a_wrong_backend_of_matplotlib_matters_to_figures_alone():
    done = command("MPLBACKEND=nonsense bregman list")
    assert (done.returncode, done.stderr) == (0, "")
    done = command("MPLBACKEND=nonsense bregman figures mnist_comparison")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_data_is_one_clear_error(monkeypatch):
    def unreachable(name, apt_update):
        raise DataError("mnist can't be fetched: no network")

    monkeypatch.setattr(cli, "ensure", unreachable)
    done = call("fetch", "mnist")
    assert done.exit_code == 1
    assert "error: mnist can't be fetched: no network" in done.output
    assert "Traceback" not in done.output


SMOKE = ["run", "mnist_comparison", "--scale", "smoke", "--no-notebooks", "--jobs", "1"]


def failing(config, device, checkpoint, on_epoch):
    if config.optimizer == "ProxGD":
        raise ZeroDivisionError("as it happens")
    return get("mnist_acceleration").train(config, device, checkpoint, on_epoch)


def test_a_failing_run_is_told_at_once_and_the_others_are_made(folder, monkeypatch):
    few = replace(get("mnist_comparison"), train=failing)
    rows = {row.settings["optimizer"]: row for row in few.rows}
    few = replace(few, rows=(rows["ProxGD"], rows["SGD"]))
    monkeypatch.setitem(cli.EXPERIMENTS, "mnist_comparison", few)
    done = call(*SMOKE)
    assert done.exit_code == 1
    told, _, listed = done.output.partition("error: ")
    assert "failed: mnist-ProxGD-seed0-" in told
    assert "ZeroDivisionError: as it happens" in told
    assert re.search(
        r"these runs failed:\n  mnist-ProxGD-seed0-\w+: ZeroDivisionError: as it happens", listed
    )
    assert "Traceback" not in listed
    runs = folder / "results" / "smoke" / "runs"
    assert len(list(runs.glob("*.json"))) == 1
    summary = pd.read_csv(runs.parent / "mnist_comparison" / "summary.csv")
    assert summary["label"].tolist() == ["SGD"]
    monkeypatch.setitem(
        cli.EXPERIMENTS, "mnist_comparison", replace(few, train=get("mnist_acceleration").train)
    )
    assert call(*SMOKE).exit_code == 0


def test_a_damaged_checkpoint_is_named_and_the_others_are_made(folder):
    assert call(*SMOKE, "--rows", "SGD").exit_code == 0
    runs = folder / "results" / "smoke" / "runs"
    (made,) = runs.glob("*.json")
    made.unlink()
    made.with_suffix(".ckpt").write_bytes(b"")
    done = call(*SMOKE, "--rows", "SGD")
    assert done.exit_code == 1
    assert f"checkpoint {made.with_suffix('.ckpt')} can't be used" in done.output
    assert "Traceback" not in done.output
    assert "delete it to train from the start" in done.output


def test_a_full_disk_at_the_tables_is_named(folder, monkeypatch):
    assert call(*SMOKE, "--rows", "SGD").exit_code == 0

    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    done = call(*SMOKE, "--rows", "SGD")
    assert done.exit_code == 1
    assert re.search(r"error: .*summary\.csv can't be written \(No space left on", done.output)


def test_an_unknown_home_is_named(monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", "~nobody-of-this-name/x")
    done = call(*SMOKE)
    assert done.exit_code == 1
    assert "error: BREGMAN_RESULTS must be a folder" in done.output


def test_seeds_choose_how_many(folder):
    assert call(*SMOKE, "--rows", "SGD", "--seeds", "2").exit_code == 0
    summary = pd.read_csv(folder / "results" / "smoke" / "mnist_comparison" / "summary.csv")
    assert summary[["label", "seed"]].values.tolist() == [["SGD", 0], ["SGD", 1]]


def test_rows_are_chosen_by_labels_that_have_commas_themselves():
    known = ["A", "A, b", "A, b, c", "d"]
    assert cli._labels("A, b,d", known) == ["A, b", "d"]
    assert cli._labels("A,b,c, A ,d", known) == ["A, b, c", "A", "d"]
    with pytest.raises(ValueError, match="unknown row 'b', allowed: A; A, b; A, b, c; d"):
        cli._labels("d, b", known)
    for name, experiment in cli.EXPERIMENTS.items():
        for scale in experiment.scales:
            labels = list(dict.fromkeys(row.label for row in experiment.rows_at(scale)))
            assert cli._labels(", ".join(labels), labels) == labels, name
            assert all(cli._labels(label, labels) == [label] for label in labels), name


def test_what_nobody_named_is_left_out_with_a_line(folder, monkeypatch):
    monkeypatch.setattr(Experiment, "run", lambda *words, **options: None)
    done = call("run", "--scale", "narrow", "--no-notebooks")
    assert done.exit_code == 0
    assert "left out, as it has no scale narrow: all but cifar10_resnet\n" in done.output
    assert "cifar10_resnet: 0 of 6 runs are in the store; how long is unknown of 6" in done.output
    done = call("run", "--scale", "smoke", "--no-notebooks", "--rows", "ProxGD (λ=1e-5, τ=0.3)")
    assert done.exit_code == 0
    assert "left out, as they have none of these rows: mnist_acceleration, " in done.output
    assert "mnist_comparison: 0 of 1 runs are in the store" in done.output
    done = call("run", "mnist_comparison", "--scale", "narrow")
    assert done.exit_code == 1
    assert "mnist_comparison has no scale 'narrow', allowed: smoke, quick, paper" in done.output
    done = call("run", "mnist_comparison", "--scale", "smoke", "--rows", "SDG")
    assert done.exit_code == 1
    assert "unknown row 'SDG', allowed: SGD; LinBreg" in done.output
    assert not list(folder.rglob("*.json"))


def test_the_hours_are_told_before_the_first_run_begins(folder, monkeypatch):
    assert call(*SMOKE, "--rows", "SGD").exit_code == 0
    told = []
    monkeypatch.setattr(Experiment, "run", lambda *words, **options: told.append("run"))
    monkeypatch.setattr(cli.typer, "echo", lambda line, **options: told.append(line))
    names = ["mnist_comparison", "mnist_acceleration"]
    call("run", *names, "--scale", "smoke", "--no-notebooks", "--seeds", "2")
    before = told[: told.index("run")]
    assert len(before) == 3
    assert before[0].startswith("mnist_comparison: 1 of ")
    assert "the missing ones take about" in before[0]
    assert before[1].startswith("mnist_acceleration: ")


def test_figures_without_runs_are_not_drawn_and_the_command_is_named(folder):
    done = call("figures", "mnist_comparison", "--scale", "smoke")
    assert done.exit_code == 1
    assert "05_mnist_comparison: left out, 0 of " in done.output
    assert "bregman run mnist_comparison --scale smoke --seed 0 --no-notebooks" in done.output
    assert "error: not drawn, as runs are missing: mnist_comparison" in done.output
    for words, message in (
        (["--scale", "big"], "unknown scale 'big', allowed: smoke, quick, narrow, paper"),
        (["mnist_comparison", "--scale", "narrow"], "mnist_comparison has no scale 'narrow'"),
        (["mnist_comparison", "--seed", "-1"], "seed must be from 0 to"),
    ):
        done = call("figures", *words)
        assert done.exit_code == 1
        assert f"error: {message}" in done.output
    assert not (folder / "figures").exists()


def test_without_notebooks_it_says_where_they_are(tmp_path, monkeypatch, folder):
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "site-packages" / "notebooks")
    for words in (["list"], ["run"], ["run", "mnist_comparison"]):
        done = call(*words)
        assert done.exit_code == 1
        assert "come with the source of the project" in done.output
    assert call(*SMOKE, "--rows", "SGD").exit_code == 0
    done = call("run", "mnist", "--no-notebooks")
    assert done.exit_code == 1
    assert "unknown experiment 'mnist', allowed: mnist_comparison" in done.output


BARE = """
import sys
sys.modules[{lacking!r}] = None
from bregman.__main__ import main
main()
"""


@pytest.mark.parametrize("lacking", ["typer", "pandas"])
def test_without_the_extra_the_command_names_it(lacking):
    code = BARE.format(lacking=lacking)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the command needs the suite's packages, {lacking} is missing: "
        "pip install -e '.[suite]' in the repository\n"
    )
