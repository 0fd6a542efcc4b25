"""One recipe under all experiments: what a config says is built part by part, and trained.

    task -> model (sparse start) -> optimizer (regularizers) -> what is attached -> fit -> results

A config is a frozen dataclass of plain numbers and words, which names its run. It makes its parts
itself, so an experiment overrides those in which it differs and inherits the rest.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bregman.flops import forward_flops
from bregman.initialization import sparse_init_
from bregman.layers import param_groups
from bregman.regularizers import L1
from bregman.suite.checkpoints import Checkpoint
from bregman.suite.data import ImageData, load, train_val_split
from bregman.suite.experiments.allowed import (
    Count,
    Natural,
    NonNegative,
    Positive,
    Seed,
    Share,
    check_fields,
)
from bregman.suite.experiments.parts import Task, classification, named_optimizer
from bregman.suite.runs import Outcome
from bregman.suite.training import Training, fit, weight_measures

Results = dict[str, float | None]

# the data sets whose images are 28 x 28 pixels, and those with three colours
GREY, COLOURED = ("mnist", "fashion_mnist"), ("cifar10",)


@dataclass
class Parts:
    """What a config was made into.

    Attributes:
        data: the images, on the device to train on.
        task: what is learned from them.
        model: on that device.
        optimizer: of its parameters.
        scheduler: of its learning rate.
        generator: drew the split and the weights, and goes on with what is attached.
        attached: what else decides on the weights, by name.
    """

    data: ImageData
    task: Task
    model: Any
    optimizer: Optimizer
    scheduler: Any
    generator: torch.Generator
    attached: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def flops(self) -> dict[str, float]:
        """Of each layer's forward product with one sample, dense."""
        return forward_flops(self.model, self.task.train[0][:1])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the outcome of one run, and the parts that follow from it.

    A setting is one field, here if all have it, else in a subclass. The name of a run holds the
    fields that differ from their defaults: those below have none, and a new one has as its default
    what was in force before, so no run is renamed.

    Raises:
        ValueError: a field is not of its type, or out of its range.
    """

    dataset: str  # a name that ``bregman.suite.data.load`` knows
    mini: bool  # train on the small subset in the package
    train_size: Count | None  # use that many of the training images only, all if None
    optimizer: str  # "SGD", "Adam", "ProxGD", "LinBreg" or "AdaBreg"
    lr: Positive  # the learning rate tau
    lam: NonNegative  # the weight of the regularizer; SGD and Adam take its subgradient
    density: Share  # r of the sparse initialization
    gain: Positive  # its factor on the standard deviation of the weights
    epochs: Count  # passes over the training set
    batch_size: Count  # samples per step
    seed: Seed  # of all that is drawn: split, weights, order of the samples, noise, crops

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dataset not in self.datasets:
            allowed = " or ".join(self.datasets)
            raise ValueError(f"dataset must be {allowed} for this network, got {self.dataset!r}")

    @property
    def datasets(self) -> tuple[str, ...]:
        """Whose images the network takes."""
        return GREY

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the forward passes of training, None for float32."""
        autocast = vars(self).get("autocast")
        if autocast is None:
            return None
        dtype = getattr(torch, autocast, None)
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"autocast must be a dtype of torch or None, got {autocast!r}")
        return dtype

    @property
    def unit(self) -> Literal["entry", "kernel", "row"]:
        """What the sparse initialization draws as one."""
        return "entry"

    @property
    def watch_loss(self) -> bool:
        """Whether a ReduceLROnPlateau sees the training loss, not the validation metric."""
        return False

    def split(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images to train on and to validate with: 55,000 / 5,000 of the whole MNISTs."""
        chosen, held_out = train_val_split(n, n // 12, generator)
        return chosen[: self.train_size], held_out

    def make_task(self, data: ImageData, generator: torch.Generator) -> Task:
        """What is learned; the generator draws the split."""
        return classification(data, *self.split(len(data.train_images), generator))

    def make_network(self) -> nn.Module:
        """The network, whatever its weights."""
        raise NotImplementedError

    def initialize(self, model: nn.Module, generator: torch.Generator) -> None:
        """Draw the initial weights."""
        sparse_init_(model, self.density, gain=self.gain, group=self.unit, generator=generator)

    def make_model(self, generator: torch.Generator, device: str = "cpu") -> nn.Module:
        """The network with its initial weights, the same on every device."""
        model = self.make_network().to(memory_format=torch.channels_last)
        with warnings.catch_warnings():
            # a layer that draws no weight at all can still grow some
            warnings.filterwarnings("ignore", "sparse_init_: layer .* starts entirely at zero")
            self.initialize(model, generator)
        return model.to(device)

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The parameters with their regularizers: the l1 norm of all weights."""
        reg = L1(self.lam) if self.lam else None
        return param_groups(model, linear=reg, conv=reg)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """The optimizer that the config names.

        Raises:
            ValueError: an unknown name.
        """
        momentum = vars(self).get("momentum", 0.0)
        return named_optimizer(self.optimizer, self.param_groups(model), self.lr, momentum)

    def make_scheduler(self, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
        """What becomes of the learning rate; None if it stays."""
        raise NotImplementedError

    def attach(self, parts: Parts) -> dict[str, Any]:
        """Add to the optimizer what else decides on the weights; all of it, by name."""
        return {}

    def make_parts(self, device: str) -> Parts:
        """All parts of the run."""
        generator = torch.Generator().manual_seed(self.seed)
        data = load(self.dataset, mini=self.mini).to(device)
        task = self.make_task(data, generator)
        model = self.make_model(generator, device)
        optimizer = self.make_optimizer(model)
        parts = Parts(data, task, model, optimizer, self.make_scheduler(optimizer), generator)
        parts.attached = self.attach(parts)
        return parts

    def order(self, parts: Parts) -> torch.Generator:
        """What draws the order of the samples and what changes in each batch."""
        return parts.generator

    def after_epoch(self, parts: Parts, epoch: int) -> None:
        """What is done after each epoch, before it is recorded."""

    def measure(self, parts: Parts) -> dict[str, float]:
        """What is recorded of the weights after each epoch."""
        return weight_measures(parts.model)

    def snapshot(self, epoch: int, parts: Parts) -> Mapping[str, Tensor]:
        """What is kept of an epoch beside numbers."""
        return {}

    def results(self, parts: Parts, training: Training) -> Results:
        """The numbers of the trained network."""
        raise NotImplementedError

    def arrays(self, parts: Parts) -> dict[str, Tensor]:
        """What figures need of the trained network beside numbers."""
        return {}


@dataclass(frozen=True, kw_only=True)
class PlateauRecipe(Recipe):
    """A recipe that halves the learning rate where the validation metric does not get better."""

    patience: Natural  # epochs without a better one

    def make_scheduler(self, optimizer: Optimizer) -> LRScheduler | ReduceLROnPlateau | None:
        return ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=self.patience)


def settings_of(scale: Any) -> dict[str, Any]:
    """What a scale says that is a setting of its runs: all but the number of seeds."""
    return {name: value for name, value in asdict(scale).items() if name != "seeds"}


def train(
    config: Recipe, device: str, checkpoint: Checkpoint, on_epoch: Callable[[int], None]
) -> Outcome:
    """Make one run.

    Args:
        config: all that decides the outcome.
        device: what to train on.
        checkpoint: as for ``fit``.
        on_epoch: likewise.
    """
    cudnn = torch.backends.cudnn
    # convolutions on a GPU repeat bit for bit only when they are told to
    with cudnn.flags(cudnn.enabled, deterministic=True, allow_tf32=cudnn.allow_tf32):
        parts = config.make_parts(device)
        task = parts.task
        stateful = {k: part for k, part in parts.attached.items() if hasattr(part, "state_dict")}
        training = fit(
            parts.model, parts.optimizer, task.train, task.val, test=task.watched,
            epochs=config.epochs, batch_size=config.batch_size, generator=config.order(parts),
            scheduler=parts.scheduler, loss=task.loss, metric=task.metric, transform=task.transform,
            autocast=config.dtype, measure=lambda _: config.measure(parts),
            snapshot=lambda epoch, _: config.snapshot(epoch, parts), stateful=stateful,
            intervene=lambda epoch: config.after_epoch(parts, epoch), checkpoint=checkpoint,
            on_epoch=on_epoch, watch_loss=config.watch_loss,
        )  # fmt: skip
        return Outcome(training, config.results(parts, training), config.arrays(parts))


def steps_per_epoch(config: Recipe, task: Task) -> int:
    """Batches in one pass over the training set."""
    return math.ceil(len(task.train[0]) / config.batch_size)
