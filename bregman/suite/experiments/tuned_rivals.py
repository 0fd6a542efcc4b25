"""Sparse training with every method tuned alike: the comparison of notebook 11, made fair.

There RigL, SET, pruning and the static support ran with LinBreg's learning rate, without momentum
and without tuning of their own. Here all methods, and dense training, get the same trials: the
same points, spread evenly over what may be chosen, one seed, 2 % of the weights. The one with the
best validation accuracy is then run at all densities with three seeds, and only these runs see the
test set. All 5,000 held-out images validate, where notebook 11 watches a thousand.

    TRIALS    which learning rate, momentum, gain and setting of its own suit a method?
    TUNED     how accurate is it at each density, with what was best at 2 %?
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bregman.suite.experiments import what_sparsity_buys
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.measures import last_accuracies
from bregman.suite.experiments.recipe import Parts, Recipe
from bregman.suite.experiments.recipe import Results as Measured
from bregman.suite.experiments.sparse_training import SparseTraining
from bregman.suite.experiments.tables import Results
from bregman.suite.experiments.what_sparsity_buys import DENSE, METHODS, NETWORKS, SparsityScale
from bregman.suite.training import Training

TRIALS, TUNED = "Trials", "Tuned alike"

SCALES: dict[str, Scale] = {
    "smoke": SparsityScale(epochs=2, mini=True, train_size=640, frozen_steps=4),
    "quick": what_sparsity_buys.SCALES["quick"],
    "paper": SparsityScale(epochs=20, seeds=3),
}

# in percent: where the trials are, and where the best of them are run
TRIED_AT = 2
DENSITIES = {"MLP": (10, 5, 2, 1), "CNN": (5, 1)}
# a trial of the MLP takes a third of a minute, one of the convolutional network two to six
COUNTS = {"MLP": 32, "CNN": 8}

COMPARED = {**METHODS, DENSE: {"optimizer": "SGD"}}
# tau / (1 - beta), what a step amounts to in the end, as a multiple of the network's learning rate
RATE = (0.25, 16.0)
MOMENTA = (0.0, 0.9)
GAIN = (0.35, 1.4)
# a method's own setting: how much of the support is exchanged at first, or how many weights it
# takes in at first, before lambda is steered; the others have none
OWN = {
    "RigL": ("drop_fraction", 0.1, 0.6),
    "SET": ("drop_fraction", 0.1, 0.6),
    "LinBreg": ("lam", 0.03, 1.0),
    "LinBreg, frozen steps": ("lam", 0.03, 1.0),
}
# what is searched, as tables name it
SEARCHED = ("lr", "momentum", "gain", "drop_fraction", "lam")


@dataclass(frozen=True, kw_only=True)
class TunedRun(SparseTraining):
    """A run of notebook 11 that is validated with all that is held out."""

    tuning: bool  # a trial, which never sees the test set

    def split(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return Recipe.split(self, n, generator)

    def tested(self, parts: Parts, training: Training) -> Measured:
        if self.tuning:
            return {"val_acc_pct": last_accuracies(training)["val_acc_pct"]}
        return super().tested(parts, training)


def config(scale: SparsityScale, seed: int, tuning: bool, **settings: Any) -> TunedRun:
    """The set-up of notebook 11.

    Args:
        scale: gives epochs and data.
        seed: of all that is drawn.
        tuning: a trial.
        settings: of ``what_sparsity_buys.config``.
    """
    return TunedRun(**vars(what_sparsity_buys.config(scale, seed, **settings)), tuning=tuning)


def point(trial: int) -> tuple[float, ...]:
    """A point of the Halton sequence in [0, 1)^4, which fills it evenly from the first ones on.

    Args:
        trial: from 1.

    Returns:
        In each base the digits of the number, the last one first, behind the point.
    """
    coordinates = []
    # as scipy.stats.qmc.Halton, which every start of a command would have to import
    for base in (3, 2, 5, 7):
        rest, place, value = trial, 1.0, 0.0
        while rest:
            rest, digit = divmod(rest, base)
            place /= base
            value += place * digit
        coordinates.append(value)
    return tuple(coordinates)


def settings(network: str, method: str, trial: int) -> dict[str, Any]:
    """What a trial sets: the same point for every method.

    Args:
        network: a name of ``COUNTS``.
        method: a name of ``COMPARED``.
        trial: its number, from 1.

    Returns:
        The settings of the method and those that the trial chose.
    """
    rate, momentum, gain, own = point(trial)
    beta = MOMENTA[int(len(MOMENTA) * momentum)]
    lr = NETWORKS[network].lr * _between(rate, *RATE)
    # LinBreg's tau stays inside the average, SGD's momentum adds up to 1 / (1 - beta) steps
    if COMPARED[method]["optimizer"] == "SGD":
        lr *= 1 - beta
    chosen = {"lr": lr, "momentum": beta, "gain": _between(gain, *GAIN)}
    if method in OWN:
        name, *ends = OWN[method]
        chosen[name] = _between(own, *ends)
    rounded = {name: float(f"{value:.3g}") for name, value in chosen.items()}
    return {"network": network, **COMPARED[method], **rounded}


def _between(share: float, low: float, high: float) -> float:
    """From the lowest value at 0 to the highest at 1, evenly on a logarithmic scale."""
    return float(low * (high / low) ** share)


def searched(network: str, method: str, trial: int) -> dict[str, float]:
    """Of a trial's settings those that were searched."""
    made = settings(network, method, trial)
    return {name: made[name] for name in SEARCHED if name in made}


ALL, PAPER = ("smoke", "quick", "paper"), ("paper",)


def _row(part: str, method: str, words: str, scales: tuple[str, ...], seeds: int | None,
         **settings: Any) -> Row:  # fmt: skip
    network = settings["network"]
    return Row(f"{network}, {method}, {words}", f"{part}: {network}", method,
               settings["optimizer"], settings, "", scales, seeds)  # fmt: skip


def _at(method: str, percent: int) -> dict[str, float | None]:
    return {"target": None if method == DENSE else percent / 100}


def trial_rows() -> tuple[Row, ...]:
    """Every trial, one seed; the first ones of all methods come first."""
    return tuple(
        _row(TRIALS, method, f"trial {trial}", ALL if network == "MLP" and trial < 3 else PAPER, 1,
             **settings(network, method, trial), **_at(method, TRIED_AT), tuning=True)
        for network, count in COUNTS.items()
        for trial in range(1, count + 1)
        for method in COMPARED
    )  # fmt: skip


Choice = Mapping[str, Mapping[str, int]]  # from network and method to the number of a trial


def tuned_rows(chosen: Choice) -> tuple[Row, ...]:
    """The chosen settings at all densities, three seeds."""
    return tuple(
        _row(TUNED, method, "tuned" if method == DENSE else f"tuned, {percent} %",
             ALL if network == "MLP" and percent in (100, TRIED_AT) else PAPER, None,
             **settings(network, method, trial), **_at(method, percent), tuning=False)
        for network, trials in chosen.items()
        for method, trial in trials.items()
        for percent in ((100,) if method == DENSE else DENSITIES[network])
    )  # fmt: skip


def choose(results: Results, scale: str = "paper") -> dict[str, dict[str, int]]:
    """The best trial of each method, by validation accuracy; one that diverged is none.

    Args:
        results: of the study, as far as it was run.
        scale: of its runs.

    Returns:
        From network and method to the number of the trial; methods that lack a trial are left out.
    """
    chosen: dict[str, dict[str, int]] = {}
    planned = [row for row in trial_rows() if scale in row.scales]
    for (network, method), count in Counter(
        (row.settings["network"], row.strategy) for row in planned
    ).items():
        runs = results.summary.query(f"artifact == '{TRIALS}: {network}' and strategy == @method")
        scores = runs.query("status == 'finished'").set_index("label")["val_acc_pct"].dropna()
        if len(runs) == count and len(scores):
            trial = int(str(scores.idxmax()).rpartition(" ")[2])
            chosen.setdefault(network, {})[method] = trial
    return chosen


# entered from the stored trials, by ``choose``; a test chooses again
CHOSEN: Choice = {}


def experiment(chosen: Choice) -> Experiment:
    """The table of runs, with the trials that were best."""
    return Experiment(
        name="tuned_rivals",
        dataset="MNIST, Fashion-MNIST",
        model="MLP, CNN",
        scales=SCALES,
        rows=(*trial_rows(), *tuned_rows(chosen)),
        config=config,
    )


EXPERIMENT = experiment(CHOSEN)
