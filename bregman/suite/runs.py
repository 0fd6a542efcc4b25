"""The run store: a training run is named by its config, made once, and believed only if whole."""

import contextlib
import dataclasses
import hashlib
import io
import json
import tempfile
import typing
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from bregman.suite.checkpoints import Checkpoint, differences
from bregman.suite.paths import remove, remove_debris, replacing
from bregman.suite.provenance import environment
from bregman.suite.training import Record, Training

FORMAT = 1

# (config, device, the checkpoint for ``fit``, called after each epoch) -> what was measured
Train = Callable[[Any, str, Checkpoint, Callable[[int], None]], "Outcome"]


class RunStoreError(RuntimeError):
    """A stored run can't be read or written."""


class RunBusyError(RuntimeError):
    """Another process, maybe on another machine, is making the run."""


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
    """A stored run.

    Attributes:
        config: all fields, those at their defaults too.
        status: "finished" or "diverged".
        seconds: wall time of the training.
        result: the numbers of the finished model.
        history: of ``fit``.
        environment: what made it.
        arrays: the SHA-256 sum of the file of arrays beside it, None if there is none.
        revision: of the experiment that made it.
    """

    config: dict[str, Any]
    status: str
    seconds: float
    result: dict[str, float | None]
    history: list[Record]
    environment: dict[str, Any]
    arrays: str | None = None
    revision: int | str = 1


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
            RunStoreError: its file can't be read, is damaged, of another version or of another
                config.
        """
        path = self.path(config)
        anew = "delete it to make the run anew"
        try:
            stored = json.loads(path.read_bytes())
            # before anything is built of it: another format may have other fields
            if (version := stored.pop("format")) != FORMAT:
                raise RunStoreError(
                    f"{path} is not of format {FORMAT}, which this version reads; "
                    "move it away to make the run anew"
                )
            found = stored.pop("sum", None)
            run = Run(**{**stored, "history": _records(stored["history"])})
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunStoreError(f"{path} can't be read ({error.strerror}); {anew}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunStoreError(f"{path} is damaged ({reason}); {anew}") from error
        if found is None:
            raise RunStoreError(
                f"{path} has no sum, as before sums were stored; "
                "scripts/add_sums.py gives it one, if you trust the file"
            )
        if found != sum_of({"format": version, **stored}):
            raise RunStoreError(f"{path} is damaged (its sum is wrong); {anew}")
        if different := _differences(run.config, config):
            raise RunStoreError(
                f"{path} is of another config: {'; '.join(different[:5])}; move it away"
            )
        _check_whole(run, path)
        return run

    def make(
        self,
        config: Any,
        train: Train,
        device: str = "cpu",
        on_epoch: Callable[[int], None] = lambda epoch: None,
        revision: int | str = 1,
    ) -> Run:
        """Answer from the store, or make the run, going on from its checkpoint if there is one.

        Args:
            config: a frozen dataclass of plain numbers and strings: all that decides the outcome.
            train: makes the run.
            device: where; recorded, but no part of the config.
            on_epoch: called with the number of each finished epoch.
            revision: of the experiment; recorded, and a checkpoint of another one is refused.

        Returns:
            The run; its status is "finished" or "diverged".

        Raises:
            RunStoreError: the stored run can't be read, or the new one can't be written.
            RunBusyError: the run is being made by another process, on any machine.
            CheckpointError: its checkpoint can't be used.
        """
        if (run := self.get(config)) is not None:
            return run
        lock = FileLock(self._beside(config, "lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusyError(f"{lock.lock_file} is held: the run is being made") from None
        except OSError as error:
            raise RunStoreError(
                f"{lock.lock_file} can't be locked ({error.strerror}); is the folder yours?"
            ) from error
        try:
            # nobody else writes this run: what stands under temporary names is of one that died,
            # even if its process still seems to run
            for path in self.folder.glob(f".{run_name(config)}.*.tmp"):
                with contextlib.suppress(OSError):  # it is not in the way
                    remove(path)
            # another process may just have finished it
            if (run := self.get(config)) is None:
                identity = {
                    "run": type(config).__name__,
                    "config": plain(config),
                    "revision": revision,
                }
                checkpoint = Checkpoint(self._beside(config, "ckpt"), identity)
                outcome = train(config, device, checkpoint, on_epoch)
                run = self._write(config, outcome, environment(device), revision)
                checkpoint.path.unlink(missing_ok=True)
        finally:
            # whoever opened the file meanwhile sees that it is gone, and makes another
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
        return run

    def _write(
        self, config: Any, outcome: Outcome, made_by: dict[str, Any], revision: int | str
    ) -> Run:
        training = outcome.training
        packed = _pack({**training.snapshots, **outcome.arrays})
        run = Run(
            config=plain(config),
            status="diverged" if training.diverged else "finished",
            seconds=round(training.seconds, 2),
            result=outcome.result,
            history=training.history,
            environment={**made_by, "starts": training.starts},
            arrays=hashlib.sha256(packed).hexdigest() if packed else None,
            revision=revision,
        )
        stored = {"format": FORMAT, **vars(run), "history": _columns(run.history)}
        # as it will be read: tensors and the like become numbers
        stored = json.loads(json.dumps(stored, default=float))
        try:
            if packed:
                with replacing(self._beside(config, "npz")) as temporary:
                    temporary.write_bytes(packed)
            # last: a run counts as made from here on
            with replacing(self.path(config)) as temporary:
                temporary.write_text(json.dumps({**stored, "sum": sum_of(stored)}) + "\n")
        except OSError as error:
            raise RunStoreError(
                f"{error.filename} can't be written ({error.strerror}); the last "
                "checkpoint is kept: make room, then run the same command again"
            ) from error
        return run

    def arrays(self, config: Any) -> dict[str, np.ndarray]:
        """The arrays of a stored run, by name; empty when it kept none.

        Raises:
            RunStoreError: their file is lost, damaged or of another run.
        """
        run = self.get(config)
        if run is None or run.arrays is None:
            return {}
        path = self._beside(config, "npz")
        anew = f"delete {self.path(config).name} beside it to make the run anew"
        try:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != run.arrays:
                raise RunStoreError(f"{path} is damaged (its sum is wrong); {anew}")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return dict(stored)
        except FileNotFoundError:
            raise RunStoreError(f"{path} is lost; {anew}") from None
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunStoreError(f"{path} can't be read ({reason}); {anew}") from error

    def tidy(self) -> None:
        """Remove what dead processes left behind, and checkpoints of runs that are made."""
        remove_debris(self.folder)
        for path in [*self.folder.glob("*.ckpt"), *self.folder.glob("*.lock")]:
            if path.with_suffix(".json").exists():
                with contextlib.suppress(OSError):  # of another user
                    path.unlink(missing_ok=True)

    def path(self, config: Any) -> Path:
        """The file of a config's run."""
        return self._beside(config, "json")

    def _beside(self, config: Any, suffix: str) -> Path:
        return self.folder / f"{run_name(config)}.{suffix}"


def run_name(config: Any) -> str:
    """A readable, unique name for a config: some of its words, then a hash of all of it.

    What stands at its default is left out of the hash, so a setting that is added later, with the
    default that was in force before, does not rename the runs made without it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    fields = plain(config)
    set_apart = {name: value for name, value in fields.items() if value != defaults[name]}
    text = json.dumps([type(config).__name__, set_apart], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    words = [str(fields[key]) for key in ("dataset", "optimizer") if key in fields]
    return "-".join([*words, f"seed{fields['seed']}", digest])


def plain(config: Any) -> dict[str, Any]:
    """The fields of a config; a whole number is a float where floats are meant, and none else."""
    types = typing.get_type_hints(type(config))

    def exact(name: str, value: Any) -> Any:
        meant = {types[name], *typing.get_args(types[name])}
        if type(value) is int and float in meant and int not in meant:
            return float(value)
        if type(value) is float and value.is_integer() and int in meant and float not in meant:
            return int(value)
        return value

    return {name: exact(name, value) for name, value in dataclasses.asdict(config).items()}


def sum_of(stored: dict[str, Any]) -> str:
    """The SHA-256 sum of what a run file says, apart from its sum."""
    rest = {name: value for name, value in stored.items() if name != "sum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _differences(stored: dict[str, Any], config: Any) -> list[str]:
    asked = json.loads(json.dumps(plain(config)))
    # a setting that was added later stood at its default before there was a choice
    defaults = {f.name: f.default for f in dataclasses.fields(config) if f.name not in stored}
    added = {name for name, default in defaults.items() if asked[name] == default}
    return list(differences(stored, {k: v for k, v in asked.items() if k not in added}))


def _check_whole(run: Run, path: Path) -> None:
    if run.status not in ("finished", "diverged"):
        raise RunStoreError(f"{path} has the status {run.status!r}; delete it to make the run anew")
    epochs = run.config.get("epochs")
    last = max((record.epoch for record in run.history), default=0)
    if epochs is not None and (last > epochs or (run.status == "finished" and last < epochs)):
        raise RunStoreError(
            f"{path} ends at epoch {last} of {epochs}; delete it to make the run anew"
        )


def _pack(arrays: dict[str, Tensor]) -> bytes:
    """What ``np.savez_compressed`` writes, with any names."""
    if not arrays:
        return b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, tensor in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, tensor.numpy(force=True), allow_pickle=False)
    return buffer.getvalue()


def _columns(history: list[Record]) -> dict[str, list[float | None]]:
    # one list per split and metric, indexed by epoch: small files, short diffs
    columns: dict[str, list[float | None]] = {}
    for record in history:
        column = columns.setdefault(f"{record.split} {record.metric}", [])
        if record.epoch < len(column) or " " in record.split:
            raise RunStoreError(f"{record} can't be stored: its epoch is recorded, or a bad split")
        column += [None] * (record.epoch - len(column)) + [record.value]
    return columns


def _records(columns: dict[str, list[float | None]]) -> list[Record]:
    return [
        Record(epoch, split, metric, value)
        for key, column in columns.items()
        for split, metric in (key.split(" ", 1),)
        for epoch, value in enumerate(column)
        if value is not None
    ]
