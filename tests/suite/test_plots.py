"""The figures of notebooks 05 and 06, drawn from invented results, and what all figures share."""

import matplotlib

matplotlib.use("Agg")

import inspect
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from bregman.suite import plots
from bregman.suite.experiments import Results, get
from bregman.suite.plots import (
    architecture_search,
    browser,
    cifar10_resnet,
    denoising_autoencoder,
    fashion_mnist_cnn,
    grammar,
    mnist_acceleration,
    mnist_comparison,
    what_sparsity_buys,
)
from bregman.suite.plots.style import PALETTE


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def invented(name: str, scale: str = "paper", seeds: int = 3, epochs: int = 6) -> Results:
    """Results with the settings of an experiment's rows, and numbers without a meaning."""
    generator = np.random.default_rng(0)
    experiment = get(name)
    levels = {
        "accuracy": 0.965, "l1_norm": 900.0, "n_total": 0.1, "psnr": 20.0, "ssim": 0.9, "lam": 0.1,
        "kernels_conv1": 20, "kernels_conv2": 300, "entered": 0.1, "left": 0.05,
        "density:conv1": 0.2, "dead:conv1": 0.3,
        **{f"active_neurons_{i}": 100 for i in range(1, 8)},
        **{f"neurons_{i}": 100 for i in range(3)},
        "skip_0_1": 0.2, "skip_0_2": -0.1, "skip_1_2": 0.05,
    }  # fmt: skip
    history, summary = [], []
    for offset, row in enumerate(experiment.rows_at(scale)):
        config = experiment.config(experiment.scale(scale), 0, **row.settings)
        for seed in range(row.seeds or seeds):
            for epoch in range(epochs):
                for metric, level in levels.items():
                    quality = metric in ("accuracy", "psnr")
                    for split in ("train", "validation") if quality else ("weights",):
                        factor = 1 + 0.001 * offset + 1e-4 * generator.standard_normal()
                        value = level * factor
                        history.append((row.label, seed, epoch, split, metric, value))
            summary.append({
                "artifact": row.artifact, "strategy": row.strategy, "optimizer": row.optimizer,
                "n_total_pct": 10.0 + offset, "n_linear_pct": 9.0, "n_conv_pct": 11.0,
                "val_acc_pct": 90.0, "test_acc_pct": 89.0 + 0.1 * offset, "ssim": 0.9,
                "label": row.label, "lam": config.lam, "seed": seed, "epochs": config.epochs,
                "status": "finished", "flops_pct": 20.0, "noise": 0.09, "variant": row.variant,
                **{f"active_neurons_{i}": 100 for i in range(1, 8)},
                **{f"config_{field}": value for field, value in asdict(config).items()},
            })  # fmt: skip
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    return Results(pd.DataFrame(summary), pd.DataFrame(history, columns=columns))


def means(results, split, metric, run):
    table = results.history
    chosen = table[(table.split == split) & (table.metric == metric) & (table.run == run)]
    return chosen.groupby("epoch")["value"].mean().to_numpy()


def test_figure_2_draws_the_means_over_the_seeds_of_all_runs():
    results = invented("mnist_comparison")
    figure = mnist_comparison.training_curves(results)
    panels = [("train", "accuracy", 100), ("validation", "accuracy", 100),
              ("weights", "l1_norm", 1), ("weights", "n_total", 100)]  # fmt: skip
    labels = {row.label for row in get("mnist_comparison").rows}
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert set(texts) == labels, "those with tau = 0.3, too"
    for ax, (split, metric, factor) in zip(figure.axes, panels, strict=True):
        for line, run in zip(ax.lines, texts, strict=True):
            np.testing.assert_allclose(
                line.get_ydata(), factor * means(results, split, metric, run)
            )
        shaded = len(ax.collections)
        assert shaded == (0 if split == "validation" else len(labels)), "as in the paper"
    looks = dict(zip(texts, legend.get_lines(), strict=True))
    for label, run in results.runs.iterrows():
        dotted = run["config_optimizer"] == "ProxGD" and run["config_lr"] == 0.1
        assert (looks[label].get_linestyle() == ":") == dotted
    assert len({(line.get_color(), line.get_linestyle()) for line in looks.values()}) == len(labels)


def test_the_legend_hides_no_curve():
    figure = mnist_comparison.training_curves(invented("mnist_comparison"))
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)


def with_density(results, densities):
    """The final share of non-zero weights by optimizer, lambda and momentum."""
    history = results.history.copy()
    for (optimizer, lam), value in densities.items():
        label = results.where(config_optimizer=optimizer, config_lam=lam, config_momentum=0.0).label
        history.loc[(history.run == label) & (history.metric == "n_total"), "value"] = value
    return Results(results.summary, history)


def test_figure_3_has_a_broken_axis_that_hides_no_run():
    results = invented("mnist_acceleration")
    many = with_density(results, {("AdaBreg", 0.1): 0.4, ("SGD", 0.0): 1.0})
    left, low, high = mnist_acceleration.training_curves(many).axes
    assert left.get_ylim() == (96, 98.5)
    assert low.get_ylim()[0] == 0
    assert 40 < low.get_ylim()[1] < 50
    assert high.get_ylim()[0] == 98
    assert high.get_ylim()[1] > 100
    few = with_density(results, {("AdaBreg", 0.1): 0.12, ("SGD", 0.0): 1.0})
    _, low, high = mnist_acceleration.training_curves(few).axes
    assert low.get_ylim() == (0, 15)
    assert high.get_ylim()[0] == 98


def test_in_figure_3_a_run_on_another_is_dashed():
    figure = mnist_acceleration.training_curves(invented("mnist_acceleration"))
    sgd, linbreg, momentum, adabreg, sparse = figure.legends[0].get_lines()
    assert momentum.get_linestyle() == adabreg.get_linestyle() == "--"
    assert {line.get_linestyle() for line in (sgd, linbreg, sparse)} == {"-"}
    colors = [line.get_color() for line in (sgd, linbreg, momentum, adabreg, sparse)]
    names = ["SGD", "LinBreg", "LinBreg β=0.9", "AdaBreg", "AdaBreg"]
    assert colors == [PALETTE[name] for name in names]


def test_the_papers_limits_give_way_when_nothing_would_be_seen():
    results = invented("mnist_acceleration")
    history = results.history.copy()
    history.loc[history.metric == "accuracy", "value"] = 0.5
    left, *_ = mnist_acceleration.training_curves(Results(results.summary, history)).axes
    low, high = left.get_ylim()
    assert low < 50 < high


def drawn(figure: Figure):
    """All that a figure shows but for its texts."""
    for ax in figure.axes:
        for line in ax.lines:
            yield line.get_color(), line.get_linestyle(), line.get_marker(), line.get_lw()
            yield np.asarray(line.get_xydata(), dtype=float).tolist()
        for patch in ax.patches:
            yield patch.get_facecolor(), patch.get_path().vertices.tolist()
        for collection in ax.collections:
            yield collection.get_facecolor().tolist()
            yield [path.vertices.tolist() for path in collection.get_paths()]


def every_figure(name: str, results: Results):
    first = results.summary["label"].iloc[0]
    arrays = {
        "noise_levels": np.arange(3), "denoised_quality": np.ones((3, 2)),
        "noisy_quality": np.ones((3, 2)),
    }  # fmt: skip
    match name:
        case "mnist_comparison":
            yield mnist_comparison.training_curves(results)
        case "mnist_acceleration":
            yield mnist_acceleration.training_curves(results)
        case "fashion_mnist_cnn":
            yield fashion_mnist_cnn.kernel_growth(results.where(config_groups=True))
            yield fashion_mnist_cnn.accuracy_against_density(results)
            yield fashion_mnist_cnn.density_over_epochs(results)
        case "cifar10_resnet":
            yield cifar10_resnet.paths(results)
            yield cifar10_resnet.layers(results)
        case "denoising_autoencoder":
            yield denoising_autoencoder.hourglass(results.where(label=first))
            yield denoising_autoencoder.hourglass_over_seeds(results.where(label=first))
            yield denoising_autoencoder.bottleneck_width(results)
            yield denoising_autoencoder.training(results)
            kept = dict.fromkeys(results.runs.index, arrays)
            yield denoising_autoencoder.quality_over_noise(results, kept)
        case "architecture_search":
            yield architecture_search.networks(results)
            yield architecture_search.growth(results.where(label=first), [0, 1])
            yield architecture_search.skips(results)
            yield architecture_search.quality(results)
        case "what_sparsity_buys":
            target = results.summary["config_target"].notna()
            on_target = target & (results.summary["strategy"] == "Bregman")
            labels = list(results.summary.loc[on_target, "label"])
            yield what_sparsity_buys.sparsity_targets(results.where(label=labels))
            density = results.summary["artifact"].str.startswith("Accuracy")
            labels = list(results.summary.loc[density, "label"])
            yield what_sparsity_buys.accuracy_at_density(results.where(label=labels))
            frozen = results.where(config_turnover=True)
            yield what_sparsity_buys.frozen_steps_map(frozen)
            yield what_sparsity_buys.support_turnover(frozen)


NAMES = ["mnist_comparison", "mnist_acceleration", "fashion_mnist_cnn", "cifar10_resnet",
         "denoising_autoencoder", "architecture_search", "what_sparsity_buys"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_renaming_legends_changes_no_figure(name):
    results = invented(name, seeds=2, epochs=3)
    names = {label: f"run {i}" for i, label in enumerate(results.runs.index)}
    renamed = Results(
        results.summary.replace({"label": names}), results.history.replace({"run": names})
    )
    pairs = zip(every_figure(name, results), every_figure(name, renamed), strict=True)
    for figure, again in pairs:
        assert repr(list(drawn(figure))) == repr(list(drawn(again)))
        plt.close("all")


@pytest.mark.parametrize("name", NAMES)
def test_algorithms_have_the_colours_of_the_palette(name):
    for _, run in invented(name, seeds=1, epochs=1).runs.iterrows():
        assert grammar.color(run) in PALETTE.values()
        assert grammar.algorithm(run).startswith((run["config_optimizer"], "Lasso", "Pruning"))


def test_figures_are_saved_as_png_and_pdf_and_the_same_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path))
    contents = []
    for _ in range(2):
        figure = mnist_acceleration.training_curves(invented("mnist_acceleration"))
        plots.save(figure, "figure", "smoke")
        files = sorted((tmp_path / "smoke").iterdir())
        assert [path.name for path in files] == ["figure.pdf", "figure.png"]
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("values", [[np.nan, np.nan], [98.0, np.nan], [np.inf, 90.0]])
def test_limits_do_not_depend_on_runs_that_diverged(lost, values):
    measure = grammar.ACCURACY._replace(factor=1, limits=(95, 99))
    curves = [values if i == lost else [90.0, 98.0] for i in range(2)]
    records = [
        (f"run {i}", 0, epoch, "validation", "accuracy", value)
        for i, curve in enumerate(curves)
        for epoch, value in enumerate(curve)
    ]
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    results = Results(
        pd.DataFrame({"label": ["run 0", "run 1"]}), pd.DataFrame(records, columns=columns)
    )
    looks = {f"run {i}": {"color": "#000000"} for i in range(2)}
    _, ax = plt.subplots()
    grammar.curves(ax, results, measure, looks)
    assert ax.get_ylim() == (95, 99)
    assert browser.curves(results, measure, looks)["ylim"] == (95, 99)


def test_the_broken_axis_shows_what_a_run_was_before_it_diverged():
    results = with_density(invented("mnist_acceleration"), {("AdaBreg", 0.1): 0.4})
    history = results.history.copy()
    history.loc[(history.metric == "n_total") & (history.epoch == 5), "value"] = np.nan
    _, low, _ = mnist_acceleration.training_curves(Results(results.summary, history)).axes
    assert low.get_ylim() == pytest.approx((0, 1.05 * 40))


OF_RESULTS = [
    function
    for module in (architecture_search, cifar10_resnet, denoising_autoencoder, fashion_mnist_cnn,
                   mnist_acceleration, mnist_comparison, what_sparsity_buys)
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__
    and name[0] != "_" and next(iter(inspect.signature(function).parameters), "") == "results"
    and name != "beside_stored"
]  # fmt: skip


@pytest.mark.parametrize("function", OF_RESULTS, ids=lambda f: f"{f.__module__[21:]}.{f.__name__}")
@pytest.mark.parametrize("columns", [True, False])
def test_a_figure_says_that_there_are_no_runs_yet(function, columns, monkeypatch):
    shown = []
    monkeypatch.setattr(browser, "display", lambda data, raw: shown.append(data["text/plain"]))
    nothing = invented("mnist_comparison").where(label="nothing")
    results = nothing if columns else Results(pd.DataFrame(), pd.DataFrame())
    parameters = [*inspect.signature(function).parameters.values()][1:]
    figure = function(results, *({} for p in parameters if p.default is p.empty))
    if isinstance(figure, Figure):
        shown += [text.get_text() for ax in figure.axes for text in ax.texts]
    assert shown == ["no runs yet"]


def test_a_run_of_ones_own_is_drawn_where_nothing_is_stored():
    tried = invented("mnist_comparison", seeds=1)
    tried = tried.where(label=tried.summary["label"].iloc[0])
    figure = mnist_comparison.beside_stored(Results(pd.DataFrame(), pd.DataFrame()), tried)
    assert all(len(ax.lines) == 1 for ax in figure.axes)


def test_tables_without_runs_are_left_out(monkeypatch):
    shown = []
    monkeypatch.setattr(
        fashion_mnist_cnn.moving, "browse", lambda views, *_, **__: shown.extend(views)
    )
    fashion_mnist_cnn.browse_runs(invented("fashion_mnist_cnn").where(artifact="Table 1"))
    assert {view["tags"]["table"] for view in shown} == {"Table 1"}
