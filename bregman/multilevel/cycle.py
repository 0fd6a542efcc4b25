"""The cycle: a full step, then steps in which restrictions stand in for parameters."""

import math
from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bregman.chains import Call
from bregman.multilevel.catchup import caught_up, paces
from bregman.multilevel.restriction import Restriction, plain
from bregman.multilevel.supports import Entries, Grid, RestingGrid, Support
from bregman.multilevel.trained import blocks, layers, supports
from bregman.multilevel.ways import PATHS, choose
from bregman.optim import BregmanOptimizer
from bregman.regularizers import GroupL12, Regularizer, Zero

KEY = "multilevel"


class Multilevel:
    r"""Trains in cycles: one full step, then ``frozen_steps`` steps on the support that it left.

    A full step is one of the optimizer as it is. Then the blocks of each regularized weight that
    are not zero become a smaller tensor, and this is what forward pass, gradients and optimizer
    work with, so that they leave out what is zero. After the last frozen step all is written back.
    Outside of the support v stayed and theta is zero, so v is still a subgradient, since J is a sum
    over blocks. With ``frozen_steps=0`` this is the optimizer alone, bit for bit.

    Catch-up: where v waited, a full step stands for the n frozen steps before it as well, and moves
    v by 1 + n times its step (AdaBreg: sqrt(1 + n) times); what enters the support by that keeps
    the share of one step. Where a neuron or filter is gone, what leads out of it meets a constant,
    and rests. docs/multilevel.md derives both.

    The training loop stays as it is, with schedulers, closures and ``GradScaler``:

        optimizer = LinBreg(param_groups(model, linear=L1(1e-3)), lr=0.1)
        cycle = Multilevel(model, optimizer, frozen_steps=19)

    Model and optimizer keep their parameters, whole for everyone who looks at them, also in the
    middle of a cycle: for hooks, averages, copies, clipping and evaluation. Who edits a weight or
    moves the model ends the cycle (docs/multilevel.md has a table); the frozen steps so far count
    for the catch-up. The state of the cycle is in the optimizer's ``state_dict``: a training that
    is resumed in the middle of a cycle goes on bit for bit. What hooks into every step can leave
    out frozen ones with ``cycle.frozen``.

    Args:
        model: a plain module, neither compiled nor wrapped for parallel training (wrap it later).
        optimizer: LinBreg or AdaBreg over its parameters. Regularizers must be sums over blocks
            (``Regularizer.blocks``), or none.
        frozen_steps: the number m >= 0 of frozen steps after each full one.
        path: how layers compute in frozen steps, where kind and regularizer of a layer allow it:
            "masked", with zeros in a weight of full size; "csr", single entries of linear layers in
            sparse products, on a CPU; "gathered", rows, columns, filters or input channels as a
            smaller dense layer. Layers that a path does not fit are masked. "auto" is gathered
            where that fits, and for single entries csr up to the density at which it is faster
            (benchmarks/paths.py). The path changes nothing but the time, and rounding.
        catch_up: see above; without it a full step counts once everywhere.

    Attributes:
        frozen: whether the next step is a frozen one.
        missed: the number of frozen steps since the last full one.
        paths: of each layer by name how it computes in frozen steps, and why where it saves
            nothing. Regularized parameters of other modules, which are never frozen, are there by
            their names.

    Raises:
        TypeError: the model is compiled or wrapped, or the optimizer is another one.
        ValueError: frozen_steps is negative, path is unknown or "csr" for a model that is not on a
            CPU, a regularizer is no sum over blocks, no layer has a regularized weight, or the
            optimizer is in a cycle already.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: BregmanOptimizer,
        frozen_steps: int,
        *,
        path: str = "auto",
        catch_up: bool = True,
    ) -> None:
        check(model, optimizer, frozen_steps, path)
        if isinstance(getattr(optimizer.zero_grad, "__self__", None), Multilevel):
            raise ValueError(
                "optimizer must be in one cycle only, got one that has a Multilevel already: call "
                "the detach() of that one first"
            )
        self.model, self.optimizer = model, optimizer
        self.frozen_steps, self.catch_up = frozen_steps, catch_up
        self.frozen, self.missed = False, 0
        self._path, self.paths = path, outside(model, optimizer)
        # of this cycle until the next full step; how many frozen steps each parameter took so far
        self._restrictions: dict[Tensor, Restriction] = {}
        self._skipped: Counter[Tensor] = Counter()
        # in a step
        self._full_step = ExitStack()
        self._call = Call(self._settle)
        self._loaded: dict[str, Any] | None = None
        # what removes the hooks: those on the model, in a cycle, and all others
        self._calls, self._attached = ExitStack(), ExitStack()
        if frozen_steps:
            self._attach()

    @property
    def trained(self) -> dict[str, int]:
        """How many numbers the next step trains, by the parameters' names."""
        held = self._restrictions if self.frozen else {}
        named = self.model.named_parameters()
        return {n: held[p].part.numel() if p in held else p.numel() for n, p in named}

    def finish(self) -> None:
        """End the cycle here: the next step is a full one."""
        if self.frozen:
            with plain():
                self._thaw()

    def detach(self) -> None:
        """End the cycle and take it off model and optimizer for good."""
        self.finish()
        self._attached.close()

    def _attach(self) -> None:
        optimizer = self.optimizer
        mine = {"zero_grad": self._zero_grad, "_groups_of_step": self._groups_of_step}
        vars(optimizer).update(mine)
        for name in mine:
            self._attached.callback(delattr, optimizer, name)
        for hook in (
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._before_load, prepend=True),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ):
            self._attached.callback(hook.remove)

    # a step

    def _groups_of_step(self) -> list[dict[str, Any]]:
        groups = type(self.optimizer)._groups_of_step(self.optimizer)
        with plain():
            self._settle()
            return self._frozen_groups(groups) if self.frozen else self._full_groups(groups)

    def _frozen_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimizer's groups with restrictions in the places of parameters and states."""
        found = []
        for group in groups:
            params = []
            for p in group["params"]:
                if (held := self._restrictions.get(p)) is None:
                    params.append(p)
                    continue
                self.optimizer.state[held.part] = held.advance(self.optimizer.state[p])
                if isinstance(held.support, RestingGrid):
                    reg = _of_rows(group["reg"], held.whole, held.part)
                    found.append({**group, "params": [held.part], "reg": reg})
                else:
                    params.append(held.part)
            found.append({**group, "params": params})
        return found

    def _full_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimizer's groups, with a stride where v waited."""
        self._full_step = ExitStack()
        found = []
        for group in groups:
            by_pace: dict[float, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                pace, state = 1.0, self.optimizer.state.get(p, {})
                if not state:  # it starts anew
                    self._skipped.pop(p, None)
                held = self._restrictions.get(p)
                if held is not None and self.missed and "subgrad" in state:
                    missed = held.missed if self.catch_up else 0
                    count, pace = paces(group, state, missed, self._skipped[p])
                    if pace != 1:
                        around = caught_up(held, state, group, count, pace)
                        self._full_step.enter_context(around)
                by_pace[pace].append(p)
            for pace, params in by_pace.items():
                found.append({**group, "params": params, "lr": group["lr"] * pace})
        return found

    def _after_step(self, *_: Any) -> None:
        with plain():
            if not self.frozen:
                self._full_step.close()
                self._restrictions, self.missed = {}, 0
                self._freeze(supports(self.model, self.optimizer, self.paths))
                return
            self.missed += 1
            for p, held in self._restrictions.items():
                held.take_back(self.optimizer.state[p], self.optimizer.state.pop(held.part, {}))
            if self.missed >= self.frozen_steps:
                self._thaw()

    def _zero_grad(self, set_to_none: bool = True) -> None:
        for held in self._restrictions.values():
            if held.gradient is not None:
                held.gradient = None if set_to_none else torch.zeros_like(held.part)
        with torch._C.DisableTorchFunctionSubclass():
            type(self.optimizer).zero_grad(self.optimizer, set_to_none)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a Multilevel can't be copied or pickled, since it is attached to its model and its "
            "optimizer: copy these and attach another one; the optimizer's state_dict has the state"
        )

    def _settle(self) -> None:
        """End the cycle if somebody changed a weight, took states away or lets decay what rests."""
        if not self.frozen:
            return
        state, held = self.optimizer.state, self._restrictions
        decaying = (
            p for g in self.optimizer.param_groups if g["weight_decay"] for p in g["params"]
        )
        if (
            any(p in held and isinstance(held[p].support, RestingGrid) for p in decaying)
            or any("subgrad" not in state.get(p, {}) for p in held)
            or any(restriction.disturbed() for restriction in held.values())
        ):
            self.finish()

    # the cycle

    def _freeze(self, supports: dict[Tensor, Support]) -> None:
        """Restrict what moves."""
        ways = choose(self.model, supports, self._path, self._call, self.paths)
        for p, support in supports.items():
            self._restrictions[p] = Restriction(p, support, ways.get(p), self.finish)
        self._options = self._reg_and_delta()
        self.frozen = bool(supports)
        if self.frozen:
            begin = self.model.register_forward_pre_hook(self._call.enter)
            end = self.model.register_forward_hook(self._call.leave, always_call=True)
            for hook in (begin, end):
                self._calls.callback(hook.remove)

    def _thaw(self) -> None:
        """Write back what the frozen steps did."""
        for p, held in self._restrictions.items():
            self._skipped[p] += held.missed
            held.release()
        self.frozen = False
        self._calls.close()
        self._call.inside = False
        if self._options != self._reg_and_delta():
            self.optimizer.update_parameters()

    def _reg_and_delta(self) -> list[tuple[Regularizer, float]]:
        return [(group["reg"], group["delta"]) for group in self.optimizer.param_groups]

    # its state, in that of the optimizer

    def _save(self, _: Optimizer, state_dict: dict[str, Any]) -> None:
        held = self._restrictions
        named = list(self.model.named_parameters())
        state_dict[KEY] = {
            "frozen": self.frozen,
            "missed": self.missed,
            "parts": {name: held[p].state() for name, p in named if p in held},
            "skipped": {name: self._skipped[p] for name, p in named if p in self._skipped},
        }

    def _before_load(self, _: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        self._loaded = state_dict.get(KEY)
        shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        parts = self._loaded["parts"] if self._loaded else {}
        if other := [name for name, part in parts.items() if shapes.get(name) != part["shape"]]:
            raise ValueError(
                f"state_dict must be of a cycle over this model, got one with {other[0]} of shape "
                f"{parts[other[0]]['shape']}; nothing was changed"
            )
        self.finish()
        return {key: value for key, value in state_dict.items() if key != KEY}

    def _after_load(self, _: Any) -> None:
        state, self._loaded = self._loaded, None
        self.missed, self._restrictions, self._skipped = 0, {}, Counter()
        if state is None:
            return
        named: dict[str, Tensor] = dict(self.model.named_parameters())
        stored = {named[name]: part for name, part in state["parts"].items()}
        with plain():
            self._freeze({p: _support(part["support"], p.device) for p, part in stored.items()})
            for p, held in self._restrictions.items():
                held.load(stored[p])
            if not state["frozen"]:
                self._thaw()
        self.missed = state["missed"]
        self._skipped = Counter({named[name]: n for name, n in state["skipped"].items()})


def _of_rows(reg: Regularizer, whole: Tensor, part: Tensor) -> Regularizer:
    """The regularizer of rows of which one entry stands for several."""
    n_whole, n_part = (math.prod(t.shape[1:]) for t in (whole, part))
    weight = reg.norm_weight(n_whole)
    assert weight is not None
    return GroupL12(weight / math.sqrt(n_part), tuple(range(1, part.dim())))


def _support(parts: dict[str, Any], device: torch.device) -> Support:
    parts = {key: t if t is None else t.to(device) for key, t in parts.items()}
    kind = Entries if "index" in parts else RestingGrid if "direction" in parts else Grid
    return kind(**parts)


def check(model: nn.Module, optimizer: BregmanOptimizer, frozen_steps: int, path: str) -> None:
    """Raise TypeError or ValueError where these arguments of ``Multilevel`` don't fit."""
    wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    if wrapped or hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise TypeError(
            "model must be a plain module, neither compiled nor wrapped for parallel training, "
            f"got {type(model).__name__}"
        )
    if not isinstance(optimizer, BregmanOptimizer):
        raise TypeError(f"optimizer must be LinBreg or AdaBreg, got {type(optimizer).__name__}")
    if not isinstance(frozen_steps, int) or frozen_steps < 0:
        raise ValueError(f"frozen_steps must be an integer of at least 0, got {frozen_steps}")
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}")
    weights = {layer.weight for _, layer in layers(model)}
    devices = {weight.device.type for weight in weights}
    if path == "csr" and devices != {"cpu"}:
        raise ValueError(f"path 'csr' needs a model on the cpu, got one on {', '.join(devices)}")
    groups = [(p, group["reg"]) for group in optimizer.param_groups for p in group["params"]]
    dims = [blocks(reg, p.dim()) for p, reg in groups if p in weights]
    if all(of_weight is None for of_weight in dims):
        raise ValueError(
            "optimizer must regularize the weight of a linear or convolution layer of model, "
            "got none of that kind"
        )


def outside(model: nn.Module, optimizer: BregmanOptimizer) -> dict[str, str]:
    """Regularized parameters outside of linear and convolution layers, and what becomes of them."""
    inside = {p for _, layer in layers(model) for p in layer.parameters(recurse=False)}
    groups = (g for g in optimizer.param_groups if not isinstance(g["reg"], Zero))
    regularized = {p for group in groups for p in group["params"]}
    reason = "dense: outside of linear and convolution layers"
    return {name: reason for name, p in model.named_parameters() if p in regularized - inside}
