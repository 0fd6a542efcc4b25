"""Catch-up: what a full step does where v waited. docs/multilevel.md derives it."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from bregman.multilevel.supports import Grid, RestingGrid, Support
from bregman.optim import BregmanOptimizer
from bregman.regularizers import Zero


def times(group: dict[str, Any], missed: int) -> float:
    """How many steps a full one counts for where v waited: 1 + n, for AdaBreg the root of it.

    Args:
        group: of the optimizer.
        missed: n, the frozen steps before this full one.
    """
    if isinstance(group["reg"], Zero):
        return 1.0
    return math.sqrt(1 + missed) if "betas" in group else 1.0 + missed


def stride(group: dict[str, Any], times: float, state: dict[str, Any], skipped: int) -> float:
    """By how many of the optimizer's own steps v moves there.

    Args:
        group: of the optimizer.
        times: see above.
        state: of the parameter. AdaBreg's bias corrections count all its steps, but where v waited
            the moments have seen full ones alone.
        skipped: how many of its steps were frozen.
    """
    if "betas" not in group:
        return times
    (beta1, beta2), steps = group["betas"], int(state["step"]) + 1
    full = steps - skipped
    first = (1 - beta1**steps) / (1 - beta1**full)
    second = (1 - beta2**steps) / (1 - beta2**full)
    return times * first / math.sqrt(second)


class CatchUp:
    """A parameter in a full step that moves v by a stride everywhere, and then by what is right.

    Args:
        p: the parameter.
        v: of it, before the step.
        group: of the optimizer.
        support: what moved in the frozen steps.
        times: how many steps this one counts for where v waited.
        stride: by how many steps v moves.
    """

    def __init__(
        self,
        p: Tensor,
        v: Tensor,
        group: dict[str, Any],
        support: Support,
        times: float,
        stride: float,
    ) -> None:
        self.p, self.v, self.group, self.support, self.times = p, v, group, support, times
        # on the support this is one step; of what rests there the moments have seen fewer
        self.parts: list[tuple[Support, float]] = [(support, stride)]
        if isinstance(support, RestingGrid):
            self.parts = [(support.moving, stride), (support.resting, times)]
        self.before = [part.restrict(v) for part, _ in self.parts]

    def correct(self) -> None:
        """Give v and theta what they should be after the step."""
        p, v, delta, reg = self.p, self.v, self.group["delta"], self.group["reg"]
        if p.grad is None:
            return
        right = [
            torch.lerp(before, part.restrict(v), 1 / pace)
            for before, (part, pace) in zip(self.before, self.parts, strict=True)
        ]
        # a block that enters keeps the share of one step
        theta = p if p.dtype == v.dtype else reg.prox(delta * v, delta)
        v.add_(theta, alpha=(1 / self.times - 1) * (1 / delta + reg.quadratic_weight))
        p.div_(self.times)
        for values, (part, _) in zip(right, self.parts, strict=True):
            part.prolong(values, v)
        blocks = self.support
        if isinstance(blocks, RestingGrid):
            blocks = Grid(blocks.rows)
        blocks.prolong(reg.prox(delta * blocks.restrict(v), delta), p)


class FullStep:
    """What the optimizer sees in a full step after frozen ones: groups with a stride.

    Args:
        model: has the parameters.
        optimizer: of them.
        waited: by the names of parameters, what moved in the frozen steps and how many it took.
        skipped: by the names, the number of all frozen steps so far.
        catch_up: as of ``Multilevel``.

    Attributes:
        groups: of the optimizer, for this step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: BregmanOptimizer,
        waited: dict[str, tuple[Support, int]],
        skipped: dict[str, int],
        catch_up: bool,
    ) -> None:
        names = {p: name for name, p in model.named_parameters() if name in waited}
        self.groups: list[dict[str, Any]] = []
        self._corrections: list[CatchUp] = []
        self._momenta: list[tuple[dict[str, Tensor], float]] = []
        for group in optimizer.param_groups:
            by_stride: dict[float, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                pace, state = 1.0, optimizer.state.get(p, {})
                if p in names and "subgrad" in state:
                    support, missed = waited[names[p]]
                    count = times(group, missed) if catch_up else 1.0
                    pace = stride(group, count, state, skipped.get(names[p], 0))
                if pace != 1:
                    v = state["subgrad"]
                    self._corrections.append(CatchUp(p, v, group, support, count, pace))
                    if group.get("momentum"):  # tau stays inside of m
                        self._momenta.append((state, pace))
                by_stride[pace].append(p)
            for pace, params in by_stride.items():
                self.groups.append({**group, "params": params, "lr": group["lr"] * pace})
        self._scale_momenta(1)

    def correct(self) -> None:
        """After the step: give v, theta and momentum what they should be."""
        for correction in self._corrections:
            correction.correct()
        self._scale_momenta(-1)

    def _scale_momenta(self, power: int) -> None:
        for state, pace in self._momenta:
            if "momentum_buffer" in state:
                state["momentum_buffer"].mul_(pace**power)
