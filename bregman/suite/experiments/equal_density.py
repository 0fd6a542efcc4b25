"""Equal density and equal tuning: the methods of Table 1 with 5 % of the weights each.

The paper's table compares methods at 1.9 to 4.8 % of the weights, and its settings, as those of
notebook 07, were searched for longer for some methods than for others. Here every method gets the
same search, six trials of eight epochs by Optuna's sampler with the same seed, and ends at the same
density: LinBreg and AdaBreg by ``SparsityTarget``, pruning by construction; and of every network
the largest weights are kept in the end, which cuts Lasso and ProxGD to the target. Trials are
scored on the validation set and never see the test set; three seeds of the best setting do.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from bregman.layers import weights
from bregman.optim import BregmanOptimizer
from bregman.steering import SparsityTarget
from bregman.suite.baselines.masks import largest
from bregman.suite.data import ImageData
from bregman.suite.experiments import fashion_mnist_cnn
from bregman.suite.experiments.allowed import Share
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.fashion_mnist_cnn import LASSO, PROXGD, PRUNED, SETUP, ConvNetRun
from bregman.suite.experiments.measures import accuracies, sparsity
from bregman.suite.experiments.parts import Task
from bregman.suite.experiments.recipe import Parts, Results, settings_of
from bregman.suite.training import Training

Names = Collection[str]

# what pruning has in the paper's table
TARGET = 0.05
TRIALS = 6
ARTIFACT = "Equal density"

SEARCH_SCALES = {
    "smoke": Scale(epochs=2, mini=True),
    "quick": Scale(epochs=3, train_size=10_000),
    "paper": Scale(epochs=8),
}


@dataclass(frozen=True)
class Family:
    """One method, and what is searched for it.

    Attributes:
        strategy: as ``paper_reference.csv`` names it in Table 1.
        optimizer: likewise.
        settings: that stay as they are.
        lr: the middle of the range of tau, from a fifth to five times as much.
        lam: the middle of the range of lambda, from a tenth to ten times as much; None where
            lambda is steered, or there is none.
    """

    strategy: str
    optimizer: str
    settings: dict[str, Any]
    lr: float
    lam: float | None = None

    def space(self) -> dict[str, tuple[float, float]]:
        """From what a trial may choose to its lowest and largest value; all on logarithmic scales.

        The gain of the initial weights, tau, and lambda if there is one. The middles of the last
        two are the settings of notebook 07.
        """
        space = {"gain": (0.25, 1.0), "lr": (self.lr / 5, 5 * self.lr)}
        return space if self.lam is None else {**space, "lam": (self.lam / 10, 10 * self.lam)}


_PRUNING = {"optimizer": "SGD", "momentum": 0.9, "prune_to": TARGET}
FAMILIES = {
    "LinBreg": Family("Bregman", "LinBreg", {"optimizer": "LinBreg", "lam": 1.0}, 0.1),
    "LinBreg β=0.9": Family("Bregman", "LinBreg (beta = 0.9)",
                            {"optimizer": "LinBreg", "lam": 1.0, "momentum": 0.9}, 0.1),
    "AdaBreg": Family("Bregman", "AdaBreg", {"optimizer": "AdaBreg", "lam": 1.0}, 1e-2),
    "Pruning": Family("Pruning (5%)", "SGD", _PRUNING, PRUNED["lr"]),
    "Lasso": Family("Lasso", "SGD + thresh.", {"optimizer": "SGD", "momentum": 0.9},
                    LASSO["lr"], 3e-4),
    "ProxGD": Family("Lasso", "ProxGD", {"optimizer": "ProxGD"}, PROXGD["lr"], 6e-4),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EqualDensityRun(ConvNetRun):
    """A run of Table 1 that ends with a given share of the weights."""

    target: Share  # the share of non-zero weights in the end
    tuning: bool  # a trial, which never sees the test set

    def make_task(self, data: ImageData, generator: torch.Generator) -> Task:
        task = super().make_task(data, generator)
        return task._replace(watched=None) if self.tuning else task

    def attach(self, parts: Parts) -> dict[str, Any]:
        if not isinstance(parts.optimizer, BregmanOptimizer):
            return super().attach(parts)
        target = SparsityTarget(parts.optimizer, self.target)
        parts.optimizer.register_step_post_hook(target.step)
        return {"target": target}

    def results(self, parts: Parts, training: Training) -> Results:
        """With the largest weights alone; "trained.<name>": of the network as it was trained."""
        model, task = parts.model, parts.task
        sets = ("train", "val") if self.tuning else ("train", "val", "test")

        def measured() -> dict[str, Any]:
            return {**sparsity(model), **accuracies(model, task, self.dtype, sets)}

        flops = {"flops_pct": 100 * self._training_flops(parts, training)}
        trained = {f"trained.{name}": value for name, value in measured().items()}
        keep_largest_(model, self.target)
        return {**measured(), **flops, **trained}


@torch.no_grad()
def keep_largest_(model: nn.Module, density: float) -> None:
    """Set all but the largest weights of a network to zero, in place.

    Args:
        model: its linear and convolution weights are compared with each other, one by one.
        density: the share that may stay; zeros stay zero.
    """
    params = [weight.parameter for weight in weights(model)]
    kept = round(density * sum(p.numel() for p in params))
    for p, mask in zip(params, largest([p.abs() for p in params], kept), strict=True):
        p.mul_(mask)


def config(scale: Scale, seed: int, **settings: Any) -> EqualDensityRun:
    """The set-up of Table 1: the Bregman optimizers start at 1 %, the others dense."""
    made = {**SETUP, "tuning": False, **settings_of(scale), **settings}
    bregman = made["optimizer"] in ("LinBreg", "AdaBreg")
    made |= {"lam_conv": made["lam"], "target": TARGET, "density": 0.01 if bregman else 1.0}
    return EqualDensityRun(**made, seed=seed)


def _experiment(name: str, scales: Mapping[str, Scale], rows: Collection[Row]) -> Experiment:
    return Experiment(name, "Fashion-MNIST", "CNN", dict(scales), tuple(rows), config)


def search(
    scale: str, families: Names = FAMILIES, *, make: bool = True, device: str = "cpu", jobs: int = 1
) -> tuple[Experiment, pd.DataFrame]:
    """Tune the methods alike; of a trial in the store the sampler is told what it gave.

    Args:
        scale: "smoke", "quick" or "paper".
        families: names of ``FAMILIES``.
        make: make the trials that are missing; otherwise a method ends where one is.
        device: what is trained on.
        jobs: as for ``Experiment.run``.

    Returns:
        The trials, one row each, and their table: ``results/<scale>/equal_density_search/``.
    """
    import optuna  # only the search needs it
    from optuna.distributions import BaseDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[Row] = []
    for name in families:
        family = FAMILIES[name]
        sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=3)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for number in range(TRIALS):
            ranges: dict[str, BaseDistribution] = {
                key: FloatDistribution(*ends, log=True) for key, ends in family.space().items()
            }
            trial = study.ask(ranges)
            found = {key: float(f"{value:.3g}") for key, value in trial.params.items()}
            settings = {**family.settings, **found, "tuning": True}
            row = Row(f"{name}, trial {number + 1}", "Search", family.strategy, name, settings)
            tried = _experiment("equal_density_search", SEARCH_SCALES, [row])
            if tried.forecast(scale).missing and not make:
                break
            summary = tried.run(scale, 0, device, jobs, make=make).summary
            score = summary["val_acc_pct"].fillna(0.0).item()
            study.tell(trial, score)
            rows.append(row)
    whole = _experiment("equal_density_search", SEARCH_SCALES, rows)
    return whole, whole.run(scale, rows=[], make=False).summary


def choose(summary: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The best trial of each method, by validation accuracy at equal density.

    Args:
        summary: the table of ``search``.

    Returns:
        From the method to what was searched; methods that lack a trial are left out.
    """
    chosen = {}
    for name, group in summary.groupby("optimizer", sort=False):
        best = group.loc[group["val_acc_pct"].idxmax()]
        if len(group) == TRIALS:
            space = FAMILIES[str(name)].space()
            chosen[str(name)] = {key: float(best[f"config_{key}"]) for key in space}
    return chosen


def experiment(chosen: Mapping[str, Mapping[str, float]]) -> Experiment:
    """Whole runs of the best settings, three seeds each."""
    rows = [
        Row(name, ARTIFACT, FAMILIES[name].strategy, FAMILIES[name].optimizer,
            {**FAMILIES[name].settings, **settings})
        for name, settings in chosen.items()
    ]  # fmt: skip
    return _experiment("equal_density", fashion_mnist_cnn.SCALES, rows)


# entered from the stored trials, by ``choose``; a test chooses again
CHOSEN: dict[str, dict[str, float]] = {}

EXPERIMENT = experiment(CHOSEN)
