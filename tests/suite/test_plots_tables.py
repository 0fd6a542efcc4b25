"""Tables as readers see them."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bregman.suite.plots import tables


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(tables, "display", lambda data, raw: bundles.append(data))
    return bundles


def cells(bundle) -> list[tuple[str, bool]]:
    """The texts of all cells as a browser reads them, and whether each is bold."""
    found, state = [], {"cell": False, "bold": False}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag in ("td", "th"):
                state["cell"] = True
                found.append(("", False))
            state["bold"] |= tag == "strong"

        def handle_endtag(self, tag):
            state["cell"] &= tag not in ("td", "th")
            state["bold"] &= tag != "strong"

        def handle_data(self, data):
            if state["cell"]:
                found[-1] = (found[-1][0] + data.strip(), found[-1][1] or state["bold"])

    Reader().feed(bundle["text/html"])
    return found


def words(bundle) -> list[str]:
    return [text for text, _ in cells(bundle) if text]


def test_headings_are_words_and_numbers_are_short(shown):
    table = pd.DataFrame({"label": ["a", "b"], "n_total_pct": [12.3456, np.nan],
                          "seconds": [1234.5, 0.0], "seed": [0, 1]})  # fmt: skip
    tables.tabulate(table)
    assert words(shown[0]) == ["run", "non-zero weights [%]", "time [s]", "seed",
                               "a", "12.35", "1,234.50", "0", "b", "0.00", "1"]  # fmt: skip
    assert "nan" not in shown[0]["text/plain"].lower()


def test_a_small_number_is_not_told_as_zero(shown):
    tables.tabulate(pd.Series([0.0004, -0.004, 0.0, 0.006], name="x"))
    assert words(shown[0]) == ["x", "0.0004", "-0.004", "0.00", "0.01"]


def test_what_matters_is_bold_and_nothing_breaks_out(shown):
    table = pd.DataFrame({"x": ["<b>&", "two"]}, index=["<i>", "second"])
    tables.tabulate(table, strong=[False, True])
    assert cells(shown[0])[1:] == [("x", False), ("<i>", False), ("<b>&", False),
                                   ("second", False), ("two", True)]  # fmt: skip


def test_levels_and_measures_in_rows_are_named(shown):
    index = pd.MultiIndex.from_tuples(
        [("Table 1", "Adam", "test_acc_pct"), ("Table 2", "Adam", "active_neurons_3")],
        names=["artifact", "run", "measure"],
    )
    tables.tabulate(pd.DataFrame({"ours": [1.0, 2.0], "std": [0.1, None]}, index=index))
    assert words(shown[0]) == ["ours", "± over seeds", "where", "run", "measure",
                               "Table 1", "Adam", "test accuracy [%]", "1.00", "0.10",
                               "Table 2", "Adam", "active neurons, layer 3", "2.00"]  # fmt: skip


def test_settings_stand_in_columns_where_they_differ_and_below_where_not(shown):
    table = pd.DataFrame(
        {"lr": [0.1, 0.1], "lam": [1e-5, 0.1], "groups": [True, False], "train_size": [None, None]},
        index=pd.Index(["a", "b"], name="run"),
    )
    tables.settings(table)
    assert words(shown[0]) == ["λ (lam)", "groups", "run", "a", "1e-05", "yes", "b", "0.1", "no"]
    assert shown[1]["text/plain"] == "All of them: τ (lr) 0.1, training images (train_size) all."


def test_a_level_with_one_value_stands_above(shown):
    index = pd.MultiIndex.from_tuples([("Table 1", "a"), ("Table 1", "b")], names=["where", "run"])
    tables.tabulate(pd.DataFrame({"x": [1, 2]}, index=index), caption="Ours & theirs")
    assert shown[0]["text/html"].startswith("Ours &amp; theirs, Table 1:\n<table")
    assert "Table 1" not in words(shown[0])
