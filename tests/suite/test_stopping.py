"""Real signals: what runs ends with a checkpoint, what waits is dropped, nothing goes on alone."""

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import long_runs
import pytest

from bregman.suite.experiments import get
from bregman.suite.runs import RunStore
from bregman.suite.stopping import GO_ON

FOREVER = 1_000_000
PATIENCE_S = 600


def start(folder: Path, epochs: int, jobs: int, *cluster: str) -> subprocess.Popen:
    """The command, in a process group of its own, as a terminal would start it."""
    script = Path(__file__).with_name("long_runs.py")
    words = [sys.executable, str(script), str(folder), str(epochs), str(jobs), *cluster]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until(holds) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def checkpoints(folder: Path, scale: str = "smoke") -> list[Path]:
    return sorted(folder.glob(f"{scale}/runs/*.ckpt"))


def alive(group: int) -> bool:
    """Whether a process of a group is still there, a zombie aside."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == group and words[0] not in "ZX":
            return True
    return False


def whole(path: Path) -> bool:
    content = path.read_bytes()
    return content[:32] == hashlib.sha256(content[32:]).digest()


pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes")


@pytest.mark.parametrize(
    ("number", "to_all", "jobs"), [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 1)]
)
def test_a_signal_stops_at_the_next_batch(tmp_path, number, to_all, jobs):
    command = start(tmp_path, FOREVER, jobs)
    wait_until(lambda: len(checkpoints(tmp_path)) == jobs)
    (os.killpg if to_all else os.kill)(command.pid, number)
    out, err = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 130
    assert out == f"{GO_ON}\n"
    assert "Traceback" not in err
    wait_until(lambda: not alive(command.pid))  # helpers of multiprocessing end after it
    runs = tmp_path / "smoke" / "runs"
    assert len(checkpoints(tmp_path)) == jobs, "what waited was not begun"
    assert all(whole(path) for path in checkpoints(tmp_path))
    assert not list(runs.glob("*.json"))
    assert not list(runs.glob(".*.tmp"))


def test_workers_end_with_their_parent_even_after_kill_9(tmp_path):
    command = start(tmp_path, FOREVER, 2)
    wait_until(lambda: len(checkpoints(tmp_path)) == 2)
    command.kill()
    command.communicate()
    wait_until(lambda: not alive(command.pid))
    assert len(checkpoints(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.json"))


def test_two_commands_at_once_make_each_run_once(tmp_path):
    commands = [start(tmp_path, 40, 1) for _ in range(2)]
    outputs = [command.communicate(timeout=PATIENCE_S) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], outputs
    runs = tmp_path / "smoke" / "runs"
    begun = (runs / "begun").read_text().split()
    assert len(begun) == len(set(begun)) == len(list(runs.glob("*.json"))) == 4
    assert {path.suffix for path in runs.iterdir()} == {"", ".json"}, "no lock, no checkpoint"


@pytest.mark.more
def test_a_cluster_makes_the_same_runs_and_stops_when_told(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        command = start(tmp_path, FOREVER, 1, address)
        wait_until(lambda: len(checkpoints(tmp_path)) == 2)
        os.killpg(command.pid, signal.SIGINT)
        out, err = command.communicate(timeout=PATIENCE_S)
        assert (command.returncode, out) == (130, f"{GO_ON}\n"), err
        # no signal reached the workers: a flag did
        with distributed.Client(address) as client:
            wait_until(lambda: not any(client.processing().values()))
        assert len(checkpoints(tmp_path)) == 2, "what waited was not begun"
        assert all(whole(path) for path in checkpoints(tmp_path))

        command = start(tmp_path / "finished", 5, 1, address)
        out, err = command.communicate(timeout=PATIENCE_S)
        assert command.returncode == 0, err
    there = tmp_path / "finished" / "smoke" / "runs"
    assert {path.suffix for path in there.iterdir()} == {"", ".json"}
    assert numbers(there) == numbers(undisturbed(tmp_path / "here", 5))


@pytest.mark.more
def test_a_cluster_survives_the_death_of_its_command_and_of_a_worker(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        command = start(tmp_path, 40, 1, address)
        wait_until(lambda: len(checkpoints(tmp_path)) == 2)
        os.killpg(command.pid, signal.SIGKILL)
        command.communicate()
        # what runs there may go on; the same command again makes the rest
        command = start(tmp_path, 40, 1, address)
        begun = tmp_path / "smoke" / "runs" / "begun"
        wait_until(lambda: len(set(begun.read_text().split())) > 2)
        with distributed.Client(address) as client:
            (worker, *_) = client.run(os.getpid).values()
        os.kill(worker, signal.SIGKILL)
        _, err = command.communicate(timeout=PATIENCE_S)
        assert command.returncode == 0, err
    there = tmp_path / "smoke" / "runs"
    assert {path.suffix for path in there.iterdir()} == {"", ".json"}
    assert numbers(there) == numbers(undisturbed(tmp_path / "here", 40))


def undisturbed(folder: Path, epochs: int) -> Path:
    """The folder of the same runs, made here at one go."""
    store = RunStore(folder)
    for config in long_runs.configs(epochs):
        store.make(config, get("mnist_comparison").train)
    return folder


def numbers(folder: Path) -> dict[str, str]:
    """All that the runs of a folder measured but the time, to the last bit."""
    stored = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {
        name: repr([run[key] for key in ("config", "status", "result", "history")])
        for name, run in stored.items()
    }


NOTEBOOK = """
import os, sys
os.environ["BREGMAN_RESULTS"] = {folder!r}
sys.path.insert(0, {here!r})
import long_runs
long_runs.experiment({epochs}).run("smoke", jobs=1)
"""


def test_the_stop_button_of_a_notebook_gives_one_sentence(tmp_path):
    manager_of = pytest.importorskip("jupyter_client").KernelManager
    manager = manager_of(kernel_name="python3")
    manager.start_kernel(env={**os.environ}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE_S)
        here = str(Path(__file__).parent)
        client.execute(NOTEBOOK.format(folder=str(tmp_path), here=here, epochs=FOREVER))
        wait_until(lambda: checkpoints(tmp_path))
        manager.interrupt_kernel()
        while True:
            try:
                message = client.get_iopub_msg(timeout=PATIENCE_S)
            except queue.Empty:
                pytest.fail("the cell never stopped")
            if message["msg_type"] == "error":
                break
        assert message["content"]["traceback"] == [GO_ON]
        assert not list(tmp_path.rglob("*.json"))
        assert len(checkpoints(tmp_path)) == 1
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
