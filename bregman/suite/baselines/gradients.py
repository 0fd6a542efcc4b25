"""The gradients that a step takes: after its closure, and without the scale of a loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer


def with_gradients(
    optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """In a hook before a step, have the gradients changed that it will take.

    That is now, or with a closure after it has made them. If a GradScaler left it to the optimizer
    to divide them by the loss scale (fused ones do), they are divided first; if it found an
    infinite one, there is no step, and nothing changes.

    Args:
        optimizer: as the hook gets it.
        args: likewise; its first is the optimizer, the second may be the closure.
        kwargs: likewise.
        change: changes gradients in place, or sets them to None.

    Returns:
        args and kwargs for the step, which the hook has to return.

    Raises:
        ValueError: the optimizer evaluates several times per step.
    """
    if isinstance(optimizer, LBFGS):
        raise ValueError("optimizer must evaluate once per step, got LBFGS")

    @torch.no_grad()
    def changed() -> None:
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad.div_(scale.to(p.device))
            optimizer.grad_scale = None  # type: ignore[attr-defined]
        change()

    positional = len(args) > 1
    closure = args[1] if positional else kwargs.get("closure")
    if closure is None:
        changed()
        return args, kwargs

    def evaluate() -> Any:
        loss = closure()
        changed()
        return loss

    if positional:
        return (args[0], evaluate, *args[2:]), kwargs
    return args, {**kwargs, "closure": evaluate}
