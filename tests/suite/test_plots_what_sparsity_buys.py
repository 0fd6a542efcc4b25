"""The figures of notebook 11, drawn from invented results: what is shown is what was stored."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb

from bregman.suite.experiments import Results
from bregman.suite.experiments.what_sparsity_buys import METHODS
from bregman.suite.plots import what_sparsity_buys as figures


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def history(curves):
    """Curves by (run, metric), one value per epoch from 0 on; None for none."""
    rows = [
        (run, 0, epoch, "weights", metric, value)
        for (run, metric), values in curves.items()
        for epoch, value in enumerate(values)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["run", "seed", "epoch", "split", "metric", "value"])


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def legend(figure):
    (found,) = figure.legends
    return {text.get_text(): to_hex(line.get_color())
            for text, line in zip(found.get_texts(), found.get_lines(), strict=True)}  # fmt: skip


def test_densities_are_drawn_beside_their_targets_and_above_lambda():
    runs = [
        ("a", "MLP", "LinBreg", 0.25),
        ("b", "MLP", "LinBreg", 0.05),
        ("c", "CNN", "AdaBreg", 0.05),
    ]
    columns = ["label", "config_network", "config_optimizer", "config_target"]
    summary = pd.DataFrame(runs, columns=columns)
    table = history({
        ("a", "n_total"): [0.01, 0.2, 0.25], ("a", "lam"): [0.1, 0.02, 0.01],
        ("b", "n_total"): [0.01, 0.06, 0.05], ("b", "lam"): [0.1, 0.05, 0.06],
        ("c", "n_total"): [0.01, 0.03, 0.05], ("c", "lam"): [0.1, 0.2, 0.3],
    })  # fmt: skip
    figure = figures.sparsity_targets(Results(summary, table))
    above = figure.axes[:2]
    below = figure.axes[2:]
    assert [ax.get_title() for ax in above] == ["MLP, LinBreg", "CNN, AdaBreg"]
    colors = legend(figure)
    assert list(colors) == ["target 25 %", "target 5 %"]
    for column, labels in enumerate((("a", "b"), ("c",))):
        curves = [line for line in above[column].lines if line.get_linestyle() == "-"]
        dotted = [line for line in above[column].lines if line.get_linestyle() == ":"]
        for label, curve, target, lam in zip(
            labels, curves, dotted, below[column].lines, strict=True
        ):
            wanted = 100 * summary.set_index("label").loc[label, "config_target"]
            stored = table.query("run == @label").set_index("metric")["value"]
            np.testing.assert_allclose(curve.get_ydata(), 100 * stored["n_total"])
            np.testing.assert_allclose(lam.get_ydata(), stored["lam"])
            assert set(target.get_ydata()) == {wanted}
            color = colors[f"target {wanted:g} %"]
            assert {to_hex(line.get_color()) for line in (curve, target, lam)} == {color}


def compared(networks=("MLP", "CNN"), seeds=2):
    rows = []
    for n, network in enumerate(networks):
        for seed in range(seeds):
            rows.append((network, "dense", None, 100.0, 98.0 - n, 100.0))
            for k, method in enumerate(METHODS):
                for target in (5.0, 1.0):
                    accuracy = 90 + target - k - n + 0.2 * seed
                    rows.append((network, method, target, target, accuracy, 2 * target + k))
    columns = ["config_network", "strategy", "config_target", "n_total_pct", "test_acc_pct",
               "flops_pct"]  # fmt: skip
    return Results(pd.DataFrame(rows, columns=columns), pd.DataFrame())


def test_accuracy_is_drawn_against_density_and_cost():
    figure = figures.accuracy_at_density(compared())
    assert len(figure.axes) == 4
    assert set(legend(figure)) == {*METHODS, "dense"}
    for n in range(2):
        for ax, x in zip(figure.axes[2 * n : 2 * n + 2], ("density", "FLOPs"), strict=True):
            dense, *_ = ax.lines
            assert set(dense.get_ydata()) == {98 - n}
            drawn = [container.lines[0] for container in ax.containers]
            for k, line in enumerate(drawn):
                costs = [1, 5] if x == "density" else [2 + k, 10 + k]
                accuracies = [91.1 - k - n, 95.1 - k - n]
                np.testing.assert_allclose(line.get_xydata().T, [costs, accuracies])
            assert len(drawn) == len(METHODS)
            bars = ax.containers[0].lines[2][0].get_segments()
            spread = np.std([0, 0.2], ddof=1)
            np.testing.assert_allclose([np.ptp(bar[:, 1]) for bar in bars], 2 * spread)


def test_one_seed_has_no_spread():
    figure = figures.accuracy_at_density(compared(["MLP"], seeds=1))
    for container in figure.axes[0].containers:
        assert not any(len(bar) and np.isfinite(bar).all()
                       for bar in container.lines[2][0].get_segments())  # fmt: skip


def frozen():
    rows = [
        (f"m = {m}, λ = {lam}", lam, m, 90 + m + 10 * lam, 5 - lam, 30.0 / (m + 1), "finished")
        for lam in (0.1, 0.2)
        for m in (0, 4, 9)
    ]
    columns = ["label", "config_lam", "config_frozen_steps", "test_acc_pct", "n_total_pct",
               "flops_pct", "status"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.loc[5, "status"] = "diverged"
    return table


def test_the_map_shows_the_numbers_of_its_runs_and_no_diverged_ones():
    table = frozen()
    figure = figures.frozen_steps_map(Results(table, pd.DataFrame()))
    kept = table[table["status"] == "finished"]
    for ax, column in zip(figure.axes, ("test_acc_pct", "n_total_pct", "flops_pct"), strict=True):
        assert ticks(ax.xaxis) == ["0", "4", "9"]
        shown = [text.get_text() for text in ax.texts if text.get_text()]
        assert shown == [f"{value:.1f}" for value in kept[column]]
    assert ticks(figure.axes[0].yaxis) == ["0.1", "0.2"]


def luminance(colour):
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [
        0.2126, 0.7152, 0.0722,
    ]  # fmt: skip


def test_numbers_on_the_map_are_legible():
    figure = figures.frozen_steps_map(Results(frozen(), pd.DataFrame()))
    for ax in figure.axes:
        figure.canvas.draw()
        cells = ax.collections[0]
        grounds = cells.get_facecolors()[~np.ma.getmaskarray(cells.get_array()).ravel()]
        for text, ground in zip(ax.texts, grounds, strict=True):
            low, high = sorted((luminance(text.get_color()), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) > 4.5


def test_the_explorer_has_the_colours_of_the_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(figures.moving, "browse", lambda panels, *_, **__: shown.extend(panels))
    results = compared()
    summary = results.summary.assign(label="a", seed=0, artifact="b", ssim=np.nan, seconds=1.0,
                                     frozen_steps=0)  # fmt: skip
    figures.browse_costs(Results(summary, results.history))
    found = {mark["tags"]["method"]: to_hex(mark["color"]) for panel in shown
             for mark in panel["marks"]}  # fmt: skip
    assert found == legend(figures.accuracy_at_density(results))


def test_turnover_is_drawn_in_percent_solid_what_enters_and_dashed_what_leaves():
    table = frozen()
    curves = {}
    for i, label in enumerate(table["label"]):
        curves[label, "entered"] = [None, 0.1 + 0.01 * i, 0.02]
        curves[label, "left"] = [None, 0.05, 0.0]
    figure = figures.support_turnover(Results(table, history(curves)))
    assert list(legend(figure)) == ["$m = 0$", "$m = 4$", "$m = 9$", "enters", "leaves"]
    for panel, ax in enumerate(figure.axes):
        entered, left = ax.lines[::2], ax.lines[1::2]
        for i, (solid, dashed) in enumerate(zip(entered, left, strict=True), start=3 * panel):
            np.testing.assert_allclose(solid.get_ydata(), [10 + i, 2])
            np.testing.assert_allclose(dashed.get_ydata(), [5, np.nan])
            assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
            assert solid.get_color() == dashed.get_color() == figures.SEQUENCE[i % 3]


def test_bars_are_shares_of_the_dense_training():
    index = pd.MultiIndex.from_tuples(
        [("net", "dense"), ("net", "masked"), ("net", "sparse"), ("other", "dense"),
         ("other", "sparse")], names=["network", "method"],
    )  # fmt: skip
    costs = pd.DataFrame(
        {"FLOPs [%]": [100, 6, 6, 100, 9.0], "time [%]": [100, 120, 20, 100, 30.0]}, index
    )
    figure = figures.whole_runs(costs)
    for ax, network in zip(figure.axes, ("net", "other"), strict=True):
        assert ax.get_title() == network
        rows = costs.loc[network].reindex(["dense", "masked", "sparse"])
        theory, clock = ([bar.get_width() for bar in container] for container in ax.containers)
        np.testing.assert_allclose(theory, rows["FLOPs [%]"])
        np.testing.assert_allclose(clock, rows["time [%]"])
        shown = [text.get_text() for text in ax.texts if text.get_text()]
        assert sorted(shown) == sorted(f"{v:.0f}" for v in rows.stack().dropna())
    assert ticks(figure.axes[0].yaxis) == ["dense", "masked", "sparse"]
    low, high = figure.axes[0].get_ylim()
    assert low > high, "dense comes first"
