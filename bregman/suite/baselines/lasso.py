"""Lasso by stochastic gradient descent, eq. (1.4)."""

from typing import Any

import torch
from torch.optim import Optimizer


@torch.no_grad()
def add_subgradients(optimizer: Optimizer, *_: Any) -> None:
    """Before a step, add a subgradient of each group's "reg" to the gradients: SGD on (1.4)."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            if group["reg"] is not None:
                p.grad.add_(group["reg"].subgrad(p))
