"""The epoch loop: train, evaluate, record, checkpoint."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bregman.sparsity import sparsity_summary
from bregman.suite.data import batches
from bregman.suite.paths import replacing
from bregman.suite.provenance import environment

Metric = Callable[[Tensor, Tensor], Tensor]
Samples = tuple[Tensor, Tensor]
Transform = Callable[[Tensor, torch.Generator], Tensor]

# the test set is looked at in the last epochs of a training, for the spread over them
TEST_EPOCHS = 10


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
        snapshots: what ``snapshot`` kept, by its own names.
        starts: what the training ran on, once for every time that it was started or went on: the
            environment, and the epoch and the batch before which that was.
    """

    history: list[Record] = field(default_factory=list)
    seconds: float = 0.0
    diverged: bool = False
    snapshots: dict[str, Tensor] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)


def accuracy(output: Tensor, labels: Tensor) -> Tensor:
    """The share of samples whose largest output is their label, a 0-d tensor in [0, 1]."""
    return (output.argmax(1) == labels).float().mean()


def weight_measures(model: nn.Module) -> dict[str, float]:
    """The shares of non-zero weights and kernels and the l1 norm, as in ``sparsity_summary``."""
    shares = sparsity_summary(model)
    names = ("n_total", "n_linear", "n_conv", "l1_norm")
    return {name: shares[name] for name in names if shares[name] is not None}


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    train: Samples,
    validation: Samples,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    test: Samples | None = None,
    scheduler: LRScheduler | ReduceLROnPlateau | None = None,
    loss: Metric = F.cross_entropy,
    metric: Metric = accuracy,
    transform: Transform | None = None,
    autocast: torch.dtype | None = None,
    measure: Callable[[nn.Module], Mapping[str, float]] = weight_measures,
    snapshot: Callable[[int, nn.Module], Mapping[str, Tensor]] = lambda epoch, model: {},
    stateful: Mapping[str, Any] | None = None,
    intervene: Callable[[int], None] = lambda epoch: None,
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
        generator: draws the order of the samples, and what ``transform`` draws.
        test: likewise; measured in the last ten epochs only, and no choice depends on it.
        scheduler: stepped after each epoch; a ReduceLROnPlateau sees the validation metric.
        loss: (output, target) to the mean over the batch, a 0-d tensor.
        metric: likewise; recorded under its function's name.
        transform: changes each batch of training inputs, such as a random crop.
        autocast: the dtype of torch.autocast for the forward passes, None for none.
        measure: what to record of the "weights" after each epoch, by name.
        snapshot: (epoch, model) to tensors to be kept, by name; called from epoch 0 on.
        stateful: what else a checkpoint holds, by name: anything with ``state_dict`` and
            ``load_state_dict``, such as what hooks of the optimizer keep.
        intervene: called after each epoch, before its checkpoint, with the epoch's number; it may
            change the model or the optimizer, such as prune weights.
        checkpoint: the file that keeps the state; the caller removes it when all is safe.
        checkpoint_seconds: the time between two checkpoints, which are made between epochs and,
            where nothing else is ``stateful``, between batches too.
        on_epoch: called with the number of each finished epoch.

    Returns:
        The history: loss and metric on "train" (means over the epoch while it trains) and
        "validation" (after it, in eval mode), the metric on "test" in the last epochs, the learning
        rate, and what ``measure`` gives of the "weights"; and the snapshots.

    Raises:
        RuntimeError: the checkpoint can't be read or belongs to another model.
    """
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, **(stateful or {})}
    if scheduler is not None:
        state["scheduler"] = scheduler

    def observe(epoch: int) -> float:
        # measured first and kept last: an epoch is recorded whole or not at all
        mean_loss, mean_metric = evaluate(model, validation, loss, metric, autocast=autocast)
        result.history += [
            Record(epoch, "validation", "loss", mean_loss),
            Record(epoch, "validation", metric.__name__, mean_metric),
            *(Record(epoch, "weights", name, value) for name, value in measure(model).items()),
        ]
        kept = snapshot(epoch, model).items()
        result.snapshots |= {name: tensor.detach().cpu().clone() for name, tensor in kept}
        return mean_metric

    result = Training()
    at = _Position(1, generator.get_state())
    if checkpoint is not None and checkpoint.exists():
        at = _load(checkpoint, state, generator, result, train[0].device)
    else:
        observe(0)
    here = {"epoch": at.epoch, "batch": at.batch}
    result.starts.append({**here, **environment(str(train[0].device))})
    earlier = result.seconds
    started = saved = time.perf_counter()

    def save() -> None:
        nonlocal saved
        now = time.perf_counter()
        result.seconds = earlier + now - started
        if checkpoint is not None and now - saved >= checkpoint_seconds:
            _save(checkpoint, state, generator, result, at)
            saved = time.perf_counter()

    for epoch in range(at.epoch, epochs + 1):
        if result.diverged:
            break
        model.train()
        # the order is drawn anew from where the generator stood before the epoch
        drawn_so_far = generator.get_state()
        generator.set_state(at.generator)
        order = batches(*train, batch_size=batch_size, generator=generator)
        if at.batch:
            generator.set_state(drawn_so_far)
        for inputs, targets in itertools.islice(order, at.batch, None):
            if transform is not None:
                inputs = transform(inputs, generator)
            values, n = (
                _step(model, optimizer, inputs, targets, loss, metric, autocast),
                len(inputs),
            )
            # summed on the device: one synchronization per epoch, not one per step
            at.sums = values * n if at.sums is None else at.sums.add_(values, alpha=n)
            at.batch += 1
            if not stateful:
                save()
        assert at.sums is not None
        mean_loss, mean_metric = (at.sums / len(train[0])).tolist()
        result.history += [
            Record(epoch, "train", "loss", mean_loss),
            Record(epoch, "train", metric.__name__, mean_metric),
            Record(epoch, "train", "lr", float(optimizer.param_groups[0]["lr"])),
        ]
        validated = observe(epoch)
        if test is not None and epoch > epochs - TEST_EPOCHS:
            (tested,) = evaluate(model, test, metric, autocast=autocast)
            result.history.append(Record(epoch, "test", metric.__name__, tested))
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(validated)
        elif scheduler is not None:
            scheduler.step()
        result.diverged = not math.isfinite(mean_loss)
        intervene(epoch)
        at = _Position(epoch + 1, generator.get_state())
        save()
        on_epoch(epoch)
    return result


@dataclass
class _Position:
    """How far a training is.

    Attributes:
        epoch: the one in progress, from 1 on.
        generator: its state before that epoch.
        batch: how many batches of it are done.
        sums: of loss and metric over the samples of these batches, None before the first.
    """

    epoch: int
    generator: Tensor
    batch: int = 0
    sums: Tensor | None = None


def _step(
    model: nn.Module,
    optimizer: Optimizer,
    inputs: Tensor,
    targets: Tensor,
    loss: Metric,
    metric: Metric,
    autocast: torch.dtype | None,
) -> Tensor:
    """Train on one batch; its loss and its metric."""
    optimizer.zero_grad()
    with torch.autocast(inputs.device.type, autocast, enabled=autocast is not None):
        output = model(inputs)
        batch_loss = loss(output, targets)
    batch_loss.backward()
    optimizer.step()
    with torch.no_grad():
        return torch.stack((batch_loss.detach(), metric(output, targets)))


def evaluate(
    model: nn.Module,
    samples: Samples,
    *metrics: Metric,
    batch_size: int = 1000,
    autocast: torch.dtype | None = None,
) -> list[float]:
    """Measure a model in eval mode; its mode and its buffers stay as they were.

    Args:
        model: maps a batch of inputs to a batch of outputs.
        samples: (inputs, targets) on the model's device.
        metrics: each (output, target) to the mean over the batch, a 0-d tensor.
        batch_size: samples per forward pass.
        autocast: the dtype of torch.autocast for the forward passes, None for none.

    Returns:
        One mean over all samples per metric.
    """
    was_training = model.training
    model.eval()
    device = samples[0].device.type
    with torch.inference_mode(), torch.autocast(device, autocast, enabled=autocast is not None):
        sums = sum(
            len(inputs) * torch.stack([metric(output, targets) for metric in metrics])
            for inputs, targets in batches(*samples, batch_size=batch_size)
            for output in (model(inputs),)
        )
    model.train(was_training)
    return (sums / len(samples[0])).tolist()  # type: ignore[union-attr]


def _save(
    checkpoint: Path,
    stateful: dict[str, Any],
    generator: torch.Generator,
    result: Training,
    at: _Position,
) -> None:
    state = {
        **{name: part.state_dict() for name, part in stateful.items()},
        "generator": generator.get_state(),
        **vars(result),
        "history": [tuple(record) for record in result.history],
        "position": vars(at),
    }
    with replacing(checkpoint) as temporary:
        torch.save(state, temporary)


def _load(
    checkpoint: Path,
    stateful: dict[str, Any],
    generator: torch.Generator,
    result: Training,
    device: torch.device,
) -> _Position:
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
    vars(result).update({name: state[name] for name in vars(result)})
    result.history = [Record(*record) for record in state["history"]]
    at = _Position(**state["position"])
    if at.sums is not None:
        at.sums = at.sums.to(device)
    return at
