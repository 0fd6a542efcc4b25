"""The run store: a run is made once, survives kill -9, and bad folders and files are named."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from bregman.suite import runs
from bregman.suite.experiments import get
from bregman.suite.experiments.classification import train
from bregman.suite.runs import Outcome, RunStore, RunStoreError
from bregman.suite.training import Record, Training


@dataclasses.dataclass(frozen=True)
class Config:
    optimizer: str = "LinBreg"
    lr: float = 0.1
    seed: int = 0


HISTORY = [
    Record(0, "validation", "loss", 2.3),
    Record(1, "train", "loss", 1.5),
    Record(1, "validation", "loss", float("nan")),
    Record(2, "train", "loss", 0.1 + 0.2),
    Record(2, "validation", "loss", float("inf")),
]


def outcome(diverged=False):
    return Outcome(Training(list(HISTORY), 1.25, diverged), {"val_acc_pct": 97.5, "ssim": None})


class Counted:
    """A training that counts how often it was asked for."""

    def __init__(self, result=None):
        self.calls = 0
        self.result = result or outcome()

    def __call__(self, config, device, checkpoint, on_epoch):
        self.calls += 1
        return self.result


def test_a_run_is_made_once_and_read_back_exactly(tmp_path):
    made = Counted()
    run = RunStore(tmp_path).make(Config(), made)
    again = RunStore(tmp_path).make(Config(), made)
    assert made.calls == 1
    assert repr(sorted(again.history)) == repr(sorted(HISTORY))  # repr: NaN equals NaN
    assert (again.config, again.result, again.status) == (run.config, run.result, "finished")
    assert again.environment["torch"]
    assert again.environment["threads"] >= 1


def test_every_field_of_a_config_names_another_run():
    configs = [Config(), Config(lr=0.2), Config(seed=1), Config(optimizer="SGD")]
    assert len({runs.run_name(config) for config in configs}) == 4
    assert runs.run_name(Config()) == runs.run_name(Config())


def test_a_diverged_run_is_recorded_as_diverged(tmp_path):
    store = RunStore(tmp_path)
    assert store.make(Config(), Counted(outcome(diverged=True))).status == "diverged"
    assert store.get(Config()).status == "diverged"


def test_what_was_finished_stays_when_a_later_run_fails(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())

    def broken(config, device, checkpoint, on_epoch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.make(Config(seed=1), broken)
    assert store.get(Config()) is not None
    assert store.get(Config(seed=1)) is None
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 1}', '{"format": 1, "history": 3}'])
def test_a_damaged_file_is_named(tmp_path, damage):
    store = RunStore(tmp_path)
    store.path(Config()).write_text(damage)
    with pytest.raises(RunStoreError, match=r"LinBreg-seed0-.*\.json is damaged .* delete it"):
        store.get(Config())


def test_a_file_of_another_version_is_named(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())
    stored = json.loads(store.path(Config()).read_text())
    store.path(Config()).write_text(json.dumps({**stored, "format": 99}))
    with pytest.raises(RunStoreError, match="is not of format 1, which this version reads"):
        store.get(Config())


def test_a_results_folder_that_can_not_be_written_is_found_out_first(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunStoreError, match=r"can't be written .*BREGMAN_RESULTS"):
        RunStore(tmp_path / "file" / "runs")


def test_a_results_folder_may_be_opened_by_many_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = pool.map(lambda _: RunStore(tmp_path / "runs").folder, range(400))
        assert set(folders) == {tmp_path / "runs"}
    assert not list((tmp_path / "runs").iterdir())


def test_a_full_disk_while_writing_keeps_the_checkpoint(tmp_path, monkeypatch):
    store = RunStore(tmp_path)

    def with_checkpoint(config, device, checkpoint, on_epoch):
        checkpoint.write_text("state")
        monkeypatch.setattr(Path, "write_text", full)
        return outcome()

    def full(self, text):
        raise OSError(28, "No space left on device")

    with pytest.raises(RunStoreError, match=r"No space left on device.* checkpoint is kept"):
        store.make(Config(), with_checkpoint)
    monkeypatch.undo()
    assert store.get(Config()) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".ckpt"]


KILLED = """
import sys
from functools import partial
from pathlib import Path
import torch
import bregman.suite.experiments.classification as classification
from bregman.suite.experiments import get
from bregman.suite.runs import RunStore

torch.set_num_threads(1)
classification.fit = partial(classification.fit, checkpoint_seconds=0.0)
experiment = get("mnist_comparison")
config = experiment.config(experiment.scale("smoke"), 0, optimizer="LinBreg", lam=1e-2)
RunStore(Path(sys.argv[1])).make(config, classification.train,
                                 on_epoch=lambda epoch: print(epoch, flush=True))
"""


@pytest.mark.parametrize("epochs_before", [1, 4, 7])
def test_kill_minus_9_leaves_no_trace(tmp_path, epochs_before):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(epochs_before):
        assert process.stdout.readline()
    time.sleep(0.005)  # somewhere within the next epoch, or the writing of its checkpoint
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("*.json"))
    assert list(tmp_path.glob("*.ckpt"))

    experiment = get("mnist_comparison")
    config = experiment.config(experiment.scale("smoke"), 0, optimizer="LinBreg", lam=1e-2)
    epochs = []
    resumed = RunStore(tmp_path).make(config, train, on_epoch=epochs.append)
    whole = RunStore(tmp_path / "whole").make(config, train)
    assert epochs[0] > epochs_before, "it goes on, it does not start again"
    assert sorted(resumed.history) == sorted(whole.history)
    assert resumed.result == whole.result
    assert not list(tmp_path.glob("*.ckpt"))


def test_arrays_are_kept_beside_the_numbers(tmp_path):
    training = Training(list(HISTORY), 1.25, snapshots={"weights 0": torch.eye(3)})
    kept = Outcome(training, {}, {"image": torch.arange(4, dtype=torch.uint8)})
    store = RunStore(tmp_path)
    store.make(Config(), Counted(kept))
    arrays = RunStore(tmp_path).arrays(Config())
    assert {name: (array.dtype.name, array.tolist()) for name, array in arrays.items()} == {
        "weights 0": ("float32", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        "image": ("uint8", [0, 1, 2, 3]),
    }
    store.make(Config(seed=1), Counted())
    assert store.arrays(Config(seed=1)) == {}
    next(tmp_path.glob("*.npz")).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(RunStoreError, match=r"npz is damaged .*delete it and the \.json beside it"):
        store.arrays(Config())


def test_a_field_added_with_its_old_value_as_default_renames_no_run():
    longer = dataclasses.make_dataclass(
        "Config", [*((f.name, f.type, f.default) for f in dataclasses.fields(Config)),
                   ("width", int, 64)], frozen=True,
    )  # fmt: skip
    assert runs.run_name(longer()) == runs.run_name(Config())
    assert runs.run_name(longer(width=16)) != runs.run_name(Config())
