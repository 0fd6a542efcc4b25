"""Parts that recipes share: what is learned, and the optimizers by their names."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.suite.baselines import add_subgradients
from bregman.suite.data import ImageData
from bregman.suite.data.augment import crop_and_flip
from bregman.suite.experiments.quality import psnr
from bregman.suite.training import Metric, Samples, Transform, accuracy


class Task(NamedTuple):
    """What a network is to learn: (inputs, targets), and how good an output is.

    Attributes:
        train: to train on.
        val: to validate with.
        test: to test with.
        loss: of ``fit``.
        metric: likewise.
        transform: likewise.
        watched: the test set again, if its metric is recorded in the last epochs.
    """

    train: Samples
    val: Samples
    test: Samples
    loss: Metric = F.cross_entropy
    metric: Metric = accuracy
    transform: Transform | None = None
    watched: Samples | None = None


def classification(data: ImageData, chosen: Tensor, held_out: Tensor) -> Task:
    """Classify images; those of CIFAR-10 are cropped and mirrored at random for training.

    Args:
        data: on the device to train on.
        chosen: indices of the images to train on.
        held_out: of those to validate with.
    """
    transform: Transform | None = None
    if data.name == "cifar10":
        # the usual recipe pads with black before it normalizes
        black = data.normalize(data.train_images.new_zeros(3, 1, 1)).flatten()
        transform = partial(crop_and_flip, border=black)

    def samples(part: Tensor) -> Samples:
        return data.normalize(data.train_images[part]), data.train_labels[part]

    test = data.normalize(data.test_images), data.test_labels
    return Task(samples(chosen), samples(held_out), test, transform=transform)


def denoising(data: ImageData, chosen: Tensor, held_out: Tensor, noise: float) -> Task:
    """Remove noise that is fresh in every training batch, and the same in validation and test.

    Args:
        data: as for ``classification``.
        chosen: likewise.
        held_out: likewise.
        noise: its standard deviation, in pixel values from 0 to 1.
    """
    clean = data.train_images / 255
    return Task(
        (clean[chosen], clean[chosen]),
        noisy(data, clean[held_out], noise),
        noisy(data, data.test_images / 255, noise),
        F.mse_loss,
        psnr,
        lambda pixels, generator: network_input(add_noise(pixels, noise, generator), data),
    )


def noisy(data: ImageData, clean: Tensor, noise: float) -> Samples:
    """Clean pixels with the same noise at every call, as a network takes them; and the target."""
    return network_input(add_noise(clean, noise, torch.Generator().manual_seed(1)), data), clean


def add_noise(pixels: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of a standard deviation to pixel values."""
    noise = torch.randn(pixels.shape, generator=generator, device=generator.device)
    return pixels + level * noise.to(pixels.device)


def network_input(pixels: Tensor, data: ImageData) -> Tensor:
    """Pixel values on the scale of ``data.normalize``, which the networks take."""
    return (pixels - data.mean[0]) / data.std[0]


def shown(inputs: Tensor, data: ImageData) -> Tensor:
    """The pixel values of what a network takes."""
    return data.mean[0] + data.std[0] * inputs


def named_optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float = 0.0
) -> Optimizer:
    """The fused optimizer of a name.

    Args:
        name: "SGD", "Adam", "ProxGD", "LinBreg" or "AdaBreg".
        groups: parameter groups with their regularizers as "reg". SGD and Adam minimize the
            penalized loss (1.4) by subgradients where there is one.
        lr: the learning rate tau.
        momentum: beta, of SGD and LinBreg.

    Raises:
        ValueError: an unknown name.
    """
    makers: dict[str, Callable[..., Optimizer]] = {
        "SGD": partial(SGD, momentum=momentum), "Adam": Adam, "ProxGD": ProxGD,
        "LinBreg": partial(LinBreg, momentum=momentum), "AdaBreg": AdaBreg,
    }  # fmt: skip
    if name not in makers:
        raise ValueError(f"optimizer must be SGD, Adam, ProxGD, LinBreg or AdaBreg, got {name!r}")
    optimizer = makers[name](groups, lr=lr, fused=True)
    if name in ("SGD", "Adam") and any(group["reg"] is not None for group in groups):
        optimizer.register_step_pre_hook(add_subgradients)
    return optimizer
