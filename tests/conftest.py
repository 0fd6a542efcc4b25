"""What every test shares: one thread, and the runs at smoke scale."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from bregman.suite.experiments import Results


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread: quick on tensors this small, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id) -> Path:
    """A folder that all processes of this test run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def stored(shared) -> Path:
    """A results folder with a copy of the stored runs, of the narrow and the paper's scale."""
    from bregman.suite.paths import ROOT

    results = shared / "results"
    with FileLock(shared / "stored.lock"):
        for scale in ("narrow", "paper"):
            if not (results / scale).exists():
                shutil.copytree(ROOT / "results" / scale, results / scale)
    return results


@pytest.fixture
def smoke(stored, shared, monkeypatch) -> Callable[[str], "Results"]:
    """The runs of an experiment at smoke scale with seed 0, made once for all tests."""
    from bregman.suite import experiments

    monkeypatch.setenv("BREGMAN_RESULTS", str(stored))

    def run(name: str) -> "Results":
        # several processes may want the same runs, and experiments share some
        with FileLock(shared / "smoke.lock"):
            return experiments.get(name).run("smoke")

    return run
