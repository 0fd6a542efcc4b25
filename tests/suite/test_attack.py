"""Attacks on what makes and keeps the runs: kills, cuts, flips, a full disk.

A short form runs always; ``make attack`` runs the long one.
"""

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import long_runs
import pandas as pd
import pytest
import torch
from test_stopping import alive, checkpoints, numbers, start, undisturbed, wait_until

from bregman.suite import data
from bregman.suite.checkpoints import Checkpoint, CheckpointError
from bregman.suite.data import DataError
from bregman.suite.data.sets import PARTS
from bregman.suite.experiments import tables
from bregman.suite.paths import ROOT
from bregman.suite.provenance import environment
from bregman.suite.runs import Outcome, RunStore, RunStoreError
from bregman.suite.stopping import GO_ON
from bregman.suite.training import Record, Training
from bregman.suite.workers import executors

EPOCHS = 40
SEED = 0
FORK = multiprocessing.get_context("fork")

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes")


@pytest.fixture(scope="module")
def figure() -> Iterator[Callable[[str, str, str, float], None]]:
    """Keeps what an attack measured for docs/running.md, in benchmarks/attack.csv."""
    rows = []
    yield lambda *row: rows.append([*row[:3], row[3], os.getloadavg()[0] / executors.cpu_count()])
    if not rows:
        return
    path = ROOT / "benchmarks" / "attack.csv"
    columns = ["benchmark", "case", "metric", "value", "processes in line per CPU"]
    table = pd.DataFrame(rows, columns=columns)
    if path.exists():
        # of an attack that was led again the old figures go
        old = pd.read_csv(path)
        again = (
            old[["benchmark", "case"]]
            .apply(tuple, axis=1)
            .isin(table[["benchmark", "case"]].apply(tuple, axis=1))
        )
        table = pd.concat([old[~again], table])
    table.round(2).to_csv(path, index=False)
    path.with_suffix(".json").write_text(json.dumps(environment("cpu"), indent=2) + "\n")


def children(parent: int) -> list[int]:
    """The workers of a command: not multiprocessing's own tracker."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[1]) == parent and b"tracker" not in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


class ForkedCommand:
    """The command, forked, and its workers as well: nothing has to be imported again."""

    def __init__(self, folder: Path, epochs: int, jobs: int) -> None:
        self.process = FORK.Process(target=command, args=(folder, epochs, jobs))
        self.process.start()
        self.pid = self.process.pid
        # it has a group of its own before anything is done to it
        wait_until(lambda: self.poll() is not None or os.getpgid(self.pid) == self.pid)

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int | None:
        self.process.join()
        return self.poll()


def command(folder: Path, epochs: int, jobs: int) -> None:
    os.setsid()
    executors._processes = lambda jobs: ProcessPoolExecutor(jobs, FORK, executors._start_worker)
    os.environ["BREGMAN_RESULTS"] = str(folder)
    long_runs.experiment(epochs).run("smoke", jobs=jobs)


@pytest.mark.parametrize(
    ("kills", "jobs", "epochs"),
    [
        (2, 2, 40),
        pytest.param(40, 2, 60, marks=pytest.mark.attack),
        pytest.param(10, 1, 60, marks=pytest.mark.attack),
    ],
)
def test_runs_that_were_killed_again_and_again_end_bit_for_bit(
    tmp_path, kills, jobs, epochs, request, figure
):
    """All processes at once, or the command alone, or one of its workers."""
    kill_again_and_again(tmp_path, kills, jobs, epochs)
    if request.node.get_closest_marker("attack"):
        figure("kill -9", f"jobs: {jobs}", "kills, all runs bitwise equal", kills)


def kill_again_and_again(tmp_path, kills, jobs, epochs):
    chance = random.Random(SEED)
    runs = tmp_path / "smoke" / "runs"
    hit = 0
    while hit < kills:
        command = ForkedCommand(tmp_path, epochs, jobs)
        before = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}

        def at_work(before=before, command=command):
            now = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}
            return now.items() - before.items() or command.poll() is not None

        with contextlib.suppress(FileNotFoundError):
            wait_until(at_work)
        time.sleep(chance.uniform(0, 0.5))
        victim = chance.choice(["all", "command", "worker"] if jobs > 1 else ["all"])
        workers = children(command.pid)
        if command.poll() is not None:
            break
        if victim == "worker" and workers:
            # the others go on, and so does its run in another process
            os.kill(chance.choice(workers), signal.SIGKILL)
            time.sleep(chance.uniform(0, 1.0))
        if victim == "command":
            command.kill()
        else:
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        hit += 1
    assert hit == kills, f"all was made after {hit} kills: more epochs are needed"
    last = ForkedCommand(tmp_path, epochs, jobs)
    assert last.wait() == 0
    wait_until(lambda: not alive(last.pid))
    assert len(list(runs.glob("*.json"))) == 4
    assert numbers(runs) == numbers(undisturbed(tmp_path / "undisturbed", epochs))
    assert {path.suffix for path in runs.iterdir()} == {"", ".json"}, "nothing is left"


@dataclass(frozen=True)
class Kind:
    """A kind of file that is read: where one is, and what reading it gives."""

    path: Path
    read: Any
    errors: tuple[type[Exception], ...]


def kinds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Kind]:
    store = RunStore(folder)
    (config, *_) = long_runs.configs(1)
    history = [Record(epoch, "train", "loss", 1 / (1 + epoch)) for epoch in range(2)]
    store.make(
        config, lambda *_: Outcome(Training(history), {"x": 1.5}, {"weights": torch.randn(50)})
    )
    checkpoint = Checkpoint(folder / "run.ckpt", {"config": {"lam": 0.1}})
    checkpoint.save({"weights": torch.randn(50)})
    package = folder / "package"
    (package / "mini").mkdir(parents=True)
    mini, reference = package / "mini" / "mnist.npz", folder / "paper_reference.csv"
    shutil.copy(Path(data.__file__).parents[1] / "mini" / "mnist.npz", mini)
    shutil.copy(str(tables._REFERENCE), reference)
    monkeypatch.setattr(data.resources, "files", lambda name: package)
    monkeypatch.setattr(tables, "_REFERENCE", reference)
    return {
        "run": Kind(store.path(config), lambda: repr(store.get(config)), (RunStoreError,)),
        "arrays": Kind(
            store.path(config).with_suffix(".npz"),
            lambda: {k: v.tolist() for k, v in store.arrays(config).items()},
            (RunStoreError,),
        ),
        "checkpoint": Kind(
            checkpoint.path, lambda: checkpoint.load()["weights"].tolist(), (CheckpointError,)
        ),
        "mini set": Kind(
            mini,
            lambda: data.mini_sum(parts_of(data.load("mnist", mini=True))),
            (DataError,),
        ),
        "paper's numbers": Kind(reference, lambda: tables.paper_reference().to_csv(), (DataError,)),
    }


def parts_of(images: data.ImageData) -> list[Any]:
    return [getattr(images, part).byte().numpy() for part in PARTS]


@pytest.mark.parametrize("kind", ["run", "arrays", "checkpoint", "mini set", "paper's numbers"])
@pytest.mark.parametrize("times", [10, pytest.param(400, marks=pytest.mark.attack)])
def test_damage_is_told_or_harmless(kind, times, tmp_path, monkeypatch):
    """A flip that changes nothing that is read, as of white space, may pass; nothing else."""
    chance = random.Random(SEED)
    file = kinds(tmp_path, monkeypatch)[kind]
    whole, right = file.path.read_bytes(), file.read()
    told = 0
    for number in range(times):
        at = chance.randrange(len(whole))
        if number % 4 == 0:
            damaged = whole[:at]
        else:
            damaged = whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
        file.path.write_bytes(damaged)
        told += outcome(file, right)
    assert told > times // 2


def outcome(file: Kind, right: Any) -> bool:
    """Whether damage is told, with the file's name; what is read is right otherwise."""
    try:
        found = file.read()
    except file.errors as error:
        if file.path.name not in str(error):
            pytest.fail(f"no file is named: {error}")
        return True
    assert found == right
    return False


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB that gets room when asked; where mounting is not allowed, none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here; the injected errors of test_training remain")
    yield (
        folder,
        lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True),
    )
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.attack
def test_a_full_disk_is_named_and_with_room_the_runs_go_on(small_disk, tmp_path):
    folder, make_room = small_disk
    command = start(folder, EPOCHS, 2)
    _, err = command.communicate()
    assert command.returncode == 1
    assert "can't be written (No space left on device)" in err
    assert "make room" in err
    # the smallest may fit
    assert len(list(folder.rglob("*.json"))) < 4
    make_room()
    command = start(folder, EPOCHS, 2)
    _, err = command.communicate()
    assert command.returncode == 0, err
    runs = folder / "smoke" / "runs"
    assert numbers(runs) == numbers(undisturbed(tmp_path / "undisturbed", EPOCHS))


@pytest.mark.attack
@pytest.mark.parametrize("jobs", [1, 2])
def test_many_commands_at_once_make_each_run_once(tmp_path, jobs):
    commands = [start(tmp_path, 10, jobs) for _ in range(3)]
    outputs = [command.communicate() for command in commands]
    assert [command.returncode for command in commands] == [0] * 3, outputs
    runs = tmp_path / "smoke" / "runs"
    begun = (runs / "begun").read_text().split()
    assert len(begun) == len(set(begun)) == 4
    assert numbers(runs) == numbers(undisturbed(tmp_path / "undisturbed", 10))


def stop(words: list[str], folder: Path, ready: Callable[[], Any]) -> float:
    """Start the command, and Ctrl-C it when it is ready; the seconds until it is back."""
    with subprocess.Popen(
        [sys.executable, "-m", "bregman", "run", "--no-notebooks", *words],
        env={**os.environ, "BREGMAN_RESULTS": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        wait_until(lambda: ready() or command.poll() is not None)
        time.sleep(random.uniform(0, 1))
        begin = time.monotonic()
        os.killpg(command.pid, signal.SIGINT)
        _, err = command.communicate()
        took = time.monotonic() - begin
    assert command.returncode == 130, err
    assert "Traceback" not in err
    assert GO_ON in err
    wait_until(lambda: not alive(command.pid))
    return took


def trained(path: Path) -> tuple[int, int, float]:
    """Epoch and batch at which a checkpoint stands, and the seconds that it took."""
    state = torch.load(io.BytesIO(path.read_bytes()[32:]))
    return state["position"]["epoch"], state["position"]["batch"], state["result"]["seconds"]


@pytest.mark.attack
def test_how_long_two_jobs_at_quick_scale_take_to_stop(tmp_path, figure):
    """How busy the machine is decides about it, too."""

    def finished():
        counts = tmp_path.glob("quick/runs/.session*/*")
        return sum(path.stat().st_size for path in counts)

    for _ in range(4):
        before = set(checkpoints(tmp_path, "quick"))
        words = ["mnist_comparison", "--scale", "quick", "--jobs", "2"]
        # an epoch of each was finished
        took = stop(words, tmp_path, lambda: finished() >= 2)
        figure("stop", "two jobs, quick scale", "seconds until the prompt is back", took)
        now = checkpoints(tmp_path, "quick")
        assert len(now) == 2, "each has its checkpoint, and what waited was not begun"
        assert before <= set(now)
        where = [trained(path) for path in now]
        assert not list(tmp_path.rglob("*.json"))
        time.sleep(2)
        assert [trained(path) for path in checkpoints(tmp_path, "quick")] == where


@pytest.mark.attack
def test_how_long_the_full_width_network_takes_to_stop(tmp_path, figure):
    words = ["cifar10_resnet", "--scale", "paper", "--jobs", "1", "--seeds", "1", "--rows", "SGD"]
    sent = stop(words, tmp_path, lambda: checkpoints(tmp_path, "paper"))
    (path,) = checkpoints(tmp_path, "paper")
    epoch, batch, seconds = trained(path)
    assert epoch == 1
    case = "ResNet-18, full width"
    figure("stop", case, "seconds until the prompt is back", sent)
    figure("stop", case, "seconds of a batch", seconds / batch)
