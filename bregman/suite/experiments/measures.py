"""What the experiments measure of a trained network: how sparse it is, and how accurate."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from bregman.sparsity import sparsity_summary
from bregman.suite.experiments.parts import Task
from bregman.suite.training import Training, accuracy, evaluate
from bregman.thresholding import Unit, largest_threshold, refresh_batch_norm_, threshold_

Dtype = torch.dtype | None
SPARSITY, SETS = ("n_total", "n_linear", "n_conv"), ("train", "val", "test")


def sparsity(model: nn.Module) -> dict[str, float | None]:
    """What is left of the weights in percent, where there are such layers, and their l1 norm."""
    weights = sparsity_summary(model)
    shares = {f"{name}_pct": weights[name] for name in SPARSITY}
    percent = {name: None if share is None else 100 * share for name, share in shares.items()}
    return {**percent, "l1_norm": weights["l1_norm"]}


def active_neurons(model: nn.Module) -> dict[str, float]:
    """The active neurons of ``sparsity_summary`` by layer, numbered as in Figure 4."""
    neurons = sparsity_summary(model)["active_neurons"]
    return {f"active_neurons_{i}": n for i, n in enumerate(neurons, start=1)}


def accuracies(
    model: nn.Module, task: Task, autocast: Dtype = None, sets: Sequence[str] = SETS
) -> dict[str, float]:
    """The accuracies of a trained classifier on parts of the data, in percent."""
    scored = {name: evaluate(model, getattr(task, name), accuracy, autocast=autocast)[0]
              for name in sets}  # fmt: skip
    return {f"{name}_acc_pct": 100 * score for name, score in scored.items()}


def last_accuracies(training: Training) -> dict[str, float]:
    """Those that the last epoch recorded; while it trains, and after it."""
    last = {(r.split, r.metric): r.value for r in training.history}
    return {
        "val_acc_pct": 100 * last["validation", "accuracy"],
        "train_acc_pct": 100 * last["train", "accuracy"],
    }


def thresholded(
    model: nn.Module,
    task: Task,
    max_drop: float,
    unit: Unit = "entry",
    autocast: Dtype = None,
    augmented: bool = False,
) -> dict[str, Any]:
    """Threshold a trained network (section 4.5), and measure what that makes of it.

    Args:
        model: changed in place.
        task: that it was trained for.
        max_drop: the validation accuracy that may be lost.
        unit: as in ``threshold_``.
        autocast: the dtype of the forward passes.
        augmented: take statistics of batch normalization from images as in training.

    Returns:
        The threshold and the measures of the network, "thresh.<name>"; and with batch
        normalization, whose statistics are refreshed after each change, "refreshed.<name>": what
        that alone does.
    """
    # from as many training images as there are to be scored
    inputs = task.train[0][: len(task.val[0])]
    if augmented and task.transform is not None:
        inputs = task.transform(inputs, torch.Generator(inputs.device).manual_seed(0))

    def refresh() -> None:
        with torch.autocast(inputs.device.type, autocast, enabled=autocast is not None):
            refresh_batch_norm_(model, inputs.split(1000))

    def score(model: nn.Module) -> float:
        refresh()
        return evaluate(model, task.val, accuracy, autocast=autocast)[0]

    def measured(variant: str) -> dict[str, Any]:
        values: Mapping[str, Any] = {**sparsity(model), **accuracies(model, task, autocast)}
        return {f"{variant}.{name}": value for name, value in values.items()}

    threshold = largest_threshold(model, score, max_drop, conv=unit)
    results = {}
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        refresh()
        results = measured("refreshed")
    threshold_(model, threshold, conv=unit)
    refresh()
    return {**results, **measured("thresh"), "thresh.threshold": threshold}
