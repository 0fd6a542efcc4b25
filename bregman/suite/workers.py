"""Makes runs that are missing: one by one, or several at once in processes of their own."""

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook as NotebookBar
from tqdm.std import tqdm as StandardBar

from bregman.suite.runs import Run, RunStore, Train

# in a worker process: the queue through which it reports each finished epoch
_finished_epochs: Any = None


def check_device(device: str) -> None:
    """Raise ValueError when nothing can be computed on a device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} can't be used here ({str(error).splitlines()[0]}); "
            "allowed: 'cpu', or 'cuda' on a machine with a GPU"
        ) from error


def make_missing(
    name: str, store: RunStore, configs: Iterable[Any], train: Train, device: str, jobs: int
) -> None:
    """Make the runs that a store does not have yet, with a progress bar.

    Args:
        name: of the experiment, for the bar.
        store: of the runs.
        configs: of the runs; some may be equal.
        train: makes one run.
        device: what the runs are made on.
        jobs: runs at once; one is made in this process.

    Raises:
        RunStoreError: a run can't be read or written.
    """
    # rows may share a run
    missing = list(dict.fromkeys(config for config in configs if store.get(config) is None))
    if not missing:
        return
    with _progress(name, sum(config.epochs for config in missing)) as bar:
        make = partial(store.make, train=train, device=device)
        if jobs == 1:
            with _as_in_worker():
                for config in missing:
                    make(config, on_epoch=lambda epoch: bar.update())
        else:
            _make_in_processes(make, missing, jobs, bar)


class _LogLines(StandardBar):
    """A progress bar for logs: a line now and then instead of one that is drawn over."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        return lambda line: print(line, file=file, flush=True) if line.strip() else None


def _progress(name: str, epochs: int) -> Any:
    look = {"desc": name, "total": epochs, "unit": "epoch", "smoothing": 0.05, "leave": False}
    if sys.stderr.isatty() or issubclass(tqdm, NotebookBar):
        return tqdm(**look)
    bar_format = "  {desc}: {n_fmt}/{total_fmt} epochs, {elapsed} so far, {remaining} left"
    return _LogLines(**look, mininterval=30, bar_format=bar_format)


def _make_in_processes(make: Callable[..., Run], configs: list[Any], jobs: int, bar: Any) -> None:
    context = multiprocessing.get_context("spawn")
    epochs = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, context, _start_worker, (epochs,)) as pool:
        pending = {pool.submit(_make_in_worker, make, config) for config in configs}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                while not epochs.empty():
                    bar.update(epochs.get())
                for future in done:
                    future.result()
        except BaseException:
            # what is running goes on to its end and is kept; what waits is dropped
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(epochs: Any) -> None:
    global _finished_epochs
    _finished_epochs = epochs
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _make_in_worker(make: Callable[..., Run], config: Any) -> None:
    make(config, on_epoch=lambda epoch: _finished_epochs.put(1))


@contextmanager
def _as_in_worker() -> Iterator[None]:
    """One thread; and no denormal numbers, to which moments of dead neurons decay.

    Adam on the autoencoder takes twice as long with them.
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
