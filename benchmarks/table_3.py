"""A training step of ResNet-18 as Table 3 takes it: the optimizers side by side, on one thread.

    MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000 python benchmarks/table_3.py

The networks and settings are the experiment's: batches of 128, bfloat16, channels last; width 64 is
the paper's, 16 that of the scale narrow. Writes table_3.csv beside this file.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from common import Row, interleaved, ratio_rows, timed
from report import print_tables, write
from torch.nn import functional as F

from bregman.suite import experiments
from bregman.suite.provenance import environment

ROUNDS = {"narrow": 30, "paper": 10}
COMPARISONS = [("LinBreg", "SGD", ""), ("AdaBreg", "Adam", "")]
EXPERIMENT = experiments.get("cifar10_resnet")


def training_step(scale: str, label: str) -> Callable[[], float]:
    """One step of a run, on random images; returns its seconds."""
    row = next(row for row in EXPERIMENT.rows_at(scale) if row.label == label)
    config = EXPERIMENT.config(EXPERIMENT.scale(scale), 0, **row.settings)
    model = config.make_model(torch.Generator().manual_seed(0)).train()
    optimizer = config.make_optimizer(model)
    images = torch.randn(config.batch_size, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (config.batch_size,))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", config.dtype):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return timed(step)


def measure(scale: str) -> list[Row]:
    """Milliseconds of a step, and what Bregman's cost over torch's."""
    names = dict.fromkeys(name for pair in COMPARISONS for name in pair[1::-1])
    seconds = interleaved({name: training_step(scale, name) for name in names}, ROUNDS[scale])
    width = EXPERIMENT.scale(scale).width
    return ratio_rows("training step", f"ResNet-18, width {width}", 1, seconds, COMPARISONS)


def main() -> None:
    """Measure both widths and store the times."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    provenance = environment("cpu")
    rows = [row for scale in ROUNDS for row in measure(scale)]
    print_tables(rows)
    write(rows, provenance, Path(__file__).with_suffix(""))


if __name__ == "__main__":
    main()
