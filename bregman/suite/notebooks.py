"""The numbered notebooks: found, checked and executed with papermill."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bregman.suite.paths import NOTEBOOKS, results_dir


class NotebookError(RuntimeError):
    """A cell of a notebook failed."""


def find(names: list[str] | None = None) -> dict[str, Path]:
    """The notebooks of some names, all if there are none, in the order of their numbers.

    Args:
        names: with or without the number, such as "mnist_comparison" or "05_mnist_comparison".

    Returns:
        From the name without its number to the notebook's path.

    Raises:
        ValueError: an unknown name.
    """
    paths = {path.stem[3:]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
    aliases = {path.stem: name for name, path in paths.items()} | {name: name for name in paths}
    wanted = {aliases.get(name, name) for name in names or paths}
    if unknown := wanted - set(paths):
        raise ValueError(f"unknown notebook {sorted(unknown)[0]!r}, allowed: {', '.join(paths)}")
    return {name: path for name, path in paths.items() if name in wanted}


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
        output: where the executed notebook goes.
        parameters: values for names of the notebook's ``parameters`` cell.

    Raises:
        ValueError: the notebook has no parameter of a name.
        NotebookError: a cell failed; the executed notebook shows where.
    """
    import papermill

    check_parameters(path, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # a dependency's deprecation is no message for the person who runs this
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            papermill.execute_notebook(
                str(path),
                str(output),
                dict(parameters),
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
            )
        except papermill.PapermillExecutionError as error:
            raise NotebookError(
                f"{path.name}, cell {error.exec_count}: {error.ename}: {error.evalue}; see {output}"
            ) from error
        finally:
            _forget_machine(output)


def _forget_machine(output: Path) -> None:
    import nbformat

    # papermill notes absolute paths and timings: none of the reader's business
    notebook = nbformat.read(output, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
    nbformat.write(notebook, output)


def output_path(path: Path, scale: str) -> Path:
    """Where the executed notebook of a scale goes."""
    return results_dir() / scale / path.name
