"""Classifiers of section 4: what Figures 2 and 3 and Tables 1 to 3 have in common."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from bregman.suite.experiments.allowed import Range
from bregman.suite.experiments.measures import last_accuracies, sparsity
from bregman.suite.experiments.recipe import Parts, PlateauRecipe, Results
from bregman.suite.models import MLP
from bregman.suite.training import Training, accuracy, evaluate


@dataclass(frozen=True, kw_only=True)
class Classification(PlateauRecipe):
    """A fully connected network that classifies images."""

    momentum: Annotated[float, Range(0, 1)]  # beta, of SGD and LinBreg

    def make_network(self) -> nn.Module:
        return MLP()

    def results(self, parts: Parts, training: Training) -> Results:
        measured = sparsity(parts.model)
        return {
            **{name: measured[name] for name in ("n_total_pct", "l1_norm")},
            **last_accuracies(training),
            "test_acc_pct": 100 * evaluate(parts.model, parts.task.test, accuracy)[0],
        }
