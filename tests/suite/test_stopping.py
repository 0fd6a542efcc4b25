"""Real signals: what runs ends with a checkpoint, what waits is dropped, nothing goes on alone."""

import hashlib
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bregman.suite.stopping import GO_ON

FOREVER = 1_000_000
PATIENCE_S = 300


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


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("smoke/runs/*.ckpt"))


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
    assert not alive(command.pid)
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
