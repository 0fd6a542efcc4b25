"""The experiments of section 4: one file each, with its runs at each scale in one table."""

import io
from pathlib import Path
from types import ModuleType

import pandas as pd

from bregman.suite.data import DataError
from bregman.suite.experiments import (
    architecture_search,
    architecture_seeds,
    cifar10_resnet,
    denoising_autoencoder,
    dense_autoencoders,
    equal_density,
    fashion_mnist_cnn,
    figure_2,
    mnist_acceleration,
    mnist_comparison,
    table_seeds,
    tuned_rivals,
    what_sparsity_buys,
)
from bregman.suite.experiments.experiment import (
    SCALE_NAMES,
    Experiment,
    Row,
    RunsFailedError,
    Scale,
)
from bregman.suite.experiments.tables import WIDTHS, Results, answers, beside_paper, paper_reference
from bregman.suite.paths import results_dir


def _by_name(*modules: ModuleType) -> dict[str, Experiment]:
    return {module.EXPERIMENT.name: module.EXPERIMENT for module in modules}


EXPERIMENTS = _by_name(
    mnist_comparison, mnist_acceleration, fashion_mnist_cnn, cifar10_resnet, denoising_autoencoder,
    architecture_search, what_sparsity_buys,
)  # fmt: skip
# tables of runs that settle a question and have no notebook of their own
STUDIES = _by_name(
    figure_2, table_seeds, equal_density, tuned_rivals, dense_autoencoders, architecture_seeds
)

__all__ = ["EXPERIMENTS", "SCALE_NAMES", "STUDIES", "WIDTHS", "Experiment", "Results", "Row",
           "RunsFailedError", "Scale", "answers", "beside_paper", "get", "paper_reference",
           "stored_summaries"]  # fmt: skip


def get(name: str) -> Experiment:
    """The experiment or study of a name.

    Raises:
        ValueError: an unknown name.
    """
    known = EXPERIMENTS | STUDIES
    if name not in known:
        raise ValueError(f"unknown experiment {name!r}, allowed: {', '.join(known)}")
    return known[name]


def stored_summaries(scale: str) -> pd.DataFrame:
    """What the experiments measured at a scale, as far as they were run.

    Args:
        scale: "smoke", "quick" or "paper".

    Returns:
        One row per run, with the columns of ``summary.csv``, in the order of the experiments. A run
        that two of them share stands in the first one.

    Raises:
        ValueError: an unknown scale.
        DataError: a table is damaged.
    """
    if scale not in SCALE_NAMES:
        raise ValueError(f"unknown scale {scale!r}, allowed: {', '.join(SCALE_NAMES)}")
    tables = [_stored_summary(name, scale) for name in EXPERIMENTS]
    tables = [table for table in tables if not table.empty]
    if not tables:
        return pd.DataFrame(
            columns=[*paper_reference(), "label", "seed", "epochs", "seconds", "device"]
        )
    summary = pd.concat(tables, ignore_index=True)
    return summary[~summary.drop(columns="label").duplicated()]


def _stored_summary(name: str, scale: str) -> pd.DataFrame:
    path = results_dir() / scale / name / "summary.csv"
    try:
        content = path.read_text()
        if not content.endswith("\n"):
            raise ValueError("it ends within a line")
        table = pd.read_csv(io.StringIO(content))
        named = [name for name in paper_reference() if name not in WIDTHS]
        table[[*named, "label", "seed", "epochs", "seconds"]]
        _check_rows(table, path.with_name("history.csv"))
    except FileNotFoundError:
        return pd.DataFrame()
    except (OSError, ValueError, KeyError) as error:  # pandas' own are ValueErrors
        again = f"'bregman run {name} --scale {scale} --no-notebooks' writes it anew"
        raise DataError(f"{path} can't be read ({error}); {again} from the stored runs") from error
    return table


def _check_rows(summary: pd.DataFrame, beside: Path) -> None:
    """A table that was cut at a line end reads well, but the one beside it knows more runs."""
    if beside.exists():
        known = pd.MultiIndex.from_frame(pd.read_csv(beside, usecols=["run", "seed"]))
        lacking = known.difference(pd.MultiIndex.from_frame(summary[["label", "seed"]]))
        if len(lacking):
            label, seed = lacking[0]
            raise ValueError(f"{label!r} with seed {seed} is in {beside.name} alone")
