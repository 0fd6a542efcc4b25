"""How the support of the weights changes in the course of training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bregman.multilevel import Multilevel
from bregman.multilevel.supports import nonzero_blocks
from bregman.multilevel.trained import blocks
from bregman.optim import BregmanOptimizer


class Turnover:
    """Counts the blocks that enter and leave the support from one full step to the next.

    Args:
        optimizer: LinBreg or AdaBreg, outside of a cycle.
        cycle: of this optimizer, with any number of frozen steps.

    Raises:
        ValueError: a regularizer is no sum over blocks.
    """

    def __init__(self, optimizer: BregmanOptimizer, cycle: Multilevel) -> None:
        self.cycle = cycle
        self.dims: dict[Tensor, tuple[int, ...]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                dims = blocks(group["reg"], p.dim())
                if dims is not None:
                    self.dims[p] = dims
        self.support: list[Tensor] = []
        self.counts: list[Tensor] = []
        optimizer.register_step_pre_hook(self._before_step)

    @torch.no_grad()
    def _before_step(self, *_: Any) -> None:
        if self.cycle.frozen:
            return
        before = self.support
        self.support = [
            nonzero_blocks(p, dims) if dims else p != 0 for p, dims in self.dims.items()
        ]
        if before:
            old, new = (torch.cat([s.flatten() for s in part]) for part in (before, self.support))
            self.counts.append(torch.stack([(new & ~old).sum(), (old & ~new).sum(), new.sum()]))

    def collect(self) -> dict[str, float]:
        """The means since the last call, as shares of the blocks in the support; empty if none."""
        if not self.counts:
            return {}
        counts = torch.stack(self.counts).double()
        self.counts = []
        entered, left, there = counts.mean(0).tolist()
        return {"entered": entered / max(there, 1), "left": left / max(there, 1)}

    def state_dict(self) -> dict[str, Any]:
        """The support after the last full step; what was counted has to be collected before."""
        return {"support": self.support}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state."""
        self.support = [s.to(p.device) for p, s in zip(self.dims, state["support"], strict=True)]
