"""The cycle: a full step, then steps in which restrictions stand in for parameters."""

import math
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bregman.multilevel.catchup import FullStep
from bregman.multilevel.chains import links
from bregman.multilevel.choice import Choice, Front, blocks
from bregman.multilevel.eligible import check, may_rest, obstacle, outside, plain_layers
from bregman.multilevel.gathered import Call, Gathered
from bregman.multilevel.restriction import ParameterRestriction, Restricted, plain
from bregman.multilevel.supports import Entries, Grid, RestingGrid, Support
from bregman.multilevel.ways import Sparse, Way
from bregman.optim import BregmanOptimizer
from bregman.regularizers import GroupL12, Regularizer

KEY = "multilevel"
_TAKEN: WeakSet[BregmanOptimizer] = WeakSet()


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
    moves the model ends the cycle; the frozen steps so far count for the catch-up. The state of the
    cycle is in the optimizer's ``state_dict``: a training that is resumed in the middle of a cycle
    goes on bit for bit. What hooks into every step can leave out frozen ones with ``cycle.frozen``.

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
            (benchmarks/paths.py); "timed" times csr and masked instead, so that two runs may differ
            in rounding. The path changes nothing else.
        catch_up: see above; without it a full step counts once everywhere.

    Attributes:
        frozen: whether the next step is a frozen one.
        missed: the number of frozen steps since the last full one.

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
        if optimizer in _TAKEN:
            raise ValueError(
                "optimizer must be in one cycle only, got one that has a Multilevel already: call "
                "the detach() of that one first"
            )
        self.model, self.optimizer = model, optimizer
        self.frozen_steps, self.catch_up = frozen_steps, catch_up
        self.frozen, self.missed = False, 0
        self._choose = Choice(path)
        self._choose.reasons.update(outside(model, optimizer))
        self._restrictions: dict[Tensor, ParameterRestriction] = {}
        # by the names of parameters: what moved in the cycle before and in how many steps of it,
        # and in how many frozen steps in all
        self._waited: dict[str, tuple[Support, int]] = {}
        self._skipped: dict[str, int] = {}
        # in a step
        self._groups: list[dict[str, Any]] | None = None
        self._full: FullStep | None = None
        self._call = Call(self._settle)
        self._calls: list[Any] = []
        self._loaded: dict[str, Any] | None = None
        self._hooks: list[Any] = []
        if frozen_steps:
            _TAKEN.add(optimizer)
            vars(optimizer)["zero_grad"] = self._zero_grad
            self._hooks = [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
                optimizer.register_state_dict_pre_hook(self._show),
                optimizer.register_state_dict_post_hook(self._save),
                optimizer.register_load_state_dict_pre_hook(self._before_load, prepend=True),
                optimizer.register_load_state_dict_post_hook(self._after_load),
            ]

    @property
    def paths(self) -> dict[str, str]:
        """Of each layer by name how it computes in frozen steps, and why where it saves nothing.

        Regularized parameters of other modules, which are never frozen, are there by their names.
        """
        return dict(self._choose.reasons)

    @property
    def trained(self) -> dict[str, int]:
        """How many numbers the next step trains, by the parameters' names."""
        held = self._restrictions if self.frozen else {}
        named = self.model.named_parameters()
        return {n: held[p].part.numel() if p in held else p.numel() for n, p in named}

    def finish(self) -> None:
        """End the cycle here: the next step is a full one."""
        self._restore_groups()
        with plain():
            if self.frozen:
                self._thaw()
            self._release()

    def detach(self) -> None:
        """End the cycle and take it off model and optimizer for good."""
        self.finish()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self.optimizer in _TAKEN:
            del self.optimizer.zero_grad
            _TAKEN.discard(self.optimizer)

    # a step

    def _before_step(
        self, optimizer: BregmanOptimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        closure = kwargs.get("closure") if len(args) < 2 else args[1]

        def then() -> Any:
            # after the closure, when all gradients are there
            loss = None if closure is None else closure()
            self._restore_groups()
            with plain():
                self._settle()
                self._groups = optimizer.param_groups
                if self.frozen:
                    optimizer.param_groups = self._frozen_groups()
                else:
                    self._release()
                    waited = self._waited if self.missed else {}
                    self._full = FullStep(
                        self.model, optimizer, waited, self._skipped, self.catch_up
                    )
                    optimizer.param_groups = self._full.groups
            return loss

        return (args[0], then), {}

    def _frozen_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups with restrictions in the places of parameters and states."""
        groups = []
        for group in self.optimizer.param_groups:
            params = []
            for p in group["params"]:
                if (held := self._restrictions.get(p)) is None:
                    params.append(p)
                    continue
                part, state = held.advance(), self.optimizer.state[p]
                self.optimizer.state[part] = {
                    key: held.of_state(key, value).advance() if value.dim() else value
                    for key, value in state.items()
                }
                if isinstance(held.support, RestingGrid):
                    groups.append({**group, "params": [part], "reg": _of_rows(group["reg"], held)})
                else:
                    params.append(part)
            groups.append({**group, "params": params})
        return groups

    def _after_step(self, *_: Any) -> None:
        self._restore_groups()
        with plain():
            if self.frozen:
                self.missed += 1
                for p, held in self._restrictions.items():
                    self._take_back(p, held)
                if self.missed >= self.frozen_steps:
                    self._thaw()
                return
            if self._full is not None:
                self._full.correct()
            self._full, self.missed = None, 0
            self._freeze()

    def _take_back(self, p: Tensor, held: ParameterRestriction) -> None:
        """What the optimizer added to the state, such as a momentum that was zero before."""
        held.part.grad = None
        state = self.optimizer.state[p]
        for key, value in self.optimizer.state.pop(held.part, {}).items():
            if key not in state:
                state[key] = value
                if value.dim():
                    state[key] = torch.zeros_like(held.whole)
                    held.support.prolong(value, state[key])

    def _restore_groups(self) -> None:
        if self._groups is not None:
            self.optimizer.param_groups, self._groups = self._groups, None

    def _zero_grad(self, set_to_none: bool = True) -> None:
        self._restore_groups()
        for held in self._restrictions.values():
            if held.gradient is not None:
                held.gradient = None if set_to_none else torch.zeros_like(held.part)
        with torch._C.DisableTorchFunctionSubclass():
            type(self.optimizer).zero_grad(self.optimizer, set_to_none)

    def _settle(self) -> None:
        """End the cycle if somebody changed a weight."""
        if self.frozen and any(held.disturbed() for held in self._restrictions.values()):
            self.finish()

    # the cycle

    def _freeze(self, norms: dict[str, Tensor] | None = None) -> None:
        """Restrict what moves to the support that there is.

        Args:
            norms: of a stored cycle that is to go on, by name what stands for resting entries; its
                supports are those that waited.
        """
        supports: dict[str, Support] = {}
        if norms is not None:
            supports = {name: support for name, (support, _) in self._waited.items()}
        ways: dict[nn.Module, Way] = {}
        groups = {p: group for group in self.optimizer.param_groups for p in group["params"]}
        chain = links(self.model)
        for name, layer in plain_layers(self.model):
            if reason := obstacle(layer, self.model, self.optimizer):
                self._choose.reasons[name] = f"dense: {reason}"
                continue
            front = None
            before, between = chain.get(layer, (layer, []))
            group = groups[layer.weight]
            rests = before in ways and may_rest(before, self.model, self.optimizer)
            if rests or (before in ways and ways[before].dead is None):
                front = Front(before, ways[before], between)
            given = supports.get(_join(name, "weight"))
            v = self.optimizer.state[layer.weight]["subgrad"]
            way = self._choose(name, layer, group, v, front, given)
            if way is not None:
                ways[layer] = way
        for name, layer in plain_layers(self.model):
            if (way := ways.get(layer)) is None:
                continue
            self._restrict(_join(name, "weight"), layer.weight, way.trained, way)
            if way.steady and layer.bias is not None:
                assert isinstance(way.support, Grid)
                rows = Grid(way.support.rows)
                way.bias = self._restrict(_join(name, "bias"), layer.bias, rows)
            if isinstance(way, Gathered) and way.modules:
                way.call = self._call
        if any(isinstance(way, Gathered) and way.modules for way in ways.values()):
            self._calls = [
                self.model.register_forward_pre_hook(self._call.enter),
                self.model.register_forward_hook(self._call.leave, always_call=True),
            ]
        for held in self._restrictions.values():
            if norms and isinstance(held.support, RestingGrid):
                held.support.norms(held.part).copy_(norms[held.name])
        self._options = self._reg_and_delta()
        self.frozen = bool(self._restrictions)

    def _restrict(
        self, name: str, full: Tensor, support: Support, way: Way | None = None
    ) -> ParameterRestriction:
        held = ParameterRestriction(name, full, support, self.finish, way)
        self._restrictions[full] = held
        return held

    def _thaw(self) -> None:
        """Write back what the frozen steps did; linear layers still leave out what is zero."""
        self._waited = {}
        for p, held in self._restrictions.items():
            self._waited[held.name] = held.support, held.missed
            self._skipped[held.name] = self._skipped.get(held.name, 0) + held.missed
            for value in self.optimizer.state[p].values():
                if isinstance(value, Restricted):
                    value.restriction.release()
            held.show()
            held.frozen = False
        self.frozen = False
        for hook in self._calls:
            hook.remove()
        self._calls, self._call.inside = [], False
        if self._options != self._reg_and_delta():
            self.optimizer.update_parameters()
        for p, held in list(self._restrictions.items()):
            saves = held.part.numel() < held.whole.numel() and held.whole.dim() == 2
            if isinstance(held.way, Sparse) and saves:
                held.way.version, held.way.bias = p._version, None
            else:
                self._restrictions.pop(p).release()

    def _release(self) -> None:
        for held in self._restrictions.values():
            held.release()
        self._restrictions = {}

    def _reg_and_delta(self) -> list[tuple[Regularizer, float]]:
        return [(group["reg"], group["delta"]) for group in self.optimizer.param_groups]

    # its state, in that of the optimizer

    def _show(self, optimizer: Optimizer) -> None:
        self._restore_groups()
        for p, held in self._restrictions.items():
            held.show()
            for value in optimizer.state[p].values():
                if isinstance(value, Restricted):
                    value.restriction.show()

    def _save(self, _: Optimizer, state_dict: dict[str, Any]) -> None:
        waited, norms = self._waited, {}
        if self.frozen:
            waited = {}
            for held in self._restrictions.values():
                waited[held.name] = held.support, held.missed
                if isinstance(held.support, RestingGrid):
                    norms[held.name] = held.support.norms(held.part).clone()
        state_dict[KEY] = {
            "frozen": self.frozen,
            "restricted": bool(self._restrictions),
            "missed": self.missed,
            "supports": {name: vars(support) for name, (support, _) in waited.items()},
            "waited": {name: missed for name, (_, missed) in waited.items()},
            "norms": norms,
            "skipped": dict(self._skipped),
            "timed": dict(self._choose.timed),
        }

    def _before_load(self, _: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        self.finish()
        self._loaded = state_dict.get(KEY)
        return {key: value for key, value in state_dict.items() if key != KEY}

    def _after_load(self, _: Any) -> None:
        state, self._loaded = self._loaded, None
        self.missed, self._waited, self._skipped = 0, {}, {}
        if state is None:
            return
        devices = {name: p.device for name, p in self.model.named_parameters()}
        waited = {
            name: (_loaded(parts, devices[name]), state["waited"][name])
            for name, parts in state["supports"].items()
        }
        self._waited, self._choose.timed = waited, dict(state["timed"])
        with plain():
            if state["restricted"]:
                self._freeze(state["norms"])
                for held in self._restrictions.values():
                    held.missed, held.reread = waited[held.name][1], True
                if not state["frozen"]:
                    self._thaw()
        self.missed, self._skipped = state["missed"], dict(state["skipped"])


def _of_rows(reg: Regularizer, held: ParameterRestriction) -> Regularizer:
    """The regularizer of rows of which one entry stands for several."""
    dims = blocks(reg, held.whole.dim())
    assert dims is not None
    of_whole, of_part = (math.prod(t.shape[d] for d in dims) for t in (held.whole, held.part))
    weight = reg.norm_weight(of_whole)
    assert weight is not None
    return GroupL12(weight / math.sqrt(of_part), dims)


def _loaded(parts: dict[str, Any], device: torch.device) -> Support:
    parts = {key: t if t is None else t.to(device) for key, t in parts.items()}
    kind = Entries if "index" in parts else RestingGrid if "rest" in parts else Grid
    return kind(**parts)


def _join(*names: str) -> str:
    return ".".join(filter(None, names))
