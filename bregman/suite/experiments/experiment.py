"""What an experiment is: a table of runs, one row each, at several scales."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from bregman.suite.data import ensure
from bregman.suite.experiments.allowed import LARGEST_SEED, Count, Seed, check
from bregman.suite.experiments.missing import Forecast, forecast, missing_table
from bregman.suite.experiments.recipe import train
from bregman.suite.experiments.tables import MEASURED, Results
from bregman.suite.paths import replacing, results_dir
from bregman.suite.runs import Run, RunStore, RunStoreError, Train
from bregman.suite.workers import check_device, cpu_count, device_name, make_missing

# "narrow" is between the last two, for what takes days at the paper's scale
SCALE_NAMES = ("smoke", "quick", "narrow", "paper")
# at the others only the command makes runs: they take hours
MADE_IN_NOTEBOOKS = ("smoke", "quick")
MOST_SEEDS = 1000

Labels = Collection[str] | None


class RunsFailedError(RuntimeError):
    """Some runs of an experiment failed; the others were made, and stand in its tables."""


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
    scales: tuple[str, ...] = SCALE_NAMES
    seeds: int | None = None


class Plan(NamedTuple):
    """One run of a table: its row, its seed, and the config that names it."""

    row: Row
    seed: int
    config: Any


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
        revision: to be raised when a change of the code changes what a config's run gives; runs
            tell theirs.
    """

    name: str
    dataset: str
    model: str
    scales: dict[str, Scale]
    rows: tuple[Row, ...]
    config: Callable[..., Any]
    train: Train = train
    revision: int | str = 1

    def scale_table(self) -> pd.DataFrame:
        """What each scale means: one row per scale."""
        return pd.DataFrame({name: asdict(scale) for name, scale in self.scales.items()}).T

    def parameter_table(self, scale: str) -> pd.DataFrame:
        """The hyper-parameters at a scale: one row per row of the experiment.

        Raises:
            ValueError: an unknown scale.
        """
        made = [plan for plan in self._planned(scale, 0) if plan.seed == 0]
        index = pd.Index([plan.row.label for plan in made], name="run")
        table = pd.DataFrame([asdict(plan.config) for plan in made], index=index)
        return table.drop(columns="seed")

    def scale(self, name: str) -> Scale:
        """What a scale means here.

        Raises:
            ValueError: an unknown scale.
        """
        if not isinstance(name, str) or name not in self.scales:
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
        store = _store(scale)
        if store.get(config) is None:
            raise KeyError(f"the run {label!r} with seed {seed} was not made yet at scale {scale}")
        return store.arrays(config)

    def run(
        self,
        scale: str,
        seed: int = 0,
        device: str | torch.device = "cpu",
        jobs: int | None = None,
        rows: Labels = None,
        seeds: int | None = None,
        cluster: str | None = None,
        make: bool | None = None,
    ) -> Results:
        """Make the runs that the store does not have yet, and write the tables.

        Every run uses one CPU thread, so that its numbers do not depend on how many go on at once.

        Args:
            scale: one of those that the experiment has.
            seed: the first seed; the others follow it.
            device: what the runs are made on, such as "cpu" or "cuda".
            jobs: runs at once; None for one per core on a CPU (one in all at scale smoke).
            rows: make the runs of the rows with these labels only; all if None.
            seeds: how many seeds; None for as many as the scale says.
            cluster: the address of a Dask scheduler, whose workers make the runs.
            make: False to read what is stored, True to make what is missing; None to make it at
                the scales smoke and quick, which take seconds and minutes.

        Returns:
            The tables of all rows whose runs are in the store, also written to
            ``results/<scale>/<experiment>/``, and what is missing.

        Raises:
            ValueError: an unknown scale, device or row; jobs, seeds or a seed out of range.
            RunStoreError: the results folder can't be written, or a stored run can't be read.
            RunsFailedError: runs failed; the tables of the others are written.
            Stopped: Ctrl-C, a notebook's stop button or SIGTERM.
        """
        device = check_request(device, jobs)
        asked = self._asked(scale, seed, rows, seeds)
        make = scale in MADE_IN_NOTEBOOKS if make is None else make
        failures = self._make(scale, asked, device, jobs, cluster) if make else []
        results = self._tables(scale, self._planned(scale, seed, seeds))
        if not make and len(results.missing):
            print(f"{self.name}, not run yet at scale {scale}:")
            print(results.missing.round(2).to_string(na_rep=""))
        if failures:
            raise RunsFailedError("\n  ".join(["these runs failed:", *failures]))
        return results

    def try_(self, label: str, scale: str = "smoke", seed: int = 0, **settings: Any) -> Results:
        """Make one run of a row with settings of one's own; it enters no table of the experiment.

        Args:
            label: of the row.
            scale: what else is set; the data sets of "smoke" are in the package.
            seed: of the run.
            settings: fields of the config and their values, such as ``lam=0.05, epochs=5``.

        Returns:
            The run, named by the row and the settings; asked again, the store answers.

        Raises:
            ValueError: an unknown scale, row or setting, or a value that is not allowed.
            RunsFailedError: the run failed.
            RunStoreError: the results folder can't be written.
            Stopped: as for ``run``.
        """
        (plan, *_) = self._asked(scale, seed, [label], 1)
        if unknown := settings.keys() - asdict(plan.config).keys():
            raise ValueError(
                f"unknown setting {min(unknown)!r} of {self.name}, "
                f"allowed: {', '.join(asdict(plan.config))}"
            )
        words = ", ".join(f"{name}={value}" for name, value in settings.items())
        row = replace(plan.row, label=f"{label}: {words}" if words else label)
        plan = Plan(row, seed, replace(plan.config, **settings))
        if failures := self._make(scale, [plan], "cpu", 1, None):
            raise RunsFailedError(failures[0])
        made = [(plan, self._runs(scale, [plan])[plan.config])]
        return Results(self._summary_table(made), _history_table(made))

    def _make(
        self, scale: str, asked: list[Plan], device: str, jobs: int | None, cluster: str | None
    ) -> list[str]:
        if cluster is None:
            check_device(device)
        store, configs = _store(scale), [plan.config for plan in asked]
        if cluster is None:
            # once, and not by every worker
            for name in sorted({c.dataset for c in configs if not c.mini and not store.get(c)}):
                ensure(name)
        if jobs is None:
            jobs = 1 if scale == "smoke" or device != "cpu" else cpu_count()
        return make_missing(self.name, store, configs, self.train, device, jobs,
                            revision=self.revision, cluster=cluster)  # fmt: skip

    def _runs(self, scale: str, planned: list[Plan]) -> dict[Any, Run]:
        """From their configs to the runs that are in the store."""
        store, configs = _store(scale), dict.fromkeys(plan.config for plan in planned)
        return {config: run for config in configs if (run := store.get(config)) is not None}

    def _missing(self, scale: str, planned: list[Plan], runs: dict[Any, Run]) -> pd.DataFrame:
        labels = [(plan.row.label, plan.config) for plan in planned]
        return missing_table(self.name, scale, labels, runs)

    def _tables(self, scale: str, planned: list[Plan]) -> Results:
        runs = self._runs(scale, planned)
        made = [(plan, runs[plan.config]) for plan in planned if plan.config in runs]
        missing = self._missing(scale, planned, runs)
        results = Results(self._summary_table(made), _history_table(made), missing)
        for table in ("summary", "history"):
            path = results_dir() / scale / self.name / f"{table}.csv"
            try:
                with replacing(path) as temporary:
                    getattr(results, table).to_csv(temporary, index=False, float_format="%.6g")
            except OSError as error:
                raise RunStoreError(
                    f"{error.filename} can't be written ({error.strerror}); the runs are kept: "
                    "make room, then run the same command again"
                ) from error
        return results

    def _summary_table(self, made: list[tuple[Plan, Run]]) -> pd.DataFrame:
        found = {f"{run.revision}" for _, run in made}
        if len(found) > 1:
            warnings.warn(
                f"{self.name}: the tables mix revisions {', '.join(sorted(found))} of the "
                "experiment; the column revision tells which run is of which",
                stacklevel=4,
            )
        named = ["artifact", "dataset", "model", "strategy", "optimizer", *MEASURED, *_ABOUT_RUN]
        rows = [self._summary(*each) for each in made]
        table = pd.DataFrame(rows, columns=None if rows else named)
        settings = [name for name in table if name == "variant" or str(name).startswith("config_")]
        table = table[[*table.columns.difference(settings, sort=False), *settings]]
        return table.astype(dict.fromkeys(MEASURED, float))

    def forecast(
        self, scale: str, seed: int = 0, rows: Labels = None, seeds: int | None = None
    ) -> Forecast:
        """What is in the store, and how long it takes to make the rest; as for ``run``.

        Raises:
            ValueError: an unknown scale or row; seeds or a seed out of range.
            RunStoreError: the results folder can't be written, or a stored run can't be read.
        """
        asked = self._asked(scale, seed, rows, seeds)
        runs = self._runs(scale, self._planned(scale, seed, seeds))
        missing = self._missing(scale, asked, runs)
        return forecast(missing, {plan.config for plan in asked}, runs)

    def runs(self, scale: str, rows: Labels = None) -> list[Run]:
        """What is in the store of a scale's runs, each once though rows may share it.

        Args:
            scale: of the runs.
            rows: only those of the rows with these labels; all if None.

        Raises:
            ValueError: an unknown scale or row.
            RunStoreError: as for ``forecast``.
        """
        return list(self._runs(scale, self._asked(scale, 0, rows, None)).values())

    def _asked(self, scale: str, seed: int, rows: Labels, seeds: int | None) -> list[Plan]:
        """Those of the planned runs that were asked for."""
        meaning = self.scale(scale)
        known = [row.label for row in self.rows_at(scale)]
        if isinstance(rows, str) or not isinstance(rows, Collection | None):
            raise ValueError(f"rows must be a list of labels, got {rows!r}")
        wanted = known if rows is None else list(rows)
        if unknown := [label for label in wanted if label not in known]:
            raise ValueError(
                f"unknown row {unknown[0]!r} of {self.name} at scale {scale}, "
                f"allowed: {', '.join(known)}"
            )
        check_seeds(seed, seeds)
        if seed > LARGEST_SEED - (seeds or meaning.seeds):
            raise ValueError(f"seed must be from 0 to {LARGEST_SEED}, got {seed}")
        return [
            plan
            for plan in self._planned(scale, seed, seeds)
            if plan.row.label in wanted and plan.seed < seed + (seeds or meaning.seeds)
        ]

    def _planned(self, scale: str, seed: int, seeds: int | None = None) -> list[Plan]:
        """The runs at a scale: each row with each of its seeds and the config."""
        meaning = self.scale(scale)
        return [
            Plan(row, seed + i, self.config(meaning, seed + i, **row.settings))
            for i in range(max(seeds or 0, meaning.seeds))
            for row in self.rows_at(scale)
            if row.seeds is None or i < row.seeds
        ]

    def _summary(self, plan: Plan, run: Run) -> dict[str, Any]:
        row, seed, config = plan
        prefix = f"{row.variant}." if row.variant else ""
        result = {
            name.removeprefix(prefix): value
            for name, value in run.result.items()
            if name.startswith(prefix) and "." not in name.removeprefix(prefix)
        }
        return {
            "artifact": row.artifact, "dataset": self.dataset, "model": self.model,
            "strategy": row.strategy, "optimizer": row.optimizer,
            **{column: result.pop(column, None) for column in MEASURED},
            "label": row.label, "lam": run.config["lam"], "seed": seed,
            "epochs": run.config["epochs"], "status": run.status, "seconds": run.seconds,
            "device": run.environment["device"], "revision": run.revision, **result,
            "variant": row.variant,
            **{f"config_{name}": value for name, value in asdict(config).items()},
        }  # fmt: skip


# the columns that follow those of the paper's numbers
_ABOUT_RUN = ("label", "lam", "seed", "epochs", "status", "seconds", "device", "revision")


def check_request(device: str | torch.device, jobs: int | None) -> str:
    """The name of the device, once it and the number of jobs are seen to be such.

    Raises:
        ValueError: one of them is not.
    """
    if jobs is not None:
        check("jobs", jobs, Count)
    return device_name(device)


def check_seeds(seed: int, seeds: int | None) -> None:
    """Refuse what can't be the first seed, or a number of seeds.

    Raises:
        ValueError: one of them is out of range.
    """
    check("seed", seed, Seed)
    if seeds is not None:
        check("seeds", seeds, Count)
        if seeds > MOST_SEEDS:
            raise ValueError(f"seeds must be at most {MOST_SEEDS}, got {seeds}")


def _store(scale: str) -> RunStore:
    return RunStore(results_dir() / scale / "runs")


def _history_table(made: list[tuple[Plan, Run]]) -> pd.DataFrame:
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    tables = [
        pd.DataFrame(run.history).assign(run=plan.row.label, seed=plan.seed) for plan, run in made
    ]
    return pd.concat(tables, ignore_index=True)[columns] if made else pd.DataFrame(columns=columns)
