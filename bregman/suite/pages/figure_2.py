"""Tables of the page on Figure 2: the grid, the fits, the splits, and what is still missing."""

import pandas as pd

from bregman.suite.experiments.figure_2 import (
    ADABREG,
    CHOSEN,
    CURVES,
    EXPERIMENT,
    FITS,
    GRID,
    SPLITS,
    Setting,
    curve_name,
    distance,
    ranking,
)
from bregman.suite.pages.measured import Sample, exists, markdown, number, paper, summary

FIGURE_2 = "Figure 2 (read off the plot)"
LIN = "LinBreg lam=1e-1"
TEXT = Setting(0.7, "accuracy", 0.1)  # what the paper's text says, with the public notebook's gain


def runs(artifact: str) -> pd.DataFrame:
    """The stored runs of a part of the study."""
    if not exists("figure_2"):
        return pd.DataFrame(columns=["artifact", "optimizer", "seed"])
    table = summary("figure_2").table
    return table[table["artifact"] == artifact]


def progress() -> str:
    """How many runs of each part there are."""
    lines = []
    for artifact in (GRID, SPLITS, ADABREG, FITS):
        rows = [row for row in EXPERIMENT.rows_at("paper") if row.artifact == artifact]
        planned = sum(row.seeds or EXPERIMENT.scale("paper").seeds for row in rows)
        made = runs(artifact)
        lines.append({
            "part": artifact,
            "runs": len(made),
            "of": planned or "not chosen yet",
            "hours": number(made["seconds"].sum() / 3600, 1) if len(made) else "0.0",
        })  # fmt: skip
    return markdown(lines)


def missing(artifact: str) -> int:
    """How many runs of a part are not there yet."""
    rows = [row for row in EXPERIMENT.rows_at("paper") if row.artifact == artifact]
    return sum(row.seeds or EXPERIMENT.scale("paper").seeds for row in rows) - len(runs(artifact))


def distances() -> pd.Series:
    """The distances of the chosen settings by fit, curve and seed."""
    table = runs(FITS)
    words = table["label"].str.extract(r", (fit \d|own gain): ")[0]
    return (
        table.assign(distance=distance(table), fit=words)
        .set_index(["fit", "optimizer", "seed"])["distance"]
        .sort_index()
    )


def ranked() -> str:
    """The settings of the grid that are nearest, and the one of the text."""
    made = runs(GRID)
    table = made if made.empty else ranking(made)
    if table.empty:
        return "No setting has both runs yet."
    places = [*range(min(8, len(table)))]
    if tuple(TEXT) in table.index:
        places = sorted({*places, table.index.get_loc(tuple(TEXT))})
    lines = []
    for place in places:
        setting = Setting(*table.index[place])
        far = table.iloc[place]
        lines.append({
            "place": place + 1,
            "gain": f"{setting.gain:g}",
            "schedule": setting.schedule,
            "τ": f"{setting.lr:g}",
            **{name: number(far[name], 3) for name in ("both", "ProxGD", "LinBreg")},
        })  # fmt: skip
    return markdown(lines)


def fits() -> str:
    """The distances of the seven curves, with the text's settings and with the chosen ones."""
    text = summary("mnist_comparison").table
    text = text[~((text["config_optimizer"] == "ProxGD") & (text["config_lr"] != TEXT.lr))]
    text = text.assign(distance=distance(text))
    chosen = distances() if len(runs(FITS)) else pd.Series(dtype=float)
    named = [f"fit {i}" for i in range(1, len(CHOSEN.best) + 1)]
    named += ["own gain"] if CHOSEN.own else []
    lines = []
    for optimizer, _, lam in CURVES:
        name = curve_name(optimizer, lam)
        far = Sample(tuple(text[text["optimizer"] == name]["distance"]), 3)
        cells: dict[str, object] = {"curve": name, "the text": far}
        for fit in named:
            there = [v for key, v in chosen.items() if key[:2] == (fit, name)]
            cells[fit] = Sample(tuple(there), 3) if there else "not run yet"
        lines.append(cells)
    return markdown(lines)


def chosen() -> str:
    """What was chosen, in words."""
    if not CHOSEN.best:
        return "The grid is not whole yet, so nothing is chosen."
    common = "; ".join(f"fit {i}: {setting}" for i, setting in enumerate(CHOSEN.best, start=1))
    own = "; ".join(f"{name}: {s.schedule}, τ={s.lr:g}" for name, s in CHOSEN.own.items())
    return f'{common}. "Own gain": {own}.'


def over_splits(optimizer: str, measure: str) -> pd.Series:
    """What SGD or LinBreg measured, by the seed of the split."""
    table = runs(SPLITS)
    chosen = table[table["optimizer"] == optimizer]
    return chosen.set_index("config_split_seed")[measure].sort_index()


def splits() -> str:
    """Accuracies over the splits."""
    if runs(SPLITS).empty:
        return "No split was run yet."
    lines = []
    for name in ("SGD", LIN):
        validated, tested = (Sample(tuple(over_splits(name, m))) for m in ("val_acc_pct",
                                                                      "test_acc_pct"))  # fmt: skip
        lines.append({
            "run": name,
            "splits": validated.n,
            "validation [%]": validated,
            "lowest to highest": validated.range if validated.n else "",
            "paper": paper(FIGURE_2, name, "val_acc_pct"),
            "test [%]": tested,
        })  # fmt: skip
    return markdown(lines)
