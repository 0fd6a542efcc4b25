"""What the three optimizers share: checked parameter groups, closures, the loop over groups."""

import warnings
from collections import Counter
from collections.abc import Callable
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bregman.checks import check
from bregman.optim.options import check_keys, check_options, check_parameter

# options that a checkpoint may lack, since they are younger, and what it was written with
_YOUNGER = {"maximize": False, "fused": None, "weight_decay": 0.0}
# those that make an algorithm what it is
_ALGORITHM = {"lr", "reg", "momentum", "betas", "eps", "delta"}


Group = dict[str, Any]
State = dict[str, Tensor]


class RegularizedOptimizer(Optimizer):
    """What the three optimizers share: checked parameter groups, closures, the loop over groups."""

    _options: list[Any] = []  # noqa: RUF012 (replaced, never changed): as last checked

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters with options of its own, as in torch.

        A key that is no option is kept, as in torch, unless it looks like one.

        Raises:
            ValueError: a key looks like an option and is none, an option is out of range, a
                parameter is complex or on the meta device, two parameters are one memory, or the
                regularizer does not fit a parameter's shape or the way in which it is sharded.
        """
        check_keys(type(self).__name__, param_group, self.defaults.keys())
        options = {**self.defaults, **param_group}
        check_options(options)
        super().add_param_group(options)
        try:
            for p in self.param_groups[-1]["params"]:
                check_parameter(p, options["reg"])
            params = {p for group in self.param_groups for p in group["params"]}
            places = Counter(p.data_ptr() for p in params if p.numel())
            twice = [tuple(p.shape) for p in params if places[p.data_ptr() or -1] > 1]
            check(not twice, "params", "one parameter where memory is shared", twice)
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults = {**_YOUNGER, **self.defaults}
        self.defaults.pop("differentiable", None)  # torch puts it there, and no step reads it
        for group in self.param_groups:
            group.update({**self.defaults, **_YOUNGER, **group})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a stored state, as in torch; the state keeps its precision.

        Raises:
            ValueError: the state is that of another optimizer; nothing was changed.
        """
        loaded: dict[str, Any] = {}

        def examine(_: Optimizer, state_dict: dict[str, Any]) -> None:
            self._check_state(state_dict)
            loaded.update(state_dict)

        with self.register_load_state_dict_pre_hook(examine):  # the last one sees what will be read
            super().load_state_dict(state_dict)
        # torch has cast states to the parameters' precision
        params = [p for group in self.param_groups for p in group["params"]]
        numbers = [number for group in loaded["param_groups"] for number in group["params"]]
        for p, number in zip(params, numbers, strict=True):
            for key, value in loaded["state"].get(number, {}).items():
                if p.dtype != precision(p) and key != "step":
                    self.state[p][key] = value.to(p.device, precision(p), copy=True)

    def _check_state(self, state_dict: dict[str, Any]) -> None:
        kind, own = type(self).__name__, self.defaults.keys() & _ALGORITHM
        if more := state_dict.keys() - {"state", "param_groups"}:
            warnings.warn(
                f"state_dict has {sorted(more)} of what was attached to the optimizer that it is "
                f"of, and nothing like that is attached to this {kind}: it goes on without",
                stacklevel=5,
            )
        for group in state_dict["param_groups"]:
            same = own <= group.keys() and "delta" not in group.keys() - own
            other = f"that of another optimizer, with {sorted(group)}"
            check(same, "state_dict", f"one of {kind}, with {sorted(own)}", other)
            check_keys(kind, group, self.defaults.keys())

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step on every parameter that has a gradient.

        Args:
            closure: optional; evaluates the model again, sets the gradients, returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a gradient is sparse; no parameter was changed.
            ValueError: an option was set to what is out of its range; no parameter was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = []
        for group in self._groups_of_step():
            params, grads = [], []
            for p in group["params"]:
                if (grad := p.grad) is None:
                    continue
                if grad.layout != torch.strided:
                    raise RuntimeError(
                        f"{type(self).__name__} needs dense gradients, got layout {grad.layout} "
                        f"for a parameter of shape {tuple(grad.shape)}"
                    )
                params.append(p)
                grads.append(grad if grad.element_size() >= 4 else grad.float())
            if params:
                active.append((group, params, grads))
        # every gradient was looked at before the first parameter changes
        for group, params, grads in active:
            if group["maximize"]:
                grads = list(torch._foreach_neg(grads))
            if mu := group["weight_decay"]:
                # theta is read off v: not v has to decay
                grads = list(torch._foreach_add(grads, params, alpha=mu))
            self._update(group, params, grads)
        self._after_updates([p for _, params, _ in active for p in params])
        return loss

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _after_updates(self, params: list[Tensor]) -> None:
        """What is left to do when all parameters with a gradient had their step."""

    def _groups_of_step(self) -> list[Group]:
        """The groups that a step is taken on, when all gradients are there."""
        return self._checked_groups()

    def _checked_groups(self) -> list[Group]:
        """The groups, whose options a scheduler or the user may have set meanwhile."""
        given = [group[name] for group in self.param_groups for name in self.defaults]
        if len(given) != len(self._options) or not all(map(is_, given, self._options)):
            for group in self.param_groups:
                check_options(group)
            self._options = [group[k] for group in self.param_groups for k in self.defaults]
        return self.param_groups


def precision(p: Tensor) -> torch.dtype:
    """What a parameter is computed in: its own dtype, float32 for less."""
    return p.dtype if p.dtype.itemsize >= 4 else torch.float32


def laid_out_as(like: Tensor, x: Tensor) -> Tensor:
    """x with its dimensions in memory in the order of another tensor of its shape, without gaps."""
    strides = torch.empty_like(like, device="meta").stride()
    return x if x.stride() == strides else x.new_empty_strided(x.shape, strides).copy_(x)


def along(vs: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
    """Gradients laid out as what they move.

    On a CPU torch's fused kernels go along the memory of their tensors, whatever the strides are.
    """
    pairs = zip(vs, grads, strict=True)
    return [g if g.stride() == v.stride() else laid_out_as(v, g) for v, g in pairs]


def scalar(lr: float | Tensor) -> float | Tensor:
    """A learning rate as kernels take it: a float, without dimensions if it is on a device."""
    if isinstance(lr, Tensor):
        return lr.item() if lr.is_cpu else lr.reshape(())
    return lr
