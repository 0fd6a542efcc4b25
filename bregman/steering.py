"""Sparsity on target: lambda is steered until a wanted share of the weights is non-zero."""

import math
from collections.abc import Mapping
from typing import Any
from warnings import warn

import torch
from torch import Tensor

from bregman.optim import BregmanOptimizer
from bregman.regularizers import Regularizer, Zero

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

        v_g <- v_g + (1 - shrinkage) Delta sqrt(n_g) theta_g / ||theta_g||,

    all others keep v, and theta = prox_{delta J}(delta v) with the new lambda. So v is a
    subgradient of the new J_delta, and no block of theta moves by more than
    delta |Delta| sqrt(n_g). With ``shrinkage=1`` v is kept and every weight pays for a larger
    lambda; with 0 the weights that stay pay nothing, and newcomers hardly get in. Between two
    changes the density drifts, by less and less as v settles.

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
        per_group: steer each parameter group to ``density`` by itself. Otherwise all lambdas are
            multiplied by the same factor.
        every: optimizer steps between two changes of lambda.
        shrinkage: in [0, 1], the part of a change of lambda that the weights that stay follow.

    Raises:
        ValueError: an argument is out of range, no group has a regularizer, or one has none of
            blocks (no ``levels``), or lam = 0.
    """

    def __init__(
        self,
        optimizer: BregmanOptimizer,
        density: float,
        *,
        per_group: bool = False,
        every: int = 10,
        shrinkage: float = 0.5,
    ) -> None:
        if not isinstance(optimizer, BregmanOptimizer):
            raise ValueError(
                f"optimizer must be LinBreg or AdaBreg, got {type(optimizer).__name__}"
            )
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1], got {density}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be an integer of at least 1, got {every}")
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must be in [0, 1], got {shrinkage}")
        self.optimizer = optimizer
        self.density, self.per_group = density, per_group
        self.every, self.shrinkage = every, shrinkage
        self.steps = 0
        groups = self._regularized()
        if not groups:
            raise ValueError("no parameter group has a regularizer whose lam could be steered")
        for group in groups:
            group["reg"].levels(torch.ones_like(group["params"][0]))
            if group["reg"].lam == 0:
                raise ValueError(f"lam must be positive to be steered, got {group['reg']}")
        for together in self._together(groups):
            params = [p for group in together for p in group["params"]]
            frozen = sum(int(p.count_nonzero()) for p in params if not p.requires_grad)
            if frozen and frozen >= density * sum(p.numel() for p in params):
                share = frozen / sum(p.numel() for p in params)
                raise ValueError(
                    f"density must be above {share:.4g}, the share of the frozen weights that are "
                    f"not zero, got {density}"
                )

    def step(self, *_: Any) -> None:
        """Count one optimizer step, and change lambda when it is time to.

        Args:
            _: what an optimizer's hook is called with, not used.
        """
        self.steps += 1
        if self.steps % self.every:
            return
        for together in self._together(self._regularized()):
            factor = self._wanted_factor(together)
            # zero: what is missing has v = 0, and no lambda lets it in; NaN: training diverged
            if not 0 < factor < math.inf:
                continue
            factor = min(max(factor, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR)
            for group in together:
                old = group["reg"]
                self._change(group, factor)
                self._keep_frozen(group, old, factor)
        self._update_parameters()

    @torch.no_grad()
    def _wanted_factor(self, groups: list[dict[str, Any]]) -> float:
        """The factor on all lambdas that leaves a share ``density`` of the weights non-zero now."""
        levels = []
        kept = self.density * sum(p.numel() for group in groups for p in group["params"])
        resting = 0
        for group in groups:
            moving = dict(self._started(group))
            levels += [group["reg"].levels(v).flatten() / group["reg"].lam for v in moving.values()]
            resting += sum(int(p.count_nonzero()) for p in group["params"] if p not in moving)
        if levels and resting >= kept:
            warn(
                f"SparsityTarget: lambda stays, weights that don't move alone are {resting}, and "
                f"{round(kept)} are wanted",
                stacklevel=2,
            )
            return math.nan
        return _threshold(torch.cat(levels), round(kept - resting)) if levels else math.nan

    @torch.no_grad()
    def _change(self, group: dict[str, Any], factor: float) -> None:
        old = group["reg"]
        new = old.with_lam(factor * old.lam)
        for p, v in self._started(group):
            # a subgradient is zero where theta is: newcomers keep v. mu stays, and with it its part
            shift = old.subgrad(p).sub_(p, alpha=old.quadratic_weight)
            shift.mul_(old.levels(v) > new.lam)
            v.add_(shift, alpha=(1 - self.shrinkage) * (factor - 1))
        group["reg"] = new

    @torch.no_grad()
    def _keep_frozen(self, group: dict[str, Any], old: Regularizer, factor: float) -> None:
        """Give frozen weights a v that fits the new lambda, with which no block comes or goes."""
        for p in group["params"]:
            v = self.optimizer.state.get(p, {}).get("subgrad")
            if not p.requires_grad and v is not None:
                v.mul_(torch.where(p == 0, factor, 1))
                v.add_(group["reg"].subgrad(p)).sub_(old.subgrad(p))

    def _update_parameters(self) -> None:
        # what has no v stays as it is
        state = self.optimizer.state
        params = [p for group in self._regularized() for p in group["params"]]
        frozen = {p: state.pop(p) for p in params if not p.requires_grad and p in state}
        self.optimizer.update_parameters()
        state.update(frozen)

    def _together(self, groups: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        return [[group] for group in groups] if self.per_group else [groups]

    def _regularized(self) -> list[dict[str, Any]]:
        return [
            g for g in self.optimizer.param_groups if g["params"] and not isinstance(g["reg"], Zero)
        ]

    def _started(self, group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        # a parameter that never had a gradient has no v
        states = ((p, self.optimizer.state.get(p, {})) for p in group["params"] if p.requires_grad)
        return [(p, state["subgrad"]) for p, state in states if "subgrad" in state]

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
