"""Sparsity on target: lambda is steered until a wanted share of the weights is non-zero."""

import math
from collections.abc import Mapping
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from bregman.checks import check
from bregman.optim import BregmanOptimizer
from bregman.regularizers import Zero

# Far from the target lambda takes many changes to get there. Adam's first steps move all of v
# alike: a lambda that falls to their level at once would let most weights in.
_LARGEST_FACTOR = 1.25


class SparsityTarget:
    r"""Steers lambda so that a wanted share of the regularized weights is non-zero.

    A block (a weight for L1, a group for GroupL12) is non-zero exactly when its level, |v_i| or
    ||v_g|| / sqrt(n_g), is above lambda. So the lambda that gives the wanted density at this very
    moment is known, a quantile of the levels. Every ``every`` steps lambda goes there, or a factor
    of 5/4 in that direction. A change by Delta leaves exactly those blocks non-zero whose level is
    above the new lambda. The ones that were non-zero before and stay so get

        v_g <- v_g + Delta/2 sqrt(n_g) theta_g / ||theta_g||,

    all others keep v, and theta = prox_{delta J}(delta v) with the new lambda. So v is a
    subgradient of the new J_delta, and no block of theta moves by more than
    delta |Delta| sqrt(n_g). The weights that stay pay half of the change: if they paid nothing,
    newcomers would hardly get in. Between two changes the density drifts, by less and less as v
    settles.

    Call ``step`` after each ``optimizer.step()``, or let the optimizer do so, as in ``fit``:

        target = SparsityTarget(optimizer, density=0.05)
        optimizer.register_step_post_hook(target.step)
        fit(model, optimizer, ..., stateful={"target": target})

    Weights that are frozen (``requires_grad`` is False) or never had a gradient count, and stay as
    they are: the others make up for them.

    The lambdas are in the optimizer's groups; its ``state_dict`` and this one resume bit for bit.

    Args:
        optimizer: LinBreg or AdaBreg. Groups without a regularizer are left alone.
        density: the share of non-zero weights over the regularized groups, in (0, 1], and more
            than frozen weights alone make up.
        every: optimizer steps between two changes of lambda.

    Raises:
        ValueError: an argument is out of range, no group has a regularizer, or one has none of
            blocks (no ``levels``), no attribute ``lam`` or lam = 0, or a regularized parameter is
            sharded.
    """

    def __init__(self, optimizer: BregmanOptimizer, density: float, *, every: int = 10) -> None:
        kind = type(optimizer)
        check(issubclass(kind, BregmanOptimizer), "optimizer", "LinBreg or AdaBreg", kind.__name__)
        check(0 < density <= 1, "density", "in (0, 1]", density)
        check(isinstance(every, int) and every > 0, "every", "an integer of at least 1", every)
        self.optimizer, self.density, self.every = optimizer, density, every
        self.steps = 0
        groups = self._regularized()
        check(bool(groups), "optimizer", "one with a regularizer to be steered", kind.__name__)
        for group in groups:
            group["reg"].levels(torch.ones_like(group["params"][0]))
            lam, name = getattr(group["reg"], "lam", 0), "the weight that with_lam sets, reg.lam"
            check(lam > 0, name, "positive to be steered", group["reg"])
        params = [p for group in groups for p in group["params"]]
        sharded = [tuple(p.shape) for p in params if hasattr(p, "placements")]
        check(not sharded, "optimizer", "one whose regularized parameters are whole", sharded)
        frozen = sum(int(p.count_nonzero()) for p in params if not p.requires_grad)
        share = frozen / sum(p.numel() for p in params)
        least = f"above {share:.4g}, the share of the frozen weights that are not zero"
        check(density > share, "density", least, density)

    @torch.no_grad()
    def step(self, *_: Any) -> None:
        """Count one optimizer step, and change lambda when it is time to.

        Args:
            _: what an optimizer's hook is called with, not used.
        """
        self.steps += 1
        if self.steps % self.every:
            return
        factor = self._wanted_factor()
        # zero: what is missing has v = 0, and no lambda lets it in; NaN: training diverged
        if 0 < factor < math.inf:
            factor = min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
            for group in self._regularized():
                self._change(group, factor)
            self.optimizer.update_parameters()

    def _wanted_factor(self) -> float:
        """The factor on all lambdas that leaves a share ``density`` of the weights non-zero now."""
        levels, resting, total = [], 0, 0
        for group in self._regularized():
            for p in group["params"]:
                total += p.numel()
                v = self._subgrad(p)
                if p.requires_grad and v is not None:
                    levels.append(group["reg"].levels(v).flatten() / group["reg"].lam)
                else:
                    resting += int(p.count_nonzero())
        kept = self.density * total
        if not levels:
            return math.nan
        if resting >= kept:
            warn(
                f"SparsityTarget: lambda stays, weights that don't move alone are {resting}, and "
                f"{round(kept)} are wanted",
                stacklevel=2,
            )
            return math.nan
        return _threshold(torch.cat(levels), round(kept - resting))

    def _change(self, group: dict[str, Any], factor: float) -> None:
        old = group["reg"]
        group["reg"] = new = old.with_lam(factor * old.lam)
        for p in group["params"]:
            if (v := self._subgrad(p)) is None:
                continue
            if p.requires_grad:
                # a subgradient is zero where theta is: newcomers keep v. mu stays, with its part
                shift = old.subgrad(p).sub_(p, alpha=old.quadratic_weight)
                v.add_(shift.mul_(old.levels(v) > new.lam), alpha=(factor - 1) / 2)
            else:
                # frozen: v fits the new lambda, and no block comes or goes
                v.mul_(torch.where(p == 0, factor, 1))
                v.add_(new.subgrad(p)).sub_(old.subgrad(p))

    def _regularized(self) -> list[dict[str, Any]]:
        return [
            g for g in self.optimizer.param_groups if g["params"] and not isinstance(g["reg"], Zero)
        ]

    def _subgrad(self, p: Tensor) -> Tensor | None:
        # a parameter that never had a gradient has no v
        return self.optimizer.state.get(p, {}).get("subgrad")

    def state_dict(self) -> dict[str, Any]:
        """The number of steps so far."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored number of steps."""
        self.steps = state["steps"]


def _threshold(levels: Tensor, kept: int) -> float:
    """A number in the middle between the levels of the blocks that stay and of those that go."""
    kept = max(kept, 1)
    edge = levels.topk(min(kept + 1, len(levels)), sorted=False).values.min()
    above, below = levels[levels > edge], levels[levels < edge]
    # the entries at the edge are one block: it stays if that comes nearer to what is wanted
    too_few, too_many = kept - len(above), len(levels) - len(below) - kept
    if len(above) and too_few <= too_many:
        return float(edge + above.min()) / 2
    return float(edge + below.max()) / 2 if len(below) else float(edge) / 2
