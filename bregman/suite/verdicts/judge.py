"""What a claim of the paper is, and how stored runs decide on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from bregman.suite.experiments import Results
from bregman.suite.paths import results_dir

# denser by more than a fifth, or less accurate by more than half a point, is a miss
DENSER, WORSE = 1.2, 0.5

Word = Literal["reproduced", "partly", "not reproduced", "open"]


@dataclass(frozen=True)
class Verdict:
    """What the stored runs say about a claim.

    Attributes:
        passed: what has to hold, and whether it does; empty where there is no run yet.
        evidence: the numbers, with n and spread where n > 1.
        why: one line on what limits the verdict, "" where nothing does.
    """

    passed: Sequence[bool]
    evidence: str
    why: str = ""

    @property
    def word(self) -> Word:
        """Whether all, some or none of it holds."""
        if not self.passed:
            return "open"
        if all(self.passed):
            return "reproduced"
        return "partly" if any(self.passed) else "not reproduced"


OPEN = Verdict((), "no run at the paper's scale yet", "the trainings go on")


@dataclass(frozen=True)
class Claim:
    """One statement of the paper.

    Attributes:
        source: where the paper makes it.
        text: what it says, in our words.
        experiment: whose runs decide, the name of the notebook without its number.
        judge: from the tables of that experiment to the verdict.
    """

    source: str
    text: str
    experiment: str
    judge: Callable[[Results], Verdict] = field(repr=False)


CLAIMS: list[Claim] = []


def claim(
    source: str, text: str, experiment: str
) -> Callable[[Callable[[Results], Verdict]], Callable[[Results], Verdict]]:
    """Put a claim on the list, with the function that follows as its judge; as for ``Claim``."""

    def decided_by(judge: Callable[[Results], Verdict]) -> Callable[[Results], Verdict]:
        CLAIMS.append(Claim(source, text, experiment, judge))
        return judge

    return decided_by


def stored(experiment: str, scale: str = "paper") -> Results | None:
    """The tables of an experiment at a scale, None where it was not run."""
    folder = results_dir() / scale / experiment
    checked = {int(path.stem.removeprefix("checked_seed")): pd.read_csv(path)
               for path in folder.glob("checked_seed*.csv")}  # fmt: skip
    if checked:
        return Results(pd.concat(checked, names=["seed"]).reset_index("seed"), pd.DataFrame())
    if not (folder / "summary.csv").exists():
        return None
    return Results(*(pd.read_csv(folder / f"{name}.csv") for name in ("summary", "history")))


def spread(values: pd.Series, unit: str = "", digits: int = 2) -> str:
    """The mean and, over several runs, their standard deviation, with the number of runs."""
    values = values.dropna()
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    unit = unit and f" {unit}"
    return f"{values.mean():.{digits}f}{deviation}{unit} (n = {len(values)})"


def missed(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which numbers of ours miss the paper's: denser, or less accurate, than a verdict allows.

    Args:
        table: of ``beside_paper``.
    """
    measure = table.index.get_level_values("measure")
    denser = measure.str.startswith("n_") & (table["ours"] > DENSER * table["paper"])
    # the last digits that are printed decide, not those behind them
    difference = table["difference"].round(3)
    worse = measure.isin(["val_acc_pct", "test_acc_pct"]) & (difference < -WORSE)
    return denser | worse
