"""Makes runs that are missing: one by one, several at once, or on a cluster."""

import sys
import textwrap
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch

from bregman.suite import stopping
from bregman.suite.checkpoints import CheckpointError
from bregman.suite.data import DataError
from bregman.suite.runs import RunBusyError, RunStore, RunStoreError, Train, run_name
from bregman.suite.workers import executors
from bregman.suite.workers.executors import GRACE_S, cpu_count
from bregman.suite.workers.progress import progress
from bregman.suite.workers.session import Session

__all__ = ["check_cluster", "check_device", "cpu_count", "device_name", "make_missing"]

_POLL_S = 0.2
# these say all that there is to say; of others the traceback is shown
_FORESEEN = (ValueError, DataError, RunStoreError, CheckpointError)


class _Report(NamedTuple):
    """What became of a run: "made", "busy" elsewhere, "stopped" or "failed", and why."""

    status: str
    reason: str = ""


def device_name(device: str | torch.device) -> str:
    """The name of a device, which need not be of this machine.

    Raises:
        ValueError: it is no device.
    """
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError("it is neither a name nor a torch.device")
        return str(torch.device(device))
    except Exception as error:
        raise _no_device(device, error) from error


def check_device(device: str) -> None:
    """Raise ValueError when nothing can be computed on a device."""
    try:
        (torch.ones(2, device=device) + 1).tolist()
    except Exception as error:  # each device has errors of its own
        raise _no_device(device, error) from error


def check_cluster(address: str) -> None:
    """Raise ValueError when no Dask scheduler answers at an address."""
    with executors.opened(1, address):
        pass


def _no_device(device: Any, error: Exception) -> ValueError:
    # of some devices torch tells pages
    reason = textwrap.shorten(str(error).partition("\n")[0] or type(error).__name__, 150)
    return ValueError(
        f"device {device!r} can't be used here ({reason}); "
        "allowed: 'cpu', or 'cuda' on a machine with a GPU"
    )


def make_missing(
    name: str,
    store: RunStore,
    configs: Iterable[Any],
    train: Train,
    device: str,
    jobs: int,
    *,
    revision: int | str = 1,
    cluster: str | None = None,
) -> list[str]:
    """Make the runs that a store does not have yet, with a progress bar.

    Args:
        name: of the experiment, for the bar.
        store: of the runs; on a cluster its folder is one that all machines share.
        configs: of the runs; some may be equal.
        train: makes one run.
        device: what the runs are made on.
        jobs: runs at once; one is made in this process.
        revision: of the experiment.
        cluster: the address of a Dask scheduler, whose workers make the runs instead.

    Returns:
        A line for each run that failed; each was printed at once, and the others went on.

    Raises:
        RunStoreError: a stored run can't be read.
        ValueError: the cluster can't be used.
        Stopped: Ctrl-C, a notebook's stop button or SIGTERM; what ran has its checkpoint, and
            what waited was not begun.
    """
    # rows may share a run
    missing = list(dict.fromkeys(config for config in configs if store.get(config) is None))
    if not missing:
        return []
    store.tidy()
    jobs = min(jobs, len(missing))
    with (
        stopping.signals_noted() as asked,
        Session.opened(store.folder) as session,
        progress(name, sum(config.epochs for config in missing)) as bar,
        executors.opened(jobs, cluster) as pool,
    ):
        task = partial(_make, store, train, device, revision, session)
        waiting, running = deque(missing), dict[Future[_Report], Any]()
        deaths, failures = Counter[Any](), list[str]()

        def failed(config: Any, reason: str) -> None:
            bar.write(f"  failed: {run_name(config)}: {reason}", file=sys.stderr)
            failures.append(f"{run_name(config)}: {reason.strip().splitlines()[-1]}")

        while waiting or running:
            if asked.is_set():
                session.stop()
                wait(running, timeout=GRACE_S)
                raise stopping.Stopped
            died: list[Any] = []
            while waiting and len(running) < pool.slots() and not died:
                config = waiting.popleft()
                try:
                    running[pool.submit(task, config)] = config
                except BrokenExecutor:
                    died.append(config)
            done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            bar.update(session.epochs() - bar.n)
            for future in done:
                config = running.pop(future)
                try:
                    status, reason = future.result()
                except BrokenExecutor:
                    died.append(config)
                    continue
                except Exception as error:  # it could not be sent there, or its machine is lost
                    status, reason = "failed", f"{type(error).__name__}: {error}"
                if status == "made" and store.get(config) is None:
                    status = "failed"
                    reason = f"it is not in {store.folder}: the workers must share this folder"
                if status == "failed":
                    failed(config, reason)
                elif status != "made":
                    waiting.append(config)
            if died:
                # one process takes its pool along: what ran there goes on from its checkpoints
                died += running.values()
                running.clear()
                pool.renew()
                deaths.update(died)
                for config in died:
                    if deaths[config] < 2:
                        waiting.append(config)
                    else:
                        failed(config, "its process was killed twice; is there enough memory?")
    return failures


def _make(
    store: RunStore, train: Train, device: str, revision: int | str, session: Session, config: Any
) -> _Report:
    """Make one run, in whatever thread, process or machine this is."""

    def asked() -> bool:
        return executors.leaving() or session.stopped()

    def count(epoch: int) -> None:
        session.count_epoch(run_name(config))

    try:
        with _one_thread(), stopping.stopped_by(asked):
            stopping.check()
            store.make(config, train, device, count, revision)
    except RunBusyError:
        time.sleep(_POLL_S)
        return _Report("busy")
    except stopping.Stopped:
        return _Report("stopped")
    except _FORESEEN as error:
        return _Report("failed", str(error))
    except Exception:  # the others go on
        return _Report("failed", traceback.format_exc())
    return _Report("made")


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread; and no denormal numbers, to which moments of dead neurons decay.

    Adam on the autoencoder takes twice as long with them. Both hold for the calling thread.
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
