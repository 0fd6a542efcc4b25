"""Table 3: its settings, one training step each, whole runs on the mini set, and the packing."""

import dataclasses
import hashlib
import runpy
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bregman.optim import AdaBreg, LinBreg
from bregman.regularizers import L1
from bregman.suite.data import load
from bregman.suite.data.sets import PARTS, SETS, DataError
from bregman.suite.experiments import cifar10_resnet as table3
from bregman.suite.experiments import recipe
from bregman.suite.experiments.measures import thresholded
from bregman.suite.experiments.parts import Task
from bregman.suite.experiments.recipe import train
from bregman.suite.experiments.tables import Results, paper_reference
from bregman.suite.models import ResNet18
from bregman.suite.paths import ROOT
from bregman.suite.plots import cifar10_resnet as figures
from bregman.suite.plots.style import PALETTE

SMOKE = table3.SCALES["smoke"]


def run(folder, on_epoch=lambda epoch: None, device="cpu", scale=SMOKE, **settings):
    config = table3.config(dataclasses.replace(scale, epochs=2, train_size=100), 0, **settings)
    return train(config, device, folder / "run.ckpt", on_epoch)


def test_every_row_of_table_3_is_there_once():
    paper = paper_reference().query("artifact == 'Table 3'")
    rows = [row for row in table3.EXPERIMENT.rows_at("paper") if row.variant != "refreshed"]
    assert [row.optimizer for row in rows] == list(paper["optimizer"])


def test_narrow_differs_from_the_paper_in_width_alone():
    narrow, paper = table3.SCALES["narrow"], table3.SCALES["paper"]
    assert dataclasses.replace(narrow, width=64, compile=paper.compile) == paper


def test_thresholds_cost_what_they_cost_in_the_paper():
    paper = paper_reference().query("artifact == 'Table 3'")
    test = paper.set_index(["strategy", "optimizer"])["test_acc_pct"]
    for row in table3.EXPERIMENT.rows:
        if row.variant == "thresh":
            plain = row.optimizer.removesuffix(" + thresh.")
            drop = test[row.strategy, plain] - test[row.strategy, row.optimizer]
            assert 100 * row.settings["max_drop"] == pytest.approx(drop)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("SGD", torch.optim.SGD), ("Adam", torch.optim.Adam), ("LinBreg", LinBreg),
     ("AdaBreg", AdaBreg)],
)  # fmt: skip
def test_optimizers_regularize_weights_only(name, kind):
    model = ResNet18(2)
    config = table3.config(SMOKE, 0, optimizer=name, lr=0.5, lam=0.25)
    optimizer = config.make_optimizer(model)
    assert type(optimizer) is kind
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        assert group["lr"] == 0.5
        for p in group["params"]:
            assert (group["reg"] == L1(0.25)) == (p.dim() > 1)


def test_an_unknown_optimizer_is_named():
    config = table3.config(SMOKE, 0, optimizer="Sgd", lr=0.5)
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'Sgd'"):
        config.make_optimizer(ResNet18(2))


def test_lasso_is_adam_on_the_penalized_loss():
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 10)) for _ in "ab"]
    models[1].load_state_dict(models[0].state_dict())
    config = table3.config(SMOKE, 0, optimizer="Adam", lr=0.01, lam=0.05)
    optimizers = [config.make_optimizer(models[0]),
                  torch.optim.Adam(models[1].parameters(), 0.01)]  # fmt: skip
    images, labels = torch.randn(8, 3, 5, 5), torch.randint(10, (8,))
    for _ in range(3):
        for model, optimizer, lam in zip(models, optimizers, (0.0, 0.05), strict=True):
            optimizer.zero_grad()
            penalty = sum(p.abs().sum() for p in model.parameters() if p.dim() > 1)
            (F.cross_entropy(model(images), labels) + lam * penalty).backward()
            optimizer.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_layers_are_measured_one_by_one():
    model = ResNet18(2)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.weight[0, :4] = 1
        model.conv1.weight[0] = 0
        model.conv1.weight[1] = 0
        model.conv1.weight[1, 2, 1, 1] = -1
    config = table3.config(SMOKE, 0, optimizer="SGD", lr=0.1)
    measured = config.measure(SimpleNamespace(model=model))
    assert measured["density:fc"] == pytest.approx(4 / 160)
    assert measured["density:conv1"] == pytest.approx(1 / 54)
    assert measured["dead:conv1"] == pytest.approx(5 / 6)
    assert measured["dead:layer4.1.conv2"] == 0
    assert "dead:fc" not in measured
    layers = [name for name in measured if name.startswith("density:")]
    assert len(layers) == 21
    weights = {name: m.weight.numel() for name, m in model.named_modules()
               if isinstance(m, nn.Conv2d | nn.Linear)}  # fmt: skip
    total = sum(measured[f"density:{name}"] * n for name, n in weights.items())
    assert measured["n_total"] == pytest.approx(total / sum(weights.values()), rel=1e-5)


def test_a_tenth_is_held_out_and_no_image_twice():
    data = load("cifar10", mini=True)
    for size, expected in ((None, (900, 100, 250)), (200, (180, 20, 250))):
        scale = dataclasses.replace(SMOKE, train_size=size)
        config = table3.config(scale, 0, optimizer="SGD", lr=0.1)
        task = config.make_task(data, torch.Generator().manual_seed(0))
        parts = (task.train, task.val, task.test)
        assert tuple(len(images) for images, _ in parts) == expected
        assert task.watched is task.test
        images = torch.cat([task.train[0], task.val[0]])
        assert len(images.flatten(1).unique(dim=0)) == sum(expected[:2])
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    assert mean.abs().max() < 0.2, "normalized"
    assert (std - 1).abs().max() < 0.2


def test_a_run_and_its_thresholded_network(tmp_path):
    outcome = run(tmp_path, optimizer="LinBreg", lr=0.1, lam=0.1, max_drop=0.1)
    result = outcome.result
    assert 0.5 < result["n_total_pct"] < 10
    assert result["thresh.n_total_pct"] < result["n_total_pct"]
    assert result["thresh.n_conv_pct"] <= result["n_conv_pct"]
    assert result["thresh.l1_norm"] < result["l1_norm"]
    last = {(r.split, r.metric): r.value for r in outcome.training.history}
    assert result["n_total_pct"] == pytest.approx(100 * last["weights", "n_total"])
    assert result["val_acc_pct"] == pytest.approx(100 * last["validation", "accuracy"])
    assert result["n_conv_pct"] == pytest.approx(100 * last["weights", "n_conv"])
    assert result["test_acc_pct"] == pytest.approx(100 * last["test", "accuracy"])
    for measure in ("n_total_pct", "n_conv_pct", "l1_norm"):
        assert result[f"refreshed.{measure}"] == result[measure], "the weights stay"
    assert result["thresh.val_acc_pct"] >= result["refreshed.val_acc_pct"] - 10, "max_drop"


@pytest.mark.parametrize("augmented", [False, True])
def test_statistics_are_refreshed_with_the_images_that_are_meant(augmented):
    images = torch.randn(40, 3, 4, 4)
    labels = torch.randint(4, (40,))
    part = images[:10], labels[:10]
    task = Task((images, labels), part, part, transform=lambda batch, _: 2 * batch + 1)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
    thresholded(model, task, max_drop=1.0, augmented=augmented)
    # as many as there are to validate with
    seen = 2 * images[:10] + 1 if augmented else images[:10]
    torch.testing.assert_close(model[0].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(model[0].running_var, seen.var((0, 2, 3)))


def test_runs_that_are_thresholded_are_refreshed_with_crops_and_flips():
    for row in table3.EXPERIMENT.rows_at("paper"):
        config = table3.config(table3.SCALES["paper"], 0, **row.settings)
        assert config.augmented == (config.max_drop is not None)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("optimizer", ["LinBreg", "AdaBreg", "Adam"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
def test_an_interrupted_run_ends_with_the_same_numbers(optimizer, device, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(epoch):
        raise KilledError

    fast = {"autocast": "bfloat16", "compile": "reduce-overhead"} if device == "cuda" else {}
    settings = {"optimizer": optimizer, "lr": 0.01, "lam": 0.1, "momentum": 0.9, "max_drop": 0.1,
                "device": device, "scale": dataclasses.replace(SMOKE, **fast)}  # fmt: skip
    whole = run(tmp_path / "whole", **settings)
    fit = recipe.fit
    monkeypatch.setattr(recipe, "fit", lambda *a, **k: fit(*a, **k, checkpoint_seconds=0.0))
    with pytest.raises(KilledError):
        run(tmp_path / "killed", on_epoch=kill, **settings)
    assert (tmp_path / "killed" / "run.ckpt").exists()
    resumed = run(tmp_path / "killed", **settings)
    assert resumed.training.history == whole.training.history
    assert resumed.result == whole.result


def test_half_precision_forward_passes_keep_float32_weights(tmp_path):
    scale = dataclasses.replace(SMOKE, epochs=1, train_size=40, autocast="bfloat16")
    config = table3.config(scale, 0, optimizer="AdaBreg", lr=0.01, lam=0.001)
    outcome = train(config, "cpu", tmp_path / "run.ckpt", lambda epoch: None)
    values = [r.value for r in outcome.training.history]
    assert np.isfinite(values).all()


def test_only_full_training_batches_are_compiled(monkeypatch):
    calls = []

    def compiling(forward, mode, dynamic):
        assert (mode, dynamic) == ("reduce-overhead", False)
        return lambda images: calls.append(len(images)) or forward(images)

    monkeypatch.setattr(torch, "compile", compiling)
    model = ResNet18(2)
    names = list(model.state_dict())
    table3._compile_steps(model, "reduce-overhead", 4)
    assert list(model.state_dict()) == names
    images = torch.randn(4, 3, 32, 32)
    model(images)
    model(images[:3])
    with torch.no_grad():
        model(images)
    model.eval()(images)
    assert calls == [4]


@pytest.fixture
def small_set(monkeypatch):
    """As if the mini set were the whole of CIFAR-10."""
    data = load("cifar10", mini=True)
    arrays = [getattr(data, part).to(torch.uint8).numpy() for part in PARTS]
    sums = tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)
    whole = SETS["cifar10"]
    monkeypatch.setitem(SETS, "cifar10", dataclasses.replace(whole, counts=whole.mini, sums=sums))
    return data, b"".join(array.tobytes() for array in arrays)


def test_what_was_packed_is_unpacked_bit_for_bit(small_set, tmp_path):
    data, raw = small_set
    pack = runpy.run_path(ROOT / "scripts" / "pack.py")["pack"]
    unpack = runpy.run_path(ROOT / "scripts" / "unpack.py")["unpack"]
    parts = pack(data, tmp_path / "parts", 900_000)
    assert len(parts) > 1
    for part in parts:
        assert sum(file.stat().st_size for file in part.iterdir()) <= 900_000
    unpack(tmp_path / "parts", tmp_path / "cifar10.bin")
    assert (tmp_path / "cifar10.bin").read_bytes() == raw


def test_a_missing_part_and_a_wrong_image_are_found(small_set, tmp_path):
    data, _ = small_set
    pack = runpy.run_path(ROOT / "scripts" / "pack.py")["pack"]
    unpack = runpy.run_path(ROOT / "scripts" / "unpack.py")["unpack"]
    changed = dataclasses.replace(data, test_images=data.test_images.clone())
    changed.test_images[3, 0, 0, 0] += 1
    pack(changed, tmp_path / "parts", 900_000)
    with pytest.raises(DataError, match="test_images has SHA-256 sum"):
        unpack(tmp_path / "parts", tmp_path / "cifar10.bin")
    sorted((tmp_path / "parts").glob("*/*.webp"))[-1].unlink()
    with pytest.raises(DataError, match=r"expected 1250 images and 1: all parts must lie there"):
        unpack(tmp_path / "parts", tmp_path / "cifar10.bin")
    assert not (tmp_path / "cifar10.bin").exists()


def test_the_search_at_full_length_makes_the_runs_of_the_experiment():
    search = runpy.run_path(ROOT / "scripts" / "search_cifar10_resnet.py")["search"](epochs=100)
    labels = [row.label for row in search.rows]
    assert len(set(labels)) == len(labels)
    scale = search.scale("paper")
    tried = {search.config(scale, 0, **row.settings) for row in search.rows}
    ours = {table3.EXPERIMENT.config(table3.EXPERIMENT.scale("paper"), 0, **row.settings)
            for row in table3.EXPERIMENT.rows if row.label not in ("Adam",)}  # fmt: skip
    assert ours <= tried


@pytest.fixture(scope="module")
def measured():
    """A made-up LinBreg run with its thresholded network, and a dense one."""
    curves = {
        "SGD": {"validation accuracy": [0.1, 0.5, 0.9], "weights n_total": [1.0, 1.0, 1.0]},
        "LinBreg": {
            "validation accuracy": [0.1, 0.4, 0.8], "weights n_total": [0.01, 0.02, 0.04],
            "weights density:conv1": [0.1, 0.2, 0.5], "weights density:fc": [0.01, 0.3, 0.6],
            "weights dead:conv1": [0.9, 0.8, 0.25],
        },
    }  # fmt: skip
    curves["LinBreg + threshold"] = curves["LinBreg"]
    history = pd.DataFrame(
        [
            (run, 0, epoch, *name.split(), value)
            for run, metrics in curves.items()
            for name, values in metrics.items()
            for epoch, value in enumerate(values)
        ],
        columns=["run", "seed", "epoch", "split", "metric", "value"],
    )
    rows = {row.label: row for row in table3.EXPERIMENT.rows}
    summary = pd.DataFrame(
        [
            {"artifact": rows[label].artifact, "strategy": rows[label].strategy,
             "optimizer": rows[label].optimizer, "label": label, "variant": rows[label].variant,
             "n_total_pct": density, "val_acc_pct": val, "test_acc_pct": test,
             "config_optimizer": label.partition(" ")[0], "config_momentum": 0.0,
             "config_lam": 0.1 if "LinBreg" in label else 0.0, "config_width": 64, "seed": 0}
            for label, density, val, test in
            [("SGD", 100.0, 90.0, 89.0), ("LinBreg", 4.0, 80.0, 79.0),
             ("LinBreg + threshold", 3.0, 79.5, 78.0)]
        ]
    )  # fmt: skip
    return Results(summary, history)


def lines(ax):
    return [
        [list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))]
        for line in ax.lines
    ]


def test_the_figure_of_accuracy_and_density_shows_ways_ends_and_the_paper(measured):
    figure = figures.paths(measured)
    left, right = (lines(ax) for ax in figure.axes)
    assert [[1, 2, 4], [10, 40, 80]] in left, "the way"
    assert [[4, 3], [80, 79.5]] in left, "to the thresholded network"
    ends = [(100.0, 89.0), (4.0, 79.0), (3.0, 78.0)]
    paper = [(100.0, 92.15), (5.5, 90.9), (3.4, 90.2)]
    assert all([[x], [y]] in right for x, y in ends + paper)
    assert {line.get_color() for line in figure.axes[1].lines} == {
        PALETTE["SGD"], PALETTE["LinBreg"],
    }  # fmt: skip
    plt.close(figure)


def test_a_network_of_another_width_is_not_set_beside_the_papers(measured):
    figure = figures.paths(Results(measured.summary.assign(config_width=16), measured.history))
    right = lines(figure.axes[1])
    assert sorted(right) == [[[3.0], [78.0]], [[4.0], [79.0]], [[100.0], [89.0]]]
    names = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert names == {"SGD", "LinBreg", "as trained", "thresholded"}
    plt.close(figure)


def test_a_network_without_weights_has_no_place_on_a_logarithmic_axis(measured):
    summary = measured.summary.assign(n_total_pct=[100.0, 4.0, 0.0])
    figure = figures.paths(Results(summary, measured.history))
    for ax in figure.axes:
        assert all(min(line.get_xdata()) > 0 for line in ax.lines)
        assert not any(line.get_linestyle() == ":" for line in ax.lines)
    plt.close(figure)


def test_the_figure_of_the_layers_shows_the_last_epoch_of_sparse_runs(measured):
    figure = figures.layers(measured)
    density, dead = figure.axes
    (line,) = density.lines
    assert list(line.get_xdata()) == ["conv1", "fc"]
    assert list(line.get_ydata()) == pytest.approx([50, 60])
    (line,) = dead.lines
    assert list(line.get_ydata()) == pytest.approx([25])
    plt.close(figure)
