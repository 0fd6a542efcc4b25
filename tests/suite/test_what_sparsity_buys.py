"""What sparsity buys: the table of runs is a fair comparison, and tables say what was measured."""

import dataclasses
import io
import math

import pandas as pd
import pytest
import torch
from torch import nn

from bregman.layers import weights
from bregman.suite.analysis.cost import cost_table
from bregman.suite.analysis.inference import inference_table
from bregman.suite.analysis.trained import trained_model
from bregman.suite.experiments import what_sparsity_buys as experiment
from bregman.suite.experiments.recipe import train
from bregman.suite.experiments.what_sparsity_buys import (
    DENSE,
    DENSITY,
    EXPERIMENT,
    FROZEN,
    MASKED,
    METHODS,
    SCALES,
    SHORT,
    SMALLER_LAYERS,
    SPARSE_PRODUCTS,
    TARGET,
    WHOLE_RUNS,
    config,
)
from bregman.suite.models import MLP


def configs(scale, artifact):
    """(row, config) of the rows of some artifacts."""
    meaning = EXPERIMENT.scale(scale)
    return [
        (row, EXPERIMENT.config(meaning, 0, **row.settings))
        for row in EXPERIMENT.rows_at(scale)
        if row.artifact.startswith(artifact)
    ]


def without(made, *names):
    return {k: v for k, v in dataclasses.asdict(made).items() if k not in names}


def test_every_row_has_its_own_label():
    labels = [row.label for row in EXPERIMENT.rows]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_depends_on_a_clock(scale):
    assert {made.path for _, made in configs(scale, "")} <= {"masked", "csr", "gathered"}


def test_four_targets_on_three_networks_from_one_setting():
    rows = configs("paper", TARGET)
    for network in ("MLP", "CNN", "ResNet-18"):
        wanted = {made.target for _, made in rows if made.network == network}
        assert wanted == {0.25, 0.1, 0.05, 0.01}
        linbreg = [m for _, m in rows if m.network == network and m.optimizer == "LinBreg"]
        assert len({m.lr for m in linbreg}) == 1
    assert len({(made.lam, made.frozen_steps) for _, made in rows}) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_methods_are_compared_at_equal_densities_epochs_and_learning_rates(scale):
    rows = configs(scale, DENSITY)
    for network in {made.network for _, made in rows}:
        mine = [(row, made) for row, made in rows if made.network == network]
        targets = {
            method: {made.target for row, made in mine if row.strategy == method}
            for method in METHODS
        }
        assert len(set(map(frozenset, targets.values()))) == 1
        assert [made.target for row, made in mine if row.strategy == DENSE] == [None]
        shared = [
            without(made, "optimizer", "lam", "density", "gain", "target", "baseline",
                    "frozen_steps")
            for _, made in mine
        ]  # fmt: skip
        assert all(settings == shared[0] for settings in shared)


@pytest.mark.parametrize("scale", SCALES)
def test_the_map_has_a_run_for_every_pair(scale):
    pairs = [(made.frozen_steps, made.lam) for _, made in configs(scale, FROZEN)]
    steps, lams = ({pair[i] for pair in pairs} for i in range(2))
    assert len(pairs) == len(set(pairs)) == len(steps) * len(lams)
    assert 0 in steps
    labels = {f"m = {m}, λ = {lam}" for m, lam in pairs}
    assert labels == {row.label for row, _ in configs(scale, FROZEN)}


@pytest.mark.parametrize("scale", SCALES)
def test_masked_zeros_and_what_leaves_them_out_are_the_same_training(scale):
    made = {(m.network, row.strategy): m for row, m in configs(scale, WHOLE_RUNS)}
    pairs = [
        (made[network, MASKED], made[network, method])
        for network, method in made
        if method == (SPARSE_PRODUCTS if network == "wide MLP" else SMALLER_LAYERS)
        and (network, MASKED) in made
    ]
    assert pairs
    for masked, fast in pairs:
        assert masked.path == "masked" != fast.path
        assert without(masked, "path", "keep") == without(fast, "path", "keep")


def test_a_config_from_its_scale_and_network():
    scale = experiment.SparsityScale(
        epochs=7, train_size=1000, width=64, channels=4, frozen_steps=5
    )
    made = config(scale, 3, "ResNet-18", frozen_steps=9)
    assert (made.width, made.frozen_steps, made.epochs, made.seed) == (4, 5, 7, 3)
    assert config(scale, 3, "wide MLP").width == 64
    rates = {name: config(scale, 0, "MLP", optimizer=name).lr
             for name in ("SGD", "LinBreg", "Adam", "AdaBreg")}  # fmt: skip
    assert rates == {"SGD": 0.1, "LinBreg": 0.1, "Adam": 1e-3, "AdaBreg": 1e-3}
    dense = config(scale, 0, "MLP", optimizer="SGD", density=0.1, lam=0.3)
    assert (dense.density, dense.gain, dense.lam) == (1.0, 1.0, 0.0)
    sparse = config(scale, 0, "MLP", density=0.1, lam=0.3)
    assert (sparse.density, sparse.lam) == (0.1, 0.3)


def summary():
    rows = [
        ("net", DENSE, 100.0, 98.0, None, 100.0, 40.0, 10),
        ("net", SHORT, 100.0, 97.0, None, 100.0, 20.0, 5),
        ("net", SPARSE_PRODUCTS, 4.0, 97.0, None, 5.0, 8.0, 10),
        ("net", SPARSE_PRODUCTS, 6.0, 98.0, None, 7.0, 12.0, 10),
        ("other", DENSE, 100.0, None, 0.9, 100.0, 30.0, 4),
        ("other", MASKED, 8.0, None, 0.8, 7.0, 60.0, 4),
    ]
    columns = ["config_network", "strategy", "n_total_pct", "test_acc_pct", "ssim", "flops_pct",
               "seconds", "epochs"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    return table


def test_costs_are_relative_to_the_dense_training_of_the_same_network():
    costs = cost_table(summary())
    assert list(costs.index) == [("net", DENSE), ("net", SHORT), ("net", SPARSE_PRODUCTS),
                                 ("other", DENSE), ("other", MASKED)]  # fmt: skip
    assert costs["time [%]"].tolist() == [100, 50, 25, 100, 200]
    assert costs["times as fast"].tolist() == [1, 2, 4, 1, 0.5]
    assert costs["accuracy or SSIM"].tolist() == [98.0, 97.0, 97.5, 0.9, 0.8]
    assert costs["FLOPs [%]"].tolist() == pytest.approx([100, 50, 6, 100, 7])
    assert costs["density [%]"].tolist() == [100, 100, 5, 100, 8]
    spread = [math.nan, math.nan, 0.5**0.5, math.nan, math.nan]
    assert costs["±"].tolist() == pytest.approx(spread, nan_ok=True)


def test_a_kept_network_is_the_one_that_was_trained(tmp_path):
    scale = experiment.SparsityScale(epochs=1, mini=True, train_size=320, width=24)
    made = config(scale, 0, "wide MLP", lam=0.05, frozen_steps=4, keep=True)
    outcome = train(made, "cpu", tmp_path / "run.ckpt", lambda epoch: None)
    model = trained_model({name: t.numpy() for name, t in outcome.arrays.items()})
    shapes = [tuple(weight.parameter.shape) for weight in weights(model)]
    assert shapes == [(24, 784), (24, 24), (10, 24)]
    for name, value in model.state_dict().items():
        assert torch.equal(value.half(), outcome.arrays[f"weights.{name}"])
    norm = sum(weight.value.abs().sum().item() for weight in weights(model))
    assert norm == pytest.approx(outcome.result["l1_norm"], rel=1e-3)


def test_files_and_times_of_inference():
    class Counting(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.sizes = inner, set()

        def forward(self, x):
            assert torch.is_inference_mode_enabled()
            self.sizes.add(len(x))
            return self.inner(x)

    models = {"small": MLP((784, 8, 10)), "large": MLP((784, 1000, 1000, 10))}
    counting = {name: Counting(model) for name, model in models.items()}
    table = inference_table(counting, torch.randn(200, 1, 28, 28))
    assert list(table.columns) == ["file [kB]", "1 at once [ms]", "128 at once [ms]"]
    for name, model in counting.items():
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        assert table.loc[name, "file [kB]"] == len(file.getvalue()) / 1000
        assert model.sizes == {1, 128}
    assert (table > 0).all(axis=None)
    assert (table.loc["large"] > table.loc["small"]).all()
