"""The run store: a run is made once, survives kill -9, and bad folders and files are named."""

import contextlib
import dataclasses
import hashlib
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

from bregman.suite import paths, provenance, runs
from bregman.suite.checkpoints import CheckpointError
from bregman.suite.experiments import get
from bregman.suite.runs import Outcome, RunBusyError, RunStore, RunStoreError
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


def test_what_stands_under_temporary_names_is_in_nobodys_way(tmp_path):
    store = RunStore(tmp_path)
    name = runs.run_name(Config())
    (tmp_path / f".{name}.json.elsewhere.1.abcd.tmp" / "deeper").mkdir(parents=True)
    (tmp_path / f".{name}.npz.elsewhere.1.abcd.tmp").touch()
    # a number that no process can have
    (tmp_path / f".x.json.{paths._host()}.{'9' * 21}.abcd.tmp").touch()
    store.make(Config(), Counted())
    store.tidy()
    assert not list(tmp_path.glob(".*"))


def test_a_file_of_another_version_is_named(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())
    stored = json.loads(store.path(Config()).read_text())
    # with its fields, with one more, and with none that is known
    for fields in (stored, {**stored, "machine": "x"}, {"epochs": []}):
        store.path(Config()).write_text(json.dumps({**fields, "format": 99}))
        message = "is not of format 1, which this version reads; move it away"
        with pytest.raises(RunStoreError, match=message) as told:
            store.get(Config())
        assert "damaged" not in str(told.value)
        assert "delete" not in str(told.value)


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
        checkpoint.path.write_text("state")
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
from pathlib import Path
import torch
from bregman.suite.experiments import get
from bregman.suite.runs import RunStore
from bregman.suite.training import fit

torch.set_num_threads(1)
fit.__kwdefaults__["checkpoint_seconds"] = 0.0
experiment = get("mnist_comparison")
config = experiment.config(experiment.scale("smoke"), 0, optimizer="LinBreg", lam=1e-2)
RunStore(Path(sys.argv[1])).make(config, experiment.train,
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
    resumed = RunStore(tmp_path).make(config, experiment.train, on_epoch=epochs.append)
    whole = RunStore(tmp_path / "whole").make(config, experiment.train)
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
    path = next(tmp_path.glob("*.npz"))
    whole = path.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 4]) + whole[101:]
    for content in (b"", b"PK\x03\x04 and no more", flipped, whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(RunStoreError, match=r"npz is damaged .*delete .*\.json beside"):
            store.arrays(Config())
    path.unlink()
    with pytest.raises(RunStoreError, match=r"npz is lost; delete .*\.json beside it"):
        store.arrays(Config())


def test_arrays_may_have_any_names(tmp_path):
    arrays = {"file": torch.zeros(2), "allow_pickle": torch.ones(1), "weights 0/a": torch.eye(2)}
    store = RunStore(tmp_path)
    store.make(Config(), Counted(Outcome(Training(list(HISTORY)), {}, arrays)))
    assert {k: v.tolist() for k, v in store.arrays(Config()).items()} == {
        name: tensor.tolist() for name, tensor in arrays.items()
    }


def rewritten(store, of, **changes):
    """Change what a run file says, and give it the sum of that: a forgery, or another version."""
    path = store.path(of)
    stored = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**stored, "sum": runs.sum_of(stored)}))


def test_no_changed_number_is_believed(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())
    path = store.path(Config())
    whole = path.read_bytes()
    stored, before = repr(json.loads(whole)), repr(store.get(Config()))
    random = torch.Generator().manual_seed(0)
    flips = torch.randint(len(whole), (200,), generator=random).tolist()
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in flips]
    damaged += [whole[: len(whole) * k // 7] for k in range(7)]
    damaged.append(whole.replace(b"97.5", b"98.5"))
    for content in damaged:
        path.write_bytes(content)
        message = r"\.json (is damaged|is not of format|has no sum)"
        with contextlib.suppress(ValueError):
            # a flip within white space says the same
            if repr(json.loads(content)) == stored:
                message = None
        if message is None:
            assert repr(store.get(Config())) == before
        else:
            with pytest.raises(RunStoreError, match=message):
                store.get(Config())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"optimizer": "LinBreg", "lr": 0.2, "seed": 0}}, "lr is 0.2 there, 0.1 was"),
        (
            {"config": {"optimizer": "LinBreg", "lr": 0.1, "seed": 1}},
            "seed is 1 there, 0 was asked",
        ),
        (
            {"config": {"optimizer": "LinBreg", "lr": 0.1, "seed": 0, "old": 3}},
            "old is in the file alone",
        ),
        ({"status": "running"}, "has the status 'running'"),
    ],
)
def test_a_run_of_another_config_or_status_does_not_answer(tmp_path, changes, message):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())
    rewritten(store, Config(), **changes)
    with pytest.raises(RunStoreError, match=message):
        store.get(Config())


def test_one_seeds_file_does_not_answer_for_another(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted())
    store.path(Config(seed=1)).write_bytes(store.path(Config()).read_bytes())
    with pytest.raises(RunStoreError, match="seed is 0 there, 1 was asked for; move it away"):
        store.get(Config(seed=1))


def test_a_finished_run_has_all_its_epochs(tmp_path):
    longer = dataclasses.make_dataclass(
        "Longer", [("epochs", int, 2), ("seed", int, 0)], frozen=True
    )
    store = RunStore(tmp_path)
    store.make(longer(), Counted())
    assert store.get(longer()).status == "finished"
    rewritten(store, longer(), history={"train loss": [None, 1.5]})
    with pytest.raises(RunStoreError, match="ends at epoch 1 of 2"):
        store.get(longer())
    rewritten(store, longer(), status="diverged")
    assert store.get(longer()).status == "diverged"


def test_a_default_that_changed_does_not_let_the_wrong_run_answer(tmp_path):
    def config_class(lr):
        fields = [("lr", float, lr), ("seed", int, 0)]
        return dataclasses.make_dataclass("Config", fields, frozen=True)

    before, after = config_class(0.1), config_class(0.5)
    store = RunStore(tmp_path)
    store.make(before(), Counted())
    assert store.path(before()) == store.path(after())
    with pytest.raises(RunStoreError, match=r"lr is 0\.1 there, 0\.5 was asked for; move it"):
        store.make(after(), Counted())


def test_a_field_that_was_added_at_its_default_finds_the_runs_made_without_it(tmp_path):
    fields = [(f.name, f.type, f.default) for f in dataclasses.fields(Config)]
    longer = dataclasses.make_dataclass("Config", [*fields, ("width", int, 64)], frozen=True)
    store = RunStore(tmp_path)
    run = store.make(Config(), Counted())
    assert store.get(longer()).config == run.config
    assert store.get(longer(width=16)) is None


def test_whole_numbers_and_floats_name_one_run():
    assert runs.run_name(Config(lr=1)) == runs.run_name(Config(lr=1.0))
    assert runs.run_name(Config(seed=1)) == runs.run_name(Config(seed=1.0))
    assert runs.run_name(Config(lr=1)) != runs.run_name(Config(lr=1.5))
    assert runs.plain(Config(lr=1)) == {"optimizer": "LinBreg", "lr": 1.0, "seed": 0}
    assert isinstance(runs.plain(Config(lr=1))["lr"], float)


def test_a_history_comes_back_as_it_was_whatever_the_metrics_are_called(tmp_path):
    history = [
        Record(0, "validation", "top 5 accuracy", 0.25),
        Record(2, "validation", "top 5 accuracy", 0.5),
        Record(1, "weights", "", 1.0),
    ]
    store = RunStore(tmp_path)
    store.make(Config(), Counted(Outcome(Training(history), {})))
    assert sorted(store.get(Config()).history) == sorted(history)


def test_two_records_of_one_epoch_are_refused(tmp_path):
    twice = [Record(1, "train", "loss", 1.0), Record(1, "train", "loss", 2.0)]
    with pytest.raises(RunStoreError, match=r"value=2\.0.* can't be stored: its epoch is"):
        RunStore(tmp_path).make(Config(), Counted(Outcome(Training(twice), {})))
    assert not list(tmp_path.glob("*.json"))


def test_results_may_be_tensors(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted(Outcome(Training(list(HISTORY)), {"x": torch.tensor(0.5)})))
    assert store.get(Config()).result == {"x": 0.5}


def test_a_revision_is_recorded_and_a_checkpoint_of_another_one_refused(tmp_path):
    store = RunStore(tmp_path)
    store.make(Config(), Counted(), revision=3)
    assert store.get(Config()).revision == 3

    def interrupted(config, device, checkpoint, on_epoch):
        checkpoint.save({})
        raise ZeroDivisionError

    def resumed(config, device, checkpoint, on_epoch):
        checkpoint.load()
        return outcome()

    with pytest.raises(ZeroDivisionError):
        store.make(Config(seed=1), interrupted)
    with pytest.raises(CheckpointError, match="revision is 1 there, 2 was asked for"):
        store.make(Config(seed=1), resumed, revision=2)
    # under another seed's name
    store.path(Config(seed=1)).with_suffix(".ckpt").rename(
        store.path(Config(seed=2)).with_suffix(".ckpt")
    )
    with pytest.raises(CheckpointError, match=r"config\.seed is 1 there, 2 was asked for"):
        store.make(Config(seed=2), resumed)


def test_a_run_that_is_being_made_is_not_made_twice(tmp_path):
    store = RunStore(tmp_path)

    def slow(config, device, checkpoint, on_epoch):
        with pytest.raises(RunBusyError), ThreadPoolExecutor(1) as thread:
            thread.submit(RunStore(tmp_path).make, Config(), Counted()).result()
        return outcome()

    store.make(Config(), slow)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_what_dead_processes_left_is_removed(tmp_path):
    store = RunStore(tmp_path)
    with subprocess.Popen(["true"]) as dead:
        pass
    mine = paths.temporary_path(tmp_path / "mine.json")
    theirs = [
        Path(str(mine).replace(f".{os.getpid()}.", f".{dead.pid}.").replace("mine", name))
        for name in ("theirs", "session")
    ]
    theirs[0].touch()
    (theirs[1] / "inner").mkdir(parents=True)
    elsewhere = tmp_path / ".run.json.another-machine.1.abc.tmp"
    for path in (mine, elsewhere, tmp_path / "unfinished.ckpt", tmp_path / ".odd.tmp"):
        path.touch()
    store.make(Config(), Counted())
    store.path(Config()).with_suffix(".ckpt").touch()
    store.tidy()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {
        mine.name, elsewhere.name, "unfinished.ckpt", ".odd.tmp", store.path(Config()).name
    }  # fmt: skip
    os.utime(elsewhere, (0, 0))
    store.tidy()
    assert not elsewhere.exists()


def test_what_a_killed_run_left_is_gone_when_it_is_made(tmp_path):
    # a process that was killed while it wrote lives on until the disk answers
    store = RunStore(tmp_path)
    path = store.path(Config())
    for suffix in (".json", ".ckpt", ".npz"):
        paths.temporary_path(path.with_suffix(suffix)).touch()
    store.tidy()
    assert len(list(tmp_path.iterdir())) == 3
    store.make(Config(), Counted())
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_names_differ_between_threads(tmp_path):
    assert len({paths.temporary_path(tmp_path / "x") for _ in range(1000)}) == 1000

    def write(number):
        with paths.replacing(tmp_path / "x") as temporary:
            temporary.write_text(f"{number}" * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(set((tmp_path / "x").read_text())) <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_reach_the_disk_before_they_take_their_names(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("fsync"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), rename(*names)))
    RunStore(tmp_path).make(Config(), Counted())
    assert done == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), IsADirectoryError])
def test_a_run_file_that_can_not_be_read_is_named(tmp_path, error, monkeypatch):
    store = RunStore(tmp_path)
    store.path(Config()).mkdir()
    if isinstance(error, PermissionError):

        def denied(self):
            raise error

        monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(RunStoreError, match=r"LinBreg-seed0-.*\.json can't be read \((Perm|Is a)"):
        store.get(Config())


def git(folder, *words):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_that_of_the_package_or_unknown(tmp_path, monkeypatch):
    package = tmp_path / "project" / "bregman" / "suite"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    root = tmp_path / "project"
    assert provenance._commit(root) == (None, None), "no repository"
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "another project")
    provenance._commit.cache_clear()
    assert provenance._commit(root) == (None, None), "in another one's repository"
    git(tmp_path, "add", ".")
    provenance._commit.cache_clear()
    assert provenance._commit(root) == (None, None), "even if that one keeps it"
    git(root, "init", "-q")
    git(root, "commit", "-q", "--allow-empty", "-m", "of a repository that does not hold it")
    provenance._commit.cache_clear()
    assert provenance._commit(root) == (None, None)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "its own")
    provenance._commit.cache_clear()
    # as in a hook of another repository
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    commit, changed = provenance._commit(root)
    assert len(commit) == 40
    assert changed is False
    (package / "provenance.py").write_text("changed")
    provenance._commit.cache_clear()
    assert provenance._commit(root) == (commit, True)
    monkeypatch.setenv("PATH", "")
    provenance._commit.cache_clear()
    assert provenance._commit(root) == (None, None), "no git"
    provenance._commit.cache_clear()


def test_all_stored_runs_have_the_sums_of_what_they_say():
    found = sorted(paths.ROOT.glob("results/*/runs/*.json"))
    assert len(found) >= 329
    for path in found:
        stored = json.loads(path.read_text())
        assert stored["sum"] == runs.sum_of(stored), path.name
        arrays = path.with_suffix(".npz")
        sum_of_arrays = hashlib.sha256(arrays.read_bytes()).hexdigest() if arrays.exists() else None
        assert stored["arrays"] == sum_of_arrays, path.name


def test_a_run_from_before_sums_is_refused_until_the_script_gives_it_one(tmp_path):
    store = RunStore(tmp_path)
    kept = Outcome(Training(list(HISTORY)), {}, {"x": torch.ones(2)})
    store.make(Config(), Counted(kept))
    path = store.path(Config())
    stored = json.loads(path.read_text())
    old = json.dumps({k: v for k, v in stored.items() if k not in ("sum", "arrays", "revision")})
    path.write_text(old + "\n")
    with pytest.raises(RunStoreError, match=r"has no sum.*scripts/add_sums\.py gives it one"):
        store.get(Config())
    script = [sys.executable, str(paths.ROOT / "scripts" / "add_sums.py"), str(tmp_path)]
    for count in (1, 0):
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        assert f"{count} of 1 runs were given their sums" in done.stdout
    assert path.read_text().startswith(old.removesuffix("}"))
    assert store.get(Config()).revision == 1
    assert store.arrays(Config())["x"].tolist() == [1, 1]


def test_a_field_added_with_its_old_value_as_default_renames_no_run():
    longer = dataclasses.make_dataclass(
        "Config", [*((f.name, f.type, f.default) for f in dataclasses.fields(Config)),
                   ("width", int, 64)], frozen=True,
    )  # fmt: skip
    assert runs.run_name(longer()) == runs.run_name(Config())
    assert runs.run_name(longer(width=16)) != runs.run_name(Config())
