"""Progress bars: drawn in a terminal and in a notebook, a line now and then in a log."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook as NotebookBar
from tqdm.std import tqdm as StandardBar


class _LogLines(StandardBar):
    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        return lambda line: print(line, file=file, flush=True) if line.strip() else None


def progress(name: str, epochs: int) -> Any:
    """A bar that counts epochs, with the time left.

    Args:
        name: in front of it.
        epochs: in all.
    """
    look = {"desc": name, "total": epochs, "unit": "epoch", "smoothing": 0.05, "leave": False}
    # no bar for what takes a second: each would stay in the notebook as a dead widget
    look["delay"] = 2
    if sys.stderr.isatty() or issubclass(tqdm, NotebookBar):
        return tqdm(**look)
    bar_format = "  {desc}: {n_fmt}/{total_fmt} epochs, {elapsed} so far, {remaining} left"
    return _LogLines(**look, mininterval=30, bar_format=bar_format)
