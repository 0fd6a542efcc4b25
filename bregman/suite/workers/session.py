"""What a command shares with all that work for it, on this machine or others: a folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bregman.suite.paths import temporary_path


@dataclass(frozen=True)
class Session:
    """A folder beside the runs, there as long as its command goes on.

    A task on another machine gets no signal, but it sees the files.

    Attributes:
        folder: with a file ``go``, whose absence stops the runs, and a file per run with one byte
            for each finished epoch.
    """

    folder: Path

    @classmethod
    @contextmanager
    def opened(cls, beside: Path) -> Iterator["Session"]:
        """A session in a folder; its end stops whatever still works for it."""
        session = cls(temporary_path(beside / "session"))
        session.folder.mkdir()
        session._go.touch()
        try:
            yield session
        finally:
            session.stop()
            shutil.rmtree(session.folder, ignore_errors=True)

    @property
    def _go(self) -> Path:
        return self.folder / "go"

    def stop(self) -> None:
        """Have the runs stop at their next batch."""
        self._go.unlink(missing_ok=True)

    def stopped(self) -> bool:
        """Whether the runs are to stop."""
        try:
            # opened: to look whether it exists would be answered from a cache of a network's folder
            self._go.open().close()
        except OSError:
            return True
        return False

    def count_epoch(self, run: str) -> None:
        """Note that a run finished an epoch."""
        with suppress(OSError), (self.folder / run).open("ab") as file:
            file.write(b".")

    def epochs(self) -> int:
        """How many epochs were finished since the session began."""
        return sum(path.stat().st_size for path in self.folder.iterdir())
