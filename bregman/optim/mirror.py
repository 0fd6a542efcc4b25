"""The subgradient variable v, and the way back to theta."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bregman.checks import check
from bregman.optim.base import Group, RegularizedOptimizer, State, laid_out_as, precision
from bregman.optim.proxes import prox_together, write_prox


class BregmanOptimizer(RegularizedOptimizer):
    """What LinBreg and AdaBreg share: the subgradient variable v and the way back to theta."""

    # by id, what moves with changes, after the last step; parameters whose v may not have moved
    _versions: dict[int, tuple[int, int]] = {}  # noqa: RUF012 (replaced, never changed)
    _unmoved: frozenset[Tensor] = frozenset()
    _told = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # whether v has moved so far is seen at the next step
        started = frozenset(p for p, kept in self.state.items() if "subgrad" in kept)
        self._versions, self._unmoved = {}, started

    @torch.no_grad()
    def resync(self) -> None:
        """Recompute v from theta, after theta was edited from outside the optimizer.

        theta is a function of v, so the next step would undo loaded weights, pruning or averaging.
        Call this after the edit: v becomes the least-norm subgradient of J_delta at theta. Momentum
        and moments are kept.
        """
        for group, p, state in self._started():
            state["subgrad"].copy_(_initial_subgrad(p, group))
            self._unmoved |= {p}
        self._versions = {}

    @torch.no_grad()
    def update_parameters(self) -> None:
        """Recompute theta from v, after v was edited or a group got another reg or delta.

        v is kept, and theta becomes prox_{delta J}(delta v) as it would after a step. A parameter
        that has not had a step has no v yet and stays as it is, and so does a frozen one.
        """
        for group, p, state in self._started():
            if p.requires_grad:
                mirror_step(group, p, state)
        self._versions, self._unmoved = {}, frozenset()

    def _started(self) -> Iterator[tuple[Group, Tensor, State]]:
        """The parameters that have a v, with their groups and states."""
        for group in self._checked_groups():
            for p in group["params"]:
                if "subgrad" in self.state.get(p, {}):
                    yield group, p, self.state[p]

    def _states(self, group: Group, params: list[Tensor], *zeros: str) -> list[State]:
        """The parameters' states; what is missing of v and of what starts at zero is added."""
        states = [self.state[p] for p in params]
        for key in zeros:
            for p, state in zip(params, states, strict=True):
                if key not in state:
                    state[key] = _zeros(p)
        compiling, known = torch.compiler.is_compiling(), self._versions
        for p, state in zip(params, states, strict=True):
            if "subgrad" not in state:
                self._begin(group, p, state)
            elif not compiling and known.get(id(p)) == (p._version, p.data_ptr()):
                continue  # as the last step left it
            if state["subgrad"].shape != p.shape:
                # states of another order, data that was replaced: both could be broadcast
                shapes = [tuple(x.shape) for x in (p, state["subgrad"])]
                check(False, "state", f"of the parameter's shape, {shapes[0]}", shapes[1])
            for key, x in state.items():
                if x.shape == p.shape:  # such as after a change to channels last
                    state[key] = laid_out_as(p, x)
            if id(p) in known and p.numel() and not (compiling or self._told):
                self._tell_of_an_edit(group, p, state)
        return states

    @torch._disable_dynamo  # some versions can't compile what changes the optimizer
    def _begin(self, group: Group, p: Tensor, state: State) -> None:
        state["subgrad"] = _initial_subgrad(p, group)
        self._unmoved |= {p}

    def _read_off(self, group: Group, params: list[Tensor], states: list[State]) -> None:
        """Give parameters the theta of their v."""
        if self._unmoved and not torch.compiler.is_compiling():
            # a step that moves nothing must not round theta: prox(v) gives back what v can hold
            for p, state in zip(params, states, strict=True):
                v = state["subgrad"]
                if p in self._unmoved and not torch.equal(v, _initial_subgrad(p, group)):
                    self._unmoved -= {p}
            states = [s for p, s in zip(params, states, strict=True) if p not in self._unmoved]
            params = [p for p in params if p not in self._unmoved]
        if all(p.is_cpu for p in params):
            for p, state in zip(params, states, strict=True):
                mirror_step(group, p, state)
        else:
            delta, vs = group["delta"], [state["subgrad"] for state in states]
            scaled = vs if delta == 1 else list(torch._foreach_mul(vs, delta))
            prox_together(group["reg"], delta, scaled, params)

    def _after_updates(self, params: list[Tensor]) -> None:
        if not torch.compiler.is_compiling():
            # torch's count of changes is silent where data is replaced
            versions = {id(p): (p._version, p.data_ptr()) for p in params}
            if versions.keys() != self._versions.keys():
                held = {id(p) for group in self.param_groups for p in group["params"]}
                versions = {p: n for p, n in self._versions.items() if p in held} | versions
            self._versions = versions

    def _tell_of_an_edit(self, group: Group, p: Tensor, state: State) -> None:
        """Warn, once, if a parameter that was changed since the last step is not what v says."""
        theta, v = torch.empty_like(p), state["subgrad"]
        mirror_step(group, theta, state)
        rounding = 16 * torch.finfo(v.dtype).eps * group["delta"] * v.abs().max()
        rounding = rounding + torch.finfo(p.dtype).eps * theta.abs()
        if bool(((p - theta).abs() > rounding).any()):
            self._told = True
            warnings.warn(
                f"a parameter of shape {tuple(p.shape)} was changed from outside between two "
                f"steps of {type(self).__name__}, and this step undoes it: theta follows from "
                "the optimizer's v. Call resync() after such an edit. (Told once.)",
                stacklevel=7,  # where step is called
            )


def _zeros(p: Tensor) -> Tensor:
    # with theta's very strides
    return torch.zeros_like(p, dtype=precision(p), memory_format=torch.preserve_format)


def _initial_subgrad(p: Tensor, group: Group) -> Tensor:
    # Algorithm 1, first line: v in dJ(theta) + theta / delta
    theta = p.to(precision(p))
    return _zeros(p).copy_(group["reg"].subgrad(theta)).add_(theta, alpha=1 / group["delta"])


def mirror_step(group: Group, p: Tensor, state: State) -> None:
    """theta <- prox_{delta J}(delta v), written into the parameter's own storage."""
    v, delta = state["subgrad"], group["delta"]
    scaled = v if delta == 1 else torch.mul(v, delta, out=p if p.dtype == v.dtype else None)
    write_prox(group["reg"], delta, scaled, p)
