"""Draw the figures of stored runs anew: the cells of the notebooks in this process, no Jupyter."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import matplotlib.pyplot as plt
import torch

from bregman.suite.notebooks import NotebookError


def redraw(path: Path, scale: str, seed: int = 0) -> None:
    """Run the code of a notebook, which writes its figures and tables and asserts its findings.

    Args:
        path: the notebook; its file stays as it is.
        scale: at which the runs are in the store, so that none has to be made.
        seed: likewise.

    Raises:
        NotebookError: a cell failed.
    """
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {"display": print}
    with _headless():
        for count, cell in enumerate(cells, start=1):
            try:
                exec(compile("".join(cell["source"]), f"{path.stem} [{count}]", "exec"), names)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise NotebookError(f"{path.name}, cell {count}: {reason}") from error
            if "parameters" in cell["metadata"].get("tags", []):
                names |= {"scale": scale, "seed": seed}


@contextmanager
def _headless() -> Iterator[None]:
    """No windows, no tables on the terminal, and nothing left for the next notebook."""
    backend, dtype, threads = plt.get_backend(), torch.get_default_dtype(), torch.get_num_threads()
    plt.switch_backend("agg")
    try:
        with redirect_stdout(io.StringIO()), catch_warnings(), plt.rc_context():
            yield
    finally:
        plt.close("all")
        plt.switch_backend(backend)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
