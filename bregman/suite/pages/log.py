"""Every run that was ever made at a large scale: in the store, or lost to a later commit."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from bregman.suite.pages.measured import RESULTS, STORED_AT, markdown, number, stored_runs

# what tells the settings of one experiment apart; the others are in the run's file
SETTINGS = ("network", "optimizer", "lr", "lam", "lam_conv", "skip_lam", "momentum", "gain",
            "patience", "groups", "prune_to", "max_drop", "autocast", "density", "width", "target",
            "baseline", "frozen_steps", "path", "task")  # fmt: skip


@cache
def lost() -> pd.DataFrame:
    """The runs that a commit deleted or replaced, or that stood in a table alone."""
    return pd.read_csv(RESULTS / "paper" / "deleted_runs.csv")


@cache
def tables() -> dict[str, pd.DataFrame]:
    """The table of each experiment and search, by its folder under results/."""
    return {
        f"{scale}/{path.parent.name}": pd.read_csv(path)
        for scale in STORED_AT
        for path in sorted((RESULTS / scale).glob("*/summary.csv"))
    }


def _key(row: Any) -> tuple[float, int, int]:
    return (row.seconds, row.seed, row.epochs)


@cache
def where() -> dict[Path, list[tuple[str, str]]]:
    """From the file of a stored run to the tables that it stands in, and its label there."""
    named: dict[tuple[float, int, int], list[tuple[str, str]]] = {}
    for experiment, table in tables().items():
        for row in table.itertuples():
            named.setdefault(_key(row), []).append((experiment, row.label))
    return {run.file: named.get(_key(run), []) for run in stored_runs().itertuples()}


def orphans() -> pd.DataFrame:
    """The stored runs that stand in no table."""
    runs = stored_runs()
    return runs[[not where()[file] for file in runs["file"]]]


def _measured(row: Any) -> dict[str, str]:
    ssim = getattr(row, "ssim", float("nan"))
    quality = f"{number(ssim, 3)} SSIM" if pd.notna(ssim) else ""
    if not quality and pd.notna(row.test_acc_pct):
        quality = f"{number(row.test_acc_pct)} %"
    if row.status == "diverged":
        quality = "diverged"
    return {
        "non-zero weights [%]": number(row.n_total_pct),
        "validation [%]": number(row.val_acc_pct),
        "test": quality,
        "minutes": number(row.seconds / 60, 1),
    }


def _settings(config: dict[str, Any]) -> str:
    chosen = {name: config.get(name) for name in SETTINGS}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen.items()
        if value not in (None, False, 0.0, "")
    )


def of_experiment(experiment: str) -> str:
    """All stored runs whose first table is that of an experiment; orphans for ""."""
    lines = []
    for run in stored_runs().itertuples():
        places = where()[run.file]
        first = places[0][0] if places else ""
        if first != experiment:
            continue
        labels = dict.fromkeys(label for _, label in places)
        lines.append({
            "run": "; ".join(labels) or _settings(run.config),
            "seed": run.seed,
            "epochs": run.epochs,
            **_measured(run),
            "processor": run.device.removeprefix("CPU (").removesuffix(")"),
            "commit": run.commit[:7],
            "date": run.date,
        })  # fmt: skip
    lines.sort(key=lambda line: (line["run"], line["seed"]))
    return markdown(lines) if lines else ""


def lost_runs() -> str:
    """The runs that are not in the store any more."""
    lines = []
    for row in lost().itertuples():
        config = {} if pd.isna(row.config) else json.loads(row.config)
        lines.append({
            "run": _settings(config) or row.label,
            "seed": row.seed,
            "epochs": row.epochs,
            **_measured(row),
            "what became of it": f"{row.what}, {row.in_commit}, {row.on}",
        })  # fmt: skip
    return markdown(lines)


def lost_row(index: int, name: str) -> str:
    """A setting or a measure of one of the lost runs, in the order of the table."""
    row = lost().iloc[index]
    return f"{row[name]:.4g}" if name in row else f"{json.loads(row.config)[name]:g}"


def reasons() -> str:
    """The commits that lost runs, with their messages."""
    lines = [
        {"commit": commit, "runs": len(group), "message": group["message"].iloc[0]}
        for commit, group in lost().groupby("in_commit", sort=False)
    ]
    return markdown(lines)


def counts() -> dict[str, int]:
    """How many runs there are."""
    runs = stored_runs()
    return {"stored": len(runs), "lost": len(lost()), "orphans": len(orphans()),
            "diverged": int((runs["status"] == "diverged").sum())}  # fmt: skip


def core_hours() -> str:
    """How long all runs took together."""
    return number((stored_runs()["seconds"].sum() + lost()["seconds"].sum()) / 3600, 1)


def stored_of(experiment: str) -> int:
    """How many runs stand in the table of an experiment."""
    return sum(any(name == experiment for name, _ in places) for places in where().values())
