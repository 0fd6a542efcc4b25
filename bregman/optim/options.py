"""What a parameter group may hold: options in their ranges, keys that no step reads, parameters."""

import math
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from torch import Tensor

from bregman.checks import check
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
             "regularizer": "reg", "regularization": "reg", "wd": "weight_decay",
             "beta": "momentum", "beta1": "betas", "beta2": "betas", "epsilon": "eps"}  # fmt: skip


def _number(value: Any) -> float:
    return float(value) if isinstance(value, Real) else math.nan


def check_keys(kind: str, group: Mapping[str, Any], options: Collection[str]) -> None:
    """Raise ValueError where a key of a group looks like an option and would be none.

    Any other key is the caller's own, and kept as torch keeps it: an option's whole name and more,
    such as weight_decay_mult, too.

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
        if near and re.fullmatch(rf"{near[0]}_[a-z]\w*|[a-z]\w*_{near[0]}", str(key), re.I):
            continue
        if near or key in ("betas", "eps"):
            meant = names[near[0]] if near else key
            hint = f"did you mean {meant!r}, " if meant in options else ""
            raise ValueError(
                f"unknown option [{key!r}] = {group[key]!r} in a parameter group of {kind}, {hint}"
                f"allowed: {sorted(options)}"
            )


def check_options(options: dict[str, Any]) -> None:
    """Raise ValueError where an option is out of its range; no regularizer becomes ``Zero``.

    Args:
        options: a parameter group with all options.
    """
    if options["reg"] is None:
        options["reg"] = Zero()
    for name, value in options.items():
        if name == "lr" and isinstance(value, Tensor):
            check(value.numel() == 1, "Tensor lr", "1-element", tuple(value.shape))
            if not value.is_cpu:  # looking into it would make the host wait for its device
                continue
            value = value.item()
        match name:
            case "lr" | "eps" | "weight_decay":
                check(0 <= _number(value) < math.inf, name, "non-negative and finite", value)
            case "delta":
                check(0 < _number(value) < math.inf, name, "positive", value)
            case "momentum":
                check(0 <= _number(value) < 1, name, "in [0, 1)", value)
            case "betas":
                holds = isinstance(value, tuple | list) and len(value) == 2
                holds = holds and all(0 <= _number(beta) < 1 for beta in value)
                check(holds, name, "two numbers in [0, 1)", value)
            case "reg":
                holds = isinstance(value, Regularizer)
                check(holds, name, "a Regularizer such as L1(1e-3), or None", value)
            case "maximize":
                check(isinstance(value, bool), name, "True or False", value)
            case "fused":
                check(isinstance(value, bool | None), name, "True, False or None", value)


def check_parameter(p: Tensor, reg: Regularizer) -> None:
    """Raise ValueError where a parameter has no real numbers, or a regularizer does not fit it.

    Args:
        p: the parameter; one that is sharded (a DTensor of torch) must have its blocks whole.
        reg: the regularizer of its group.
    """
    check(p.is_floating_point(), "params", "real parameters", p.dtype)
    check(not p.is_meta, "params", "parameters with numbers", p.device)
    reg.check_shape(p.shape)
    blocks = reg.blocks(p.dim())
    for i, placement in enumerate(getattr(p, "placements", ())):
        split = placement.is_shard() and p.device_mesh.size(i) > 1  # type: ignore[attr-defined]
        whole = isinstance(reg, Zero) or (blocks is not None and placement.dim not in blocks)
        check(whole or not split, "params", f"sharded in whole blocks of {reg}", placement)
