"""What was not run yet: a table with the hours that it takes, and the command that makes it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bregman.suite.runs import Run, plain


class Forecast(NamedTuple):
    """What there is to do until all runs of a table are made.

    Attributes:
        stored: how many runs are made.
        missing: how many are not.
        hours: of the missing ones on one core, of which the length is known.
        unknown: missing runs whose like was not made yet, with any seed.
    """

    stored: int
    missing: int
    hours: float
    unknown: int

    def __str__(self) -> str:
        """In words, for one who is about to start them."""
        words = f"{self.stored} of {self.stored + self.missing} runs are in the store"
        if self.missing > self.unknown:
            words += f"; the missing ones take about {self.hours:.2g} hours of one core"
        if self.unknown:
            more = " more" if self.missing > self.unknown else ""
            words += f"; how long{more} is unknown of {self.unknown}, whose like was not made yet"
        return words


def forecast(table: pd.DataFrame, planned: Collection[Any], stored: Collection[Any]) -> Forecast:
    """What there is to do.

    Args:
        table: of what is missing.
        planned: the configs of all runs that are asked for, each once.
        stored: those that were made.
    """
    made, unknown = sum(config in stored for config in planned), table["hours"].isna()
    missing, hours = int(table["seeds"].sum()), float(table["hours"].sum())
    return Forecast(made, missing, hours, int(table["seeds"][unknown].sum()))


def missing_table(
    name: str, scale: str, planned: Sequence[tuple[str, Any]], stored: Mapping[Any, Run]
) -> pd.DataFrame:
    """One row per label of which a run is missing.

    Args:
        name: of the experiment.
        scale: of the runs.
        planned: label and config of all runs.
        stored: from config to run, of those that were made.

    Returns:
        By run: how many seeds are missing, the hours that they take on one core (as long as the
        same run took with other seeds; empty where there is none), and the command.
    """
    made = [(_but_seed(config), run.seconds) for config, run in stored.items()]
    typical = pd.DataFrame(made, columns=["run", "seconds"]).groupby("run")["seconds"].mean()
    # rows that share a run are told by the first one
    missing = {config: label for label, config in reversed(planned) if config not in stored}
    rows = [
        (label, typical.get(_but_seed(config), float("nan")) / 3600)
        for config, label in reversed(missing.items())
    ]
    table = pd.DataFrame(rows, columns=["run", "hours"]).groupby("run", sort=False)
    found = table["hours"].agg(seeds="size", hours=lambda hours: hours.sum(skipna=False))
    command = f"bregman run {name} --scale {scale} --no-notebooks --rows"
    found["command"] = [f'{command} "{label}"' for label in found.index]
    return found


def _but_seed(config: Any) -> str:
    return str({field: value for field, value in plain(config).items() if field != "seed"})
