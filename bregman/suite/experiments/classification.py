"""Training a classifier with any of the optimizers: what the image experiments share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bregman.initialization import sparse_init_
from bregman.layers import param_groups
from bregman.regularizers import L1
from bregman.sparsity import sparsity_summary
from bregman.suite.checkpoints import Checkpoint
from bregman.suite.data import load, train_val_split
from bregman.suite.experiments.optimizers import make_optimizer as named_optimizer
from bregman.suite.models import MLP
from bregman.suite.runs import Outcome
from bregman.suite.training import accuracy, evaluate, fit


@dataclass(frozen=True)
class Classification:
    """All that decides the outcome of one classifier run.

    Attributes:
        dataset: a name that ``bregman.suite.data.load`` knows.
        mini: train on the small subset in the package.
        train_size: use that many training images only, all if None.
        density: r of the sparse initialization.
        gain: its factor on the standard deviation of the weights.
        optimizer: "SGD", "Adam", "LinBreg", "AdaBreg" or "ProxGD".
        lr: the learning rate tau.
        lam: the weight of the l1 norm of all weight matrices.
        momentum: beta.
        epochs: passes over the training set.
        batch_size: samples per step.
        patience: the learning rate is halved after that many epochs without a better validation
            accuracy.
        seed: of the split, the initialization and the order of the samples.
    """

    dataset: str
    mini: bool
    train_size: int | None
    density: float
    gain: float
    optimizer: str
    lr: float
    lam: float
    momentum: float
    epochs: int
    batch_size: int
    patience: int
    seed: int


def make_optimizer(config: Classification, model: torch.nn.Module) -> Optimizer:
    """The optimizer that a config names, with its regularizer on the weights."""
    groups = param_groups(model, linear=L1(config.lam) if config.lam else None)
    return named_optimizer(config.optimizer, groups, config.lr, config.momentum)


def train(
    config: Classification, device: str, checkpoint: Checkpoint, on_epoch: Callable[[int], None]
) -> Outcome:
    """Make one run: one generator gives the split, the weights and the order, in that order."""
    generator = torch.Generator().manual_seed(config.seed)
    data = load(config.dataset, mini=config.mini).to(device)
    # 55,000 / 5,000 of the full MNISTs
    n_images = len(data.train_images)
    chosen, held_out = train_val_split(n_images, n_images // 12, generator)
    chosen = chosen[: config.train_size]
    images = data.normalize(data.train_images)
    model = MLP()
    sparse_init_(model, config.density, gain=config.gain, generator=generator)
    model.to(device)
    optimizer = make_optimizer(config, model)
    training = fit(
        model,
        optimizer,
        (images[chosen], data.train_labels[chosen]),
        (images[held_out], data.train_labels[held_out]),
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=generator,
        scheduler=ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=config.patience),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    test = (data.normalize(data.test_images), data.test_labels)
    weights = sparsity_summary(model)
    last = {(r.split, r.metric): r.value for r in training.history}
    return Outcome(
        training,
        {
            "n_total_pct": 100 * weights["n_total"],
            "val_acc_pct": 100 * last["validation", "accuracy"],
            "test_acc_pct": 100 * evaluate(model, test, accuracy)[0],
            "train_acc_pct": 100 * last["train", "accuracy"],
            "l1_norm": weights["l1_norm"],
        },
    )
