"""Catch-up: what a full step does where v waited. docs/multilevel.md derives it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bregman.multilevel.restriction import Restriction
from bregman.multilevel.supports import Grid, RestingGrid
from bregman.regularizers import Zero


def paces(
    group: dict[str, Any], state: dict[str, Any], missed: int, skipped: int
) -> tuple[float, float]:
    """How many steps a full one counts for where v waited, and by how many of its own v moves.

    The first is 1 + n, for AdaBreg the root of it. The second is another one for AdaBreg: its bias
    corrections count all steps, but where v waited the moments have seen full ones alone.

    Args:
        group: of the optimizer.
        state: of the parameter.
        missed: n, the frozen steps before this full one.
        skipped: how many of all its steps were frozen.
    """
    times = 1.0 if isinstance(group["reg"], Zero) else 1.0 + missed
    if "betas" not in group:
        return times, times
    times, steps = math.sqrt(times), int(state["step"]) + 1
    first, second = ((1 - beta**steps) / (1 - beta ** (steps - skipped)) for beta in group["betas"])
    return times, times * first / math.sqrt(second)


@contextmanager
def caught_up(
    held: Restriction, state: dict[str, Any], group: dict[str, Any], times: float, stride: float
) -> Iterator[None]:
    """Around a full step that moves v by a stride everywhere: then v, theta and momentum are right.

    Args:
        held: what moved of the parameter in the frozen steps.
        state: of the parameter.
        group: of the optimizer.
        times: how many steps this one counts for where v waited.
        stride: by how many steps v moves.
    """
    p, support = held.full, held.support
    v, delta, reg = state["subgrad"], group["delta"], group["reg"]
    # on the support this is one step; of what rests there the moments have seen fewer
    blocks, parts = support, [(support, stride)]
    if isinstance(support, RestingGrid):
        blocks = Grid(support.rows)
        parts = [(Grid(support.rows, support.columns), stride), (support.resting, times)]
    before = [part.restrict(v) for part, _ in parts]
    _scale_momentum(group, state, stride)
    try:
        yield
    finally:
        _scale_momentum(group, state, stride**-1)
    if p.grad is None:
        return
    moved = [part.restrict(v) for part, _ in parts]
    # a block that enters keeps the share of one step
    theta = p if p.dtype == v.dtype else reg.prox(delta * v, delta)
    v.add_(theta, alpha=(1 / times - 1) * (1 / delta + reg.quadratic_weight))
    p.div_(times)
    for (part, pace), old, new in zip(parts, before, moved, strict=True):
        part.prolong(torch.lerp(old, new, 1 / pace), v)
    theta = reg.prox(delta * blocks.restrict(v), delta)
    blocks.prolong(theta.to(p.dtype), p)


def _scale_momentum(group: dict[str, Any], state: dict[str, Any], factor: float) -> None:
    # tau stays inside of m
    if group.get("momentum") and "momentum_buffer" in state:
        state["momentum_buffer"].mul_(factor)
