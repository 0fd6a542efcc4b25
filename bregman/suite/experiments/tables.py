"""The tidy tables that come of the runs of an experiment, beside the paper's numbers."""

import hashlib
import io
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import pandas as pd

from bregman.suite.data import DataError
from bregman.suite.paths import ROOT

_REFERENCE = resources.files("bregman.suite.experiments") / "paper_reference.csv"
_REFERENCE_SUM = "80ee1b0689af3099cd7a1c2727e881efef8fde1b2983513c5abd3f040db87ef5"
_AGAIN = "restore it from the repository, or install the package again"

# the columns of the paper's numbers
MEASURED = ("n_total_pct", "n_linear_pct", "n_conv_pct", "val_acc_pct", "test_acc_pct",
            "train_acc_pct", "ssim", "l1_norm")  # fmt: skip
# and of the layers of Figure 4, read off the plot, which shows the network of Figure 5's LinBreg
WIDTHS = [f"active_neurons_{i}" for i in range(1, 8)]


@dataclass(frozen=True)
class Results:
    """The tables of an experiment.

    Attributes:
        summary: one row per run, with the columns of ``paper_reference.csv`` and more.
        history: tidy; one row per run, seed, epoch, split and metric.
        missing: what was not run yet, with hours and commands.
    """

    summary: pd.DataFrame
    history: pd.DataFrame
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def runs(self) -> pd.DataFrame:
        """One row per label, in the order of the experiment: what its seeds share."""
        return self.summary.drop_duplicates("label").set_index("label", drop=False)

    @property
    def label(self) -> str:
        """Of the only row.

        Raises:
            ValueError: there are none, or several.
        """
        labels = self.summary["label"].unique()
        if len(labels) != 1:
            raise ValueError(f"one row was wanted, got {', '.join(labels) or 'none'}")
        return str(labels[0])

    def where(self, **columns: Any) -> "Results":
        """The runs with these values.

        Args:
            columns: of the summary; from their names to a value, None for none, or to a list, set,
                array or the like of values.

        Raises:
            KeyError: the summary has no column of a name.
        """
        summary = self.summary
        for name, allowed in columns.items():
            if name not in summary:
                raise KeyError(f"no column {name!r}, only {', '.join(map(str, summary))}")
            values = list(allowed) if pd.api.types.is_list_like(allowed) else [allowed]
            column = summary[name]
            lacking = any(value is None for value in values)
            summary = summary[column.isin(values) | (column.isna() & lacking)]
        kept = pd.MultiIndex.from_frame(summary[["label", "seed"]])
        recorded = pd.MultiIndex.from_frame(self.history[["run", "seed"]])
        return Results(summary, self.history[recorded.isin(kept)])

    def _recorded(self, split: str, metric: str) -> pd.DataFrame:
        chosen = self.history.query("split == @split and metric == @metric")
        if chosen.empty:
            known = self.history[["split", "metric"]].drop_duplicates().values.tolist()
            raise KeyError(f"no {metric!r} of {split!r} was recorded, only {known}")
        return chosen

    def curves(self, split: str, metric: str) -> pd.DataFrame:
        """One curve per run over the epochs, averaged over the seeds.

        Raises:
            KeyError: nothing of that split and metric was recorded.
        """
        chosen = self._recorded(split, metric)
        order = chosen["run"].unique()
        return chosen.pivot_table(index="epoch", columns="run", values="value")[order]

    def by_seed(self, split: str, metric: str) -> pd.DataFrame:
        """One curve per run and seed over the epochs; as ``curves``."""
        chosen = self._recorded(split, metric)
        keys = ["run", "seed"]
        return chosen.pivot_table("value", keys, "epoch", sort=False).T

    def beside_paper(self) -> pd.DataFrame:
        """What ``beside_paper`` makes of these runs, in the order of the experiment's rows.

        Returns:
            One row per number of the paper that a run stands for, by artifact, run and measure.
        """
        table = beside_paper(self.summary).reset_index().dropna(subset="run")
        # what belongs to one run stands together
        order = {label: i for i, label in enumerate(self.summary["label"].unique())}
        table = table.sort_values("run", key=lambda label: label.map(order), kind="stable")
        return table.set_index(["artifact", "run", "measure"])[
            ["ours", "std", "n", "paper", "difference"]
        ]


def beside_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Every number of the paper, and what runs gave that stand for it.

    Args:
        summary: one row per run, of one experiment or several.

    Returns:
        ours (the mean over the n seeds), std, n, paper and the difference; one row per number of
        the paper (artifact, strategy, optimizer, measure) and label of runs ("run"). Where there is
        no run, that label and our number are missing.
    """
    row = ["artifact", "strategy", "optimizer"]
    measures = [*MEASURED, *WIDTHS]
    ours = summary.reindex(columns=[*row, "label", *measures])
    ours = ours.melt([*row, "label"], measures, "measure", "value")
    ours = ours.groupby([*row, "label", "measure"], sort=False)["value"].agg(
        ["mean", "std", "count"]
    )
    paper = paper_reference().melt(row, measures, "measure", "paper", ignore_index=False)
    paper = paper.dropna().sort_index(kind="stable")
    table = ours.reset_index().merge(paper, "right", on=[*row, "measure"])
    table["difference"] = table["mean"] - table["paper"]
    table = table.rename(columns={"label": "run", "mean": "ours", "count": "n"})
    table["n"] = table["n"].astype("Int64")
    return table.set_index([*row, "measure", "run"])


def answers(notebook: str) -> pd.DataFrame:
    """What ``scripts/answer_exercises.py`` measured for the exercises of a notebook.

    Args:
        notebook: its number, such as "05".

    Returns:
        One row per measure of an exercise, one column per setting.
    """
    table = pd.read_csv(ROOT / "results" / "exercises.csv", dtype={"exercise": str})
    table = table[table["exercise"].str.startswith(f"{notebook}.")]
    index = ["exercise", "measure"]
    table = table.pivot_table(index=index, columns="setting", values="value", sort=False)
    return table.astype(object).where(table.notna(), "")


def paper_reference() -> pd.DataFrame:
    """Every number of the paper that the suite compares itself with.

    Raises:
        DataError: the file is lost or was changed.
    """
    try:
        content = _REFERENCE.read_bytes()
    except OSError as error:
        raise DataError(f"{_REFERENCE} can't be read ({error.strerror}); {_AGAIN}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != _REFERENCE_SUM:
        raise DataError(
            f"{_REFERENCE} has SHA-256 sum {found}, expected {_REFERENCE_SUM}; {_AGAIN}"
        )
    return pd.read_csv(io.BytesIO(content))
