"""Print the hours that the stored runs took, for docs/running.md.

    python scripts/hours.py

One row per experiment and scale: a run that two experiments share counts for both, and what has no
run yet counts as missing.
"""

import contextlib
import io

import pandas as pd

from bregman.suite.experiments import EXPERIMENTS


def hours() -> pd.DataFrame:
    """Runs, hours of all of them on one core each, the longest one, and how many are missing."""
    rows = []
    for name, experiment in EXPERIMENTS.items():
        for scale in ("narrow", "paper"):
            if scale in experiment.scales:
                with contextlib.redirect_stdout(io.StringIO()):
                    results = experiment.run(scale, make=False)
                runs = results.summary.drop_duplicates(["seconds", "seed"])["seconds"] / 3600
                missing = results.missing
                rows.append(
                    [name, scale, len(runs), runs.sum(), runs.max(), missing["seeds"].sum()]
                )
    columns = ["experiment", "scale", "runs", "hours", "longest run [h]", "missing"]
    return pd.DataFrame(rows, columns=columns)


if __name__ == "__main__":
    table = hours().round(2).astype(object)
    print("| " + " | ".join(table.columns) + " |\n|" + " --- |" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join("" if pd.isna(cell) else str(cell) for cell in row) + " |")
