"""Sparse training of any of the networks, by any of the methods."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from bregman.initialization import sparse_init_
from bregman.layers import CONV, param_groups, weights
from bregman.multilevel import Multilevel
from bregman.optim import BregmanOptimizer
from bregman.regularizers import L1, GroupL12, Regularizer
from bregman.steering import SparsityTarget
from bregman.suite.analysis.cost import product_densities, recorded_shares, training_share
from bregman.suite.analysis.trained import kept_weights
from bregman.suite.baselines import SET, GradualPruning, Masked, RigL, StaticSupport
from bregman.suite.data import ImageData
from bregman.suite.experiments.allowed import Count, Natural, Range, Share
from bregman.suite.experiments.measures import last_accuracies, sparsity
from bregman.suite.experiments.parts import Task, classification, denoising
from bregman.suite.experiments.quality import ssim
from bregman.suite.experiments.recipe import (
    COLOURED,
    GREY,
    Parts,
    Recipe,
    Results,
    steps_per_epoch,
)
from bregman.suite.experiments.turnover import Turnover
from bregman.suite.models import MLP, Autoencoder, ConvNet, ResNet18
from bregman.suite.training import Record, Training, accuracy, evaluate, weight_measures

NOISE = 0.09
# of the validation set: evaluation is dense, and all images would take much of a short run
WATCHED = 1000


@dataclass(frozen=True, kw_only=True)
class SparseTraining(Recipe):
    """A run: a network, and what decides which of its weights are zero.

    The learning rate falls to zero along a cosine. The order of the samples, noise and crops have a
    generator of their own. With a target, ``lam`` is that of the start.
    """

    network: str  # "MLP", "wide MLP", "CNN", "ResNet-18" or "autoencoder"
    width: Count  # neurons of the wide MLP's hidden layers, or channels of ResNet-18's first stage
    neurons: bool  # regularize all that leads into a hidden neuron or filter as one
    target: Share | None  # the density that the baseline, or steering lambda, leads to
    baseline: str | None  # "static", "SET", "RigL" or "pruning"; None for none
    frozen_steps: Natural  # m of multilevel training, 0 for the optimizer as it is
    catch_up: bool  # a full step counts m + 1 times for what is zero
    path: str  # how layers compute in frozen steps; "csr" is "masked" where it is not on a CPU
    turnover: bool  # record how the support changes from one full step to the next
    keep: bool  # keep the trained weights
    autocast: str | None  # the dtype of the forward passes, None for float32
    momentum: Annotated[float, Range(0, 1)] = 0.0  # beta, of SGD and LinBreg
    drop_fraction: Share = 0.3  # the share of a layer's weights that SET and RigL drop at first

    @property
    def datasets(self) -> tuple[str, ...]:
        return COLOURED if self.network == "ResNet-18" else GREY

    @property
    def unit(self) -> Literal["entry", "row"]:
        return "row" if self.neurons else "entry"

    def split(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen, held_out = super().split(n, generator)
        return chosen, held_out[:WATCHED]

    def make_task(self, data: ImageData, generator: torch.Generator) -> Task:
        parts = self.split(len(data.train_images), generator)
        if self.network == "autoencoder":
            return denoising(data, *parts, NOISE)
        return classification(data, *parts)

    def make_network(self) -> nn.Module:
        """The network.

        Raises:
            ValueError: an unknown one.
        """
        made: dict[str, Callable[[], nn.Module]] = {
            "MLP": MLP,
            "wide MLP": lambda: MLP((784, self.width, self.width, 10)),
            "CNN": ConvNet,
            "ResNet-18": lambda: ResNet18(self.width),
            "autoencoder": Autoencoder,
        }
        if self.network not in made:
            *names, last = made
            raise ValueError(f"network must be {', '.join(names)} or {last}, got {self.network!r}")
        return made[self.network]()

    def initialize(self, model: nn.Module, generator: torch.Generator) -> None:
        """Outputs that stay dense have a gain of 1."""
        layers = self.sparse_layers(model)
        super().initialize(layers, generator)
        dense = [w.layer for w in weights(model) if w.layer not in layers]
        for layer in dense:
            gain = 1.0 if layer is dense[-1] else self.gain
            sparse_init_(layer, 1.0, gain=gain, generator=generator)

    def sparse_layers(self, model: nn.Module) -> nn.ModuleList:
        """The layers that become sparse: all; or where whole neurons go, all but the last.

        Of a convolutional network filters go, and not those of the last convolution: nearly all
        FLOPs are in convolutions, and one whose inputs are gone is small as well.
        """
        layers = [weight.layer for weight in weights(model)]
        if self.neurons:
            convolutions = [layer for layer in layers if isinstance(layer, CONV)]
            return nn.ModuleList((convolutions or layers)[:-1])
        return nn.ModuleList(layers)

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = []
        if self.lam:
            linear: Regularizer = GroupL12(self.lam, dim=1) if self.neurons else L1(self.lam)
            conv = GroupL12(self.lam, dim=(1, 2, 3)) if self.neurons else linear
            groups = param_groups(self.sparse_layers(model), linear, conv)
        groups = [group for group in groups if group["reg"] is not None]
        held = {p for group in groups for p in group["params"]}
        rest = [p for p in model.parameters() if p not in held]
        return [*groups, {"params": rest, "reg": None}]

    def make_scheduler(self, optimizer: Optimizer) -> CosineAnnealingLR:
        return CosineAnnealingLR(optimizer, self.epochs)

    def attach(self, parts: Parts) -> dict[str, Any]:
        steps = self.epochs * steps_per_epoch(self, parts.task)
        return self.attach_to(parts.model, parts.optimizer, steps, parts.generator)

    def attach_to(
        self, model: nn.Module, optimizer: Optimizer, steps: int, generator: torch.Generator
    ) -> dict[str, Any]:
        """Add what decides which weights are zero, as hooks of an optimizer.

        Args:
            model: on the device to train on.
            optimizer: of its parameters.
            steps: of the whole training.
            generator: draws the baselines' supports.

        Raises:
            ValueError: an unknown baseline, or one without a target.
        """
        if self.baseline is not None:
            return {"baseline": self._masks(model, optimizer, steps, generator)}
        if not isinstance(optimizer, BregmanOptimizer):
            return {}
        on_cpu = all(p.is_cpu for p in model.parameters())
        path = "masked" if self.path == "csr" and not on_cpu else self.path
        cycle = Multilevel(model, optimizer, self.frozen_steps, path=path, catch_up=self.catch_up)
        attached: dict[str, Any] = {"multilevel": cycle}
        if self.turnover:
            attached["turnover"] = Turnover(optimizer, cycle)
        if self.target is not None:
            # every ten steps; between cycles, since only then weights are whole
            cycles = math.ceil(10 / (self.frozen_steps + 1))
            attached["target"] = target = SparsityTarget(optimizer, self.target, every=cycles)

            def steer(*_: Any) -> None:
                if not cycle.frozen:
                    target.step()

            optimizer.register_step_post_hook(steer)
        return attached

    def _masks(
        self, model: nn.Module, optimizer: Optimizer, steps: int, generator: torch.Generator
    ) -> Masked:
        if self.target is None:
            raise ValueError(f"target must be a density in (0, 1] for {self.baseline}, got None")
        shared = model, optimizer, self.target
        if self.baseline == "pruning":
            return GradualPruning(*shared, steps, every=every(steps))
        masked: Masked
        if self.baseline == "static":
            masked = StaticSupport(*shared, generator=generator)
        elif kind := {"SET": SET, "RigL": RigL}.get(str(self.baseline)):
            masked = kind(*shared, steps, generator=generator, every=every(steps),
                          fraction=self.drop_fraction)  # fmt: skip
        else:
            raise ValueError(
                f"baseline must be static, SET, RigL or pruning, got {self.baseline!r}"
            )
        with torch.no_grad():
            # the variance of a dense network, as LinBreg has it from the start (4.3)
            for weight, mask in masked.masks.items():
                weight.div_(mask.float().mean().sqrt())
        return masked

    def after_epoch(self, parts: Parts, epoch: int) -> None:
        # the last cycle of an epoch may be shorter than the others
        if "multilevel" in parts.attached:
            parts.attached["multilevel"].finish()

    def order(self, parts: Parts) -> torch.Generator:
        return torch.Generator(parts.task.train[0].device).manual_seed(self.seed)

    def measure(self, parts: Parts) -> dict[str, float]:
        measures = weight_measures(parts.model)
        for name, density in product_densities(parts.model, self.neurons).items():
            measures[f"products_{name}"] = density
        if "target" in parts.attached:
            measures["lam"] = parts.optimizer.param_groups[0]["reg"].lam
        if "turnover" in parts.attached:
            measures |= parts.attached["turnover"].collect()
        return measures

    def results(self, parts: Parts, training: Training) -> Results:
        steps = steps_per_epoch(self, parts.task)
        result = sparsity(parts.model) | {
            "flops_pct": 100 * self.training_flops(parts.flops, training.history, steps),
            "target_pct": None if self.target is None else 100 * self.target,
            "frozen_steps": self.frozen_steps,
        }
        return result | self.tested(parts, training)

    def tested(self, parts: Parts, training: Training) -> Results:
        """How good the trained network is."""
        model, test = parts.model, parts.task.test
        if self.network == "autoencoder":
            return {"ssim": evaluate(model, test, ssim)[0]}
        tested = evaluate(model, test, accuracy, autocast=self.dtype)[0]
        validated = last_accuracies(training)["val_acc_pct"]
        return {"val_acc_pct": validated, "test_acc_pct": 100 * tested}

    def arrays(self, parts: Parts) -> dict[str, Tensor]:
        return kept_weights(parts.model) if self.keep else {}

    def training_flops(
        self, flops: Mapping[str, float], history: list[Record], steps: int
    ) -> float:
        """The theoretical FLOPs of a training relative to that of a dense network.

        Args:
            flops: per layer, of ``forward_flops``.
            history: with the ``product_densities`` over the epochs.
            steps: per epoch. The end of an epoch ends a cycle, so a last one is shorter than m + 1.

        Returns:
            The mean over all steps.
        """
        if self.baseline is None and self.optimizer in ("SGD", "Adam"):
            return 1.0
        shares = recorded_shares(flops, history, "products_")
        return training_share(shares, self._frozen_per_full(steps))

    def _frozen_per_full(self, steps: int) -> float:
        """How many steps do without the gradient of all weights, per step that needs it."""
        if self.baseline == "RigL":
            total = self.epochs * steps
            full = (math.ceil(RigL.END * total) - 1) // every(total)
            return total / full - 1 if full else math.inf
        if self.baseline is not None:
            return math.inf
        return steps / math.ceil(steps / (self.frozen_steps + 1)) - 1


def every(steps: int) -> int:
    """Steps between two changes of a baseline's support: 100, but at least 50 changes in all."""
    return min(100, max(1, steps // 50))
