"""The run store: a training run is named by its config, and made once."""

import dataclasses
import hashlib
import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bregman.suite.paths import replacing
from bregman.suite.provenance import environment
from bregman.suite.training import Record, Training

FORMAT = 1

# (config, device, where the checkpoint lives, called after each epoch) -> what was measured
Train = Callable[[Any, str, Path, Callable[[int], None]], "Outcome"]


class RunStoreError(RuntimeError):
    """A stored run can't be read or written."""


@dataclass(frozen=True)
class Outcome:
    """What one run produces.

    Attributes:
        training: history and time; what its snapshots hold is stored with ``arrays``.
        result: the numbers of the finished model.
        arrays: what figures need of it beyond numbers, such as images or weights, by name.
    """

    training: Training
    result: dict[str, float | None]
    arrays: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A stored run: config, history, result and the environment that made them."""

    config: dict[str, Any]
    status: str
    seconds: float
    result: dict[str, float | None]
    history: list[Record]
    environment: dict[str, Any]


class RunStore:
    """The runs in one folder, one JSON file each, named by what the config says.

    Args:
        folder: made when missing.

    Raises:
        RunStoreError: the folder can't be written, found out before any work is done.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise RunStoreError(
                f"the results folder {folder} can't be written ({error.strerror}); "
                "free it, or set BREGMAN_RESULTS to another one"
            ) from error

    def get(self, config: Any) -> Run | None:
        """The stored run of a config, None when it was not made yet.

        Raises:
            RunStoreError: its file is damaged or of another version.
        """
        path = self.path(config)
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text())
            if stored.pop("format") == FORMAT:
                return Run(**{**stored, "history": _records(stored["history"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunStoreError(
                f"{path} is damaged ({type(error).__name__}: {error}); "
                "delete it to make the run anew"
            ) from error
        raise RunStoreError(
            f"{path} is not of format {FORMAT}, which this version reads; "
            "move it away to make the run anew"
        )

    def make(
        self,
        config: Any,
        train: Train,
        device: str = "cpu",
        on_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> Run:
        """Answer from the store, or make the run, going on from its checkpoint if there is one.

        Args:
            config: a frozen dataclass of plain numbers and strings: all that decides the outcome.
            train: makes the run.
            device: where; recorded, but no part of the config.
            on_epoch: called with the number of each finished epoch.

        Returns:
            The run; its status is "finished" or "diverged".

        Raises:
            RunStoreError: the stored run can't be read, or the new one can't be written.
        """
        if (run := self.get(config)) is not None:
            return run
        path = self.path(config)
        checkpoint = path.with_suffix(".ckpt")
        try:
            outcome = train(config, device, checkpoint, on_epoch)
            run = Run(
                config=dataclasses.asdict(config),
                status="diverged" if outcome.training.diverged else "finished",
                seconds=round(outcome.training.seconds, 2),
                result=outcome.result,
                history=outcome.training.history,
                environment={**environment(device), "starts": outcome.training.starts},
            )
            if arrays := {**outcome.training.snapshots, **outcome.arrays}:
                with (
                    replacing(self._arrays_path(config)) as temporary,
                    temporary.open("wb") as file,
                ):
                    numpy = {name: tensor.numpy(force=True) for name, tensor in arrays.items()}
                    np.savez_compressed(file, allow_pickle=False, **numpy)
            # last: a run counts as made from here on
            stored = {"format": FORMAT, **vars(run), "history": _columns(run.history)}
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(stored) + "\n")
        except OSError as error:
            raise RunStoreError(
                f"{error.filename or path} can't be written ({error.strerror}); the last "
                "checkpoint is kept: make room, then run the same command again"
            ) from error
        checkpoint.unlink(missing_ok=True)
        return run

    def arrays(self, config: Any) -> dict[str, np.ndarray]:
        """The arrays of a stored run, by name; empty when it kept none.

        Raises:
            RunStoreError: their file is damaged.
        """
        path = self._arrays_path(config)
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise RunStoreError(
                f"{path} is damaged ({type(error).__name__}: {error}); delete it and the "
                ".json beside it to make the run anew"
            ) from error

    def path(self, config: Any) -> Path:
        """The file of a config's run."""
        return self.folder / f"{run_name(config)}.json"

    def _arrays_path(self, config: Any) -> Path:
        return self.path(config).with_suffix(".npz")


def run_name(config: Any) -> str:
    """A readable, unique name for a config: some of its words, then a hash of all of it.

    What stands at its default is left out of the hash, so a setting that is added later, with the
    default that was in force before, does not rename the runs made without it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    fields = dataclasses.asdict(config)
    set_apart = {name: value for name, value in fields.items() if value != defaults[name]}
    text = json.dumps([type(config).__name__, set_apart], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    words = [str(fields[key]) for key in ("dataset", "optimizer") if key in fields]
    return "-".join([*words, f"seed{fields['seed']}", digest])


def _columns(history: list[Record]) -> dict[str, list[float | None]]:
    # one list per split and metric, indexed by epoch: small files, short diffs
    columns: dict[str, list[float | None]] = {}
    for record in history:
        column = columns.setdefault(f"{record.split} {record.metric}", [])
        column += [None] * (record.epoch - len(column)) + [record.value]
    return columns


def _records(columns: dict[str, list[float | None]]) -> list[Record]:
    return [
        Record(epoch, split, metric, value)
        for key, column in columns.items()
        for split, metric in (key.split(" "),)
        for epoch, value in enumerate(column)
        if value is not None
    ]
