"""How runs are told to stop: a signal sets a flag, and what trains looks at it between batches."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

GO_ON = "stopped; what was finished is kept, run the same command or cell again to go on"


class Stopped(KeyboardInterrupt):  # no error: what was asked for
    """A training was told to stop, and its checkpoint is written."""

    def __init__(self, message: str = GO_ON) -> None:
        super().__init__(message)

    def _render_traceback_(self) -> list[str]:
        # Jupyter shows this in place of a traceback
        return [str(self)]


_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=lambda: False)


@contextlib.contextmanager
def stopped_by(asked: Callable[[], bool]) -> Iterator[None]:
    """Let ``check`` ask this function, in this thread and until the block ends."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def check() -> None:
    """Raise Stopped where this thread was told to stop."""
    if _asked.get()():
        raise Stopped


@contextlib.contextmanager
def signals_noted() -> Iterator[threading.Event]:
    """Let Ctrl-C, a notebook's stop button and SIGTERM set the yielded event, and nothing more.

    A second Ctrl-C is a KeyboardInterrupt as ever. Python takes signals in the main thread only:
    elsewhere nothing changes.
    """
    asked = threading.Event()

    def note(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
