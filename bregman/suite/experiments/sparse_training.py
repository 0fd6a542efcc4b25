"""Sparse training of any of the networks, by any of the methods: what a config makes.

``make_task``, ``make_model``, ``make_optimizer`` and ``attach`` build the parts, and ``train`` puts
them together.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from bregman.flops import forward_flops, layer_densities, training_share
from bregman.initialization import sparse_init_
from bregman.layers import CONV, param_groups, weight_layers
from bregman.multilevel import Multilevel
from bregman.multilevel.chains import links
from bregman.optim import BregmanOptimizer
from bregman.regularizers import L1, GroupL12, Regularizer
from bregman.sparsity import sparsity_summary
from bregman.steering import SparsityTarget
from bregman.suite.analysis.cost import recorded_shares
from bregman.suite.baselines import SET, GradualPruning, Masked, RigL, StaticSupport
from bregman.suite.checkpoints import Checkpoint
from bregman.suite.data import ImageData, load, train_val_split
from bregman.suite.data.augment import crop_and_flip
from bregman.suite.experiments.denoising_autoencoder import add_noise, network_input, psnr, ssim
from bregman.suite.experiments.optimizers import make_optimizer as named_optimizer
from bregman.suite.experiments.turnover import Turnover
from bregman.suite.models import MLP, Autoencoder, ConvNet, ResNet18
from bregman.suite.runs import Outcome
from bregman.suite.training import (
    Metric,
    Record,
    Samples,
    Transform,
    accuracy,
    evaluate,
    fit,
    weight_measures,
)

NOISE = 0.09
# of the validation set: evaluation is dense, and all images would take much of a short run
WATCHED = 1000
# how the arrays of a run begin their names that are weights
WEIGHTS = "weights."


@dataclass(frozen=True)
class SparseTraining:
    """All that decides the outcome of one run.

    Attributes:
        network: "MLP", "wide MLP", "CNN", "ResNet-18" or "autoencoder".
        width: neurons of the wide MLP's hidden layers, or channels of the first stage of ResNet-18.
        dataset: a name that ``bregman.suite.data.load`` knows.
        mini: train on the small subset in the package.
        train_size: use that many training images only, all if None.
        optimizer: "SGD", "Adam", "LinBreg" or "AdaBreg".
        lr: the learning rate tau at first; it falls to zero along a cosine.
        lam: the weight of the regularizer, with a target only at first.
        neurons: regularize all that leads into a hidden neuron or filter as one; otherwise single
            weights.
        density: r of the sparse initialization, in the layers that become sparse.
        gain: its factor on the standard deviation of the weights; outputs that stay dense have 1.
        target: the density that the baseline, or the steering of lambda, leads to; None for a
            constant lambda, or no sparsity at all.
        baseline: "static", "SET", "RigL" or "pruning"; None for none.
        frozen_steps: m of multilevel training, 0 for the optimizer as it is.
        catch_up: a full step counts m + 1 times for what is zero.
        path: how layers compute in frozen steps. Only a CPU has sparse products that pay: "csr" is
            "masked" on other devices.
        turnover: record how the support changes from one full step to the next.
        keep: keep the trained weights.
        epochs: passes over the training set.
        batch_size: samples per step.
        autocast: the dtype of the forward passes, None for float32.
        seed: of the split, the initialization, supports, the order of the samples, noise and crops.
    """

    network: str
    width: int
    dataset: str
    mini: bool
    train_size: int | None
    optimizer: str
    lr: float
    lam: float
    neurons: bool
    density: float
    gain: float
    target: float | None
    baseline: str | None
    frozen_steps: int
    catch_up: bool
    path: str
    turnover: bool
    keep: bool
    epochs: int
    batch_size: int
    autocast: str | None
    seed: int


class Task(NamedTuple):
    """What a network is to learn: data, and how good an output is.

    Attributes:
        train: (inputs, targets).
        val: likewise.
        test: likewise.
        loss: of ``fit``.
        metric: likewise.
        transform: likewise.
    """

    train: Samples
    val: Samples
    test: Samples
    loss: Metric
    metric: Metric
    transform: Transform | None


def make_task(config: SparseTraining, data: ImageData, generator: torch.Generator) -> Task:
    """Classify images, or denoise them with fresh noise in every batch; crops for CIFAR-10.

    Args:
        config: of the run.
        data: its data set, on the device to train on.
        generator: draws the split.
    """
    n_images = len(data.train_images)
    # 55,000 / 5,000 of the whole MNISTs
    chosen, held_out = train_val_split(n_images, n_images // 12, generator)
    chosen, held_out = chosen[: config.train_size], held_out[:WATCHED]
    if config.network == "autoencoder":
        pixels = data.train_images / 255

        def noisy(clean: Tensor, generator: torch.Generator) -> Tensor:
            return network_input(add_noise(clean, NOISE, generator), data)

        def fixed(clean: Tensor) -> Samples:
            return noisy(clean, torch.Generator().manual_seed(1)), clean

        clean = pixels[chosen]
        held_out, test = pixels[held_out], data.test_images / 255
        return Task((clean, clean), fixed(held_out), fixed(test), F.mse_loss, psnr, noisy)
    images, test = data.normalize(data.train_images), data.normalize(data.test_images)
    transform: Transform | None = None
    if config.dataset == "cifar10":
        # the usual recipe pads with black before it normalizes
        black = data.normalize(data.train_images.new_zeros(3, 1, 1)).flatten()
        transform = partial(crop_and_flip, border=black)
    return Task(
        (images[chosen], data.train_labels[chosen]),
        (images[held_out], data.train_labels[held_out]),
        (test, data.test_labels),
        F.cross_entropy,
        accuracy,
        transform,
    )


def make_model(config: SparseTraining, generator: torch.Generator) -> nn.Module:
    """The network with its initial weights, on the CPU.

    Args:
        config: of the run.
        generator: draws the weights.

    Raises:
        ValueError: an unknown network.
    """
    model: nn.Module
    match config.network:
        case "MLP":
            model = MLP()
        case "wide MLP":
            model = MLP((784, config.width, config.width, 10))
        case "CNN":
            model = ConvNet().to(memory_format=torch.channels_last)
        case "ResNet-18":
            model = ResNet18(config.width).to(memory_format=torch.channels_last)
        case "autoencoder":
            model = Autoencoder()
        case _:
            raise ValueError(
                "network must be MLP, wide MLP, CNN, ResNet-18 or autoencoder, "
                f"got {config.network!r}"
            )
    layers = sparse_layers(config, model)
    group: Literal["row", "entry"] = "row" if config.neurons else "entry"
    with warnings.catch_warnings():
        # a layer that draws no weight at all can still grow some
        warnings.filterwarnings("ignore", "sparse_init_: layer")
        sparse_init_(layers, config.density, gain=config.gain, group=group, generator=generator)
    dense = [layer for _, layer in weight_layers(model) if layer not in layers]
    for layer in dense:
        gain = 1.0 if layer is dense[-1] else config.gain
        sparse_init_(layer, 1.0, gain=gain, generator=generator)
    return model


def sparse_layers(config: SparseTraining, model: nn.Module) -> nn.ModuleList:
    """The layers that become sparse: all; or where whole neurons go, all but the last.

    Of a convolutional network filters go, and not those of the last convolution: nearly all FLOPs
    are in convolutions, and one whose inputs are gone is small as well.
    """
    layers = [layer for _, layer in weight_layers(model)]
    if config.neurons:
        convolutions = [layer for layer in layers if isinstance(layer, CONV)]
        return nn.ModuleList((convolutions or layers)[:-1])
    return nn.ModuleList(layers)


def make_optimizer(config: SparseTraining, model: nn.Module) -> Optimizer:
    """The optimizer that a config names, with its regularizer on the weights.

    Raises:
        ValueError: an unknown optimizer.
    """
    linear: Regularizer | None = None
    conv: Regularizer | None = None
    if config.lam and config.neurons:
        linear, conv = GroupL12(config.lam, dim=1), GroupL12(config.lam, dim=(1, 2, 3))
    elif config.lam:
        linear = conv = L1(config.lam)
    groups = param_groups(sparse_layers(config, model), linear, conv)
    groups = [group for group in groups if group["reg"] is not None]
    held = {p for group in groups for p in group["params"]}
    groups.append({"params": [p for p in model.parameters() if p not in held], "reg": None})
    return named_optimizer(config.optimizer, groups, config.lr)


def attach(
    config: SparseTraining,
    model: nn.Module,
    optimizer: Optimizer,
    steps: int,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Add to an optimizer what decides which weights are zero, as hooks.

    Args:
        config: of the run.
        model: on the device to train on.
        optimizer: of ``make_optimizer``.
        steps: of the whole training.
        generator: draws the baselines' supports.

    Returns:
        What was attached, by name. All but the cycle ("multilevel", whose state is in the
        optimizer's) has a state for ``fit(stateful=...)``.

    Raises:
        ValueError: an unknown baseline, or one without a target.
    """
    if config.baseline is not None:
        return {"baseline": _baseline(config, model, optimizer, steps, generator)}
    if not isinstance(optimizer, BregmanOptimizer):
        return {}
    on_cpu = all(p.is_cpu for p in model.parameters())
    path = "masked" if config.path == "csr" and not on_cpu else config.path
    cycle = Multilevel(model, optimizer, config.frozen_steps, path=path, catch_up=config.catch_up)
    attached: dict[str, Any] = {"multilevel": cycle}
    if config.turnover:
        attached["turnover"] = Turnover(optimizer, cycle)
    if config.target is not None:
        # every ten steps; between cycles, since only then weights are whole
        cycles = math.ceil(10 / (config.frozen_steps + 1))
        attached["target"] = target = SparsityTarget(optimizer, config.target, every=cycles)

        def steer(*_: Any) -> None:
            if not cycle.frozen:
                target.step()

        optimizer.register_step_post_hook(steer)
    return attached


def every(steps: int) -> int:
    """Steps between two changes of a baseline's support: 100, but at least 50 changes in all."""
    return min(100, max(1, steps // 50))


def _baseline(
    config: SparseTraining,
    model: nn.Module,
    optimizer: Optimizer,
    steps: int,
    generator: torch.Generator,
) -> Masked:
    if config.target is None:
        raise ValueError(f"target must be a density in (0, 1] for {config.baseline}, got None")
    masked: Masked
    match config.baseline:
        case "pruning":
            return GradualPruning(model, optimizer, config.target, steps, every=every(steps))
        case "static":
            masked = StaticSupport(model, optimizer, config.target, generator=generator)
        case "SET" | "RigL":
            method = SET if config.baseline == "SET" else RigL
            masked = method(
                model, optimizer, config.target, steps, generator=generator, every=every(steps)
            )
        case _:
            raise ValueError(
                f"baseline must be static, SET, RigL or pruning, got {config.baseline!r}"
            )
    with torch.no_grad():
        # the variance of a dense network, as LinBreg has it from the start (4.3)
        for weight, mask in masked.masks.items():
            weight.div_(mask.float().mean().sqrt())
    return masked


def train(
    config: SparseTraining, device: str, checkpoint: Checkpoint, on_epoch: Callable[[int], None]
) -> Outcome:
    """Make one run: a generator gives split, weights, supports; one more the order and noise."""
    drawn = torch.Generator().manual_seed(config.seed)
    data = load(config.dataset, mini=config.mini).to(device)
    task = make_task(config, data, drawn)
    model = make_model(config, drawn).to(device)
    flops = forward_flops(model, task.train[0][:1])
    optimizer = make_optimizer(config, model)
    steps = math.ceil(len(task.train[0]) / config.batch_size)
    attached = attach(config, model, optimizer, config.epochs * steps, drawn)
    autocast = None if config.autocast is None else getattr(torch, config.autocast)

    def measure(model: nn.Module) -> dict[str, float]:
        measures = weight_measures(model)
        for name, density in product_densities(config, model).items():
            measures[f"products_{name}"] = density
        if "target" in attached:
            measures["lam"] = optimizer.param_groups[0]["reg"].lam
        if "turnover" in attached:
            measures |= attached["turnover"].collect()
        return measures

    def end_cycle(epoch: int) -> None:
        # the last cycle of an epoch may be shorter than the others
        if "multilevel" in attached:
            attached["multilevel"].finish()

    training = fit(
        model,
        optimizer,
        task.train,
        task.val,
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=torch.Generator(device).manual_seed(config.seed),
        scheduler=CosineAnnealingLR(optimizer, config.epochs),
        loss=task.loss,
        metric=task.metric,
        transform=task.transform,
        autocast=autocast,
        measure=measure,
        stateful={name: part for name, part in attached.items() if name != "multilevel"},
        intervene=end_cycle,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    weights = sparsity_summary(model)
    shares = {name: weights[name] for name in ("n_total", "n_linear", "n_conv")}
    result: dict[str, float | None] = {
        **{f"{name}_pct": None if v is None else 100 * v for name, v in shares.items()},
        "l1_norm": weights["l1_norm"],
        "flops_pct": 100 * training_flops(config, flops, training.history, steps),
        "target_pct": None if config.target is None else 100 * config.target,
        "frozen_steps": config.frozen_steps,
    }
    if config.network == "autoencoder":
        (result["ssim"],) = evaluate(model, task.test, ssim)
    else:
        last = {(r.split, r.metric): r.value for r in training.history}
        result["val_acc_pct"] = 100 * last["validation", "accuracy"]
        result["test_acc_pct"] = 100 * evaluate(model, task.test, accuracy, autocast=autocast)[0]
    # in half precision
    arrays = {WEIGHTS + name: value.half() for name, value in model.state_dict().items()}
    return Outcome(training, result, arrays if config.keep else {})


def product_densities(config: SparseTraining, model: nn.Module) -> dict[str, float]:
    """The share of each layer's weights that its products need.

    These are the non-zero ones. But where whole neurons and filters go, what leads out of one that
    is gone meets the same constant in all samples, and is no part of a product.

    Args:
        config: of the run.
        model: of ``make_model``, with whole weights.

    Returns:
        Per layer name a number in [0, 1].
    """
    densities = layer_densities(model)
    if not config.neurons:
        return densities
    alive: dict[nn.Module, float] = {layer: densities[name] for name, layer in weight_layers(model)}
    coming = {layer: alive[before] for layer, (before, _) in links(model).items()}
    return {name: densities[name] * coming.get(layer, 1.0) for name, layer in weight_layers(model)}


def training_flops(
    config: SparseTraining, flops: Mapping[str, float], history: list[Record], steps: int
) -> float:
    """The theoretical FLOPs of a training relative to that of a dense network.

    Args:
        config: of the run.
        flops: per layer, of ``forward_flops``.
        history: with the ``product_densities`` over the epochs.
        steps: per epoch. The end of an epoch ends a cycle, so a last one is shorter than m + 1.

    Returns:
        The mean over all steps.
    """
    if config.baseline is None and config.optimizer in ("SGD", "Adam"):
        return 1.0
    shares = recorded_shares(flops, history, "products_")
    return training_share(shares, _frozen_per_full(config, steps))


def _frozen_per_full(config: SparseTraining, steps: int) -> float:
    """How many steps get along without the gradient of all weights, per step that needs it."""
    if config.baseline == "RigL":
        total = config.epochs * steps
        full = (math.ceil(RigL.END * total) - 1) // every(total)
        return total / full - 1 if full else math.inf
    if config.baseline is not None:
        return math.inf
    return steps / math.ceil(steps / (config.frozen_steps + 1)) - 1
