"""Figures 4 and 5: an autoencoder that finds its own architecture on MNIST, section 4.6."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bregman.layers import param_groups
from bregman.regularizers import GroupL12
from bregman.sparsity import sparsity_summary
from bregman.suite.analysis.trained import PROGRESS, kept_weights
from bregman.suite.data import ImageData
from bregman.suite.experiments.allowed import Count, NonNegative, Share
from bregman.suite.experiments.experiment import SCALE_NAMES, Experiment, Row, Scale
from bregman.suite.experiments.measures import active_neurons, sparsity
from bregman.suite.experiments.parts import Task, denoising, noisy, shown
from bregman.suite.experiments.quality import psnr, ssim, ssim_inside
from bregman.suite.experiments.recipe import Parts, Recipe, Results, settings_of
from bregman.suite.models import Autoencoder
from bregman.suite.training import Training, evaluate

# pixel values; 0.09 is what Figure 5 shows
NOISE_LEVELS = (0.0, 0.02, 0.05, 0.09, 0.15, 0.2, 0.3)
# of the validation set: the SSIM of all images would take as long as a third of an epoch
WATCHED = 1000
DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Denoising(Recipe):
    """A run of the autoencoder; ``density`` is of the rows, ``lam`` weighs their norms (1.14)."""

    test_size: Count | None  # use that many of the test images only, all if None
    noise: NonNegative  # standard deviation of the Gaussian noise, in pixel values from 0 to 1
    autocast: str | None  # the dtype of the forward passes in training, None for float32
    decay: Share  # the last share of the epochs, over which the learning rate falls to zero
    keep: bool  # keep the weights, and what becomes of some digits in the course of training

    @property
    def unit(self) -> Literal["row"]:
        return "row"

    def make_task(self, data: ImageData, generator: torch.Generator) -> Task:
        task = denoising(data, *self.split(len(data.train_images), generator), self.noise)
        return task._replace(test=noisy(data, task.test[1][: self.test_size], self.noise))

    def make_network(self) -> nn.Module:
        return Autoencoder()

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        return param_groups(model, linear=GroupL12(self.lam, dim=1) if self.lam else None)

    def make_scheduler(self, optimizer: Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, lambda epoch: min(1.0, (1 - epoch / self.epochs) / self.decay))

    def measure(self, parts: Parts) -> dict[str, float]:
        weights = sparsity_summary(parts.model)
        watched = noisy(parts.data, parts.task.val[1][:WATCHED], self.noise)
        return {
            "ssim": evaluate(parts.model, watched, ssim)[0],
            "n_total": weights["n_total"],
            "l1_norm": weights["l1_norm"],
            **active_neurons(parts.model),
        }

    @torch.inference_mode()
    def snapshot(self, epoch: int, parts: Parts) -> Mapping[str, Tensor]:
        if not self.keep:
            return {}
        output = parts.model(self._digits(parts)[0])
        return {f"{PROGRESS}{epoch}": (255 * output.clamp(0, 1)).round().byte()}

    def results(self, parts: Parts, training: Training) -> Results:
        quality = evaluate(parts.model, parts.task.test, ssim, psnr, ssim_inside)
        measured = sparsity(parts.model)
        return {
            **{name: measured[name] for name in ("n_total_pct", "l1_norm")},
            **dict(zip(("ssim", "psnr", "ssim_inside"), quality, strict=True)),
            "noise": self.noise,
            **active_neurons(parts.model),
        }

    def arrays(self, parts: Parts) -> dict[str, Tensor]:
        model, clean = parts.model, parts.task.test[1]
        denoised, before = [], []
        for level in NOISE_LEVELS:
            inputs, _ = noisy(parts.data, clean, level)
            denoised.append(evaluate(model, (inputs, clean), ssim, psnr))
            before.append(evaluate(nn.Identity(), (shown(inputs, parts.data), clean), ssim, psnr))
        inputs, digits = self._digits(parts)
        with torch.inference_mode():
            output = model(inputs)
        return {
            "noise_levels": torch.tensor(NOISE_LEVELS),
            "denoised_quality": torch.tensor(denoised),
            "noisy_quality": torch.tensor(before),
            "noisy": shown(inputs, parts.data),
            "denoised": output,
            "clean": digits,
            **(kept_weights(model) if self.keep else {}),
        }

    def _digits(self, parts: Parts) -> tuple[Tensor, Tensor]:
        return noisy(parts.data, parts.task.test[1][:DIGITS], self.noise)


# the search for the learning rates of the dense nets, one after the other
SEARCH = (("SGD", (0.3, 1.0, 2.0, 4.0)), ("Adam", (1e-4, 3e-4, 1e-3, 3e-3)))
LAM = 0.07
SCALES = {
    "smoke": Scale(epochs=8, mini=True, train_size=1_000),
    "quick": Scale(epochs=8, train_size=10_000),
    "paper": Scale(epochs=100, seeds=5),
}


SETUP: dict[str, Any] = {
    "dataset": "mnist", "lam": 0.0, "noise": 0.09, "autocast": "bfloat16", "decay": 0.3,
}  # fmt: skip


def config(scale: Scale, seed: int, **settings: Any) -> Denoising:
    """The set-up of section 4.6 and of the authors' public notebook; the noise is Figure 5's."""
    made = {"gain": 1.0, **SETUP, **settings_of(scale), **settings}
    made["epochs"] = min(made["epochs"], scale.epochs)
    sparse = made["lam"] > 0
    if sparse:
        # the public notebook multiplies dense He weights by 5, which is 0.5 / sqrt(r)
        made["gain"] = 0.5
    if made["optimizer"] == "AdaBreg" and scale.train_size is not None:
        # with tau = 1e-3 and lam = 0.07 a row needs 70 steps to appear, and there are few
        made["lr"] *= 3 if scale.mini else 2
    whole = (made["optimizer"], made["lam"], made["epochs"]) == ("AdaBreg", LAM, scale.epochs)
    return Denoising(
        **made, seed=seed, density=0.01 if sparse else 1.0,
        test_size=scale.train_size and scale.train_size // 10,
        batch_size=32 if scale.mini else 128,
        keep=whole and (seed == 0 or scale.seeds == 1),
    )  # fmt: skip


FIGURE_5, BASELINE, SWEEP = "Figure 5", "dense baseline", "width against lam"
LR_SEARCH = "search for the learning rate"


LARGE, PAPER = ("quick", "paper"), ("paper",)


def _sweep_row(lam: float, scales: tuple[str, ...]) -> Row:
    settings = {"optimizer": "AdaBreg", "lr": 1e-3, "lam": lam, "epochs": 40}
    return Row(f"AdaBreg (λ={lam})", SWEEP, "Bregman", "AdaBreg", settings, scales=scales, seeds=1)


ADABREG = {"optimizer": "AdaBreg", "lr": 1e-3, "lam": LAM}
LINBREG = {"optimizer": "LinBreg", "lr": 60.0, "lam": LAM}
SGD = {"optimizer": "SGD", "lr": 1.0}
ADAM, ADAM_SMALL = {"optimizer": "Adam", "lr": 3e-4}, {"optimizer": "Adam", "lr": 1e-3, "gain": 0.5}

ROWS = (
    # the paper's row is LinBreg in its text, AdaBreg in the authors' public notebook
    Row("AdaBreg", FIGURE_5, "Bregman", "LinBreg", ADABREG),
    Row("LinBreg", FIGURE_5, "Bregman", "LinBreg", LINBREG, scales=LARGE, seeds=1),
    Row("SGD", FIGURE_5, "Vanilla", "SGD", SGD, seeds=1),
    Row("Adam", BASELINE, "Vanilla", "Adam", ADAM, seeds=1),
    Row("Adam (gain 0.5)", BASELINE, "Vanilla", "Adam", ADAM_SMALL, scales=PAPER, seeds=1),
    _sweep_row(0.02, SCALE_NAMES),
    *(_sweep_row(lam, PAPER) for lam in (0.04, LAM, 0.12)),
    _sweep_row(0.2, LARGE),
    *(
        Row(f"{name} (τ={lr}, 10 epochs)", LR_SEARCH, "Vanilla", name,
            {"optimizer": name, "lr": lr, "epochs": 10}, scales=PAPER, seeds=1)
        for name, lrs in SEARCH
        for lr in lrs
    ),
)  # fmt: skip

EXPERIMENT = Experiment(
    "denoising_autoencoder", "MNIST", "Denoising autoencoder", SCALES, ROWS, config
)
