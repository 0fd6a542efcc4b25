"""The figure and the tables of equal density, from runs that are made up and partly missing."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bregman.suite.experiments import Results, equal_density, paper_reference, table_seeds
from bregman.suite.experiments.equal_density import FAMILIES
from bregman.suite.pages import equal_density as tables
from bregman.suite.pages import measured, render
from bregman.suite.paths import ROOT
from bregman.suite.plots.equal_density import equal_density as draw
from bregman.suite.plots.equal_density import interval
from bregman.suite.plots.style import PALETTE

TESTED = {"LinBreg": (89.0, 90.0, 91.0), "Lasso": (90.5,), "AdaBreg": (89.5, 90.5)}


def summary(tested=TESTED):
    lines = [
        {"label": name, "optimizer": FAMILIES[name].optimizer, "seed": seed, "status": "finished",
         "test_acc_pct": value, "n_total_pct": 5.0, "trained.n_total_pct": 6.5, "flops_pct": 34.0}
        for name, values in tested.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    columns = ["label", "optimizer", "seed", "status", "test_acc_pct"]
    return pd.DataFrame(lines, columns=None if lines else columns)


def test_the_interval_is_students():
    # t(0.975, 2) = 4.302653, from a printed table
    mean, half = interval(pd.Series([89.0, 90.0, 91.0]))
    assert (mean, half) == (90.0, pytest.approx(4.302653 / np.sqrt(3), rel=1e-6))
    assert np.isnan(interval(pd.Series([1.0]))[1])
    rng = np.random.default_rng(0)
    inside = [abs(mean) <= half for mean, half in
              (interval(pd.Series(rng.normal(size=3))) for _ in range(2000))]  # fmt: skip
    assert 0.93 < np.mean(inside) < 0.97


def test_the_figure_shows_every_seed_an_interval_and_what_is_missing():
    fig = draw(Results(summary(), pd.DataFrame()))
    left, right = fig.axes
    assert [label.get_text() for label in right.get_xticklabels()] == list(FAMILIES)
    dots = {
        line.get_color(): line
        for line in right.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    }
    for name, values in TESTED.items():
        assert tuple(dots[PALETTE[name]].get_ydata()) == values
        assert set(dots[PALETTE[name]].get_xdata()) == {list(FAMILIES).index(name)}
    (bar,) = (
        container
        for container in right.containers
        if container.lines[0].get_color() == PALETTE["LinBreg"]
    )
    (segment,) = bar.lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([90 - 4.3027 / 3**0.5, 90 + 4.3027 / 3**0.5], abs=1e-3)
    absent = [t.xy[0] for t in right.texts if t.get_text() == "no run yet"]
    assert [list(FAMILIES)[i] for i in absent] == ["LinBreg β=0.9", "Pruning", "ProxGD"]
    # the paper's numbers are those of its table
    theirs = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in left.lines}
    table = paper_reference().query("artifact == 'Table 1' and strategy != 'Vanilla'")
    assert theirs == set(table[["n_total_pct", "test_acc_pct"]].itertuples(index=False, name=None))
    plt.close(fig)


def test_the_figure_is_drawn_without_any_run():
    fig = draw(Results(summary({}), pd.DataFrame()))
    assert len([t for t in fig.axes[1].texts if t.get_text() == "no run yet"]) == len(FAMILIES)
    plt.close(fig)


def test_a_run_that_diverged_is_no_number():
    table = summary({"LinBreg": (89.0, 90.0, 10.0)})
    table.loc[2, "status"] = "diverged"
    fig = draw(Results(table, pd.DataFrame()))
    (dots,) = (line for line in fig.axes[1].lines if line.get_marker() == "o")
    assert list(dots.get_ydata()) == [89.0, 90.0]
    plt.close(fig)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder with all that is stored, and room for more."""
    (tmp_path / "paper").mkdir()
    for path in (ROOT / "results" / "paper").iterdir():
        (tmp_path / "paper" / path.name).symlink_to(path)
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    for cached in (measured.summary, measured._history):
        cached.cache_clear()
    yield tmp_path / "paper"
    for cached in (measured.summary, measured._history):
        cached.cache_clear()


def write(folder, name, table, history=None):
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    table.to_csv(folder / name / "summary.csv", index=False)
    if history is not None:
        history.to_csv(folder / name / "history.csv", index=False)


def test_tables_of_the_search_and_of_whole_runs(results):
    trials = pd.DataFrame([
        {"label": f"{name}, trial {i}", "optimizer": name, "seed": 0, "val_acc_pct": 85.0 + i,
         "config_gain": 0.1 * i, "config_lr": 0.01 * i, "config_lam": 1e-4 * i}
        for name, n in (("ProxGD", 6), ("LinBreg", 2))
        for i in range(1, n + 1)
    ])  # fmt: skip
    write(results, "equal_density_search", trials)
    write(results, "equal_density", summary())
    lines = {line.split(" | ")[0].strip("| "): line for line in tables.trials().splitlines()}
    assert lines["ProxGD"] == "| ProxGD | 6 of 6 | 86.00 to 91.00 | 0.6 | 0.06 | 0.0006 |"
    assert lines["LinBreg"] == "| LinBreg | 2 of 6 | 86.00 to 87.00 |  |  |  |"
    assert lines["Pruning"] == "| Pruning | 0 of 6 |  |  |  |  |"
    whole = {line.split(" | ")[0].strip("| "): line for line in tables.whole().splitlines()}
    assert "| 3 | 5.00 | 6.50 | 90.00 ± 1.00 | 87.52 to 92.48 | 34 |" in whole["LinBreg"]
    assert whole["Lasso"].split(" | ")[1:6] == ["1", "5.00", "6.50", "90.50", ""]
    assert "not run yet" in whole["ProxGD"]
    page = render("docs/results.md")
    assert "six trials of Optuna's sampler" in page
    assert "equal_density.png" in page


def test_tables_with_seeds_and_pairs(results):
    tested = {"AdaBreg": (89.0, 89.2, 89.1), "AdaBreg (float32)": (89.3, 89.4, 89.5),
              "Pruning": (90.0,), "Pruning (float32)": (90.1, 95.0)}  # fmt: skip
    table = pd.DataFrame([
        {"label": label, "optimizer": "", "seed": seed, "test_acc_pct": value, "n_total_pct": 2.0}
        for label, values in tested.items()
        for seed, value in enumerate(values)
    ])  # fmt: skip
    history = pd.DataFrame([
        {"run": row.label, "seed": row.seed, "epoch": epoch, "split": "validation",
         "metric": "accuracy", "value": 0.5 if epoch < 10 else 0.9 + 0.001 * (epoch % 2)}
        for row in table.itertuples()
        for epoch in range(20)
    ])  # fmt: skip
    write(results, "table_seeds", table, history)
    rows = tables.seeds().splitlines()
    moves = 0.1 * np.std([0, 1] * 5, ddof=1)
    assert f"| AdaBreg | 3 | 2.00 | 89.10 ± 0.10 | {moves:.2f} |" in rows
    pairs = {line.split(" | ")[0].strip("| "): line for line in tables.precision().splitlines()}
    # 0.3, 0.2, 0.4: mean 0.3, deviation 0.1
    assert pairs["AdaBreg"] == "| AdaBreg | 3 | 0.30 ± 0.10 | 0.05 to 0.55 |"
    assert pairs["Pruning"] == "| Pruning | 1 | 0.10 |  |"
    assert pairs["Lasso"] == "| Lasso | 0 |  |  |"
    assert "## Three seeds and two precisions" in render("docs/results.md")


def test_without_runs_the_page_says_nothing_of_them():
    if not measured.exists("table_seeds"):
        assert "## Three seeds" not in render("docs/results.md")
        assert tables.seeds() == "No run yet."
    assert equal_density.TRIALS == tables.TRIALS
    assert table_seeds.EXPERIMENT.scale("paper").seeds == tables.MOST_SEEDS
