"""Networks that choose their own skip connections, after arXiv 2106.02479.

"Neural Architecture Search via Bregman Iterations", by the authors of the paper, lets AdaBreg add
neurons and skip connections to a fully connected network. The settings are those of the authors'
public notebook; the classifier is its counterpart with the same layers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchvision.transforms.v2.functional import gaussian_blur

from bregman.initialization import sparse_init_
from bregman.regularizers import L1, GroupL12
from bregman.sparsity import sparsity_summary
from bregman.suite.checkpoints import Checkpoint
from bregman.suite.data import load, train_val_split
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.optimizers import make_optimizer as named_optimizer
from bregman.suite.models import SkipMLP
from bregman.suite.runs import Outcome
from bregman.suite.training import Samples, accuracy, evaluate, fit


@dataclass(frozen=True)
class SearchScale(Scale):
    """What a scale means here.

    Attributes:
        side: the images are shrunk to that many pixels per side; a layer has side * side neurons.
        lr: the learning rate tau, larger where there are few steps.
    """

    side: int = 28
    lr: float = 1e-3


@dataclass(frozen=True)
class ArchitectureSearch:
    """All that decides the outcome of one run.

    Attributes:
        dataset: a name that ``bregman.suite.data.load`` knows.
        task: "denoise" or "deblur" (restore the clean image), or "classify".
        mini: train on the small subset in the package.
        train_size: use that many training images only, all if None.
        side: pixels per side of the images, which are shrunk to it; a divisor of 28.
        depth: layers with side * side neurons each.
        density: r of the sparse initialization, the share of neurons that start active.
        gain: its factor on the standard deviation of the weights.
        optimizer: "AdaBreg" or "Adam".
        lr: the learning rate tau.
        lam: the weight of the group norm of the rows.
        skip_lam: the weight of the l1 norm of the skips; None forbids skips.
        noise: the standard deviation of the noise, for pixels in [0, 1].
        blur: the standard deviation of the Gaussian blur in pixels, 0 for none.
        blur_size: the width of its kernel in pixels.
        epochs: passes over the training set.
        batch_size: samples per step.
        autocast: the dtype of the forward passes in training, None for float32.
        patience: the learning rate is halved after that many epochs without a better validation
            metric.
        seed: of the split, the noise, the initialization and the order of the samples.
    """

    dataset: str
    task: str
    mini: bool
    train_size: int | None
    side: int
    depth: int
    density: float
    gain: float
    optimizer: str
    lr: float
    lam: float
    skip_lam: float | None
    noise: float
    blur: float
    blur_size: int
    epochs: int
    batch_size: int
    autocast: str | None
    patience: int
    seed: int


def psnr(output: Tensor, clean: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of images, mean over the batch.

    Args:
        output: (batch, pixels); clamped to [0, 1].
        clean: likewise, in [0, 1].

    Returns:
        A 0-d tensor in decibel.
    """
    return peak_signal_noise_ratio(output.float().clamp(0, 1), clean, data_range=1.0, dim=1)


def ssim(output: Tensor, clean: Tensor) -> Tensor:
    """The structural similarity of square images, as in ``psnr``; 1 for equal images."""
    images, targets = (_square(x.clamp(0, 1)) for x in (output, clean))
    similarity = structural_similarity_index_measure(images, targets, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return similarity


def architecture(model: SkipMLP) -> dict[str, float]:
    """What the network looks like.

    Returns:
        The share of the layers' weights that are not zero (``n_total``), the number of non-zero
        skips (``skips``), the active neurons per layer from the input on (``neurons_0``, ...), and
        the weight of every possible skip from x_j to x_l (``skip_j_l``).
    """
    neurons = sparsity_summary(model.layers)["active_neurons"]
    # soft thresholding gives -0.0 too
    skips = (model.skips + 0.0).tolist()
    return {
        "n_total": sparsity_summary(nn.ModuleList([model.layers, model.head]))["n_total"],
        "skips": int(model.skips.count_nonzero()),
        **{f"neurons_{i}": n for i, n in enumerate(neurons)},
        **{f"skip_{j}_{i}": row[j] for i, row in enumerate(skips, start=1) for j in range(i)},
    }


def make_optimizer(config: ArchitectureSearch, model: SkipMLP) -> Optimizer:
    """The optimizer that a config names, with row sparsity (1.14) and l1 on the skips."""
    rows = GroupL12(config.lam, dim=1) if config.lam else None
    skips = L1(config.skip_lam) if config.skip_lam else None
    groups = model.param_groups(linear=rows, skips=skips)
    return named_optimizer(config.optimizer, groups, config.lr)


def samples(
    config: ArchitectureSearch, images: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a task.

    Args:
        config: the task, the size of the images, noise and blur.
        images: uint8, N x 1 x 28 x 28.
        labels: N classes.
        generator: draws the noise, once for every image as in the authors' notebook.

    Returns:
        Inputs, N x pixels, clean images in [0, 1] or degraded ones; and targets, N x pixels, the
        clean images, or the labels.
    """
    clean = F.avg_pool2d(images.float() / 255, images.shape[-1] // config.side)
    if config.task == "classify":
        return clean.flatten(1), labels
    degraded = clean
    if config.blur > 0:
        size, sigma = [config.blur_size] * 2, [config.blur] * 2
        # in parts: all at once it takes gigabytes
        degraded = torch.cat([gaussian_blur(part, size, sigma) for part in clean.split(1000)])
    noise = torch.randn(clean.shape, generator=generator)
    return (degraded + config.noise * noise).flatten(1), clean.flatten(1)


def train(
    config: ArchitectureSearch, device: str, checkpoint: Checkpoint, on_epoch: Callable[[int], None]
) -> Outcome:
    """Make one run: one generator gives the split, the noise, the weights and the order."""
    generator = torch.Generator().manual_seed(config.seed)
    data = load(config.dataset, mini=config.mini)
    # 55,000 / 5,000 of the full data sets
    n_images = len(data.train_images)
    chosen, held_out = train_val_split(n_images, n_images // 12, generator)
    chosen = chosen[: config.train_size]

    def prepared(images: Tensor, labels: Tensor) -> Samples:
        inputs, targets = samples(config, images, labels, generator)
        return inputs.sub_(data.mean[0]).div_(data.std[0]).to(device), targets.to(device)

    training_set = prepared(data.train_images[chosen], data.train_labels[chosen])
    validation_set = prepared(data.train_images[held_out], data.train_labels[held_out])
    test_set = prepared(data.test_images, data.test_labels)

    restores = config.task != "classify"
    model = SkipMLP(config.side**2, config.depth, None if restores else 10)
    model.skips.requires_grad_(config.skip_lam is not None)
    sparse_init_(model.layers, config.density, gain=config.gain, group="row", generator=generator)
    if not restores:
        sparse_init_(model.head, 1.0, generator=generator)
    model.to(device)
    optimizer = make_optimizer(config, model)
    training = fit(
        model,
        optimizer,
        training_set,
        validation_set,
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=generator,
        scheduler=ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=config.patience),
        loss=F.mse_loss if restores else F.cross_entropy,
        metric=psnr if restores else accuracy,
        autocast=getattr(torch, config.autocast) if config.autocast else None,
        measure=lambda _: architecture(model),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )

    found = architecture(model)
    result: dict[str, float | None] = {
        "n_total_pct": 100 * found["n_total"],
        "neurons": sum(found[f"neurons_{i}"] for i in range(1, config.depth + 1)),
        "skips": found["skips"],
    }
    arrays = {"skips": model.skips + 0.0}
    if restores:
        degraded = (test_set[0] * data.std[0] + data.mean[0], test_set[1])
        result["degraded_psnr"], result["degraded_ssim"] = evaluate(
            nn.Identity(), degraded, psnr, ssim
        )
        result["psnr"], result["ssim"] = evaluate(model, test_set, psnr, ssim)
        # the first test image of every class
        shown = [int((data.test_labels == digit).nonzero()[0]) for digit in range(10)]
        with torch.no_grad():
            restored = model(test_set[0][shown])
        images = {"degraded": degraded[0][shown], "restored": restored, "clean": test_set[1][shown]}
        arrays |= {name: _square(x) for name, x in images.items()}
    else:
        last = {(r.split, r.metric): r.value for r in training.history}
        result["train_acc_pct"] = 100 * last["train", "accuracy"]
        result["val_acc_pct"] = 100 * last["validation", "accuracy"]
        result["test_acc_pct"] = 100 * evaluate(model, test_set, accuracy)[0]
    return Outcome(training, result, arrays)


def _square(images: Tensor) -> Tensor:
    # flat to N x 1 x side x side
    return images.unflatten(1, (1, math.isqrt(images.shape[1]), -1))


SCALES: dict[str, Scale] = {
    "smoke": SearchScale(epochs=15, mini=True, side=14, lr=1e-2),
    "quick": SearchScale(epochs=5, side=14, lr=2e-3),
    "paper": SearchScale(epochs=40),
}


def config(
    scale: SearchScale,
    seed: int,
    task: str,
    optimizer: str = "AdaBreg",
    lam: float = 0.07,
    skip_lam: float | Literal["row"] | None = "row",
) -> ArchitectureSearch:
    """The settings of the authors' notebook, but for ``epochs`` (100 there) and the schedule.

    With "row" a skip has the weight of a row, which has side * side entries: side * lam.
    """
    # about eight neurons per layer, or all
    density = 1.0 if optimizer == "Adam" else 0.01 * (28 / scale.side) ** 2
    return ArchitectureSearch(
        dataset="fashion_mnist" if task == "classify" else "mnist",
        task=task,
        mini=scale.mini,
        train_size=scale.train_size,
        side=scale.side,
        depth=6,
        density=density,
        gain=1.0 if optimizer == "Adam" else 5 * math.sqrt(density),
        optimizer=optimizer,
        lr=scale.lr,
        lam=lam,
        skip_lam=scale.side * lam if skip_lam == "row" else skip_lam,
        noise=0.0 if task == "classify" else 0.05,
        blur=5.0 * scale.side / 28 if task == "deblur" else 0.0,
        # odd, and 9 at the full size
        blur_size=2 * (4 * scale.side // 28) + 1,
        epochs=scale.epochs,
        batch_size=128,
        autocast="bfloat16",
        patience=5,
        seed=seed,
    )


PREPRINT = "arXiv 2106.02479"

EXPERIMENT = Experiment(
    name="architecture_search",
    dataset="MNIST, Fashion-MNIST",
    model="Fully connected, scalar skips",
    scales=SCALES,
    rows=(
        *(
            Row(
                f"{name}, skips {'allowed' if skip_lam else 'forbidden'}",
                PREPRINT,
                "Bregman",
                "AdaBreg",
                {"task": task, "skip_lam": skip_lam},
            )
            for name, task in (("Denoising", "denoise"), ("Deblurring", "deblur"))
            for skip_lam in ("row", None)
        ),
        *(
            Row(
                f"Classifier (skips λ={skip_lam})",
                PREPRINT,
                "Bregman",
                "AdaBreg",
                {"task": "classify", "lam": 0.05, "skip_lam": skip_lam},
            )
            for skip_lam in (0.05, 0.15, 0.5)
        ),
        Row(
            "Classifier, dense (Adam)",
            PREPRINT,
            "Vanilla",
            "Adam",
            {"task": "classify", "optimizer": "Adam", "lam": 0.0, "skip_lam": 0.0},
        ),
    ),
    config=config,
    train=train,
)
