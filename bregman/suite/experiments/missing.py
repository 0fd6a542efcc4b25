"""What was not run yet: a table with the hours that it takes, and the command that makes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bregman.suite.runs import Run, plain


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
    seconds = pd.DataFrame(
        [(_but_seed(config), run.seconds) for config, run in stored.items()],
        columns=["run", "seconds"],
    )
    typical = seconds.groupby("run")["seconds"].mean()
    # rows that share a run are told by the first one
    missing = {config: label for label, config in reversed(planned) if config not in stored}
    rows = [
        (label, typical.get(_but_seed(config), float("nan")) / 3600)
        for config, label in reversed(missing.items())
    ]
    table = pd.DataFrame(rows, columns=["run", "hours"]).groupby("run", sort=False)
    found = table["hours"].agg(seeds="size", hours=lambda hours: hours.sum(skipna=False))
    found["command"] = [
        f'bregman run {name} --scale {scale} --no-notebooks --rows "{label}"'
        for label in found.index
    ]
    return found


def _but_seed(config: Any) -> str:
    return str({field: value for field, value in plain(config).items() if field != "seed"})
