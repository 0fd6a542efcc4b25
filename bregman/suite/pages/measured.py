"""What was measured, as pages say it: every number is rounded once, from the value as stored."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from bregman.suite.experiments import paper_reference
from bregman.suite.paths import ROOT

RESULTS = ROOT / "results"
# those whose runs are kept
STORED_AT = ("paper", "narrow")

DIGITS = {"ssim": 3, "degraded_ssim": 3, "psnr": 1, "degraded_psnr": 1, "l1_norm": 0,
          "flops_pct": 1, "minutes": 0, "hours": 1}  # fmt: skip


def number(value: float, digits: int = 2) -> str:
    """A number with that many decimals; nothing if it is not there."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table, one row per dictionary, with the keys of the first one as its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row.get(key, "") for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


@dataclass(frozen=True)
class Sample:
    """Values of one measure, one per run.

    Attributes:
        values: without those that are missing.
        digits: decimals that are shown.
    """

    values: tuple[float, ...]
    digits: int = 2

    @property
    def n(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Their mean."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """Their sample standard deviation, nan of a single value."""
        return float(np.std(self.values, ddof=1)) if self.n > 1 else float("nan")

    def __str__(self) -> str:
        """The mean, and the standard deviation if there is one."""
        if not self.values:
            return ""
        mean = number(self.mean, self.digits)
        return f"{mean} ± {number(self.std, self.digits)}" if self.std > 0 else mean

    def say(self, unit: str = "") -> str:
        """The same with its unit, and how many there are."""
        return f"{self} {unit}".rstrip() + f" (n = {self.n})"

    @property
    def each(self) -> str:
        """All values, in the order of the seeds."""
        return ", ".join(number(value, self.digits) for value in self.values)

    @property
    def low(self) -> str:
        """The smallest."""
        return number(min(self.values), self.digits)

    @property
    def high(self) -> str:
        """The largest."""
        return number(max(self.values), self.digits)

    @property
    def range(self) -> str:
        """From the smallest to the largest."""
        return self.low if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Rows:
    """Some rows of a table of runs."""

    table: pd.DataFrame

    def where(self, **columns: Any) -> "Rows":
        """The rows with these values in these columns.

        Raises:
            KeyError: there is none.
        """
        table = self.table
        for name, value in columns.items():
            table = table[table[name] == value]
        if table.empty:
            raise KeyError(f"no run with {columns}")
        return Rows(table)

    def of(self, column: str, digits: int | None = None) -> Sample:
        """What was measured, in the order of the seeds."""
        values = self.table.sort_values("seed", kind="stable")[column].dropna()
        return Sample(tuple(values), DIGITS.get(column, 2) if digits is None else digits)

    def minus(self, other: "Rows", column: str) -> Sample:
        """What these runs have more than others with the same seeds."""
        ours, theirs = (rows.table.set_index("seed")[column] for rows in (self, other))
        difference = (ours - theirs).dropna().sort_index()
        return Sample(tuple(difference), self.of(column).digits)

    def gap(self, column: str) -> Sample:
        """How far the mean lies below the number of the paper, for rows of one optimizer."""
        first = self.table.iloc[0]
        theirs = float(paper(first.artifact, first.optimizer, column, first.strategy))
        ours = self.of(column)
        return Sample((theirs - ours.mean,), ours.digits)

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return int(self.table["seed"].nunique())

    @property
    def minutes(self) -> Sample:
        """How long the runs took."""
        return Sample(tuple(self.table["seconds"] / 60), DIGITS["minutes"])

    @property
    def core_hours(self) -> str:
        """How long all runs took together, one core each; a run in several rows counts once."""
        return number(self.table.drop_duplicates("seconds")["seconds"].sum() / 3600, 1)


@cache
def summary(experiment: str, scale: str = "paper") -> Rows:
    """The table of an experiment, one row per run.

    Raises:
        FileNotFoundError: it was not run at this scale.
    """
    return Rows(pd.read_csv(RESULTS / scale / experiment / "summary.csv"))


def exists(experiment: str, scale: str = "paper") -> bool:
    """Whether an experiment was run at a scale."""
    return (RESULTS / scale / experiment / "summary.csv").exists()


@dataclass(frozen=True)
class Curve:
    """One measure of one run over the epochs."""

    values: pd.Series

    def at(self, epoch: int, digits: int = 0) -> str:
        """Its value after an epoch."""
        return number(self.values[epoch], digits)

    def last(self, epochs: int, digits: int = 2) -> Sample:
        """Its values after the last epochs."""
        return Sample(tuple(self.values.iloc[-epochs:]), digits)


@cache
def _history(experiment: str, scale: str) -> pd.DataFrame:
    path = RESULTS / scale / experiment / "history.csv"
    return (
        pd.read_csv(path)
        .set_index(["run", "seed", "split", "metric", "epoch"])
        .sort_index()["value"]
    )


def curve(
    experiment: str, run: str, split: str, metric: str, seed: int = 0, factor: float = 1.0,
    scale: str = "paper",
) -> Curve:  # fmt: skip
    """One measure of one run over the epochs, times a factor."""
    return Curve(factor * _history(experiment, scale).loc[run, seed, split, metric])


def paper(artifact: str, optimizer: str, measure: str, strategy: str | None = None) -> str:
    """A number of the paper, as it prints it."""
    table = paper_reference()
    chosen = table[(table["artifact"] == artifact) & (table["optimizer"] == optimizer)]
    if strategy is not None:
        chosen = chosen[chosen["strategy"] == strategy]
    values = chosen[measure].unique()
    if len(values) != 1:
        raise KeyError(f"{len(values)} numbers of the paper for {artifact}, {optimizer}, {measure}")
    return "" if pd.isna(values[0]) else f"{values[0]:g}"


@cache
def stored_runs() -> pd.DataFrame:
    """Every run in the stores of the large scales: file, config, result and what made it."""
    rows = []
    for path in sorted(
        path for scale in STORED_AT for path in RESULTS.glob(f"{scale}/runs/*.json")
    ):
        run = json.loads(path.read_text())
        environment = {name: run["environment"][name] for name in ("commit", "date", "device")}
        rows.append({
            "file": path, **run["result"], **environment, "config": run["config"],
            "seed": run["config"]["seed"], "epochs": run["config"]["epochs"],
            "status": run["status"], "seconds": float(f"{run['seconds']:.6g}"),
        })  # fmt: skip
    return pd.DataFrame(rows)


def arrays_of(row: pd.Series) -> dict[str, np.ndarray]:
    """The arrays that the run of a row of a table kept."""
    runs = stored_runs()
    same = runs[(runs["seconds"] == row["seconds"]) & (runs["seed"] == row["seed"])]
    with np.load(same.iloc[0]["file"].with_suffix(".npz"), allow_pickle=False) as stored:
        return dict(stored)
