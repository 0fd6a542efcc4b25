"""The epoch loop: train, evaluate, record, checkpoint."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bregman.data import batches
from bregman.paths import replacing
from bregman.sparsity import sparsity_summary

Metric = Callable[[Tensor, Tensor], Tensor]
Samples = tuple[Tensor, Tensor]


class Record(NamedTuple):
    """One number of a history. Epoch 0 is before training."""

    epoch: int
    split: str
    metric: str
    value: float


@dataclass
class Training:
    """What a training measured.

    Attributes:
        history: all records, in the order in which they were made.
        seconds: wall time of the epochs, without the pauses of an interrupted run.
        diverged: the loss became infinite or NaN, and the loop stopped there.
    """

    history: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    diverged: bool = False


def accuracy(output: Tensor, labels: Tensor) -> Tensor:
    """The share of samples whose largest output is their label, a 0-d tensor in [0, 1]."""
    return (output.argmax(1) == labels).float().mean()


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    train: Samples,
    validation: Samples,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    loss: Metric = F.cross_entropy,
    metric: Metric = accuracy,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Training:
    """Train a model; where a checkpoint is found, go on from it.

    A run that was interrupted ends with the numbers of one that was not, bit for bit (same device
    and number of threads).

    Args:
        model: maps a batch of inputs to a batch of outputs.
        optimizer: over the model's parameters.
        train: (inputs, targets) on the model's device.
        validation: likewise.
        epochs: in all, those before the checkpoint included.
        batch_size: samples per step.
        generator: draws the order of the samples.
        scheduler: stepped after each epoch; a ReduceLROnPlateau sees the validation metric.
        loss: (output, target) to the mean over the batch, a 0-d tensor.
        metric: likewise; recorded under its function's name.
        checkpoint: the file that keeps the state; the caller removes it when all is safe.
        checkpoint_seconds: the time between two checkpoints.
        on_epoch: called with the number of each finished epoch.

    Returns:
        The history: loss and metric on "train" (means over the epoch while it trains) and
        "validation" (after it, in eval mode), the learning rate, and the sparsity of the "weights".

    Raises:
        RuntimeError: the checkpoint can't be read or belongs to another model.
    """
    stateful: dict[str, Any] = {"model": model, "optimizer": optimizer}
    if scheduler is not None:
        stateful["scheduler"] = scheduler
    result = Training()
    done = 0
    if checkpoint is not None and checkpoint.exists():
        done = _load(checkpoint, stateful, generator, result)
    else:
        result.history += _measure(0, model, validation, loss, metric)
    earlier = result.seconds
    started = saved = time.perf_counter()

    for epoch in range(done + 1, epochs + 1):
        if result.diverged:
            break
        model.train()
        order = batches(*train, batch_size=batch_size, generator=generator)
        mean_loss, mean_metric = _train_epoch(model, optimizer, order, loss, metric)
        measured = _measure(epoch, model, validation, loss, metric)
        result.history += [
            Record(epoch, "train", "loss", mean_loss),
            Record(epoch, "train", metric.__name__, mean_metric),
            Record(epoch, "train", "lr", float(optimizer.param_groups[0]["lr"])),
            *measured,
        ]
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(measured[1].value)
        elif scheduler is not None:
            scheduler.step()
        result.diverged = not math.isfinite(mean_loss)
        now = time.perf_counter()
        result.seconds = earlier + now - started
        if checkpoint is not None and now - saved >= checkpoint_seconds:
            _save(checkpoint, stateful, generator, result, epoch)
            saved = now
        on_epoch(epoch)
    return result


def _train_epoch(
    model: nn.Module, optimizer: Optimizer, order: Any, loss: Metric, metric: Metric
) -> tuple[float, float]:
    samples = 0
    # summed on the device: one synchronization per epoch, not one per step
    totals: Tensor | None = None
    for inputs, targets in order:
        optimizer.zero_grad()
        output = model(inputs)
        batch_loss = loss(output, targets)
        batch_loss.backward()
        optimizer.step()
        with torch.no_grad():
            values = torch.stack((batch_loss.detach(), metric(output, targets)))
            totals = (
                values * len(inputs) if totals is None else totals.add_(values, alpha=len(inputs))
            )
        samples += len(inputs)
    assert totals is not None
    mean_loss, mean_metric = (totals / samples).tolist()
    return mean_loss, mean_metric


def evaluate(
    model: nn.Module, samples: Samples, *metrics: Metric, batch_size: int = 1000
) -> list[float]:
    """Measure a model in eval mode; its mode and its buffers stay as they were.

    Args:
        model: maps a batch of inputs to a batch of outputs.
        samples: (inputs, targets) on the model's device.
        metrics: each (output, target) to the mean over the batch, a 0-d tensor.
        batch_size: samples per forward pass.

    Returns:
        One mean over all samples per metric.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        sums = sum(
            len(inputs) * torch.stack([metric(output, targets) for metric in metrics])
            for inputs, targets in batches(*samples, batch_size=batch_size)
            for output in (model(inputs),)
        )
    model.train(was_training)
    return (sums / len(samples[0])).tolist()  # type: ignore[union-attr]


def _measure(
    epoch: int, model: nn.Module, validation: Samples, loss: Metric, metric: Metric
) -> list[Record]:
    mean_loss, mean_metric = evaluate(model, validation, loss, metric)
    shares = sparsity_summary(model)
    return [
        Record(epoch, "validation", "loss", mean_loss),
        Record(epoch, "validation", metric.__name__, mean_metric),
        *(
            Record(epoch, "weights", name, shares[name])
            for name in ("n_total", "n_linear", "n_conv", "l1_norm")
            if shares[name] is not None
        ),
    ]


def _save(
    checkpoint: Path,
    stateful: dict[str, Any],
    generator: torch.Generator,
    result: Training,
    epoch: int,
) -> None:
    state = {
        **{name: part.state_dict() for name, part in stateful.items()},
        "generator": generator.get_state(),
        "history": [tuple(record) for record in result.history],
        "seconds": result.seconds,
        "diverged": result.diverged,
        "epoch": epoch,
    }
    with replacing(checkpoint) as temporary:
        torch.save(state, temporary)


def _load(
    checkpoint: Path, stateful: dict[str, Any], generator: torch.Generator, result: Training
) -> int:
    try:
        state = torch.load(checkpoint, map_location="cpu")
        for name, part in stateful.items():
            part.load_state_dict(state[name])
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(
            f"checkpoint {checkpoint} can't be used ({reason}); delete it to train from the start"
        ) from error
    generator.set_state(state["generator"])
    result.history = [Record(*record) for record in state["history"]]
    result.seconds, result.diverged = state["seconds"], state["diverged"]
    return state["epoch"]
