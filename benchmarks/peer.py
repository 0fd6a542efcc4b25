"""One optimizer step of PyPI's ``bregman-learning``, run as a script in a process of its own.

Its import name is ``bregman`` too: PYTHONPATH decides which one this process gets.
"""

import json
import sys

import torch
from common import CASES, REPEAT, Row, interleaved, make_parameters, ratio_rows, timed
from torch.optim import SGD, Adam

import bregman

NAMES = {"LinBreg": "bregman-learning LinBreg l1", "AdaBreg": "bregman-learning AdaBreg l1"}


def measure(case: str, threads: int, rounds: int) -> list[Row]:
    """Time the peer's optimizers and torch's fused ones side by side."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shapes = CASES[case]()
    made = {
        "SGD fused": SGD(make_parameters(shapes), 1e-6, fused=True),
        "Adam fused": Adam(make_parameters(shapes), 1e-6, fused=True),
    }
    for kind, name in NAMES.items():
        optimizer = getattr(bregman, kind)
        made[name] = optimizer(make_parameters(shapes), lr=1e-6, reg=bregman.L1(1e-3))
    seconds = interleaved({name: timed(o.step, REPEAT[case]) for name, o in made.items()}, rounds)
    comparisons = [(NAMES["LinBreg"], "SGD fused", ""), (NAMES["AdaBreg"], "Adam fused", "")]
    rows = ratio_rows("optimizer step", case, threads, seconds, comparisons)
    return [row for row in rows if row.name in NAMES.values()]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
