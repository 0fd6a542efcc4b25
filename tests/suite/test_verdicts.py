"""Verdicts: each follows its data, made up here, and none is written by hand."""

import pandas as pd
import pytest

from bregman.suite import verdicts
from bregman.suite.course import keep
from bregman.suite.experiments import Results
from bregman.suite.experiments.tables import MEASURED
from bregman.suite.verdicts import CLAIMS, claims

PAPER_SCALE = verdicts.table()


def made_up(runs: dict[str, tuple[dict, dict[str, list[float]]]], seeds=(0, 1, 2)) -> Results:
    """Tables of runs, by label: columns of the summary, and curves by split and metric."""
    summary = [
        {"label": label, "seed": seed, "lam": 0.0, "config_momentum": 0.0, **columns}
        for label, (columns, _) in runs.items()
        for seed in seeds
    ]
    history = [
        (label, seed, epoch, *name.split(), value + 1e-4 * seed)
        for label, (_, curves) in runs.items()
        for seed in seeds
        for name, curve in curves.items()
        for epoch, value in enumerate(curve)
    ]
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    return Results(pd.DataFrame(summary), pd.DataFrame(history, columns=columns))


def linbreg(density):
    return made_up({"a": ({"config_optimizer": "LinBreg"}, {"weights n_total": density})})


def test_growth_is_seen_and_so_is_a_fall():
    grows = claims.linbreg_only_adds(linbreg([0.01, 0.02, 0.0199, 0.04]))
    assert grows.word == "reproduced"
    falls = claims.linbreg_only_adds(linbreg([0.01, 0.05, 0.04, 0.04]))
    assert falls.word == "not reproduced"
    assert "1.00 points, 25" in falls.evidence
    assert "n = 3 runs" in falls.evidence


def test_a_label_means_nothing():
    tables = linbreg([0.01, 0.05, 0.04, 0.04])
    renamed = Results(tables.summary.replace("a", "ProxGD"), tables.history.replace("a", "ProxGD"))
    assert claims.linbreg_only_adds(renamed) == claims.linbreg_only_adds(tables)


@pytest.mark.parametrize(
    ("density", "lost", "word"),
    [(0.10, 0.4, "reproduced"), (0.10, 0.6, "partly"), (0.20, 0.4, "partly"),
     (0.20, 0.6, "not reproduced")],
)  # fmt: skip
def test_a_claim_of_two_numbers_can_hold_by_half(density, lost, word):
    accuracy = {"val_acc_pct": 97.0 - lost, "test_acc_pct": 97.0 - lost}
    tables = made_up(
        {
            "dense": ({"config_optimizer": "SGD", "val_acc_pct": 97.0, "test_acc_pct": 97.0}, {}),
            "sparse": ({"config_optimizer": "LinBreg", "lam": 0.1, "n_total_pct": 100 * density,
                        **accuracy}, {}),
        }
    )  # fmt: skip
    verdict = claims.tenth_of_the_weights(tables)
    assert verdict.word == word
    assert f"validation {lost:.2f} ± 0.00 points (n = 3)" in verdict.evidence


@pytest.mark.parametrize(
    ("density", "accuracy", "word"),
    [(1.9, 89.2, "reproduced"), (2.28, 88.7, "reproduced"), (2.3, 89.0, "partly"),
     (1.0, 88.6, "partly"), (9.0, 80.0, "not reproduced")],
)  # fmt: skip
def test_a_row_of_a_table_is_a_fifth_denser_at_most_and_half_a_point_worse(density, accuracy, word):
    row = {
        **dict.fromkeys(MEASURED),
        "artifact": "Table 1",
        "strategy": "Bregman",
        "optimizer": "LinBreg",
        "config_autocast": "bfloat16",
        "n_total_pct": density,
        "test_acc_pct": accuracy,
    }
    tables = made_up({"LinBreg": (row, {})}, seeds=(0,))
    judge = next(c.judge for c in CLAIMS if c.text.startswith("LinBreg: 1.9 %"))
    verdict = judge(tables)
    assert verdict.word == word
    assert "(n = 1)" in verdict.evidence


@pytest.mark.parametrize(("violated", "word"), [(0, "reproduced"), (1, "not reproduced")])
def test_a_theorem_fails_with_one_step(violated, word, tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    for seed, wrong in enumerate([0, violated]):
        table = pd.DataFrame({"statement": ["Corollary 3"], "steps": [1000], "violated": [wrong]})
        keep(table.set_index("statement"), "convergence_theory", "paper", seed)
    rows = verdicts.table("convergence_theory").set_index("where")
    assert rows["verdict"]["Corollary 3"] == word
    assert rows["verdict"]["Theorem 6"] == "open", "nothing was checked"
    assert f"at 2,000 steps, fails at {violated} (n = 2 seeds)" in rows["ours"]["Corollary 3"]


@pytest.mark.parametrize(("ratio", "word"), [(1.1, "reproduced"), (1.3, "not reproduced")])
def test_a_variance_must_be_within_its_errors(ratio, word):
    table = pd.DataFrame({"r": [1.0, 0.1], "error": 0.05, "ratio": [1, ratio], "masked": [1, 0.1]})
    tables = Results(table.assign(seed=0), pd.DataFrame())
    assert claims.sparse_weights_keep_the_variance(tables).word == word


def test_what_was_not_run_is_open(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    table = verdicts.table()
    assert len(table) == len(CLAIMS)
    assert (table["verdict"] == "open").all()


def test_every_claim_has_a_verdict_with_its_n_and_a_reason_where_it_does_not_hold():
    assert len(PAPER_SCALE) >= 25
    judged = PAPER_SCALE[PAPER_SCALE["verdict"] != "open"]
    assert judged["ours"].str.contains("n = |three seeds|accuracies at most|seeds:").all()
    assert (judged[judged["verdict"] != "reproduced"]["why"].str.len() > 0).sum() >= 8
    assert not PAPER_SCALE["ours"].str.contains("nan").any()


def test_the_markdown_has_a_line_per_claim():
    lines = verdicts.markdown("denoising_autoencoder").splitlines()
    assert len(lines) == 2 + sum(c.experiment == "denoising_autoencoder" for c in CLAIMS)
    assert all(line.count(" | ") == 2 for line in lines)
