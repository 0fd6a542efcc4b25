"""The ``bregman`` command: make the runs, execute the notebooks, fetch the data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
import yaml
from typer import Argument, Option

from bregman.suite import notebooks
from bregman.suite.data import NAMES, DataError, load
from bregman.suite.experiments import EXPERIMENTS, SCALE_NAMES, Results
from bregman.suite.figures import redraw
from bregman.suite.paths import figures_dir
from bregman.suite.runs import RunStoreError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command("list")
def list_notebooks() -> None:
    """List the notebooks, and what each scale means to their experiments."""
    for name, path in notebooks.find().items():
        typer.echo(path.stem)
        if name in EXPERIMENTS:
            table = EXPERIMENTS[name].scale_table().to_string()
            typer.echo("\n".join(f"    {line}" for line in table.splitlines()))


@app.command()
def fetch(
    names: Annotated[list[str] | None, Argument(help="Data sets; all if none.")] = None,
) -> None:
    """Fetch data sets into the cache, and verify them."""
    with _clear_errors():
        for name in names or NAMES:
            data = load(name)
            typer.echo(
                f"{name}: {len(data.train_images)} + {len(data.test_images)} images, verified"
            )


@app.command()
def run(
    names: Annotated[list[str] | None, Argument(help="Notebooks; all if none.")] = None,
    scale: Annotated[str, Option(help="smoke, quick, narrow or paper.")] = "quick",
    seed: Annotated[int, Option(help="The first seed.")] = 0,
    device: Annotated[str, Option(help="Where to train: cpu, cuda.")] = "cpu",
    jobs: Annotated[int | None, Option(help="Runs at once; one per core if not given.")] = None,
    rows: Annotated[
        str | None,
        Option(help="Only the runs of these rows, by label, separated by commas: 'Adam,LinBreg'."),
    ] = None,
    execute: Annotated[
        bool, Option("--notebooks/--no-notebooks", help="Without notebooks, no Jupyter is needed.")
    ] = True,
    parameter: Annotated[
        list[str] | None, Option("-p", help="NAME=VALUE, a parameter of the notebooks.")
    ] = None,
) -> None:
    """Make the runs of some notebooks, then execute the notebooks on what was measured.

    What is in the run store is not made again, so a stopped command goes on where it was.
    """
    with _clear_errors():
        if scale not in SCALE_NAMES:
            raise ValueError(f"unknown scale {scale!r}, allowed: {', '.join(SCALE_NAMES)}")
        extra = dict(_parse(word) for word in parameter or [])
        chosen = notebooks.find(names)
        labels = None if rows is None else [label.strip() for label in rows.split(",")]
        if execute:
            for path in chosen.values():
                notebooks.check_parameters(path, ["scale", "seed", *extra])
        for name, path in chosen.items():
            started = time.perf_counter()
            typer.echo(f"{path.stem}, scale {scale}")
            results = None
            if name in EXPERIMENTS:
                results = EXPERIMENTS[name].run(scale, seed, device, jobs, labels)
            if execute:
                output = notebooks.output_path(path, scale)
                notebooks.execute(path, output, {"scale": scale, "seed": seed, **extra})
                typer.echo(f"  executed notebook: {output}")
                typer.echo(f"  figures in: {figures_dir() / scale}")
            if results is not None:
                _show(results)
            typer.echo(f"  {time.perf_counter() - started:.0f} s\n")


@app.command()
def figures(
    names: Annotated[list[str] | None, Argument(help="Notebooks; all if none.")] = None,
    scale: Annotated[str, Option(help="smoke, quick, narrow or paper.")] = "paper",
    seed: Annotated[int, Option(help="The first seed.")] = 0,
) -> None:
    """Draw the figures and tables of stored runs anew, in minutes: no training, no Jupyter."""
    with _clear_errors():
        for name, path in notebooks.find(names).items():
            if name in EXPERIMENTS and scale not in EXPERIMENTS[name].scales:
                continue
            if name in EXPERIMENTS and (missing := EXPERIMENTS[name].missing(scale, seed)):
                typer.echo(f"{path.stem}: left out, {missing} runs were not made yet")
                continue
            redraw(path, scale, seed)
            typer.echo(f"{path.stem}: drawn")


def _show(results: Results) -> None:
    table = results.beside_paper()
    if not table.empty:
        lines = table.round(2).to_string(na_rep="").splitlines()
        typer.echo("\n".join(f"  {line}" for line in lines))
    diverged = results.summary.query("status == 'diverged'")
    for row in diverged.itertuples():
        typer.echo(f"  diverged (NaN loss): {row.label}, seed {row.seed}")


def _parse(word: str) -> tuple[str, Any]:
    name, separator, value = word.partition("=")
    if not separator:
        raise ValueError(f"-p must be NAME=VALUE, got {word!r}")
    return name, yaml.safe_load(value)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what went wrong in one message; the traceback is for what nobody foresaw."""
    try:
        yield
    except (ValueError, DataError, RunStoreError, notebooks.NotebookError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("\nstopped; what was finished is kept, run the same command to go on", err=True)
        raise typer.Exit(130) from None
