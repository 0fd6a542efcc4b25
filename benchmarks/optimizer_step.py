"""The time of one optimizer step, against torch's SGD and Adam."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import CASES, REPEAT, Row, Shapes, interleaved, make_parameters, ratio_rows, timed
from torch.optim import SGD, Adam, Optimizer

from bregman.optim import AdaBreg, LinBreg
from bregman.regularizers import L1, GroupL12, Regularizer

LR = 1e-6
MODES: dict[str, dict[str, bool]] = {
    "": {},
    " foreach": {"foreach": True},
    " fused": {"fused": True},
}


def bregman_optimizer(
    optimizer: Callable[..., Optimizer],
    shapes: Shapes,
    *,
    conv: Regularizer | None = None,
    channels_last: bool = False,
    **options: Any,
) -> Optimizer:
    """LinBreg or AdaBreg with l1 on all parameters, or with ``conv`` on the conv weights only."""
    parameters = make_parameters(shapes, channels_last)
    if conv is None:
        return optimizer(parameters, LR, L1(1e-3), **options)
    groups = [
        {"params": [p for p in parameters if p.dim() == 4], "reg": conv},
        {"params": [p for p in parameters if p.dim() != 4]},
    ]
    return optimizer(groups, LR, **options)


def optimizers(shapes: Shapes) -> dict[str, Callable[[], Optimizer]]:
    """All optimizers to compare, by name; the kernel groups only where there are kernels."""
    made: dict[str, Callable[[], Optimizer]] = {}
    for mode, options in MODES.items():
        made[f"SGD{mode}"] = lambda options=options: SGD(make_parameters(shapes), LR, **options)
        made[f"Adam{mode}"] = lambda options=options: Adam(make_parameters(shapes), LR, **options)
    made["SGD momentum fused"] = lambda: SGD(make_parameters(shapes), LR, 0.9, fused=True)
    kernels = GroupL12(1e-3, (2, 3))
    has_kernels = any(len(shape) == 4 for shape in shapes)
    for mode in ("", " fused"):
        make = partial(bregman_optimizer, shapes=shapes, **MODES[mode])
        made[f"LinBreg l1{mode}"] = partial(make, LinBreg)
        made[f"LinBreg l1 momentum{mode}"] = partial(make, LinBreg, momentum=0.9)
        made[f"AdaBreg l1{mode}"] = partial(make, AdaBreg)
        if has_kernels:
            made[f"LinBreg kernel groups{mode}"] = partial(make, LinBreg, conv=kernels)
    if has_kernels:
        make = partial(bregman_optimizer, LinBreg, shapes, channels_last=True)
        made["LinBreg l1, channels_last"] = make
        made["LinBreg kernel groups, channels_last"] = partial(make, conv=kernels)
    return made


COMPARISONS = [
    ("LinBreg l1", "SGD fused", "<= 1.9"),
    ("LinBreg l1 fused", "SGD fused", ""),
    ("LinBreg l1", "SGD", ""),
    ("LinBreg l1 momentum", "SGD momentum fused", ""),
    ("LinBreg l1 momentum fused", "SGD momentum fused", ""),
    ("AdaBreg l1", "Adam fused", "<= 1.45"),
    ("AdaBreg l1 fused", "Adam fused", ""),
    ("AdaBreg l1", "Adam", ""),
    ("LinBreg kernel groups", "LinBreg l1", "<= 2.5"),
    ("LinBreg kernel groups", "SGD fused", ""),
    ("LinBreg kernel groups, channels_last", "LinBreg l1, channels_last", "<= 2.5"),
    ("SGD", "SGD fused", ""),
    ("SGD foreach", "SGD fused", ""),
    ("Adam", "Adam fused", ""),
    ("Adam foreach", "Adam fused", ""),
]


def measure(case: str, threads: int, rounds: int) -> list[Row]:
    """Time all optimizers on the parameters of one network."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    made = {name: make() for name, make in optimizers(CASES[case]()).items()}
    seconds = interleaved({name: timed(o.step, REPEAT[case]) for name, o in made.items()}, rounds)
    comparisons = [row for row in COMPARISONS if row[0] in seconds]
    return ratio_rows("optimizer step", case, threads, seconds, comparisons)
