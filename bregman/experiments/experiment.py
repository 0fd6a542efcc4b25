"""What an experiment is, how its runs are made, and the tidy tables that come of them."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook as NotebookBar
from tqdm.std import tqdm as StandardBar

from bregman.paths import replacing, results_dir
from bregman.runs import Run, RunStore, Train

# "narrow" is between the last two, for what takes days at the paper's scale
SCALES = ("smoke", "quick", "narrow", "paper")

_REFERENCE = resources.files("bregman.experiments") / "paper_reference.csv"
_MEASURED = ("n_total_pct", "n_linear_pct", "n_conv_pct", "val_acc_pct", "test_acc_pct",
             "train_acc_pct", "ssim", "l1_norm")  # fmt: skip

# in a worker process: the queue through which it reports each finished epoch
_finished_epochs: Any = None


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
    ) -> "Results":
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
        _check_device(device)
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
        _make_missing(self, store, asked, device, jobs)
        planned = [(*plan, config) for *plan, config in planned if store.get(config) is not None]
        results = Results(
            summary=pd.DataFrame([self._summary(*plan, store) for plan in planned]).astype(
                dict.fromkeys(_MEASURED, float)
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
            **{column: result.pop(column, None) for column in _MEASURED},
            "label": row.label,
            "lam": run.config["lam"],
            "seed": seed,
            "epochs": run.config["epochs"],
            "status": run.status,
            "seconds": run.seconds,
            "device": run.environment["device"],
            **result,
        }


@dataclass(frozen=True)
class Results:
    """The tables of an experiment.

    Attributes:
        summary: one row per run, with the columns of ``paper_reference.csv`` and more.
        history: tidy; one row per run, seed, epoch, split and metric.
    """

    summary: pd.DataFrame
    history: pd.DataFrame

    def curves(self, split: str, metric: str) -> pd.DataFrame:
        """One curve per run over the epochs, averaged over the seeds.

        Raises:
            KeyError: nothing of that split and metric was recorded.
        """
        chosen = self.history.query("split == @split and metric == @metric")
        if chosen.empty:
            known = self.history[["split", "metric"]].drop_duplicates().values.tolist()
            raise KeyError(f"no {metric!r} of {split!r} was recorded, only {known}")
        order = chosen["run"].unique()
        return chosen.pivot_table(index="epoch", columns="run", values="value")[order]

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
            ["ours", "std", "paper", "difference"]
        ]


def beside_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Every number of the paper, and what runs gave that stand for it.

    Args:
        summary: one row per run, of one experiment or several.

    Returns:
        ours (the mean over the seeds), std, paper and the difference; one row per number of the
        paper (artifact, strategy, optimizer, measure) and label of runs ("run"). Where there is no
        run, that label and our number are missing.
    """
    row = ["artifact", "strategy", "optimizer"]
    ours = summary.melt([*row, "label"], _MEASURED, "measure", "value")
    ours = ours.groupby([*row, "label", "measure"], sort=False)["value"].agg(["mean", "std"])
    paper = paper_reference().melt(row, _MEASURED, "measure", "paper", ignore_index=False)
    paper = paper.dropna().sort_index(kind="stable")
    table = ours.reset_index().merge(paper, "right", on=[*row, "measure"])
    table["difference"] = table["mean"] - table["paper"]
    table = table.rename(columns={"label": "run", "mean": "ours"})
    return table.set_index([*row, "measure", "run"])


def paper_reference() -> pd.DataFrame:
    """Every number of the paper that the suite compares itself with."""
    with _REFERENCE.open() as file:
        return pd.read_csv(file)


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} can't be used here ({str(error).splitlines()[0]}); "
            "allowed: 'cpu', or 'cuda' on a machine with a GPU"
        ) from error


def _stored(store: RunStore, config: Any) -> Run:
    run = store.get(config)
    assert run is not None
    return run


def _history(label: str, seed: int, run: Run) -> pd.DataFrame:
    table = pd.DataFrame(run.history)
    table.insert(0, "run", label)
    table.insert(1, "seed", seed)
    return table


def _make_missing(
    experiment: Experiment, store: RunStore, configs: Iterable[Any], device: str, jobs: int
) -> None:
    # rows may share a run
    missing = list(dict.fromkeys(config for config in configs if store.get(config) is None))
    if not missing:
        return
    with _progress(experiment.name, sum(config.epochs for config in missing)) as bar:
        make = partial(store.make, train=experiment.train, device=device)
        if jobs == 1:
            with _as_in_worker():
                for config in missing:
                    make(config, on_epoch=lambda epoch: bar.update())
        else:
            _make_in_processes(make, missing, jobs, bar)


class _LogLines(StandardBar):
    """A progress bar for logs: a line now and then instead of one that is drawn over."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        return lambda line: print(line, file=file, flush=True) if line.strip() else None


def _progress(name: str, epochs: int) -> Any:
    look = {"desc": name, "total": epochs, "unit": "epoch", "smoothing": 0.05, "leave": False}
    if sys.stderr.isatty() or issubclass(tqdm, NotebookBar):
        return tqdm(**look)
    bar_format = "  {desc}: {n_fmt}/{total_fmt} epochs, {elapsed} so far, {remaining} left"
    return _LogLines(**look, mininterval=30, bar_format=bar_format)


def _make_in_processes(make: Callable[..., Run], configs: list[Any], jobs: int, bar: Any) -> None:
    context = multiprocessing.get_context("spawn")
    epochs = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, context, _start_worker, (epochs,)) as pool:
        pending = {pool.submit(_make_in_worker, make, config) for config in configs}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                while not epochs.empty():
                    bar.update(epochs.get())
                for future in done:
                    future.result()
        except BaseException:
            # what is running goes on to its end and is kept; what waits is dropped
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(epochs: Any) -> None:
    global _finished_epochs
    _finished_epochs = epochs
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _make_in_worker(make: Callable[..., Run], config: Any) -> None:
    make(config, on_epoch=lambda epoch: _finished_epochs.put(1))


@contextmanager
def _as_in_worker() -> Iterator[None]:
    """One thread; and no denormal numbers, to which moments of dead neurons decay.

    Adam on the autoencoder takes twice as long with them.
    """
    threads, smallest = torch.get_num_threads(), torch.tensor(torch.finfo(torch.float32).tiny)
    flushed = not smallest / 2
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)
