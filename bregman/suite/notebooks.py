"""The numbered notebooks: found, checked and executed with papermill."""

import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bregman.suite.paths import NOTEBOOKS, replacing, results_dir


class NotebookError(RuntimeError):
    """A notebook can't be executed, or a cell of it failed."""


def find(names: list[str] | None = None) -> dict[str, Path]:
    """The notebooks of some names, all if there are none, in the order of their numbers.

    Args:
        names: with or without the number, such as "mnist_comparison" or "05_mnist_comparison".

    Returns:
        From the name without its number to the notebook's path.

    Raises:
        ValueError: an unknown name.
        NotebookError: there are none here.
    """
    if not any_here():
        raise NotebookError(
            f"there are no notebooks in {NOTEBOOKS}: they come with the source of the project, not "
            "with the installed package; clone its repository and run the command in there, or "
            "make the runs alone: bregman run --no-notebooks"
        )
    paths = {path.stem[3:]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    aliases = {path.stem: name for name, path in paths.items()} | {name: name for name in paths}
    wanted = {aliases.get(name, name) for name in names or paths}
    if unknown := wanted - set(paths):
        raise ValueError(f"unknown notebook {sorted(unknown)[0]!r}, allowed: {', '.join(paths)}")
    return {name: path for name, path in paths.items() if name in wanted}


def any_here() -> bool:
    """Whether this is the source, with notebooks, and not an installed package."""
    return any(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def check_parameters(path: Path, names: Iterable[str]) -> None:
    """Raise ValueError when a notebook lacks a parameter; papermill itself would only warn."""
    import papermill

    known = papermill.inspect_notebook(str(path))
    if unknown := set(names) - set(known):
        raise ValueError(
            f"{path.name} has no parameter {sorted(unknown)[0]!r}, allowed: {', '.join(known)}"
        )


def execute(path: Path, output: Path, parameters: Mapping[str, Any]) -> None:
    """Execute a notebook with papermill, as a person would with Run All.

    Args:
        path: the notebook.
        output: where the executed notebook goes, once all of it was executed; what stood there
            stays until then.
        parameters: values for names of the notebook's ``parameters`` cell.

    Raises:
        ValueError: the notebook has no parameter of a name.
        NotebookError: a cell failed, or the kernel did; a notebook elsewhere shows where.
    """
    import nbformat
    import papermill

    check_parameters(path, parameters)
    # papermill writes after each cell, with absolute paths
    folder = Path(tempfile.mkdtemp(prefix="bregman-"))
    draft = folder / path.name
    try:
        with warnings.catch_warnings():
            # a dependency's deprecation is no message for the person who runs this
            warnings.simplefilter("ignore", DeprecationWarning)
            papermill.execute_notebook(
                str(path),
                str(draft),
                dict(parameters),
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
            )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(
            f"{path.name}, cell {error.exec_count}: {error.ename}: {error.evalue}; see {draft}"
        ) from error
    except Exception as error:  # of the kernel, each manager has its own
        shutil.rmtree(folder, ignore_errors=True)
        reason = (str(error).splitlines() or [""])[0]
        raise NotebookError(
            f"{path.name} can't be executed ({type(error).__name__}: {reason}); does "
            "'jupyter kernelspec list' show a python3 that belongs to this environment?"
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    notebook = nbformat.read(draft, as_version=4)
    shutil.rmtree(folder, ignore_errors=True)
    for part in (notebook, *notebook.cells):
        # paths and timings: none of the reader's business
        part.metadata.pop("papermill", None)
    with replacing(output) as temporary:
        nbformat.write(notebook, temporary)


def output_path(path: Path, scale: str) -> Path:
    """Where the executed notebook of a scale goes."""
    return results_dir() / scale / path.name
