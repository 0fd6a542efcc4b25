"""Where data, results and figures live: absolute paths, in one place."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()


def results_dir() -> Path:
    """Give the folder of what the runs measured: BREGMAN_RESULTS, or `results` in the project."""
    return _folder("BREGMAN_RESULTS", ROOT / "results")


def figures_dir() -> Path:
    """Give the folder of what the notebooks drew: BREGMAN_FIGURES, or `figures` in the project."""
    return _folder("BREGMAN_FIGURES", ROOT / "figures")


def data_dir() -> Path:
    """Give the cache folder of the data sets: BREGMAN_DATA, or `bregman` in the user's cache."""
    return _folder("BREGMAN_DATA", _folder("XDG_CACHE_HOME", Path("~/.cache")) / "bregman")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: to the yielded temporary path, which then takes the file's place.

    Args:
        path: the file to write; its folder is made. When the block fails, it stays as it was.

    Raises:
        OSError: the folder or the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
