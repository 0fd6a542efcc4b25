"""Where data, results and figures live: absolute paths, in one place."""

import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"

_DAY_S = 86_400


def _folder(variable: str, default: Path) -> Path:
    path = os.environ.get(variable) or default
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"{variable} must be a folder whose home directory is known, got {str(path)!r}"
        ) from error


def _here() -> Path:
    # an installed package keeps nothing of its user's in site-packages
    return ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()


def results_dir() -> Path:
    """Give the folder of what the runs measured: BREGMAN_RESULTS, or `results` in the project."""
    return _folder("BREGMAN_RESULTS", _here() / "results")


def figures_dir() -> Path:
    """Give the folder of what the notebooks drew: BREGMAN_FIGURES, or `figures` in the project."""
    return _folder("BREGMAN_FIGURES", _here() / "figures")


def data_dir() -> Path:
    """Give the cache folder of the data sets: BREGMAN_DATA, or `bregman` in the user's cache."""
    if os.environ.get("BREGMAN_DATA"):  # where the home is unknown as well
        return _folder("BREGMAN_DATA", Path())
    return _folder("XDG_CACHE_HOME", Path("~/.cache")) / "bregman"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file atomically: to the yielded temporary path, which then takes the file's place.

    Args:
        path: the file to write; its folder is made. When the block fails, it stays as it was.

    Raises:
        OSError: the folder or the file can't be written; it names the file.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        # a full disk names no file, and nobody knows the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # what is in the way was said above
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Give a name beside a path that no other thread, process or machine uses."""
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def remove_debris(folder: Path) -> None:
    """Remove what stands under temporary names of dead processes, or of other machines for a day.

    Args:
        folder: not searched deeper.
    """
    for path in folder.glob(".*.tmp"):
        words = path.name.split(".")
        with suppress(IndexError, OSError):  # not of our making, or another process was faster
            ours = words[-4] == _host() and words[-3].isdecimal()
            dead = ours and not _runs(int(words[-3]))
            if dead or (not ours and time.time() - path.stat().st_mtime > _DAY_S):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder and what is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _host() -> str:
    return re.sub(r"\W", "-", socket.gethostname())


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):  # a number that no process can have
        return False
    except OSError:
        pass  # of another user
    return True


def _sync(path: Path) -> None:
    """Have the disk hold a file or a folder before anything that follows."""
    if os.name == "posix":  # elsewhere a folder can't be opened
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
