"""Up to which density are sparse products faster than zeros in a dense weight? The table of "auto".

    python benchmarks/paths.py [--threads N]

Forward and backward pass of one linear layer in a frozen step, by shape, batch and density, side by
side. ``bregman.multilevel`` takes csr up to a density where it wins in nearly all of these rows.
Writes paths_N.csv beside this file.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch
from common import Row, interleaved, timed
from report import print_tables, write
from torch import Tensor
from torch.nn import functional as F

from bregman.multilevel.supports import nonzero_entries
from bregman.multilevel.ways import Csr, Masked
from bregman.suite.provenance import environment

SHAPES = [(64, 64), (200, 784), (1024, 1024), (2048, 2048), (4096, 1024)]
BATCHES = [1, 16, 128, 512]
DENSITIES = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]


def step(way: Masked, x: Tensor, part: Tensor, gradient: Tensor) -> None:
    """Forward and backward pass."""
    y = way(F.linear, x, part, None)
    torch.autograd.grad(y, (x, part), gradient)


def compare(shape: tuple[int, int], batch: int, density: float, threads: int) -> list[Row]:
    """The times of both paths for one layer."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    weight *= torch.rand(shape, generator=generator) < density
    support = nonzero_entries(weight, ())
    part = support.restrict(weight).requires_grad_()
    x = torch.randn(batch, shape[1], generator=generator).requires_grad_()
    gradient = torch.randn(batch, shape[0], generator=generator)
    ways: dict[str, Masked] = {"csr": Csr(weight, support), "masked": Masked(weight, support)}
    work = {name: partial(step, way, x, part, gradient) for name, way in ways.items()}
    repeat = max(1, 2_000_000 // (weight.numel() * batch))
    timers = {name: timed(of_way, repeat) for name, of_way in work.items()}
    seconds = interleaved(timers, rounds=7, warmup=1)
    times = statistics.median(
        masked / csr for masked, csr in zip(seconds["masked"], seconds["csr"], strict=True)
    )
    case = f"{shape[0]} x {shape[1]}, batch {batch}"
    return [Row("paths", case, f"csr, density {density:g}", threads, "times as fast", times,
                "masked")]  # fmt: skip


def main() -> None:
    """Measure all cases and store them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    # taken first: it tells which code was measured
    provenance = environment("cpu") | {"threads": threads}
    torch.set_num_threads(threads)
    rows = [
        row
        for shape in SHAPES
        for batch in BATCHES
        for density in DENSITIES
        for row in compare(shape, batch, density, threads)
    ]
    print_tables(rows)
    write(rows, provenance, Path(__file__).parent / f"paths_{threads}")


if __name__ == "__main__":
    main()
