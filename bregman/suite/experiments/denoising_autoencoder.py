"""Figures 4 and 5: an autoencoder that finds its own architecture on MNIST, section 4.6."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from bregman.compact import compact
from bregman.initialization import sparse_init_
from bregman.layers import param_groups
from bregman.regularizers import GroupL12
from bregman.sparsity import sparsity_summary
from bregman.suite.data import ImageData, load, train_val_split
from bregman.suite.experiments.experiment import SCALES as SCALE_NAMES
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.optimizers import make_optimizer as named_optimizer
from bregman.suite.models import Autoencoder
from bregman.suite.runs import Outcome
from bregman.suite.training import Samples, evaluate, fit

# pixel values; 0.09 is what Figure 5 shows
NOISE_LEVELS = (0.0, 0.02, 0.05, 0.09, 0.15, 0.2, 0.3)
# of the validation set: the SSIM of all images would take as long as a third of an epoch
WATCHED = 1000
DIGITS = 8
# how the arrays of a run begin their names: the weights, and the digits after each epoch
WEIGHTS, PROGRESS = "weights.", "digits_after_epoch_"


@dataclass(frozen=True)
class Denoising:
    """All that decides the outcome of one autoencoder run.

    Attributes:
        dataset: a name that ``bregman.suite.data.load`` knows.
        mini: train on the small subset in the package.
        train_size: use that many training images only, all if None.
        test_size: likewise of the test images.
        noise: standard deviation of the Gaussian noise, in pixel values from 0 to 1.
        density: r, the share of the rows of each weight matrix that is there at the start.
        gain: its factor on the standard deviation of the weights.
        optimizer: "SGD", "Adam", "LinBreg" or "AdaBreg".
        lr: the learning rate tau.
        lam: the weight of the row norms (1.14).
        epochs: passes over the training set.
        batch_size: samples per step.
        autocast: the dtype of the forward passes in training, None for float32.
        decay: the last share of the epochs, over which the learning rate falls linearly to zero.
        keep: keep the trained weights, and what becomes of some digits in the course of training.
        seed: of the split, the initialization, the order of the samples and the noise.
    """

    dataset: str
    mini: bool
    train_size: int | None
    test_size: int | None
    noise: float
    density: float
    gain: float
    optimizer: str
    lr: float
    lam: float
    epochs: int
    batch_size: int
    autocast: str | None
    decay: float
    keep: bool
    seed: int


def add_noise(pixels: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of a standard deviation to pixel values."""
    noise = torch.randn(pixels.shape, generator=generator, device=generator.device)
    return pixels + level * noise.to(pixels.device)


def network_input(pixels: Tensor, data: ImageData) -> Tensor:
    """Pixel values on the scale of ``data.normalize``, which the networks take."""
    return (pixels - data.mean[0]) / data.std[0]


def trained_model(arrays: Mapping[str, np.ndarray]) -> Autoencoder:
    """The network whose weights a run kept.

    Args:
        arrays: of a run with ``keep``.
    """
    model = Autoencoder()
    weights = {
        name.removeprefix(WEIGHTS): torch.from_numpy(array).float()
        for name, array in arrays.items()
        if name.startswith(WEIGHTS)
    }
    model.load_state_dict(weights)
    return model


def bottleneck_features(model: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the neurons of the narrowest layer respond to, and what they draw.

    Args:
        model: a trained autoencoder.
        images: as the network takes them, N x C x H x W, over which the derivatives are averaged.

    Returns:
        Two tensors n x H x W, for the n active neurons of the narrowest hidden layer: the
        derivative of their values by the pixels, and of the output's pixels by their values.
    """
    small = compact(model)
    *hidden, _ = (i for i, layer in enumerate(small) if isinstance(layer, nn.Linear))
    after = 2 + min(hidden, key=lambda i: len(small[i].weight))  # type: ignore[arg-type]
    encoder, decoder = small[:after], small[after:]
    codes = encoder(images).detach()
    # the derivative by a shift of all inputs is the mean of theirs
    into = jacrev(lambda shift: encoder(images + shift).mean(0))(torch.zeros_like(images[0]))
    out_of = jacrev(lambda shift: decoder(codes + shift).mean(0), chunk_size=49)(
        torch.zeros_like(codes[0])
    )
    return into.detach().squeeze(1), out_of.detach().movedim(-1, 0).squeeze(1)


def make_optimizer(config: Denoising, model: nn.Module) -> Optimizer:
    """The optimizer that a config names; the Bregman ones with row sparsity (1.14)."""
    rows = GroupL12(config.lam, dim=1) if config.lam else None
    return named_optimizer(config.optimizer, param_groups(model, linear=rows), config.lr)


def psnr(output: Tensor, clean: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of pixels clipped to [0, 1], in decibel, mean over images."""
    return peak_signal_noise_ratio(
        output.float().clamp(0, 1),
        clean,
        data_range=1.0,
        dim=(1, 2, 3),
        reduction="elementwise_mean",
    )


def ssim(output: Tensor, clean: Tensor) -> Tensor:
    """SSIM as torchmetrics averages it: also the windows over the rim, with images reflected."""
    return _ssim_map(output, clean).mean()


def ssim_inside(output: Tensor, clean: Tensor) -> Tensor:
    """SSIM as Wang et al. 2004 and scikit-image do it: of the 11 x 11 windows in the image."""
    return _ssim_map(output, clean)[..., 5:-5, 5:-5].mean()


def _ssim_map(output: Tensor, clean: Tensor) -> Tensor:
    _, image = structural_similarity_index_measure(
        output.clamp(0, 1), clean, data_range=1.0, return_full_image=True
    )
    assert isinstance(image, Tensor)
    return image


def train(
    config: Denoising, device: str, checkpoint: Path, on_epoch: Callable[[int], None]
) -> Outcome:
    """Make one run: the noise is fresh in every batch, the clean image is the target.

    One generator gives the split, the weights, the order and the training noise; the noise on the
    validation and test images is the same in every run.
    """
    generator = torch.Generator().manual_seed(config.seed)
    data = load(config.dataset, mini=config.mini).to(device)
    n_images = len(data.train_images)
    chosen, held_out = train_val_split(n_images, n_images // 12, generator)
    pixels = data.train_images / 255
    clean, validation = pixels[chosen[: config.train_size]], pixels[held_out]
    model = Autoencoder()
    sparse_init_(model, config.density, gain=config.gain, group="row", generator=generator)
    model.to(device)
    optimizer = make_optimizer(config, model)

    def noisy(pixels: Tensor, level: float) -> Samples:
        noise = torch.Generator().manual_seed(1)
        return network_input(add_noise(pixels, level, noise), data), pixels

    watched = noisy(validation[:WATCHED], config.noise)

    def measure(model: nn.Module) -> dict[str, float]:
        weights = sparsity_summary(model)
        return {
            "ssim": evaluate(model, watched, ssim)[0],
            "n_total": weights["n_total"],
            "l1_norm": weights["l1_norm"],
            **_active_neurons(weights),
        }

    def lr_factor(epoch: int) -> float:
        return min(1.0, (1 - epoch / config.epochs) / config.decay)

    test = data.test_images[: config.test_size] / 255
    digits, _ = noisy(test[:DIGITS], config.noise)

    def snapshot(epoch: int, model: nn.Module) -> dict[str, Tensor]:
        if not config.keep:
            return {}
        with torch.inference_mode():
            return {f"{PROGRESS}{epoch}": (255 * model(digits).clamp(0, 1)).round().byte()}

    training = fit(
        model,
        optimizer,
        (clean, clean),
        noisy(validation, config.noise),
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=generator,
        scheduler=LambdaLR(optimizer, lr_factor),
        loss=F.mse_loss,
        metric=psnr,
        transform=lambda batch, generator: network_input(
            add_noise(batch, config.noise, generator), data
        ),
        measure=measure,
        snapshot=snapshot,
        autocast=getattr(torch, config.autocast) if config.autocast else None,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    quality = evaluate(model, noisy(test, config.noise), ssim, psnr, ssim_inside)
    denoised, before = [], []
    for level in NOISE_LEVELS:
        inputs, _ = noisy(test, level)
        denoised.append(evaluate(model, (inputs, test), ssim, psnr))
        before.append(
            evaluate(nn.Identity(), (data.mean[0] + data.std[0] * inputs, test), ssim, psnr)
        )
    with torch.inference_mode():
        shown = {
            "noisy": data.mean[0] + data.std[0] * digits,
            "denoised": model(digits),
            "clean": test[:DIGITS],
        }
    # half precision: half the size, and the same SSIM to four digits
    weights = {WEIGHTS + name: value.half() for name, value in model.state_dict().items()}
    summary = sparsity_summary(model)
    return Outcome(
        training,
        {
            "n_total_pct": 100 * summary["n_total"],
            "ssim": quality[0],
            "l1_norm": summary["l1_norm"],
            "psnr": quality[1],
            "ssim_inside": quality[2],
            "noise": config.noise,
            **_active_neurons(summary),
        },
        {
            "noise_levels": torch.tensor(NOISE_LEVELS),
            "denoised_quality": torch.tensor(denoised),
            "noisy_quality": torch.tensor(before),
            **shown,
            **(weights if config.keep else {}),
        },
    )


def _active_neurons(summary: dict[str, Any]) -> dict[str, float]:
    """The active neurons of ``sparsity_summary`` by layer, numbered as in Figure 4."""
    return {f"active_neurons_{i}": n for i, n in enumerate(summary["active_neurons"], start=1)}


# the search for the learning rates of the dense nets, one after the other
SEARCH = (("SGD", (0.3, 1.0, 2.0, 4.0)), ("Adam", (1e-4, 3e-4, 1e-3, 3e-3)))
LAM = 0.07
SCALES = {
    "smoke": Scale(epochs=8, mini=True, train_size=1_000),
    "quick": Scale(epochs=8, train_size=10_000),
    "paper": Scale(epochs=100, seeds=5),
}


def config(
    scale: Scale,
    seed: int,
    optimizer: str,
    lr: float,
    lam: float = 0.0,
    gain: float = 1.0,
    epochs: int | None = None,
) -> Denoising:
    """The set-up of section 4.6 and of the authors' public notebook; the noise is Figure 5's."""
    sparse = lam > 0
    if optimizer == "AdaBreg" and scale.train_size is not None:
        # with tau = 1e-3 and lam = 0.07 a row needs 70 steps to appear, and there are few
        lr *= 3 if scale.mini else 2
    epochs = min(epochs or scale.epochs, scale.epochs)
    return Denoising(
        dataset="mnist",
        mini=scale.mini,
        train_size=scale.train_size,
        test_size=scale.train_size and scale.train_size // 10,
        noise=0.09,
        density=0.01 if sparse else 1.0,
        # the public notebook multiplies dense He weights by 5, which is 0.5 / sqrt(r)
        gain=0.5 if sparse else gain,
        optimizer=optimizer,
        lr=lr,
        lam=lam,
        epochs=epochs,
        batch_size=32 if scale.mini else 128,
        autocast="bfloat16",
        decay=0.3,
        keep=(optimizer, lam, epochs) == ("AdaBreg", LAM, scale.epochs)
        and (seed == 0 or scale.seeds == 1),
        seed=seed,
    )


FIGURE_5, SWEEP, LR_SEARCH = "Figure 5", "width against lam", "search for the learning rate"


def _sweep_row(lam: float, scales: tuple[str, ...]) -> Row:
    settings = {"optimizer": "AdaBreg", "lr": 1e-3, "lam": lam, "epochs": 40}
    return Row(f"AdaBreg (λ={lam})", SWEEP, "Bregman", "AdaBreg", settings, scales=scales, seeds=1)


EXPERIMENT = Experiment(
    name="denoising_autoencoder",
    dataset="MNIST",
    model="Denoising autoencoder",
    scales=SCALES,
    rows=(
        # the paper's row is LinBreg in its text, AdaBreg in the authors' public notebook
        Row(
            "AdaBreg",
            FIGURE_5,
            "Bregman",
            "LinBreg",
            {"optimizer": "AdaBreg", "lr": 1e-3, "lam": LAM},
        ),
        Row(
            "LinBreg",
            FIGURE_5,
            "Bregman",
            "LinBreg",
            {"optimizer": "LinBreg", "lr": 60.0, "lam": LAM},
            scales=("quick", "paper"),
            seeds=1,
        ),
        Row("SGD", FIGURE_5, "Vanilla", "SGD", {"optimizer": "SGD", "lr": 1.0}, seeds=1),
        Row(
            "Adam", "dense baseline", "Vanilla", "Adam", {"optimizer": "Adam", "lr": 3e-4}, seeds=1
        ),
        Row(
            "Adam (gain 0.5)",
            "dense baseline",
            "Vanilla",
            "Adam",
            {"optimizer": "Adam", "lr": 1e-3, "gain": 0.5},
            scales=("paper",),
            seeds=1,
        ),
        _sweep_row(0.02, SCALE_NAMES),
        *(_sweep_row(lam, ("paper",)) for lam in (0.04, LAM, 0.12)),
        _sweep_row(0.2, ("quick", "paper")),
        *(
            Row(
                f"{name} (τ={lr}, 10 epochs)",
                LR_SEARCH,
                "Vanilla",
                name,
                {"optimizer": name, "lr": lr, "epochs": 10},
                scales=("paper",),
                seeds=1,
            )
            for name, lrs in SEARCH
            for lr in lrs
        ),
    ),
    config=config,
    train=train,
)
