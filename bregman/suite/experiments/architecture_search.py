"""Networks that choose their own skip connections, after arXiv 2106.02479.

"Neural Architecture Search via Bregman Iterations", by the authors of the paper, lets AdaBreg add
neurons and skip connections to a fully connected network. The settings are those of the authors'
public notebook; the classifier is its counterpart with the same layers.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bregman.initialization import sparse_init_
from bregman.regularizers import L1, GroupL12
from bregman.sparsity import sparsity_summary
from bregman.suite.data import ImageData
from bregman.suite.experiments.allowed import Count, NonNegative
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.measures import last_accuracies
from bregman.suite.experiments.parts import Task, add_noise, network_input, shown
from bregman.suite.experiments.quality import psnr, ssim_map
from bregman.suite.experiments.recipe import Parts, PlateauRecipe, Results, settings_of
from bregman.suite.models import SkipMLP
from bregman.suite.training import Samples, Training, accuracy, evaluate


@dataclass(frozen=True)
class SearchScale(Scale):
    """What a scale means here.

    Attributes:
        side: the images are shrunk to that many pixels per side; a layer has side * side neurons.
        lr: the learning rate tau, larger where there are few steps.
    """

    side: int = 28
    lr: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class ArchitectureSearch(PlateauRecipe):
    """A run; ``density`` is of the neurons, ``lam`` weighs the norms of the rows."""

    task: str  # "denoise" or "deblur" (restore the clean image), or "classify"
    side: Count  # pixels per side of the images, which are shrunk to it; a divisor of 28
    depth: Count  # layers with side * side neurons each
    skip_lam: NonNegative | None  # the weight of the l1 norm of the skips; None forbids skips
    noise: NonNegative  # the standard deviation of the noise, for pixels in [0, 1]
    blur: NonNegative  # the standard deviation of the Gaussian blur in pixels, 0 for none
    blur_size: Count  # the width of its kernel in pixels
    autocast: str | None  # the dtype of the forward passes in training, None for float32

    @property
    def restores(self) -> bool:
        """The targets are images."""
        return self.task != "classify"

    def make_task(self, data: ImageData, generator: torch.Generator) -> Task:
        """Noise is drawn once for every image, after the split."""
        chosen, held_out = self.split(len(data.train_images), generator)

        def prepared(images: Tensor, labels: Tensor) -> Samples:
            inputs, targets = samples(self, images, labels, generator)
            return network_input(inputs, data), targets

        return Task(
            prepared(data.train_images[chosen], data.train_labels[chosen]),
            prepared(data.train_images[held_out], data.train_labels[held_out]),
            prepared(data.test_images, data.test_labels),
            loss=F.mse_loss if self.restores else F.cross_entropy,
            metric=psnr if self.restores else accuracy,
        )

    def make_network(self) -> nn.Module:
        model = SkipMLP(self.side**2, self.depth, None if self.restores else 10)
        model.skips.requires_grad_(self.skip_lam is not None)
        return model

    def initialize(self, model: Any, generator: torch.Generator) -> None:
        sparse_init_(model.layers, self.density, gain=self.gain, group="row", generator=generator)
        if not self.restores:
            sparse_init_(model.head, 1.0, generator=generator)

    def param_groups(self, model: Any) -> list[dict[str, Any]]:
        return model.param_groups(
            linear=GroupL12(self.lam, dim=1) if self.lam else None,
            skips=L1(self.skip_lam) if self.skip_lam else None,
        )

    def measure(self, parts: Parts) -> dict[str, float]:
        return architecture(parts.model)

    def results(self, parts: Parts, training: Training) -> Results:
        model, test = parts.model, parts.task.test
        found = architecture(model)
        result: Results = {
            "n_total_pct": 100 * found["n_total"],
            "neurons": sum(found[f"neurons_{i}"] for i in range(1, self.depth + 1)),
            "skips": found["skips"],
        }
        if not self.restores:
            tested = {"test_acc_pct": 100 * evaluate(model, test, accuracy)[0]}
            return result | last_accuracies(training) | tested
        degraded = (shown(test[0], parts.data), test[1])
        for prefix, network, samples in (("degraded_", nn.Identity(), degraded), ("", model, test)):
            quality = evaluate(network, samples, psnr, square_ssim)
            result |= {f"{prefix}psnr": quality[0], f"{prefix}ssim": quality[1]}
        return result

    @torch.no_grad()
    def arrays(self, parts: Parts) -> dict[str, Tensor]:
        skips = {"skips": parts.model.skips + 0.0}
        if not self.restores:
            return skips
        # the first test image of every class
        first = [int((parts.data.test_labels == digit).nonzero()[0]) for digit in range(10)]
        inputs, clean = (part[first] for part in parts.task.test)
        images = {"degraded": shown(inputs, parts.data), "restored": parts.model(inputs)}
        return skips | {name: square(x) for name, x in (images | {"clean": clean}).items()}


def square(images: Tensor) -> Tensor:
    """Flat images, N x pixels, as N x 1 x side x side."""
    return images.unflatten(1, (1, math.isqrt(images.shape[1]), -1))


def square_ssim(output: Tensor, clean: Tensor) -> Tensor:
    """The structural similarity of flat images, image by image."""
    return ssim_map(square(output), square(clean)).flatten(1).mean(1).mean()


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


def samples(
    config: "ArchitectureSearch", images: Tensor, labels: Tensor, generator: torch.Generator
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
        # takes seconds to import, and only these runs need it
        from torchvision.transforms.v2.functional import gaussian_blur

        size, sigma = [config.blur_size] * 2, [config.blur] * 2
        # in parts: all at once it takes gigabytes
        degraded = torch.cat([gaussian_blur(part, size, sigma) for part in clean.split(1000)])
    return add_noise(degraded, config.noise, generator).flatten(1), clean.flatten(1)


SCALES: dict[str, Scale] = {
    "smoke": SearchScale(epochs=15, mini=True, side=14, lr=1e-2),
    "quick": SearchScale(epochs=5, side=14, lr=2e-3),
    "paper": SearchScale(epochs=40),
}


SETUP: dict[str, Any] = {
    "optimizer": "AdaBreg", "lam": 0.07, "skip_lam": "row", "depth": 6, "batch_size": 128,
    "autocast": "bfloat16", "patience": 5,
}  # fmt: skip


def config(scale: SearchScale, seed: int, task: str, **settings: Any) -> ArchitectureSearch:
    """The settings of the authors' notebook, but for ``epochs`` (100 there) and the schedule.

    With ``skip_lam`` "row" a skip has the weight of a row, which has side * side entries:
    side * lam.
    """
    made = {**SETUP, **settings_of(scale), **settings}
    dense = made["optimizer"] == "Adam"
    # about eight neurons per layer, or all
    density = 1.0 if dense else 0.01 * (28 / scale.side) ** 2
    if made["skip_lam"] == "row":
        made["skip_lam"] = scale.side * made["lam"]
    return ArchitectureSearch(
        **made,
        dataset="fashion_mnist" if task == "classify" else "mnist",
        task=task,
        density=density,
        gain=1.0 if dense else 5 * math.sqrt(density),
        noise=0.0 if task == "classify" else 0.05,
        blur=5.0 * scale.side / 28 if task == "deblur" else 0.0,
        # odd, and 9 at the full size
        blur_size=2 * (4 * scale.side // 28) + 1,
        seed=seed,
    )


PREPRINT = "arXiv 2106.02479"

ROWS = (
    *(
        Row(f"{name}, skips {'allowed' if skip_lam else 'forbidden'}", PREPRINT, "Bregman",
            "AdaBreg", {"task": task, "skip_lam": skip_lam})
        for name, task in (("Denoising", "denoise"), ("Deblurring", "deblur"))
        for skip_lam in ("row", None)
    ),
    *(
        Row(f"Classifier (μ={skip_lam})", PREPRINT, "Bregman", "AdaBreg",
            {"task": "classify", "lam": 0.05, "skip_lam": skip_lam})
        for skip_lam in (0.05, 0.15, 0.5)
    ),
    Row("Classifier, dense (Adam)", PREPRINT, "Vanilla", "Adam",
        {"task": "classify", "optimizer": "Adam", "lam": 0.0, "skip_lam": 0.0}),
)  # fmt: skip

EXPERIMENT = Experiment("architecture_search", "MNIST, Fashion-MNIST",
                        "Fully connected, scalar skips", SCALES, ROWS, config)  # fmt: skip
