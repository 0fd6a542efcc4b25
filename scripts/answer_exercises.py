"""Measure the answers to those exercises of notebooks 05 to 10 that ask for a run of one's own.

    python scripts/answer_exercises.py

Writes results/exercises.csv, which the notebooks show below their solutions: a row per exercise,
setting and measure. It trains at quick scale, a minute or so a run on one core; runs that were made
before are answered from results/quick/runs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from bregman.layers import weights
from bregman.suite import experiments
from bregman.suite.experiments import Results, cifar10_resnet, recipe
from bregman.suite.experiments.measures import sparsity
from bregman.suite.experiments.parts import Task
from bregman.suite.paths import replacing, results_dir
from bregman.suite.provenance import environment
from bregman.suite.runs import RunStore
from bregman.suite.training import Training, accuracy, evaluate
from bregman.thresholding import largest_threshold, threshold_

Answer = Iterator[tuple[str, dict[str, float]]]


def tried(name: str, label: str, measures: Callable[[Results], dict[str, float]],
          *settings: dict[str, Any]) -> Answer:  # fmt: skip
    """Runs of one row at quick scale, each with its settings."""
    for chosen in settings:
        results = experiments.get(name).try_(label, "quick", **chosen)
        yield ", ".join(f"{key}={value}" for key, value in chosen.items()), measures(results)


def curves_and_end(results: Results) -> dict[str, float]:
    """Accuracy early and late, density and norm at both ends."""
    accuracy_, norm = results.curves("validation", "accuracy"), results.curves("weights", "l1_norm")
    end = results.summary.iloc[0]
    return {
        "validation accuracy after 5 epochs [%]": 100 * accuracy_.loc[5].item(),
        "after all [%]": end["val_acc_pct"],
        "non-zero weights [%]": end["n_total_pct"],
        "l1 norm at first": norm.loc[0].item(),
        "at last": end["l1_norm"],
    }


def widths(results: Results) -> dict[str, float]:
    """The active neurons of the five hidden layers, and the quality."""
    end = results.summary.iloc[0]
    hidden = {f"layer {i}": float(end[f"active_neurons_{i}"]) for i in range(2, 7)}
    return hidden | {"SSIM": end["ssim"]}


def skips(results: Results) -> dict[str, float]:
    """How many skips there are, and how good the classifier is."""
    end = results.summary.iloc[0]
    return {"skips": float(end["skips"]), "test accuracy [%]": end["test_acc_pct"]}


def gradients() -> Answer:
    """The gradients with respect to the weights of the autoencoder before its first step."""
    experiment = experiments.get("denoising_autoencoder")
    row = next(row for row in experiment.rows if row.label == "AdaBreg")
    config = experiment.config(experiment.scale("smoke"), 0, **row.settings)
    parts = config.make_parts("cpu")
    inputs, targets = (samples[:500] for samples in parts.task.train)
    if parts.task.transform is not None:
        inputs = parts.task.transform(inputs, torch.Generator().manual_seed(0))
    parts.task.loss(parts.model(inputs), targets).backward()
    for i, weight in enumerate((w.parameter for w in weights(parts.model)), start=1):
        rows = weight.grad.norm(dim=1)
        alive = float((weight != 0).any(dim=1).sum())
        yield (
            f"into layer {i + 1}",
            {
                "mean norm of a row's gradient": rows.mean().item(),
                "rows with a gradient": float((rows > 0).sum()),
                "active rows": alive,
            },
        )


def with_and_without_refreshing() -> Answer:
    """The threshold of a trained ResNet-18 where batch normalization keeps its statistics."""

    class Both(cifar10_resnet.ResNetRun):
        def results(self, parts: recipe.Parts, training: Training) -> recipe.Results:
            plain = _threshold_alone(parts.model, parts.task, self)
            return {**super().results(parts, training), **plain}

    scale = cifar10_resnet.SCALES["quick"]
    config = cifar10_resnet.config(scale, 0, **cifar10_resnet.LINBREG)
    with TemporaryDirectory() as folder:
        result = RunStore(Path(folder)).make(Both(**vars(config)), recipe.train).result
    for setting, prefix in (("refreshed", "thresh"), ("statistics as they were", "plain")):
        yield (
            setting,
            {
                "threshold": float(result[f"{prefix}.threshold"] or 0),
                "non-zero weights [%]": float(result[f"{prefix}.n_total_pct"] or 0),
                "validation accuracy [%]": float(result[f"{prefix}.val_acc_pct"] or 0),
            },
        )


def _threshold_alone(model: torch.nn.Module, task: Task, config: Any) -> dict[str, float]:
    def score(network: torch.nn.Module) -> float:
        return evaluate(network, task.val, accuracy, autocast=config.dtype)[0]

    kept = {name: value.clone() for name, value in model.state_dict().items()}
    threshold = largest_threshold(model, score, config.max_drop)
    threshold_(model, threshold)
    measured = {
        "plain.threshold": threshold,
        "plain.n_total_pct": sparsity(model)["n_total_pct"],
        "plain.val_acc_pct": 100 * score(model),
    }
    model.load_state_dict(kept)
    return measured


LINBREG = ("mnist_comparison", "LinBreg (λ=1e-1)", curves_and_end)
ANSWERS: dict[str, Callable[[], Answer]] = {
    "05.3": lambda: tried(*LINBREG, {"density": 0.01}, {"density": 0.05}),
    "05.4": lambda: tried(*LINBREG, {"gain": 0.7}, {"gain": 1.4}),
    "08.3": with_and_without_refreshing,
    "09.3": gradients,
    "09.5": lambda: tried("denoising_autoencoder", "AdaBreg", widths, {"noise": 0.09},
                          {"noise": 0.3}),
    "10.4": lambda: tried("architecture_search", "Classifier (μ=0.15)", skips,
                          {"skip_lam": 0.15}, {"skip_lam": 0.3}, {"skip_lam": 0.5}),
}  # fmt: skip


def main() -> None:
    """Answer them all, and write the table."""
    made = environment("cpu")
    about = {name: made[name] for name in ("device", "torch", "commit", "date")}
    rows = [
        {"exercise": exercise, "setting": setting, "measure": measure, "value": value, **about}
        for exercise, answer in ANSWERS.items()
        for setting, measures in answer()
        for measure, value in measures.items()
    ]
    with replacing(results_dir() / "exercises.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
