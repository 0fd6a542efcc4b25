"""The denoising autoencoder: its experiment and its figures."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from bregman import sparse_init_
from bregman.suite.analysis.trained import bottleneck_features, trained_model
from bregman.suite.data import load
from bregman.suite.experiments import Results, paper_reference, recipe
from bregman.suite.experiments import denoising_autoencoder as denoising
from bregman.suite.experiments.experiment import Scale
from bregman.suite.experiments.parts import add_noise, network_input
from bregman.suite.experiments.recipe import train
from bregman.suite.models import Autoencoder
from bregman.suite.plots import denoising_autoencoder as figures
from bregman.suite.runs import Outcome, RunStore
from bregman.suite.training import Record, Training

TINY = Scale(epochs=2, mini=True, train_size=640)
ADABREG = {"optimizer": "AdaBreg", "lr": 1e-3, "lam": denoising.LAM}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run: its config, and it as it stands in a run store."""
    store = RunStore(tmp_path_factory.mktemp("runs"))
    config = denoising.config(TINY, 0, **ADABREG)
    return config, store.make(config, train), store.arrays(config)


@pytest.fixture
def data():
    return load("mnist", mini=True)


def test_the_noise_has_the_level_asked_for(data):
    pixels = data.test_images[:200] / 255
    noisy = add_noise(pixels, 0.09, torch.Generator().manual_seed(0))
    noise = noisy - pixels
    assert noise.std().item() == pytest.approx(0.09, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=1e-3)
    again = add_noise(pixels, 0.09, torch.Generator().manual_seed(0))
    assert torch.equal(again, noisy)
    assert torch.equal(add_noise(pixels, 0.0, torch.Generator()), pixels)


def test_the_networks_take_normalized_images(data):
    images = data.test_images[:20]
    taken = network_input(images / 255, data)
    torch.testing.assert_close(taken, data.normalize(images), atol=1e-5, rtol=0)


def test_an_unknown_optimizer():
    config = denoising.config(TINY, 0, optimizer="RMSprop", lr=0.1)
    with pytest.raises(ValueError, match=r"must be SGD, .* or AdaBreg, got 'RMSprop'"):
        config.make_optimizer(Autoencoder())


@pytest.mark.parametrize("name", ["LinBreg", "AdaBreg"])
def test_the_bregman_optimizers_keep_or_drop_whole_rows(name):
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 36), nn.ReLU(), nn.Linear(36, 36))
    sparse_init_(model, 0.3, group="row", generator=generator)
    config = denoising.config(TINY, 0, optimizer=name, lr=1e-3, lam=0.05)
    optimizer = config.make_optimizer(model)
    images = torch.rand(50, 1, 6, 6, generator=generator)
    for _ in range(5):
        optimizer.zero_grad()
        (model(images) - images.flatten(1)).square().mean().backward()
        optimizer.step()
    weights = [p for p in model.parameters() if p.dim() == 2]
    assert all(torch.equal((w != 0).any(1), (w != 0).all(1)) for w in weights)
    assert any((w == 0).any() for w in weights)
    assert all((p != 0).all() for p in model.parameters() if p.dim() == 1)


def test_the_learning_rate_falls_linearly_at_the_end(tmp_path, monkeypatch):
    schedulers = []

    def remember(*arguments, scheduler, **options):
        schedulers.append(scheduler)
        return Training()

    monkeypatch.setattr(recipe, "fit", remember)
    config = denoising.config(
        Scale(epochs=10, mini=True, train_size=100), 0, optimizer="SGD", lr=1.0
    )
    train(config, "cpu", tmp_path / "x.ckpt", lambda epoch: None)
    (scheduler,) = schedulers
    rates = [scheduler.lr_lambdas[0](epoch) for epoch in range(10)]
    assert rates == pytest.approx([1.0] * 8 + [2 / 3, 1 / 3])


def ssim_by_its_formula(x, y):
    """Wang et al. 2004, equation (13); the images reflected at the rim."""

    def blur(image):
        return gaussian_filter(image.astype(float), sigma=1.5, truncate=3.5, mode="mirror")

    mean_x, mean_y = blur(x), blur(y)
    covariance = blur(x * y) - mean_x * mean_y
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return np.mean(luminance * (2 * covariance + c2) / (variances + c2))


def test_ssim_and_psnr_are_those_of_scikit_image(trained, data):
    config, run, arrays = trained
    # the kept weights are of half precision
    model = trained_model(arrays)
    clean = data.test_images[: config.test_size] / 255
    noisy = add_noise(clean, config.noise, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        outputs = model(network_input(noisy, data)).clamp(0, 1)[:, 0].numpy()
    targets = (data.test_images[: config.test_size, 0] / 255).numpy()
    pairs = list(zip(outputs, targets, strict=True))

    def mean(measure):
        return np.mean([measure(output, target) for output, target in pairs])

    look = dict(data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    inside = mean(lambda output, target: structural_similarity(output, target, **look))
    psnr = mean(lambda output, target: peak_signal_noise_ratio(target, output, data_range=1.0))
    assert run.result["ssim"] == pytest.approx(mean(ssim_by_its_formula), abs=1e-3)
    assert run.result["ssim_inside"] == pytest.approx(inside, abs=1e-3)
    assert run.result["psnr"] == pytest.approx(psnr, abs=0.02)
    at = list(arrays["noise_levels"]).index(np.float32(config.noise))
    np.testing.assert_allclose(
        arrays["denoised_quality"][at], [run.result["ssim"], run.result["psnr"]], rtol=1e-5
    )
    # the noisy images: a PSNR of -20 log10 of the noise, or a little more since they are clipped
    assert 0 < arrays["noisy_quality"][at, 1] + 20 * np.log10(config.noise) < 4


def test_a_run_counts_what_its_weights_say(trained):
    _, run, arrays = trained
    model = trained_model(arrays)
    rows = [int(p.any(1).sum()) for p in model.parameters() if p.dim() == 2]
    final = [run.result[f"active_neurons_{i}"] for i in range(2, 8)]
    assert rows == final
    history = {(r.epoch, r.metric): r.value for r in run.history}
    assert [history[2, f"active_neurons_{i}"] for i in range(2, 8)] == final
    # a row that appeared late has no weights to neurons that were dead until then
    weights = sum(int(p.count_nonzero()) for p in model.parameters() if p.dim() == 2)
    assert run.result["n_total_pct"] == pytest.approx(100 * weights / (6 * 784**2))
    assert run.result["n_total_pct"] <= 100 * sum(rows) / (6 * 784) + 1e-9


def test_digits_are_kept_after_every_epoch(trained):
    config, _, arrays = trained
    kept = [arrays[f"digits_after_epoch_{epoch}"] for epoch in range(config.epochs + 1)]
    assert all(digits.dtype == np.uint8 and digits.shape == (8, 1, 28, 28) for digits in kept)
    last = np.clip(255 * arrays["denoised"], 0, 255)
    np.testing.assert_allclose(kept[-1], last, atol=0.51)


def test_the_same_config_gives_the_same_numbers(trained, tmp_path):
    config, run, _ = trained
    again = train(config, "cpu", tmp_path / "x.ckpt", lambda epoch: None)
    assert again.result == run.result


def test_rows_may_limit_their_seeds(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path))
    made = []

    def pretend(config, *rest):
        made.append((config.optimizer, config.seed))
        return Outcome(Training([Record(1, "train", "loss", 0.1)]), {"ssim": 0.5})

    experiment = dataclasses.replace(
        denoising.EXPERIMENT,
        rows=denoising.EXPERIMENT.rows[:2],
        scales={"quick": Scale(epochs=1, seeds=3)},
        train=pretend,
    )
    experiment.run("quick", jobs=1)
    assert made == [("AdaBreg", 0), ("LinBreg", 0), ("AdaBreg", 1), ("AdaBreg", 2)]


def test_features_of_a_network_that_is_linear_where_it_is_used():
    layers = nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()
    model = nn.Sequential(*layers, nn.Unflatten(1, (1, 2, 2)))
    encoder, decoder = model[1], model[3]
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
        encoder.weight[3] = 0
    into, out_of = bottleneck_features(model, torch.rand(5, 1, 2, 2))
    torch.testing.assert_close(into.flatten(1), encoder.weight.detach()[:3])
    torch.testing.assert_close(out_of.flatten(1), decoder.weight.detach()[:, :3].T)


WIDTHS = {0: (784, 8, 9, 7, 8, 6, 8), 1: (784, 120, 60, 20, 15, 40, 490)}


def fake_results(epochs=10):
    records = []
    for epoch in range(epochs + 1):
        widths = [w if epoch else v for v, w in zip(*WIDTHS.values(), strict=True)]
        records += [(epoch, f"active_neurons_{i}", w) for i, w in enumerate(widths, start=1)]
        records += [(epoch, "ssim", epoch / epochs), (epoch, "n_total", 0.1)]
    table = pd.DataFrame(records, columns=["epoch", "metric", "value"])
    summary = pd.DataFrame({"label": ["hero"], "seed": 0})
    return Results(summary, table.assign(run="hero", seed=0, split="weights"))


def fake_arrays(epochs=10):
    digits = np.random.default_rng(0).random((8, 1, 28, 28))
    return {
        "noisy": digits,
        **{f"digits_after_epoch_{e}": np.uint8(255 * digits) for e in range(epochs + 1)},
    }


def test_figure_4_draws_the_neurons_symmetrically_to_their_scale():
    fig = figures.hourglass(fake_results())
    (ax,) = fig.axes
    bars = {container.get_label(): container for container in ax.containers}
    assert list(bars) == ["Epoch 10", "Epoch 2", "Epoch 1", "Epoch 0"]
    for epoch, widths in ((0, WIDTHS[0]), (10, WIDTHS[1])):
        patches = bars[f"Epoch {epoch}"].patches
        assert [p.get_height() for p in patches] == list(widths)
        assert [p.get_y() for p in patches] == [-w / 2 for w in widths]
    # the full height of a box is the number that it carries
    boxes = [p for p in ax.patches if not any(p in c.patches for c in bars.values())]
    assert [str(int(p.get_height())) for p in boxes] == [text.get_text() for text in ax.texts]
    assert [p.get_y() for p in boxes] == [-p.get_height() / 2 for p in boxes]


def test_figure_4_shows_the_widths_read_off_the_paper():
    paper = [784, 295, 170, 73, 108, 119, 487]
    (row,) = paper_reference().dropna(subset="active_neurons_1").to_dict("records")
    assert (row["artifact"], row["strategy"]) == ("Figure 5", "Bregman")
    assert [row[f"active_neurons_{i}"] for i in range(1, 8)] == paper
    (ax,) = figures.hourglass(fake_results()).axes
    heights = [line.get_ydata()[0] for line in ax.lines]
    assert heights == [side * width / 2 for width in paper for side in (-1, 1)]


def test_width_over_lambda_takes_the_runs_of_equal_length():
    sweep = "width against lam"
    runs = [
        ("AdaBreg", "Figure 5", 0.07, 100, 50),
        ("AdaBreg", sweep, 0.2, 40, 9),
        ("AdaBreg", sweep, 0.02, 40, 300),
        ("SGD", "Figure 5", 0, 40, 784),
    ]
    columns = ["config_optimizer", "artifact", "lam", "epochs", "width"]
    summary = pd.DataFrame(runs, columns=columns).assign(label=list("abcd"), seed=0)
    for i in range(1, 8):
        summary[f"active_neurons_{i}"] = summary["width"] + 2 * abs(i - 4)
    summary["ssim"] = 0.9
    history = pd.DataFrame({"run": list("abcd"), "seed": 0})
    left, right = figures.bottleneck_width(Results(summary, history)).axes
    narrowest = next(line for line in left.lines if line.get_label() == "Narrowest")
    assert narrowest.get_xdata().tolist() == [0.02, 0.2]
    assert narrowest.get_ydata().tolist() == [300, 9]
    assert right.lines[0].get_xdata().tolist() == [0.02, 0.2]


def test_quality_over_noise_shows_all_runs_and_noisy_images():
    levels = np.array([0.0, 0.1])
    kept = {
        "noise_levels": levels,
        "denoised_quality": np.array([[0.9, 20.0], [0.8, 18.0]]),
        "noisy_quality": np.array([[1.0, np.inf], [0.5, 20.0]]),
    }
    settings = [("a", "AdaBreg", 0.5, 0.07), ("b", "Adam", 1.0, 0.0), ("c", "Adam", 0.5, 0.0)]
    columns = ["label", "config_optimizer", "config_gain", "config_lam"]
    summary = pd.DataFrame(settings, columns=columns).assign(noise=0.1)
    figure = figures.quality_over_noise(
        Results(summary, pd.DataFrame({"run": list("abc")})), dict.fromkeys("abc", kept)
    )
    ssim, psnr = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c", "noisy image"]
    assert [line.get_linestyle() for line in ssim.lines[:3]] == ["-", "-", "--"]
    assert ssim.lines[3].get_ydata().tolist() == [1.0, 0.5]
    assert psnr.lines[3].get_ydata().tolist() == [20.0]  # an infinite PSNR has no place


def test_features_are_ordered_by_strength():
    into = np.ones((3, 4, 4))
    out_of = np.stack([np.full((4, 4), k) for k in (1.0, 3.0, 2.0)])
    fig = figures.bottleneck_features(into, out_of, most=2)
    lower = [ax.images[0].get_array().max() for ax in fig.axes[2:]]
    assert lower == [3.0, 2.0]
