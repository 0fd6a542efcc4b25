"""Sparse training from the start: on a static random support, SET and RigL."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bregman.suite.baselines.masks import Masked, ScheduledMasks


class StaticSupport(Masked):
    """A random support that never changes: what the search for a better one is measured against.

    Its weights are shared out over the layers by ``layer_budgets``.

    Args:
        model: dense, with its initial weights; those outside the support become zero.
        optimizer: one of torch's, over the model's parameters.
        density: the share of non-zero weights, in (0, 1].
        generator: draws the support.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__(model, optimizer)
        self.draw(density, generator)


class Rewiring(ScheduledMasks):
    """What SET and RigL share: now and then some weights are dropped, and as many grow elsewhere.

    Every ``every`` steps, in the first three quarters of the training, the smallest weights of each
    layer are dropped and the same number of others becomes free and starts at zero. At step t that
    is the share

        fraction / 2 (1 + cos(pi t / T)),    T = 3/4 of all steps,

    of a layer's free weights, rounded down. As in RigL's Algorithm 1 this takes the place of the
    optimizer's step: there are no gradients left for it.

    Args:
        model: dense, with its initial weights; those outside a random support become zero.
        optimizer: one of torch's, over the model's parameters.
        density: the share of non-zero weights, in (0, 1]; it never changes.
        steps: optimizer steps of the whole training.
        generator: draws the first support, and what SET grows.
        every: steps between two changes.
        fraction: in [0, 1), the share that is dropped at first.

    Raises:
        ValueError: an argument is out of range.
    """

    END = 0.75

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        density: float,
        steps: int,
        *,
        generator: torch.Generator,
        every: int = 100,
        fraction: float = 0.3,
    ) -> None:
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction must be in [0, 1), got {fraction}")
        super().__init__(model, optimizer, steps, every)
        self.fraction, self.generator = fraction, generator
        self.draw(density, generator)

    def _change_masks(self) -> None:
        end = self.END * self.all_steps
        if self.steps % self.every or self.steps >= end:
            return
        share = self.fraction / 2 * (1 + math.cos(math.pi * self.steps / end))
        for w, mask in self.masks.items():
            if w.grad is not None:
                self._rewire(w, mask.flatten(), share)
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def _rewire(self, w: Tensor, free: Tensor, share: float) -> None:
        n = int(share * int(free.sum()))
        sizes = w.abs().flatten().masked_fill(~free, math.inf)
        kept = free.index_fill(0, sizes.topk(n, largest=False).indices, False)
        # cleared in between: what is dropped and grows again starts at zero too
        self.set_mask(w, kept.view(w.shape))
        scores = self._growth(w).flatten().masked_fill(kept, -math.inf)
        grown = kept.index_fill(0, scores.topk(n).indices, True)
        self.set_mask(w, grown.view(w.shape))

    def _growth(self, w: Tensor) -> Tensor:
        """Scores of w's shape: the largest of those that are not free grow."""
        raise NotImplementedError


class SET(Rewiring):
    """Sparse evolutionary training (Mocanu et al. 2018): random weights grow.

    On the schedule of RigL, as in its authors' comparison; the original drops a constant share.
    """

    def _growth(self, w: Tensor) -> Tensor:
        drawn = torch.rand(w.shape, generator=self.generator, device=self.generator.device)
        return drawn.to(w.device)

    def state_dict(self) -> dict[str, Any]:
        """The masks, the number of steps so far, and the generator's state."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state."""
        super().load_state_dict(state)
        self.generator.set_state(state["generator"])


class RigL(Rewiring):
    """RigL (Evci et al. 2020): the weights with the largest gradients grow.

    Only a step that changes the support looks at the gradients of all weights.
    """

    def _growth(self, w: Tensor) -> Tensor:
        assert w.grad is not None
        return w.grad.abs().nan_to_num(nan=0.0)
