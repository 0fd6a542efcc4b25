"""The network with learnable scalar skips, its experiment and its drawings."""

import dataclasses
import itertools
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Arc

from bregman import L1, AdaBreg, GroupL12
from bregman.suite.experiments import Results
from bregman.suite.experiments import architecture_search as search
from bregman.suite.experiments.quality import psnr
from bregman.suite.experiments.recipe import train
from bregman.suite.models import SkipMLP
from bregman.suite.plots import architecture_search as figures
from bregman.suite.plots.style import BLUE, RED

EXPERIMENT = search.EXPERIMENT


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def tiny(**changes):
    """The smoke scale's denoising with two layers and one epoch."""
    config = EXPERIMENT.config(search.SCALES["smoke"], 0, task="denoise")
    return dataclasses.replace(config, **{"depth": 2, "epochs": 1, "train_size": 256, **changes})


def run(config, tmp_path):
    return train(config, "cpu", tmp_path / "run.ckpt", lambda epoch: None)


def test_the_skip_network_computes_what_its_formula_says(generator):
    model = SkipMLP(width=5, depth=3, classes=2)
    with torch.no_grad():
        # what lies on and above the diagonal of pairs j >= l has no meaning and no effect
        model.skips.copy_(torch.randn(3, 3, generator=generator))
    x0 = torch.randn(7, 5, generator=generator)
    s = model.skips.tolist()
    maps = [(layer.weight.T, layer.bias) for layer in model.layers]
    x1 = (x0 @ maps[0][0] + maps[0][1]).clamp(min=0) + s[0][0] * x0
    x2 = (x1 @ maps[1][0] + maps[1][1]).clamp(min=0) + s[1][0] * x0 + s[1][1] * x1
    x3 = (x2 @ maps[2][0] + maps[2][1]).clamp(min=0)
    x3 = x3 + s[2][0] * x0 + s[2][1] * x1 + s[2][2] * x2
    torch.testing.assert_close(model(x0), x3 @ model.head.weight.T + model.head.bias)


def test_skips_are_regularized_biases_and_the_head_are_not():
    model = SkipMLP(width=5, depth=3, classes=2)
    rows, skips = GroupL12(0.1, dim=1), L1(0.2)
    groups = model.param_groups(linear=rows, skips=skips)
    regs = {id(p): group["reg"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {regs.pop(id(layer.weight)) for layer in model.layers} == {rows}
    assert regs.pop(id(model.skips)) == skips
    assert set(regs.values()) == {None}


def test_a_skip_appears_once_its_gradients_add_up_to_lambda():
    # the identity is learned best by the skip from the input, one step of tau per iteration
    model = SkipMLP(width=4, depth=1)
    with torch.no_grad():
        model.layers[0].weight.zero_()
        model.layers[0].bias.fill_(-1)
    optimizer = AdaBreg(model.param_groups(linear=GroupL12(1e6, dim=1), skips=L1(0.105)), lr=0.01)
    x = torch.rand(16, 4) + 1
    appeared = []
    for _ in range(15):
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()
        appeared.append(model.skips.item())
    assert appeared[:10] == [0.0] * 10
    assert 0 < appeared[10] < appeared[14]


def test_forbidden_skips_are_in_no_group_and_entries_without_meaning_stay_zero():
    model = SkipMLP(width=4, depth=3)
    model.skips.requires_grad_(False)
    assert all(p is not model.skips for g in model.param_groups() for p in g["params"])
    model.skips.requires_grad_(True)
    optimizer = AdaBreg(model.param_groups(), lr=0.1)
    x = torch.randn(8, 4)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - x).square().mean().backward()
        optimizer.step()
    assert model.skips.triu(1).count_nonzero() == 0
    assert model.skips.count_nonzero() == 6


@pytest.mark.parametrize("name", ["width", "depth", "classes"])
def test_a_skip_network_needs_positive_sizes(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        SkipMLP(**{name: 0})


def test_a_skip_costs_as_much_as_a_row_unless_said_otherwise():
    paper = search.SCALES["paper"]
    config = search.config(paper, 0, task="deblur")
    assert config.skip_lam == 28 * config.lam == 28 * 0.07
    assert (config.blur_size, config.blur) == (9, 5.0)
    assert search.config(paper, 0, task="deblur", skip_lam=None).skip_lam is None
    assert search.config(paper, 0, task="classify", skip_lam=0.3).skip_lam == 0.3
    regs = [group["reg"] for group in config.make_optimizer(SkipMLP()).param_groups]
    assert regs[0] == GroupL12(0.07, dim=1)
    assert regs[-1] == L1(28 * 0.07)
    adam = dataclasses.replace(config, optimizer="Adam")
    assert type(adam.make_optimizer(SkipMLP())) is torch.optim.Adam
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'Sgd'"):
        dataclasses.replace(config, optimizer="Sgd").make_optimizer(SkipMLP())


def test_deblurring_starts_from_the_gaussian_of_its_settings(generator):
    config = dataclasses.replace(search.config(search.SCALES["paper"], 0, "deblur"), noise=0.0)
    point = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    point[0, 0, 14, 14] = 255
    blurred, clean = search.samples(config, point, torch.zeros(1), generator)
    x = np.arange(-4, 5)
    kernel = np.exp(-(x**2) / (2 * 5.0**2))
    kernel /= kernel.sum()
    expected = np.zeros((28, 28))
    expected[10:19, 10:19] = np.outer(kernel, kernel)
    np.testing.assert_allclose(blurred.view(28, 28), expected, atol=1e-6)
    assert torch.equal(clean, point.flatten(1) / 255)


def test_denoising_adds_noise_of_its_level_and_classification_none(generator):
    images = torch.randint(256, (50, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(50)
    paper = search.SCALES["paper"]
    noisy, clean = search.samples(search.config(paper, 0, "denoise"), images, labels, generator)
    noise = noisy - clean
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean().item()) < 1e-3
    inputs, targets = search.samples(search.config(paper, 0, "classify"), images, labels, generator)
    assert torch.equal(inputs, clean)
    assert torch.equal(targets, labels)


def test_quality_of_images():
    clean = torch.full((3, 196), 0.5)
    assert psnr(clean + 0.1, clean).item() == pytest.approx(20.0, abs=1e-3)
    digits = torch.rand(3, 196)
    assert search.square_ssim(digits, digits).item() == pytest.approx(1.0)
    assert search.square_ssim(1 - digits, digits).item() < 0
    # what is beyond black and white cannot be seen
    assert psnr(torch.full((1, 196), 9.0), torch.full((1, 196), 0.9)).item() == (
        pytest.approx(20.0, abs=1e-3)
    )


def test_a_run_measures_the_network_that_it_found(tmp_path):
    outcome = run(tiny(skip_lam=1e-3), tmp_path)
    weights = {r.metric: r.value for r in outcome.training.history if r.split == "weights"}
    skips = outcome.arrays["skips"]
    assert outcome.result["skips"] == weights["skips"] == skips.count_nonzero() == 3
    assert weights["skip_0_1"] == skips[0, 0]
    assert weights["skip_1_2"] == skips[1, 1]
    assert outcome.result["neurons"] == weights["neurons_1"] + weights["neurons_2"]
    restored, clean = outcome.arrays["restored"], outcome.arrays["clean"]
    assert restored.shape == clean.shape == (10, 1, 14, 14)
    # noise of 0.05 alone is -20 log10(0.05) dB; clamping removes some of it
    assert -20 * math.log10(0.05) < outcome.result["degraded_psnr"] < 30


def test_forbidden_skips_stay_away_and_a_seed_decides_the_run(tmp_path):
    first, again = (run(tiny(skip_lam=None), tmp_path) for _ in range(2))
    assert first.result["skips"] == 0
    assert first.result == again.result
    assert run(tiny(skip_lam=None, seed=1), tmp_path).result != first.result


def test_a_classifier_reports_accuracies(tmp_path):
    config = tiny(task="classify", dataset="fashion_mnist", noise=0.0)
    outcome = run(config, tmp_path)
    assert {"train_acc_pct", "val_acc_pct", "test_acc_pct"} <= set(outcome.result)
    assert set(outcome.arrays) == {"skips"}


@pytest.fixture
def results():
    """Two runs of three layers: the skip x_0 -> x_2 appears in epoch 1 of run "b"."""
    rows = []
    for name, last in (("a", 0.0), ("b", -0.25)):
        for epoch in range(2):
            state = {"neurons_0": 9, "neurons_1": 2 + epoch, "neurons_2": 7,
                     "skip_0_1": 0.5 * epoch, "skip_0_2": last * epoch,
                     "skip_1_2": 0.0}  # fmt: skip
            rows += [(name, 0, epoch, "weights", key, value) for key, value in state.items()]
            rows += [(name, 0, epoch, "validation", metric, value)
                     for metric, value in (("psnr", 20.0 + epoch), ("accuracy", 0.5))]  # fmt: skip
    history = pd.DataFrame(rows, columns=["run", "seed", "epoch", "split", "metric", "value"])
    settings = {"config_optimizer": "AdaBreg", "config_lam": 0.07}
    summary = pd.DataFrame(
        {"label": ["a", "b"], "seed": 0, **settings, "config_task": ["denoise", "classify"],
         "config_skip_lam": [None, 1.0]}
    )  # fmt: skip
    return Results(summary, history)


def test_a_drawing_shows_active_neurons_and_skips_by_sign(results):
    figure = figures.networks(results)
    left, right = figure.axes
    assert [bar.get_height() for bar in left.containers[0]] == [9, 3, 7]
    arcs = [[p for p in ax.patches if isinstance(p, Arc)] for ax in (left, right)]
    assert [len(found) for found in arcs] == [1, 2]
    by_ends = {(p.center[0], p.width): p for p in arcs[1]}
    short, long = by_ends[0.5, 1], by_ends[1.0, 2]
    assert matplotlib.colors.to_hex(short.get_edgecolor()) == BLUE.lower()
    assert matplotlib.colors.to_hex(long.get_edgecolor()) == RED.lower()
    assert short.center[1] > 0 > long.center[1], "positive above, negative below"
    assert short.get_linewidth() > long.get_linewidth()
    assert {text.get_text() for text in right.texts} == {"+0.50", "\N{MINUS SIGN}0.25"}
    assert right.get_title() == "b: 2 skips"


def test_labels_of_skips_do_not_overlap():
    rows = [("a", 0, 1, "weights", f"neurons_{i}", 100) for i in range(7)]
    rows += [("a", 0, 1, "weights", f"skip_{j}_{i}", 0.1 + 0.01 * i + 0.001 * j)
             for i in range(7) for j in range(i)]  # fmt: skip
    history = pd.DataFrame(rows, columns=["run", "seed", "epoch", "split", "metric", "value"])
    summary = pd.DataFrame({"label": ["a"], "config_optimizer": "AdaBreg"})
    for figure in (
        figures.networks(Results(summary, history)),
        figures.growth(Results(summary, history), [1, 1, 1, 1]),
    ):
        figure.canvas.draw()
        for ax in figure.axes:
            boxes = [text.get_window_extent() for text in ax.texts]
            assert len(boxes) > 1
            assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_growth_draws_one_panel_per_epoch(results):
    figure = figures.growth(results.where(label="b"), [0, 1])
    assert [[bar.get_height() for bar in ax.containers[0]] for ax in figure.axes] == [
        [9, 2, 7], [9, 3, 7],
    ]  # fmt: skip
    assert [ax.get_xticklabels()[1].get_text() for ax in figure.axes] == ["$x_1$\n2", "$x_1$\n3"]
    with pytest.raises(KeyError, match="no run 'b' with epoch 7 in the history"):
        figures.growth(results.where(label="b"), [7])


def test_skips_over_epochs_are_named_when_they_are_there(results):
    (ax,) = figures.skips(results.where(label="b")).axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        r"$x_0 \to x_1$", r"$x_0 \to x_2$",
    ]  # fmt: skip
    named = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert named[r"$x_0 \to x_2$"] == [0, -0.25]


def test_quality_is_drawn_in_its_units(results):
    restored, classified = figures.quality(results).axes
    assert restored.lines[0].get_ydata().tolist() == [20, 21]
    assert (restored.lines[0].get_linestyle(), classified.lines[0].get_linestyle()) == ("--", "-")
    assert classified.lines[0].get_ydata().tolist() == [50, 50]


def test_images_stand_side_by_side():
    rows = {"noisy": np.zeros((3, 1, 4, 4)), "clean": np.ones((3, 1, 4, 4))}
    figure = figures.images(rows)
    assert [ax.get_ylabel() for ax in figure.axes] == ["noisy", "clean"]
    assert [ax.images[0].get_array().shape for ax in figure.axes] == [(4, 12)] * 2
