"""What the Bregman optimizers are compared with in section 4.4: Lasso by SGD, and pruning."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bregman.models import weight_layers


@torch.no_grad()
def add_subgradients(optimizer: Optimizer, *_: Any) -> None:
    """Before a step, add a subgradient of each group's "reg" to the gradients: SGD on (1.4)."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if group["reg"] is not None:
                p.grad.add_(group["reg"].subgrad(p))


class MagnitudePruning:
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
        groups: prune the linear weights and the convolutions' kernels each to ``prune_to``, kernels
            by their root mean square; otherwise all weights together, one by one.

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
        self.scheduler, self.prune_to, self.epochs = scheduler, prune_to, epochs
        weights = [layer.weight for _, layer in weight_layers(model)]
        kinds = [[w for w in weights if w.dim() == 2], [w for w in weights if w.dim() > 2]]
        self.kinds = [kind for kind in kinds if kind] if groups else [weights]
        self.groups = groups
        self.masks = {w: torch.ones_like(w, dtype=torch.bool) for w in weights}
        optimizer.register_step_post_hook(self._apply)

    def __call__(self, epoch: int) -> None:
        """Prune, if it is time to."""
        done, before = (
            min(2 * self.STEPS * e // self.epochs, self.STEPS) for e in (epoch, epoch - 1)
        )
        if done == before:
            return
        for weights in self.kinds:
            self._prune(weights, self.prune_to ** (done / self.STEPS))
        self._apply()
        self.scheduler.best = self.scheduler.mode_worse
        self.scheduler.num_bad_epochs = 0

    @torch.no_grad()
    def _prune(self, weights: list[Tensor], density: float) -> None:
        by_kernel = self.groups and weights[0].dim() > 2
        sizes = [w.square().mean((2, 3), keepdim=True) if by_kernel else w.abs() for w in weights]
        every = torch.cat([size.flatten() for size in sizes])
        criterion = prune.L1Unstructured(amount=len(every) - round(density * len(every)))
        kept = criterion.compute_mask(every, torch.ones_like(every)).bool()
        for w, size, mask in zip(
            weights, sizes, kept.split([s.numel() for s in sizes]), strict=True
        ):
            self.masks[w].copy_(mask.view(size.shape))

    @torch.no_grad()
    def _apply(self, *_: Any) -> None:
        # after every step: no momentum brings a weight back
        for w, mask in self.masks.items():
            w.mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        """The masks, in the order of the layers."""
        return {"masks": list(self.masks.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over masks, from any device."""
        for mask, stored in zip(self.masks.values(), state["masks"], strict=True):
            mask.copy_(stored)
