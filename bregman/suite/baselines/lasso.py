"""Lasso by stochastic gradient descent, eq. (1.4)."""

from typing import Any

from torch.optim import Optimizer

from bregman.suite.baselines.gradients import with_gradients


def add_subgradients(
    optimizer: Optimizer, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before a step, add a subgradient of each group's "reg" to the gradients: SGD on (1.4)."""

    def add() -> None:
        for group in optimizer.param_groups:
            reg = group.get("reg")
            sign = -1 if group.get("maximize") else 1
            for p in group["params"]:
                if reg is not None and p.grad is not None:
                    p.grad.add_(reg.subgrad(p), alpha=sign)

    return with_gradients(optimizer, args, kwargs or {}, add)
