"""Tables of what was tuned alike, and of Tables 1 and 2 with seeds, as far as they were run."""

import pandas as pd

from bregman.suite.experiments.equal_density import FAMILIES, TRIALS, choose
from bregman.suite.experiments.table_seeds import EXPERIMENT, METHODS
from bregman.suite.pages.measured import Rows, Sample, curve, exists, markdown, number, summary
from bregman.suite.plots.equal_density import LEVEL, interval

__all__ = ["LEVEL", "MOST_SEEDS", "TRIALS", "precision", "seeds", "trials", "whole"]

LAST = 10  # epochs, over which validation accuracies still move
MOST_SEEDS = EXPERIMENT.scale("paper").seeds


def _table(experiment: str) -> pd.DataFrame:
    if not exists(experiment):
        return pd.DataFrame(columns=["label", "optimizer", "seed"])
    return summary(experiment).table


def trials() -> str:
    """The search: how many trials of each method there are, and the best of them."""
    table = _table("equal_density_search")
    best = choose(table) if len(table) else {}
    lines = []
    for name in FAMILIES:
        tried = table[table["optimizer"] == name]
        found = {key: f"{value:g}" for key, value in best.get(name, {}).items()}
        lines.append({
            "method": name,
            "trials": f"{len(tried)} of {TRIALS}",
            "validation [%]": Sample(tuple(tried["val_acc_pct"])).range if len(tried) else "",
            **{key: found.get(key, "") for key in ("gain", "lr", "lam")},
        })  # fmt: skip
    return markdown(lines)


def whole() -> str:
    """Whole runs of the best settings; the interval is that of the mean."""
    table = _table("equal_density")
    lines = []
    for name in FAMILIES:
        runs = table[table["label"] == name]
        line: dict[str, object] = {"method": name, "n": len(runs)}
        if len(runs):
            rows = Rows(runs)
            tested = rows.of("test_acc_pct")
            mean, half = interval(runs["test_acc_pct"])
            line |= {
                "non-zero weights [%]": rows.of("n_total_pct"),
                "before the cut [%]": rows.of("trained.n_total_pct"),
                "test accuracy [%]": tested,
                "95 % interval": f"{number(mean - half)} to {number(mean + half)}"
                if tested.n > 1
                else "",
                "training FLOPs [%]": rows.of("flops_pct", 0),
            }
        else:
            line |= dict.fromkeys(
                ("non-zero weights [%]", "before the cut [%]", "test accuracy [%]",
                 "95 % interval", "training FLOPs [%]"), ""
            ) | {"test accuracy [%]": "not run yet"}  # fmt: skip
        lines.append(line)
    return markdown(lines)


def seeds() -> str:
    """Tables 1 and 2 with seeds: the last epoch, and how much the last ten move."""
    table = _table("table_seeds")
    lines = []
    for label in table["label"].unique():
        rows = Rows(table[table["label"] == label])
        moves = [
            curve("table_seeds", label, "validation", "accuracy", seed, 100).last(LAST).std
            for seed in rows.table["seed"]
        ]
        lines.append({
            "run": label,
            "n": rows.seeds,
            "non-zero weights [%]": rows.of("n_total_pct"),
            "test accuracy [%]": rows.of("test_acc_pct"),
            "validation moves by": number(sum(moves) / len(moves)),
        })  # fmt: skip
    return markdown(lines) if lines else "No run yet."


def precision() -> str:
    """What float32 has more than bfloat16 on the same seeds, in points of accuracy."""
    table = _table("table_seeds")
    lines = []
    for method in METHODS:
        exact, rounded = (
            table[table["label"] == label].set_index("seed")
            for label in (f"{method} (float32)", method)
        )
        cells: dict[str, object] = {"method": method, "pairs": 0, "test": "", "interval": ""}
        pairs = exact.index.intersection(rounded.index)
        if len(pairs):
            gaps = exact.loc[pairs, "test_acc_pct"] - rounded.loc[pairs, "test_acc_pct"]
            mean, half = interval(gaps)
            cells |= {"pairs": len(gaps), "test": Sample(tuple(gaps))}
            if len(gaps) > 1:
                cells["interval"] = f"{number(mean - half)} to {number(mean + half)}"
        lines.append(cells)
    return markdown(lines)
