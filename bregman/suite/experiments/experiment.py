"""What an experiment is: a table of runs, one row each, at several scales."""

import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from bregman.suite.experiments.tables import MEASURED, Results
from bregman.suite.paths import replacing, results_dir
from bregman.suite.runs import Run, RunStore, Train
from bregman.suite.workers import check_device, make_missing

# "narrow" is between the last two, for what takes days at the paper's scale
SCALES = ("smoke", "quick", "narrow", "paper")


@dataclass(frozen=True)
class Scale:
    """What a scale means for one experiment.

    Attributes:
        epochs: of every run.
        seeds: how many runs of every row, with successive seeds.
        mini: use the small subset in the package instead of the whole data set.
        train_size: use that many of the training images only, all if None.
    """

    epochs: int
    seeds: int = 1
    mini: bool = False
    train_size: int | None = None


@dataclass(frozen=True)
class Row:
    """One row of an experiment: a run for every seed, and how tables and figures name it.

    Attributes:
        label: in legends.
        artifact: the paper's table or figure, as ``paper_reference.csv`` names it.
        strategy: likewise.
        optimizer: likewise.
        settings: what sets the row apart, for the experiment's ``config``.
        variant: which numbers of the run are meant: the results named "<variant>.<column>", such as
            those after thresholding; "" for the plain ones.
        scales: where the row is run.
        seeds: how many seeds of the scale at most, all if None.
    """

    label: str
    artifact: str
    strategy: str
    optimizer: str
    settings: dict[str, Any]
    variant: str = ""
    scales: tuple[str, ...] = SCALES
    seeds: int | None = None


@dataclass(frozen=True)
class Experiment:
    """A table of runs, one row each, at several scales.

    Attributes:
        name: the notebook's name without its number.
        dataset: as ``paper_reference.csv`` names it.
        model: likewise.
        scales: from the names of the scales that it has to what they mean here.
        rows: what is compared.
        config: from (scale, seed, **settings) to the config of a run.
        train: makes one run.
    """

    name: str
    dataset: str
    model: str
    scales: dict[str, Scale]
    rows: tuple[Row, ...]
    config: Callable[..., Any]
    train: Train

    def scale_table(self) -> pd.DataFrame:
        """What each scale means: one row per scale."""
        return pd.DataFrame({name: asdict(scale) for name, scale in self.scales.items()}).T

    def parameter_table(self, scale: str) -> pd.DataFrame:
        """The hyper-parameters at a scale: one row per row of the experiment.

        Raises:
            ValueError: an unknown scale.
        """
        meaning = self.scale(scale)
        rows = self.rows_at(scale)
        configs = [asdict(self.config(meaning, 0, **row.settings)) for row in rows]
        table = pd.DataFrame(configs, index=pd.Index([row.label for row in rows], name="run"))
        return table.drop(columns="seed")

    def scale(self, name: str) -> Scale:
        """What a scale means here.

        Raises:
            ValueError: an unknown scale.
        """
        if name not in self.scales:
            raise ValueError(f"unknown scale {name!r}, allowed: {', '.join(self.scales)}")
        return self.scales[name]

    def rows_at(self, scale: str) -> list[Row]:
        """The rows that are run at a scale."""
        return [row for row in self.rows if scale in row.scales]

    def arrays(self, scale: str, label: str, seed: int = 0) -> dict[str, np.ndarray]:
        """What the run of a row kept beside its numbers, such as images or weights, by name.

        Raises:
            KeyError: no row has this label at this scale, or its run was not made yet.
            RunStoreError: the stored arrays can't be read.
        """
        meaning = self.scale(scale)
        rows = {row.label: row for row in self.rows_at(scale)}
        if label not in rows:
            raise KeyError(f"no row {label!r} at scale {scale}, only {', '.join(rows)}")
        config = self.config(meaning, seed, **rows[label].settings)
        store = RunStore(results_dir() / scale / "runs")
        if store.get(config) is None:
            raise KeyError(f"the run {label!r} with seed {seed} was not made yet at scale {scale}")
        return store.arrays(config)

    def run(
        self,
        scale: str,
        seed: int = 0,
        device: str = "cpu",
        jobs: int | None = None,
        rows: Collection[str] | None = None,
    ) -> Results:
        """Make the runs that the store does not have yet, and write the tables.

        Every run uses one CPU thread, so that its numbers do not depend on how many go on at once.

        Args:
            scale: one of those that the experiment has.
            seed: the first seed; the others follow it.
            device: what the runs are made on, such as "cpu" or "cuda".
            jobs: runs at once; None for one per core on a CPU (one in all at scale smoke).
            rows: make the runs of the rows with these labels only; all if None.

        Returns:
            The tables of all rows whose runs are in the store, also written to
            ``results/<scale>/<experiment>/``.

        Raises:
            ValueError: an unknown scale, device or row, jobs < 1.
            RunStoreError: the results folder can't be written, or a stored run can't be read.
        """
        meaning = self.scale(scale)
        check_device(device)
        if jobs is None:
            jobs = 1 if scale == "smoke" or device != "cpu" else os.cpu_count() or 1
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        known = [row.label for row in self.rows_at(scale)]
        if unknown := set(known if rows is None else rows).difference(known):
            raise ValueError(
                f"unknown row {min(unknown)!r} of {self.name} at scale {scale}, "
                f"allowed: {', '.join(known)}"
            )
        store = RunStore(results_dir() / scale / "runs")
        planned = [
            (row, seed + i, self.config(meaning, seed + i, **row.settings))
            for i in range(meaning.seeds)
            for row in self.rows_at(scale)
            if row.seeds is None or i < row.seeds
        ]
        asked = [config for row, _, config in planned if rows is None or row.label in rows]
        make_missing(self.name, store, asked, self.train, device, jobs)
        planned = [(*plan, config) for *plan, config in planned if store.get(config) is not None]
        results = Results(
            summary=pd.DataFrame([self._summary(*plan, store) for plan in planned]).astype(
                dict.fromkeys(MEASURED, float)
            ),
            history=pd.concat(
                [_history(row.label, seed, _stored(store, c)) for row, seed, c in planned],
                ignore_index=True,
            ),
        )
        for table in ("summary", "history"):
            with replacing(results_dir() / scale / self.name / f"{table}.csv") as temporary:
                getattr(results, table).to_csv(temporary, index=False, float_format="%.6g")
        return results

    def _summary(self, row: Row, seed: int, config: Any, store: RunStore) -> dict[str, Any]:
        run = _stored(store, config)
        prefix = f"{row.variant}." if row.variant else ""
        result = {
            name.removeprefix(prefix): value
            for name, value in run.result.items()
            if name.startswith(prefix) and "." not in name.removeprefix(prefix)
        }
        return {
            "artifact": row.artifact,
            "dataset": self.dataset,
            "model": self.model,
            "strategy": row.strategy,
            "optimizer": row.optimizer,
            **{column: result.pop(column, None) for column in MEASURED},
            "label": row.label,
            "lam": run.config["lam"],
            "seed": seed,
            "epochs": run.config["epochs"],
            "status": run.status,
            "seconds": run.seconds,
            "device": run.environment["device"],
            **result,
            **{f"config_{name}": value for name, value in run.config.items()},
        }


def _stored(store: RunStore, config: Any) -> Run:
    run = store.get(config)
    assert run is not None
    return run


def _history(label: str, seed: int, run: Run) -> pd.DataFrame:
    table = pd.DataFrame(run.history)
    table.insert(0, "run", label)
    table.insert(1, "seed", seed)
    return table
