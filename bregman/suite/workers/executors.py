"""Where runs are made: in a thread, in processes of this machine, or on a Dask cluster.

Each is a ``concurrent.futures.Executor``; the command keeps the queue, so nothing waits in there.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import connection
from pathlib import Path
from typing import Any

# a run that was told to stop has that long to finish its batch and write its checkpoint
GRACE_S = 3.5

_CGROUP = Path("/sys/fs/cgroup")

_leaving = threading.Event()


class Pool:
    """An executor, how much it takes at once, and how to end what does not stop by itself."""

    def __init__(self, make: Callable[[], Executor], slots: Callable[[], int]) -> None:
        self._make, self.slots = make, slots
        self.executor = make()

    def submit(self, task: Callable[..., Any], config: Any) -> Future[Any]:
        """Start a task."""
        with _signals_blocked():
            return self.executor.submit(task, config)

    def end(self) -> None:
        """Kill the processes of this machine, if there are any; a cluster looks after its own."""
        # public from Python 3.14 on, as kill_workers
        for process in list((getattr(self.executor, "_processes", None) or {}).values()):
            process.kill()
        self.executor.shutdown(wait=False, cancel_futures=True)

    def renew(self) -> None:
        """Start anew after a process died."""
        self.end()
        self.executor = self._make()


@contextlib.contextmanager
def opened(jobs: int, cluster: str | None) -> Iterator[Pool]:
    """A pool to make runs with.

    Args:
        jobs: runs at once; one is made in a thread of this process.
        cluster: the address of a Dask scheduler instead.

    Raises:
        ValueError: no scheduler answers there, or Dask is not installed.
    """
    if cluster is not None:
        with _client(cluster) as client:
            yield Pool(
                lambda: client.get_executor(pure=False),
                lambda: max(1, sum(client.nthreads().values())),
            )
        return
    pool = Pool(InThread if jobs == 1 else lambda: _processes(jobs), lambda: jobs)
    try:
        yield pool
    except BaseException:
        pool.end()
        raise
    pool.executor.shutdown()


class InThread(Executor):
    """Runs each task in a thread of its own, so that this one is free to take signals."""

    NAME = "bregman-run"

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a task at once."""
        future: Future[Any] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name=self.NAME, daemon=True).start()
        return future


def _processes(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker)


def _start_worker() -> None:
    # Ctrl-C reaches every process of a terminal: the command takes it, and tells the workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: _leave())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    # a pipe whose other end the parent holds: readable once it is dead, by whatever signal
    connection.wait([parent.sentinel])
    _leave()


def _leave() -> None:
    _leaving.set()
    timer = threading.Timer(GRACE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def leaving() -> bool:
    """Whether this worker is to end: its parent died, or it was sent a SIGTERM."""
    return _leaving.is_set()


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals wait, here and in a process that is started meanwhile, until it is ready for them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ValueError(
            "a cluster needs Dask, which is not installed: pip install 'dask[distributed]'"
        ) from error
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no Dask scheduler answers at {address!r} ({reason})") from error
    with client:
        yield client


def cpu_count() -> int:
    """As many CPUs as this process may use: by affinity, and by the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _quota())))


def _quota() -> float:
    """CPUs that the control group may use, version 2 and then 1; infinite where there is no limit.

    A container sees its own group at the root.
    """
    with contextlib.suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (
            (_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return math.inf if int(quota) < 0 else int(quota) / int(period)
    return math.inf
