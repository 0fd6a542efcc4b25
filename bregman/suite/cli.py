"""The ``bregman`` command: make the runs, execute the notebooks, fetch the data."""

import json
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from bregman.suite import notebooks, stopping
from bregman.suite.checkpoints import CheckpointError
from bregman.suite.data import NAMES, DataError, ensure, load
from bregman.suite.experiments import (
    EXPERIMENTS,
    SCALE_NAMES,
    STUDIES,
    Results,
    RunsFailedError,
    get,
)
from bregman.suite.experiments.experiment import check_request, check_seeds
from bregman.suite.paths import figures_dir
from bregman.suite.runs import RunStoreError
from bregman.suite.workers import check_cluster, check_device

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

_MESSAGES = (ValueError, DataError, RunStoreError, CheckpointError, notebooks.NotebookError)


@app.command("list")
def list_notebooks() -> None:
    """List the notebooks, and what each scale means to their experiments."""
    with _clear_errors():
        for name, path in notebooks.find().items():
            typer.echo(path.stem)
            if name in EXPERIMENTS:
                table = EXPERIMENTS[name].scale_table().to_string()
                typer.echo("\n".join(f"    {line}" for line in table.splitlines()))


@app.command()
def fetch(
    names: Annotated[list[str] | None, Argument(help="Data sets; all if none.")] = None,
    apt_update: Annotated[
        bool, Option("--apt-update", help="Run 'apt-get update' before; needs root.")
    ] = False,
) -> None:
    """Fetch data sets into the cache, and verify them."""
    with _clear_errors():
        if unknown := set(names or NAMES) - set(NAMES):
            raise ValueError(f"unknown data set {min(unknown)!r}, allowed: {', '.join(NAMES)}")
        for name in names or NAMES:
            ensure(name, apt_update=apt_update)
            data = load(name)
            typer.echo(
                f"{name}: {len(data.train_images)} + {len(data.test_images)} images, verified"
            )


@app.command()
def run(
    names: Annotated[
        list[str] | None,
        Argument(help="Notebooks, all if none; or studies, which have none, with --no-notebooks."),
    ] = None,
    scale: Annotated[str, Option(help="smoke, quick, narrow or paper.")] = "quick",
    seed: Annotated[int, Option(help="The first seed.")] = 0,
    seeds: Annotated[
        int | None, Option(help="How many seeds; as many as the scale says if not given.")
    ] = None,
    device: Annotated[str, Option(help="Where to train: cpu, cuda.")] = "cpu",
    jobs: Annotated[int | None, Option(help="Runs at once; one per core if not given.")] = None,
    cluster: Annotated[
        str | None,
        Option(help="A Dask scheduler, tcp://HOST:8786, whose workers share the results folder."),
    ] = None,
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

    What is in the run store is not made again, so a stopped command goes on where it was. A run
    that fails does not keep the others from being made; the exit code is 1 then.
    """
    with _clear_errors():
        _check_scale(scale)
        check_seeds(seed, seeds)
        device = check_request(device, jobs)
        if cluster is None:
            check_device(device)
        else:
            check_cluster(cluster)
        extra = dict(_parse(word) for word in parameter or [])
        if extra and not execute:
            raise ValueError("-p sets parameters of notebooks, and --no-notebooks executes none")
        chosen = _choose(names, execute)
        if execute:
            for path in chosen.values():
                notebooks.check_parameters(path, ["scale", "seed", *extra])
        chosen, rows_of = _what_there_is(chosen, bool(names), scale, rows)
        if not execute and (without := [name for name in chosen if name not in rows_of]):
            typer.echo(f"left out, as they have no runs: {', '.join(without)}")
            chosen = {name: path for name, path in chosen.items() if name in rows_of}
        for name, of_this in rows_of.items():
            typer.echo(f"{name}: {get(name).forecast(scale, seed, of_this, seeds)}")
        failures = []
        for name, path in chosen.items():
            started = time.perf_counter()
            typer.echo(f"{path.stem}, scale {scale}")
            results = None
            try:
                if name in rows_of:
                    results = get(name).run(
                        scale, seed, device, jobs, rows_of[name], seeds, cluster, make=True
                    )
            except RunsFailedError as error:
                failures.append(f"{name}: {error}")
                continue
            if execute:
                output = notebooks.output_path(path, scale)
                notebooks.execute(path, output, {"scale": scale, "seed": seed, **extra})
                typer.echo(f"  executed notebook: {output}")
                typer.echo(f"  figures in: {figures_dir() / scale}")
            if results is not None:
                _show(results)
            typer.echo(f"  {time.perf_counter() - started:.0f} s\n")
        if failures:
            raise RunsFailedError("\n".join(failures))


def _choose(names: list[str] | None, execute: bool) -> dict[str, Path]:
    studies = [name for name in names or () if name in STUDIES]
    if studies and execute:
        raise ValueError(f"{studies[0]} has no notebook, so it needs --no-notebooks")
    if studies:
        others = [name for name in names or () if name not in studies]
        chosen = _choose(others, execute) if others else {}
        return {**chosen, **{name: Path(name) for name in studies}}
    # the runs can be made where there are no notebooks, as from an installed package
    if execute or notebooks.any_here():
        return notebooks.find(names)
    if unknown := set(names or ()) - set(EXPERIMENTS):
        allowed = ", ".join(EXPERIMENTS)
        raise ValueError(f"unknown experiment {min(unknown)!r}, allowed: {allowed}")
    return {name: Path(name) for name in EXPERIMENTS if name in (names or EXPERIMENTS)}


def _what_there_is(
    chosen: dict[str, Path], named: bool, scale: str, wanted: str | None
) -> tuple[dict[str, Path], dict[str, list[str] | None]]:
    """The notebooks that have this scale and some of these rows, and the rows of each experiment.

    What nobody named is left out with a line where it lacks them; what was named must have them.
    """
    every = EXPERIMENTS | STUDIES
    lacking = [name for name, experiment in every.items() if scale not in experiment.scales]
    if not named and lacking:
        typer.echo(f"left out, as it has no scale {scale}: all but {_others(lacking)}")
        chosen = {name: chosen[name] for name in EXPERIMENTS if name not in lacking}
    if without := [name for name in chosen if name in lacking]:
        allowed = ", ".join(every[without[0]].scales)
        raise ValueError(f"{without[0]} has no scale {scale!r}, allowed: {allowed}")
    known = {
        name: [row.label for row in every[name].rows_at(scale)] for name in chosen if name in every
    }
    if wanted is None:
        return chosen, dict.fromkeys(known)
    if not known:
        raise ValueError(f"--rows chooses runs, and there are none of {', '.join(chosen)}")
    labels = _labels(
        wanted, list(dict.fromkeys(label for rows in known.values() for label in rows))
    )
    rows = {name: [label for label in labels if label in known[name]] for name in known}
    if rest := [name for name, of_this in rows.items() if not of_this]:
        typer.echo(f"left out, as they have none of these rows: {', '.join(rest)}")
    chosen = {name: path for name, path in chosen.items() if name not in rest}
    return chosen, {name: of_this for name, of_this in rows.items() if of_this}


def _labels(wanted: str, known: list[str]) -> list[str]:
    """The labels in a list with commas; labels have commas themselves."""
    found = []
    words = [word.strip() for word in wanted.split(",")]
    while words:
        starts = (", ".join(words[:n]) for n in range(len(words), 0, -1))
        label = next((start for start in starts if start in known), None)
        if label is None:
            raise ValueError(f"unknown row {words[0]!r}, allowed: {'; '.join(known) or 'none'}")
        found.append(label)
        words = words[label.count(",") + 1 :]
    return found


def _others(names: list[str]) -> str:
    return ", ".join(name for name in EXPERIMENTS if name not in names)


@app.command()
def figures(
    names: Annotated[list[str] | None, Argument(help="Notebooks; all if none.")] = None,
    scale: Annotated[str, Option(help="smoke, quick, narrow or paper.")] = "paper",
    seed: Annotated[int, Option(help="The first seed.")] = 0,
) -> None:
    """Draw the figures and tables of stored runs anew, in minutes: no training, no Jupyter."""
    with _clear_errors():
        # here, as it asks matplotlib for a backend, which no other command needs
        from bregman.suite.figures import redraw

        _check_scale(scale)
        check_seeds(seed, None)
        chosen, rows_of = _what_there_is(notebooks.find(names), bool(names), scale, None)
        left_out = []
        for name, path in chosen.items():
            if name in rows_of and (there := EXPERIMENTS[name].forecast(scale, seed)).missing:
                command = f"bregman run {name} --scale {scale} --seed {seed} --no-notebooks"
                typer.echo(f"{path.stem}: left out, {there}: {command}")
                left_out.append(name)
                continue
            redraw(path, scale, seed)
            typer.echo(f"{path.stem}: drawn")
        if names and left_out:
            raise ValueError(f"not drawn, as runs are missing: {', '.join(left_out)}")


def _check_scale(scale: str) -> None:
    if scale not in SCALE_NAMES:
        raise ValueError(f"unknown scale {scale!r}, allowed: {', '.join(SCALE_NAMES)}")


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
    if not separator or not name:
        raise ValueError(f"-p must be NAME=VALUE, got {word!r}")
    if name in ("scale", "seed"):
        raise ValueError(f"-p must not set {name}, which has an option: --{name} {value}")
    try:
        return name, json.loads(value)
    except ValueError:
        if value[:1] in '[{"' or value[:1].isdigit():
            raise ValueError(
                f"-p {name} must be a word or JSON, such as 0.1, true or [1, 2], got {value!r}"
            ) from None
        return name, value


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what went wrong in one message; the traceback is for what nobody foresaw."""
    # as Ctrl-C, where the runs do not take both themselves
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    shown = warnings.showwarning
    warnings.showwarning = lambda message, *where: typer.echo(f"  note: {message}", err=True)
    try:
        yield
    except (*_MESSAGES, RunsFailedError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        raise  # whoever read the output has enough of it; typer ends in silence
    except OSError as error:
        typer.echo(
            f"error: {error.filename or 'a file'} can't be read or written "
            f"({error.strerror or error}); "
            "make room or check who may, then run the same command again",
            err=True,
        )
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"\n{stopping.GO_ON}", err=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        warnings.showwarning = shown
