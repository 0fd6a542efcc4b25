"""The epoch loop: train, evaluate, record, checkpoint."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bregman.sparsity import sparsity_summary
from bregman.suite import stopping
from bregman.suite.checkpoints import Checkpoint
from bregman.suite.data import batches
from bregman.suite.provenance import environment

Metric = Callable[[Tensor, Tensor], Tensor]
Samples = tuple[Tensor, Tensor]
Transform = Callable[[Tensor, torch.Generator], Tensor]

# the test set is looked at in the last epochs of a training, for the spread over them
TEST_EPOCHS = 10
# what follows a training may take long, too: one that took longer than this is saved at its end
WORTH_SAVING_S = 5.0


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
    checkpoint: Checkpoint | Path | None = None,
    checkpoint_seconds: float = 60.0,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    watch_loss: bool = False,
) -> Training:
    """Train a model; where a checkpoint is found, go on from it.

    A run that was interrupted ends with the numbers of one that was not, bit for bit, where
    processor, number of threads and version of torch are the same.

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
            change the model or the optimizer, such as prune weights. In the last epoch it comes
            before the measuring, so that the last record is of the model as it stays.
        checkpoint: the file that keeps the state; the caller removes it when all is safe.
        checkpoint_seconds: the time between two checkpoints, which are made between batches. One
            more is made when the training is told to stop.
        on_epoch: called with the number of each finished epoch.
        watch_loss: a ReduceLROnPlateau sees the loss on "train" instead.

    Returns:
        The history: loss and metric on "train" (means over the epoch while it trains) and
        "validation" (after it, in eval mode), the metric on "test" in the last epochs, the learning
        rate, and what ``measure`` gives of the "weights"; and the snapshots.

    Raises:
        ValueError: epochs is negative, the metric is named as the loss, or a name in ``stateful``
            is taken.
        TypeError: something ``stateful`` has no state.
        CheckpointError: the checkpoint is damaged or of another training, or can't be written.
        Stopped: the training was told to stop; the checkpoint is written.
    """
    _check(epochs, metric, stateful or {})
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, **(stateful or {})}
    if scheduler is not None:
        parts["scheduler"] = scheduler
    what = {
        "optimizer": type(optimizer).__name__,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
        "groups": {f"{i}": _options(group) for i, group in enumerate(optimizer.param_groups)},
        "samples": {"train": len(train[0]), "validation": len(validation[0])},
        "batch_size": batch_size,
        "metric": metric.__name__,
        "autocast": str(autocast),
        "stateful": sorted(parts),
    }
    keeper = Checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    if keeper is not None:
        keeper = replace(keeper, identity={**keeper.identity, "training": what})

    def observe(epoch: int) -> tuple[list[Record], float, float]:
        mean_loss, mean_metric = evaluate(model, validation, loss, metric, autocast=autocast)
        records = [
            Record(epoch, "validation", "loss", mean_loss),
            Record(epoch, "validation", metric.__name__, mean_metric),
            *(Record(epoch, "weights", name, float(n)) for name, n in measure(model).items()),
        ]
        if test is not None and epoch > max(0, epochs - TEST_EPOCHS):
            (tested,) = evaluate(model, test, metric, autocast=autocast)
            records.append(Record(epoch, "test", metric.__name__, tested))
        kept = snapshot(epoch, model).items()
        result.snapshots |= {name: tensor.detach().cpu().clone() for name, tensor in kept}
        return records, mean_loss, mean_metric

    result = Training()
    at = _Position(1, generator.get_state())
    if keeper is not None and keeper.exists():
        n_batches = math.ceil(len(train[0]) / batch_size)
        at = _go_on(keeper, parts, generator, result, train[0].device, epochs, n_batches)
    else:
        result.history += observe(0)[0]
    here = {"epoch": at.epoch, "batch": at.batch}
    result.starts.append({**here, **environment(str(train[0].device))})
    earlier = result.seconds
    started = saved = time.perf_counter()

    def save(after: float) -> None:
        nonlocal saved
        now = time.perf_counter()
        result.seconds = earlier + now - started
        if keeper is not None and now - saved >= after:
            keeper.save(_state(parts, generator, result, at))
            saved = time.perf_counter()

    if not model.training:
        model.train()
    try:
        for epoch in range(at.epoch, epochs + 1):
            if result.diverged:
                break
            # the order is drawn anew from where the generator stood before the epoch
            drawn_so_far = generator.get_state()
            generator.set_state(at.generator)
            order = batches(*train, batch_size=batch_size, generator=generator)
            if at.batch:
                generator.set_state(drawn_so_far)
            for inputs, targets in itertools.islice(order, at.batch, None):
                if transform is not None:
                    inputs = transform(inputs, generator)
                values = _step(model, optimizer, inputs, targets, loss, metric, autocast)
                n = len(inputs)
                # summed on the device: one synchronization per epoch, not one per step
                at.sums = values * n if at.sums is None else at.sums.add_(values, alpha=n)
                at.batch += 1
                save(checkpoint_seconds)
                stopping.check()
            assert at.sums is not None
            mean_loss, mean_metric = (at.sums / len(train[0])).tolist()
            trained = [
                Record(epoch, "train", "loss", mean_loss),
                Record(epoch, "train", metric.__name__, mean_metric),
                Record(epoch, "train", "lr", float(optimizer.param_groups[0]["lr"])),
            ]
            if epoch < epochs:
                records, validation_loss, validated = observe(epoch)
            else:
                # not to be repeated: from here on to its end the epoch is not broken off
                intervene(epoch)
                with stopping.stopped_by(lambda: False):
                    records, validation_loss, validated = observe(epoch)
            # an epoch is recorded whole or not at all
            result.history += [*trained, *records]
            if isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step(mean_loss if watch_loss else validated)
            elif scheduler is not None:
                scheduler.step()
            result.diverged = not (math.isfinite(mean_loss) and math.isfinite(validation_loss))
            if epoch < epochs:
                intervene(epoch)
            at = _Position(epoch + 1, generator.get_state())
            save(checkpoint_seconds)
            on_epoch(epoch)
    except stopping.Stopped:
        save(0)
        raise
    save(min(WORTH_SAVING_S, checkpoint_seconds))
    return result


def _check(epochs: int, metric: Metric, stateful: Mapping[str, Any]) -> None:
    if not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"epochs must be a non-negative integer, got {epochs}")
    if metric.__name__ in ("loss", "lr"):
        raise ValueError(f"metric must not be named as what is recorded, got {metric.__name__!r}")
    for name, part in stateful.items():
        if name in ("model", "optimizer", "scheduler"):
            raise ValueError(f"stateful must not name what fit keeps itself, got {name!r}")
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(
                f"stateful[{name!r}] must have state_dict and load_state_dict, got {part!r}"
            )


def _options(group: Mapping[str, Any]) -> dict[str, str]:
    options = {name: repr(value) for name, value in group.items() if name != "params"}
    return {**options, "sizes": str([tuple(p.shape) for p in group["params"]])}


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

    Raises:
        Stopped: the training was told to stop.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = samples[0].device.type
    sums = torch.zeros(())
    try:
        model.eval()
        with torch.inference_mode(), torch.autocast(device, autocast, enabled=autocast is not None):
            for inputs, targets in batches(*samples, batch_size=batch_size):
                output = model(inputs)
                values = torch.stack([metric(output, targets) for metric in metrics])
                sums = sums.to(values.device) + len(inputs) * values
                stopping.check()
    finally:
        # parts may be frozen in a mode of their own
        for module, training in modes:
            module.training = training
    return (sums / len(samples[0])).tolist()


def _state(
    parts: Mapping[str, Any], generator: torch.Generator, result: Training, at: _Position
) -> dict[str, Any]:
    return {
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "generator": generator.get_state(),
        "result": {**vars(result), "history": [tuple(record) for record in result.history]},
        "position": vars(at),
    }


def _go_on(
    keeper: Checkpoint,
    parts: Mapping[str, Any],
    generator: torch.Generator,
    result: Training,
    device: torch.device,
    epochs: int,
    n_batches: int,
) -> _Position:
    """Load a checkpoint into all that has a state; how far the training is."""
    state = keeper.load()
    at = _Position(**state["position"])
    if not (1 <= at.epoch <= epochs + 1 and 0 <= at.batch <= n_batches):
        raise keeper.unusable(
            f"it stands at epoch {at.epoch}, batch {at.batch}, of {epochs} epochs of {n_batches}"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
    except Exception as error:  # whatever a part says of another one's state
        reason = str(error).partition("\n")[0]
        raise keeper.unusable(f"{name}: {reason}") from error
    generator.set_state(state["generator"])
    vars(result).update(state["result"])
    result.history = [Record(*record) for record in result.history]
    if at.sums is not None:
        at.sums = at.sums.to(device)
    return at
