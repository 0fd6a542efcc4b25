"""What lies behind Figure 2: the settings, the score that was fixed before the runs, the choice."""

import math
import os
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from reference import J, adabreg
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from typer.testing import CliRunner

from bregman.regularizers import L1
from bregman.suite import experiments
from bregman.suite.cli import app
from bregman.suite.experiments import figure_2, mnist_comparison
from bregman.suite.experiments.figure_2 import (
    EXPERIMENT,
    FITS,
    GRID,
    SCHEDULES,
    Fits,
    Setting,
    UncorrectedAdaBreg,
)
from bregman.suite.experiments.tables import paper_reference
from bregman.suite.models import MLP
from bregman.suite.paths import ROOT
from bregman.suite.runs import RunStore, run_name
from bregman.suite.training import fit, weight_measures

SMOKE, PAPER = (EXPERIMENT.scale(name) for name in ("smoke", "paper"))
CHOSEN = Fits(
    (Setting(0.7, "accuracy", 0.1), Setting(1.2, "loss", 0.05)),
    {"ProxGD": Setting(0.7, "constant", 0.3), "LinBreg": Setting(1.2, "loss", 0.1)},
)


@pytest.fixture
def own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    return tmp_path


def test_the_grid_has_every_setting_with_two_curves():
    rows = [row for row in EXPERIMENT.rows_at("paper") if row.artifact == GRID]
    found = {
        (row.optimizer, *(row.settings[name] for name in ("gain", "schedule", "lr")))
        for row in rows
    }
    curves = ("ProxGD lam=1e-5", "LinBreg lam=1e-1")
    gains, taus = (0.6, 0.7, 1.0, 1.2), (0.05, 0.1, 0.3)
    assert found == set(product(curves, gains, ("accuracy", "loss", "constant"), taus))
    assert len(rows) == 72
    assert {row.seeds for row in rows} == {1}
    configs = [EXPERIMENT.config(PAPER, 0, **row.settings) for row in EXPERIMENT.rows]
    assert len(set(map(run_name, configs))) == len(configs)
    assert {(c.epochs, c.batch_size, c.density, c.mini, c.train_size) for c in configs} == {
        (100, 128, 0.01, False, None)
    }


def test_best_settings_are_tried_on_all_seven_curves_with_three_seeds():
    planned = figure_2.experiment(CHOSEN).rows_at("paper")
    rows = [row for row in planned if row.artifact == FITS]
    reference = paper_reference()
    seven = reference[reference["artifact"] == mnist_comparison.FIGURE_2]
    for i, setting in enumerate(CHOSEN.best):
        part = rows[7 * i : 7 * i + 7]
        assert {(row.strategy, row.optimizer) for row in part} == set(
            seven[["strategy", "optimizer"]].itertuples(index=False, name=None)
        )
        assert all(row.seeds is None for row in part)
        assert {tuple(row.settings[n] for n in Setting._fields) for row in part} == {setting}
    own = {row.optimizer: row.settings for row in rows[14:]}
    assert own["ProxGD lam=1e-4"]["schedule"] == "constant"
    assert own["SGD"]["schedule"] == own["LinBreg lam=1e-1"]["schedule"] == "loss"
    assert [row.label for row in planned] == list(dict.fromkeys(row.label for row in planned))


def test_the_gain_of_a_curve_starts_it_at_the_papers_norm():
    for (optimizer, strategy, lam), gain in figure_2.CURVES.items():
        run = EXPERIMENT.config(PAPER, 0, optimizer=optimizer, lam=float(lam or 0), gain=gain)
        norms = [
            weight_measures(run.make_model(torch.Generator().manual_seed(seed)))["l1_norm"]
            for seed in range(3)
        ]
        start = figure_2.STARTS[optimizer, strategy, lam]
        assert np.mean(norms) == pytest.approx(start, rel=0.03)


def scheduler_of(schedule):
    run = EXPERIMENT.config(PAPER, 0, optimizer="SGD", schedule=schedule)
    optimizer = run.make_optimizer(MLP())
    return run, optimizer, run.make_scheduler(optimizer)


def test_schedules_halve_tau_as_they_say():
    run, optimizer, scheduler = scheduler_of("accuracy")
    plain = mnist_comparison.config(PAPER, 0, optimizer="SGD").make_scheduler(optimizer)
    assert not run.watch_loss
    assert {n: v for n, v in vars(scheduler).items() if isinstance(v, str | int | float)} == {
        n: v for n, v in vars(plain).items() if isinstance(v, str | int | float)
    }

    run, optimizer, scheduler = scheduler_of("loss")
    assert run.watch_loss
    losses = [1.0, *[0.995] * 5]  # half a percent less is no gain
    for loss in losses:
        scheduler.step(loss)
        assert optimizer.param_groups[0]["lr"] == 0.1
    scheduler.step(0.995)
    assert optimizer.param_groups[0]["lr"] == 0.05
    scheduler.step(0.98)
    for _ in range(5):
        scheduler.step(0.5)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert scheduler_of("constant")[2] is None


@pytest.mark.parametrize("watch_loss", [False, True])
def test_a_plateau_sees_what_it_is_told_to(watch_loss):
    class Spy(ReduceLROnPlateau):
        seen: list[float] = []  # noqa: RUF012

        def step(self, metrics, epoch=None):
            self.seen = [*self.seen, float(metrics)]

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 4, generator=generator), torch.arange(32) % 3
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    spy = Spy(optimizer)
    history = fit(model, optimizer, (x, y), (x[:8], y[:8]), epochs=3, batch_size=8,
                  generator=generator, scheduler=spy, watch_loss=watch_loss).history  # fmt: skip
    what = ("train", "loss") if watch_loss else ("validation", "accuracy")
    assert spy.seen == [r.value for r in history if (r.split, r.metric) == what and r.epoch]


def test_a_split_of_its_own_changes_nothing_else():
    def parts(**settings):
        return EXPERIMENT.config(SMOKE, 0, optimizer="LinBreg", lam=0.1, **settings).make_parts(
            "cpu"
        )

    first, other, sgd = parts(split_seed=0), parts(split_seed=1), parts(split_seed=1)
    for a, b in zip(first.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.generator.get_state(), other.generator.get_state())
    held_out = [
        {tuple(image.flatten().tolist()) for image in p.task.val[0]} for p in (first, other, sgd)
    ]
    assert held_out[0] != held_out[1] == held_out[2]
    assert len(first.task.val[0]) == len(other.task.val[0])
    # without one it is drawn as in all other experiments
    plain = mnist_comparison.config(SMOKE, 0, optimizer="LinBreg", lam=0.1).make_parts("cpu")
    assert torch.equal(parts().task.val[0], plain.task.val[0])
    assert all(
        torch.equal(a, b)
        for a, b in zip(parts().model.parameters(), plain.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("beta1", [0.9, 0.0, 0.99])
def test_uncorrected_adabreg_is_the_public_codes(beta1):
    """Algorithm 3 with m1 in the place of m1 / (1 - beta1^k), letter by letter."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)) * (rng.random((3, 4)) < 0.5)
    p = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = UncorrectedAdaBreg([p], lr=0.01, reg=L1(0.3), betas=(beta1, 0.999))
    v = start + J(0.3).subgrad(start)
    m1, m2 = np.zeros_like(v), np.zeros_like(v)
    for k in range(1, 60):
        g = rng.normal(size=v.shape)
        p.grad = torch.tensor(g)
        optimizer.step()
        m1, m2 = beta1 * m1 + (1 - beta1) * g, 0.999 * m2 + 0.001 * g**2
        v = v - 0.01 * m1 / (np.sqrt(m2 / (1 - 0.999**k)) + 1e-8)
        np.testing.assert_allclose(p.detach().numpy(), J(0.3).prox(v), rtol=1e-9, atol=1e-12)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_with_the_correction_it_is_algorithm_3():
    """The equivalence from the other side: tau_k = tau (1 - beta1^k) on the paper's algorithm."""
    rng = np.random.default_rng(1)
    start = rng.normal(size=5)
    p = nn.Parameter(torch.tensor(start))
    optimizer = UncorrectedAdaBreg([p], lr=0.02, reg=L1(0.1))
    algorithm = adabreg(start, J(0.1))
    next(algorithm)
    for k in range(1, 30):
        g = rng.normal(size=5)
        p.grad = torch.tensor(g)
        optimizer.step()
        theta = algorithm.send((g, 0.02 * (1 - 0.9**k)))
        np.testing.assert_allclose(p.detach().numpy(), theta, rtol=1e-9, atol=1e-12)


def test_rivals_of_adabreg_are_what_they_say():
    rows = {row.label: row for row in EXPERIMENT.rows if row.artifact == figure_2.ADABREG}
    configs = {label.split(", ")[1]: EXPERIMENT.config(PAPER, 0, **row.settings)
               for label, row in rows.items()}  # fmt: skip
    assert {(c.optimizer, c.lam) for c in configs.values()} == {("AdaBreg", 0.1)}
    assert configs["τ=2e-4"].lr == 2e-4
    relu = configs["ReLU on the logits"].make_network()
    assert (relu(torch.randn(50, 1, 28, 28)) >= 0).all()
    assert weight_measures(relu)["n_total"] == weight_measures(MLP())["n_total"]
    uncorrected = configs["first moment not corrected"].make_optimizer(MLP())
    assert type(uncorrected) is UncorrectedAdaBreg
    assert [group["reg"].lam for group in uncorrected.param_groups[:1]] == [0.1]


def table(**columns):
    papers = {"optimizer": "ProxGD lam=1e-5", "n_total_pct": 78.0, "l1_norm": 1340.0,
              "train_acc_pct": 100.0, "val_acc_pct": 97.6, "status": "finished"}  # fmt: skip
    return pd.DataFrame([{**papers, **columns}])


def test_the_distance_is_that_of_its_definition():
    def of(**columns):
        return figure_2.distance(table(**columns)).item()

    assert of() == 0
    assert of(n_total_pct=39.0) == pytest.approx(math.log(2) / 4)
    assert of(l1_norm=2680.0) == pytest.approx(math.log(2) / 4)
    assert of(train_acc_pct=99.0) == pytest.approx(0.1 / 4)
    for accuracy in (98.0, 97.2):
        assert of(val_acc_pct=accuracy) == pytest.approx(0.1 / 4)
    assert of(n_total_pct=156, l1_norm=670, val_acc_pct=97.2) == pytest.approx(
        (2 * math.log(2) + 0.1) / 4
    )
    assert of(status="diverged") == of(l1_norm=float("nan")) == math.inf


def grid(values):
    """A table of the grid in which the l1 norm is off by a factor e^(4 value)."""
    theirs = {"ProxGD": (78.0, 1340.0, 97.6), "LinBreg": (10.3, 1950.0, 97.5)}
    rows = []
    for (gain, schedule, lr), by_optimizer in values.items():
        for optimizer, value in by_optimizer.items():
            n, norm, val = theirs[optimizer]
            lam = {"ProxGD": "1e-5", "LinBreg": "1e-1"}[optimizer]
            rows.append({
                **table().iloc[0], "artifact": GRID, "optimizer": f"{optimizer} lam={lam}",
                "n_total_pct": n, "l1_norm": norm * math.exp(4 * value), "val_acc_pct": val,
                "config_gain": gain, "config_lr": lr, "config_optimizer": optimizer,
                "config_plateau": SCHEDULES[schedule]["plateau"],
            })  # fmt: skip
    other = {**rows[0], "artifact": "Figure 2: splits", "l1_norm": 1e9}
    return pd.DataFrame([*rows, other])


def test_the_choice_is_by_both_curves_and_each_alone():
    chosen = figure_2.choose(grid({
        (0.7, "accuracy", 0.1): {"ProxGD": 0.3, "LinBreg": 0.5},
        (0.7, "loss", 0.1): {"ProxGD": 0.05, "LinBreg": 0.6},
        (1.2, "constant", 0.3): {"ProxGD": 0.1, "LinBreg": 0.1},
        (1.0, "loss", 0.05): {"ProxGD": 0.9, "LinBreg": 0.01},
        (0.6, "loss", 0.05): {"ProxGD": 0.9, "LinBreg": 0.9},
        (1.0, "loss", 0.3): {"ProxGD": 0.0},
    }))  # fmt: skip
    assert chosen.best == (
        (1.2, "constant", 0.3),
        (0.7, "loss", 0.1),
        (0.7, "accuracy", 0.1),
        (1.0, "loss", 0.05),
    )
    # one that lacks a run is not chosen
    assert chosen.own == {"ProxGD": (0.7, "loss", 0.1), "LinBreg": (1.0, "loss", 0.05)}


def test_runs_at_smoke_scale_with_chosen_settings(own_results):
    study = figure_2.experiment(CHOSEN)
    summary = study.run("smoke").summary
    assert list(summary["label"]) == [row.label for row in study.rows_at("smoke")]
    assert set(summary["status"]) == {"finished"}
    assert figure_2.distance(summary[summary["artifact"] == GRID]).between(0, 10).all()
    ranked = figure_2.ranking(summary)
    assert set(ranked.index.get_level_values("schedule")) == set(SCHEDULES)
    assert ranked["both"].is_monotonic_increasing
    stored = pd.read_csv(own_results / "smoke" / "figure_2" / "summary.csv")
    pd.testing.assert_frame_equal(figure_2.ranking(stored), ranked, rtol=1e-3)
    by_label = summary.set_index("label")
    constant = by_label[by_label["config_plateau"].isna() & (by_label["artifact"] == GRID)]
    assert len(constant) == 4
    # both are trained as a run of Figure 2, whose class has fewer fields
    plain = experiments.get("mnist_comparison").run("smoke", rows=["LinBreg (λ=1e-1)"]).summary
    same = by_label.loc["LinBreg (λ=1e-1), gain 0.7, accuracy, τ=0.1"]
    assert plain["l1_norm"].item() == same["l1_norm"]


def test_the_command_makes_a_study(own_results, monkeypatch):
    small = replace(EXPERIMENT, rows=EXPERIMENT.rows[:1])
    monkeypatch.setitem(experiments.STUDIES, "figure_2", small)
    words = ["run", "figure_2", "--scale", "smoke", "--jobs", "1"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "error: figure_2 has no notebook, so it needs --no-notebooks" in done.output
    label = next(row.label for row in EXPERIMENT.rows_at("smoke"))
    small = replace(small, rows=tuple(row for row in EXPERIMENT.rows if row.label == label))
    monkeypatch.setitem(experiments.STUDIES, "figure_2", small)
    done = CliRunner().invoke(app, [*words, "--no-notebooks", "--rows", label])
    assert done.exit_code == 0, done.output
    assert "figure_2: 0 of 1 runs are in the store" in done.output
    assert len(pd.read_csv(own_results / "smoke" / "figure_2" / "summary.csv")) == 1
    done = CliRunner().invoke(app, ["run", "figure_2", "--scale", "narrow", "--no-notebooks"])
    assert "figure_2 has no scale 'narrow', allowed: smoke, quick, paper" in done.output


def test_the_settings_are_those_that_the_stored_grid_chooses(tmp_path, monkeypatch):
    store = RunStore(ROOT / "results" / "paper" / "runs")
    rows = [row for row in EXPERIMENT.rows if row.artifact == GRID]
    if not all(store.get(EXPERIMENT.config(PAPER, 0, **row.settings)) for row in rows):
        assert not figure_2.CHOSEN.best, "chosen before the grid was whole"
        pytest.skip("the grid is not all made yet")
    (tmp_path / "paper").mkdir()
    os.symlink(ROOT / "results" / "paper" / "runs", tmp_path / "paper" / "runs")
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    assert figure_2.choose(EXPERIMENT.run("paper", rows=[]).summary) == figure_2.CHOSEN
