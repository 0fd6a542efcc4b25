"""What a parameter group may say: the options and their ranges, and keys that no step reads."""

import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from torch import Tensor

from bregman.regularizers import Regularizer, Zero

# what torch and its schedulers write into groups
_TORCH_KEYS = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr",
               "base_momentum", "max_momentum"}  # fmt: skip
# options that an optimizer here or its relative in torch has, and the value that changes nothing
_WITHOUT_EFFECT = {"momentum": 0, "dampening": 0, "nesterov": False, "amsgrad": False,
                   "decoupled_weight_decay": False, "capturable": False, "differentiable": False,
                   "delta": 1}  # fmt: skip
# what else options are called
_SYNONYMS = {"learning_rate": "lr", "tau": "lr", "lam": "reg", "lambda": "reg",
             "regularizer": "reg", "beta": "momentum", "epsilon": "eps"}  # fmt: skip


def check_keys(kind: str, group: Mapping[str, Any], options: Collection[str]) -> None:
    """Raise ValueError where a key of a group looks like an option and would be none.

    Any other key is the caller's own, and kept as torch keeps it.

    Args:
        kind: the name of the optimizer.
        group: a parameter group.
        options: the names of the optimizer's options.
    """
    for key in group.keys() - options - _TORCH_KEYS:
        if key in _WITHOUT_EFFECT and group[key] == _WITHOUT_EFFECT[key]:
            continue
        names = {name: name for name in [*_WITHOUT_EFFECT, *options]}
        names |= {synonym: name for synonym, name in _SYNONYMS.items() if name in options}
        near = get_close_matches(str(key).lower(), names, n=1, cutoff=0.8)
        if near or key in ("betas", "eps"):
            meant = names[near[0]] if near else key
            hint = f"did you mean {meant!r}, " if meant in options else ""
            raise ValueError(
                f"unknown option [{key!r}] = {group[key]!r} in a parameter group of {kind}, {hint}"
                f"allowed: {sorted(options)}"
            )


def check_options(options: dict[str, Any], *, tensors: bool = True) -> None:
    """Raise ValueError where an option is out of its range; no regularizer becomes ``Zero``.

    Args:
        options: a parameter group with all options.
        tensors: look into a tensor too, which makes the host wait for its device.
    """

    def check(name: str, value: Any, ok: bool, allowed: str) -> None:
        if not ok:
            raise ValueError(f"{name} must be {allowed}, got {value!r}")

    if options["reg"] is None:
        options["reg"] = Zero()
    for name, value in options.items():
        match name:
            case "lr" if isinstance(value, Tensor):
                if value.numel() != 1:
                    raise ValueError(f"Tensor lr must be 1-element, got {tuple(value.shape)}")
                if tensors:
                    check_options({**options, "lr": value.item()})
            case "lr" | "eps" | "weight_decay":
                ok = 0 <= _number(value) < math.inf
                check(name, value, ok, "non-negative and finite")
            case "delta":
                check(name, value, 0 < _number(value) < math.inf, "positive")
            case "momentum":
                check(name, value, 0 <= _number(value) < 1, "in [0, 1)")
            case "betas":
                ok = isinstance(value, tuple | list) and len(value) == 2
                ok = ok and all(0 <= _number(beta) < 1 for beta in value)
                check(name, value, ok, "two numbers in [0, 1)")
            case "reg":
                ok = isinstance(value, Regularizer)
                check(name, value, ok, "a Regularizer such as L1(1e-3), or None")
            case "maximize" | "fused":
                ok = isinstance(value, bool) or (value is None and name == "fused")
                check(name, value, ok, "True, False or (fused) None")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Real) else math.nan
