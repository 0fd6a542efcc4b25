"""The page on fair comparisons, with no run, some, and all of them, from runs that are made up."""

import json

import numpy as np
import pandas as pd
import pytest

from bregman.suite.experiments import dense_autoencoders, get, tuned_rivals
from bregman.suite.experiments.tuned_rivals import COMPARED, COUNTS, DENSITIES, TRIALS, TUNED
from bregman.suite.pages import attacks, fair, measured, render
from bregman.suite.paths import ROOT
from bregman.suite.runs import run_name

PAGE = "docs/fair-comparisons.md"
EVERY = {network: dict.fromkeys(COMPARED, 3) for network in COUNTS}
RATES = {"SGD (gain 1)": 1.0, "SGD (gain 0.5)": 2.0, "Adam (gain 1)": 3e-4,
         "Adam (gain 0.5)": 1e-3}  # fmt: skip
ABOVE = {"LinBreg": 2.0, "LinBreg, frozen steps": 1.5, "pruning": 2.5, "RigL": 1.0}
COST = {"LinBreg": 34.0, "LinBreg, frozen steps": 4.0, "pruning": 40.0}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write tables of studies where the pages look, beside what is stored."""
    (tmp_path / "paper").mkdir()
    studies = ("tuned_rivals", "dense_autoencoders", "architecture_seeds", "table_seeds")
    for path in (ROOT / "results" / "paper").iterdir():
        if path.name not in studies:
            (tmp_path / "paper" / path.name).symlink_to(path)
    monkeypatch.setattr(measured, "RESULTS", tmp_path)

    def forget():
        for cached in (measured.summary, measured._history):
            cached.cache_clear()

    def write(name, table, history=None):
        folder = tmp_path / "paper" / name
        folder.mkdir(exist_ok=True)
        table.to_csv(folder / "summary.csv", index=False)
        if history is not None:
            history.to_csv(folder / "history.csv", index=False)
        forget()

    forget()
    yield write
    forget()


def made_up(experiment, change=lambda row, seed: {}):
    """A run for every row and seed."""
    lines = []
    for row in experiment.rows_at("paper"):
        for seed in range(row.seeds or experiment.scale("paper").seeds):
            config = experiment.config(experiment.scale("paper"), seed, **row.settings)
            lines.append({
                "artifact": row.artifact, "strategy": row.strategy, "optimizer": row.optimizer,
                "label": row.label, "seed": seed, "status": "finished", "seconds": 36.0 + seed,
                **{f"config_{name}": value for name, value in vars(config).items()},
                **change(row, seed),
            })  # fmt: skip
    return pd.DataFrame(lines)


def sparse(row, seed):
    """The sparser the worse; methods differ by a constant, seeds by a tenth."""
    if row.artifact.startswith(TRIALS):
        trial = int(row.label.rpartition(" ")[2])
        return {
            "val_acc_pct": 90.0 + (trial == 3), "test_acc_pct": float("nan"), "flops_pct": 10.0
        }  # fmt: skip
    density = 100 * (row.settings["target"] or 1)
    return {
        "test_acc_pct": 90 + np.log10(density) + ABOVE.get(row.strategy, 0.0) + 0.1 * seed,
        "flops_pct": COST.get(row.strategy, density),
    }


def cells(table, first):
    """The lines of a table that begin with a cell."""
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()
            if line.startswith(f"| {first} |")]  # fmt: skip


def test_without_a_run_the_page_says_so(written):
    page = render(PAGE)
    assert "nan" not in page
    assert page.count("No tuned run yet.") == 2
    assert f"| tuned_rivals | {TRIALS}: MLP | 0 | {7 * COUNTS['MLP']} | 0.0 |" in page
    assert f"| tuned_rivals | {TUNED}: MLP | 0 |" in page
    assert cells(fair.search("CNN"), "RigL") == [["RigL", f"0 of {COUNTS['CNN']}", "0", *[""] * 7]]
    # what notebook 11 has stands there all the same
    first, second = fair.rivals("MLP").splitlines()[2:4]
    assert first.count("not run yet") == 4
    assert "| notebook 11 | 3 | 97.35" in second


def test_progress_counts_what_is_in_the_store(written):
    """A study that shares runs with an experiment has some before it has a table."""
    stored = {path.stem: json.loads(path.read_text())["seconds"]
              for path in (ROOT / "results" / "paper" / "runs").glob("*.json")}  # fmt: skip
    study = get("architecture_seeds")
    scale = study.scale("paper")
    planned = {run_name(study.config(scale, seed, **row.settings))
               for row in study.rows_at("paper") for seed in range(scale.seeds)}  # fmt: skip
    there = [stored[name] for name in planned & set(stored)]
    assert there
    (line,) = cells(fair.progress(), "architecture_seeds")
    assert line[1:] == ["all", f"{len(there)}", f"{len(planned)}", f"{sum(there) / 3600:.1f}"]
    (line,) = cells(attacks.hours(), "architecture_seeds")
    assert line[1:] == ["paper", f"{len(there)}", f"{sum(there) / 3600:.1f}",
                        f"{max(there) / 3600:.2f}", f"{len(planned) - len(there)}"]  # fmt: skip


def test_some_trials_choose_nothing_and_are_counted(written, monkeypatch):
    table = made_up(tuned_rivals.experiment({}), sparse)
    part = table[(table["strategy"] != "SET") | table["label"].str.endswith("trial 1")].copy()
    lost = part["label"] == "MLP, RigL, trial 2"
    part.loc[lost, "status"], part.loc[lost, "val_acc_pct"] = "diverged", float("nan")
    written("tuned_rivals", part)
    (line,) = cells(fair.search("MLP"), "SET")
    assert line[:5] == ["SET", f"1 of {COUNTS['MLP']}", "0", "90.00", "90.00"]
    assert line[5:] == [""] * 5
    (line,) = cells(fair.search("MLP"), "RigL")
    made = tuned_rivals.searched("MLP", "RigL", 3)
    assert line[1:5] == [f"{COUNTS['MLP']} of {COUNTS['MLP']}", "1", "90.00", "91.00"]
    assert line[5:9] == [f"{made[k]:g}" for k in ("lr", "momentum", "gain", "drop_fraction")]
    assert "nan" not in render(PAGE)


def test_with_all_runs_gaps_are_paired_and_budgets_kept(written):
    table = made_up(tuned_rivals.experiment(EVERY), sparse)
    diverged = (table["label"] == "MLP, static, tuned, 1 %") & (table["seed"] == 2)
    table.loc[diverged, "status"] = "diverged"
    written("tuned_rivals", table)
    (line,) = cells(fair.rivals("MLP"), "RigL")
    assert line[:3] == ["RigL", "tuned", "3"]
    assert line[3:5] == ["92.10 ± 0.10", "91.80 ± 0.10"]
    assert line[7] == "10.0 to 1.0"
    (line,) = cells(fair.rivals("MLP"), "static")
    assert line[2] == "2 to 3"
    # the seeds' tenths cancel, so the interval is a point
    rows = {tuple(line[:2]): line[2:] for line in cells(fair.leads("MLP"), "LinBreg")}
    assert rows["LinBreg", "RigL"] == ["+1.00 (+1.00 to +1.00), n = 3"] * 4
    assert rows["LinBreg", "pruning"] == ["-0.50 (-0.50 to -0.50), n = 3"] * 4
    assert rows["LinBreg", "static"][3].endswith("n = 2")
    # 90.1 + log10(2) + 1 at 2 %, 5 % and 10 % of the FLOPs
    assert cells(fair.within("MLP"), "RigL") == [[
        "RigL", "91.40 ± 0.10 at 2 %", "91.80 ± 0.10 at 5 %", "92.10 ± 0.10 at 10 %",
        "92.10 ± 0.10 at 10 %",
    ]]  # fmt: skip
    assert cells(fair.within("MLP"), "LinBreg") == [["LinBreg", "", "", "", "93.10 ± 0.10 at 10 %"]]
    assert not cells(fair.within("MLP"), "dense")
    page = render(PAGE)
    assert "nan" not in page
    assert "No tuned run yet." not in page
    assert len(DENSITIES["CNN"]) == 2


def test_autoencoders_and_architectures(written, monkeypatch):
    study = dense_autoencoders.experiment(RATES)
    table = made_up(study, lambda row, seed: {
        "ssim": 0.9 + 0.01 * seed, "psnr": 22.0, "n_total_pct": 40.0,
        "status": "diverged" if row.label == "SGD (gain 1), τ=4" else "finished",
    })  # fmt: skip
    table = table[table["label"] != "Adam (gain 0.5), τ=0.003"]
    history = pd.DataFrame([
        {"run": label, "seed": 0, "epoch": 10, "split": "weights", "metric": "ssim", "value": 0.875}
        for label in table["label"].unique()
    ])  # fmt: skip
    written("dense_autoencoders", table, history)
    strong = np.tile([[0.8, 15.0]], (7, 1))
    monkeypatch.setattr(fair, "arrays_of", lambda row: {"denoised_quality": strong + row["seed"]})
    (line,) = cells(fair.autoencoder_rates(), "SGD (gain 1)")
    assert line[1:] == ["0.875 at 0.3", "0.875 at 1", "0.875 at 2", "diverged at 4"]
    assert "not run yet at 0.003" in fair.autoencoder_rates()
    (line,) = cells(fair.autoencoders(), "SGD (gain 0.5)")
    assert line == ["SGD (gain 0.5)", "2", "3", "0.910 ± 0.010", "22.0", "40.0", "1.800 ± 1.000",
                    "16.0 ± 1.0"]  # fmt: skip

    seeds = made_up(get("architecture_seeds"), lambda row, seed: {
        "skips": 5 + seed, "neurons": 100, "psnr": 30.0, "ssim": float("nan"),
        "test_acc_pct": 89.0 + seed,
    })  # fmt: skip
    written("architecture_seeds", seeds)
    (line,) = cells(fair.architectures(), "Classifier (μ=0.5)")
    assert line[1:5] == ["2", "5, 6", "100, 100", "89.50 ± 0.71 % (n = 2)"]
    assert "nan" not in render(PAGE)
