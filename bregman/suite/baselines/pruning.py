"""Magnitude pruning: in a few steps with retraining, or gradually on a cubic schedule."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bregman.suite.baselines.masks import Masked, ScheduledMasks, check_density, largest


class MagnitudePruning(Masked):
    """Iterative magnitude pruning with retraining (Han et al. 2015), for ``fit``'s ``intervene``.

    In five steps over the first half of the epochs the smallest weights go, each time by the same
    factor; what went stays zero while the rest is trained on. After each step the plateau schedule
    forgets the accuracy of the larger network.

    Args:
        model: its linear and convolution weights are pruned; no step prunes biases.
        optimizer: over the model's parameters.
        scheduler: of the optimizer.
        prune_to: the share in (0, 1) that is left in the end.
        epochs: of the whole training, at least 2.
        groups: prune the linear weights and the convolutions' kernels, of one dimension or more,
            each to ``prune_to``, kernels by their root mean square; otherwise all weights together,
            one by one.

    Raises:
        ValueError: prune_to or epochs is out of range.
    """

    STEPS = 5

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: ReduceLROnPlateau,
        prune_to: float,
        epochs: int,
        groups: bool,
    ) -> None:
        if not 0 < prune_to < 1:
            raise ValueError(f"prune_to must be in (0, 1), got {prune_to}")
        if epochs < 2:
            raise ValueError(f"pruning needs at least 2 epochs to retrain in, got {epochs}")
        super().__init__(model, optimizer)
        self.scheduler, self.prune_to, self.epochs = scheduler, prune_to, epochs
        weights = list(self.masks)
        # what is compared with each other, and whether kernel by kernel
        self.compared = [(weights, False)]
        if groups:
            linear, conv = ([w for w in weights if self.kinds[w] == k] for k in ("linear", "conv"))
            self.compared = [
                (ws, by_kernel) for ws, by_kernel in ((linear, False), (conv, True)) if ws
            ]

    def __call__(self, epoch: int) -> None:
        """Prune, if it is time to."""
        done, before = (
            min(2 * self.STEPS * e // self.epochs, self.STEPS) for e in (epoch, epoch - 1)
        )
        if done == before:
            return
        self._hold()
        for weights, by_kernel in self.compared:
            self._prune(weights, self.prune_to ** (done / self.STEPS), by_kernel)
        self.scheduler.best = self.scheduler.mode_worse
        self.scheduler.num_bad_epochs = 0

    @torch.no_grad()
    def _prune(self, weights: list[Tensor], density: float, by_kernel: bool) -> None:
        # a row is what goes together
        rows = [w.unsqueeze(-1).flatten(2) if by_kernel else w.unsqueeze(-1) for w in weights]
        sizes = [row.square().mean(-1) if by_kernel else row.abs().squeeze(-1) for row in rows]
        kept = round(density * sum(size.numel() for size in sizes))
        for w, row, mask in zip(weights, rows, largest(sizes, kept), strict=True):
            self.set_mask(w, mask.unsqueeze(-1).expand_as(row).reshape(w.shape))


class GradualPruning(ScheduledMasks):
    """Gradual magnitude pruning (Zhu and Gupta 2017): dense at first, then fewer and fewer weights.

    From step t_0 to step t_1, at a quarter and three quarters of the training, the smallest of all
    weights go every ``every`` steps, and what went stays zero. After a change at step t the share
    of zeros is

        s_t = s (1 - (1 - (t - t_0) / (t_1 - t_0))^3),    s = 1 - density.

    Args:
        model: its linear and convolution weights are pruned, and no biases.
        optimizer: one of torch's, over the model's parameters.
        density: the share of non-zero weights in the end, in (0, 1].
        steps: optimizer steps of the whole training.
        every: steps between two changes.

    Raises:
        ValueError: an argument is out of range.
    """

    BEGIN, END = 0.25, 0.75

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        steps: int,
        *,
        every: int = 100,
    ) -> None:
        check_density(density)
        super().__init__(model, optimizer, steps, every)
        self.begin, self.end = round(self.BEGIN * steps), round(self.END * steps)
        self.size = sum(w.numel() for w in self.masks)
        self.budget = round(density * self.size)
        if self.budget == 0:
            raise ValueError(f"density {density} leaves none of {self.size} weights")

    def _change_masks(self) -> None:
        since, span = self.steps - self.begin, self.end - self.begin
        if not 0 < since <= span or (since % self.every and since < span):
            return
        kept = round(self.budget + (self.size - self.budget) * (1 - since / span) ** 3)
        masks = largest([w.abs() for w in self.masks], kept)
        for w, mask in zip(self.masks, masks, strict=True):
            self.set_mask(w, mask)
