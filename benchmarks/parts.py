"""Where the time of a training step goes: dense, sparse, and where the limit is.

    python benchmarks/parts.py [--threads N] [NETWORK ...]

After an epoch of each sparse training: its frozen steps, dense steps, and as the limit for smaller
layers steps of what is left of the network, as a plain network with torch's own optimizer. No
training of that can be faster, unless its products are. A few steps of each in turns, in float32.
Writes sparse_training/parts_N.csv beside this file.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from common import Row, clock, timed
from report import print_tables, write
from sparse_training import RESULTS, Arm, make_arms, parse
from torch import Tensor, nn
from torch.optim import Optimizer

from bregman.compact import compact
from bregman.flops import forward_flops
from bregman.suite.analysis.cost import product_densities
from bregman.suite.experiments.what_sparsity_buys import DENSE, SMALLER_LAYERS, SPARSE_PRODUCTS
from bregman.suite.runs import environment

PARTS = ("batch", "forward", "backward", "optimizer")
LIMIT = "plain network of that size"
# Steps in a row; the first one finds caches and memory as another network left them. The length of
# a cycle is no multiple of it, or every full step would come first.
STREAK = 8
# numbers of a parameter's size that the fused optimizer reads and writes, and the prox after it
STREAMS = {"SGD": 3, "Adam": 7, "LinBreg": 6, "AdaBreg": 10}


@dataclass
class Stepper:
    """What takes training steps part by part.

    Attributes:
        model: in training mode.
        optimizer: of its parameters.
        streams: of ``STREAMS``.
        loss: of outputs and targets.
        batches: yields inputs and targets.
        flops: of each layer's forward product with one sample.
        frozen: whether the next step counts, if it is warm.
        ms: the parts of each step that counted.
        full_ms: the whole of each warm step that did not.
    """

    model: nn.Module
    optimizer: Optimizer
    streams: int
    loss: Callable[[Tensor, Tensor], Tensor]
    batches: Iterator[tuple[Tensor, Tensor]]
    flops: list[float]
    frozen: Callable[[], bool] = lambda: True
    ms: list[list[float]] = field(default_factory=list)
    full_ms: list[float] = field(default_factory=list)

    def step(self, warm: bool) -> None:
        frozen = self.frozen()
        self.trained = sum(p.numel() for p in self.model.parameters())
        marks = [clock()]
        x, y = next(self.batches)
        marks.append(clock())
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y)
        marks.append(clock())
        loss.backward()
        marks.append(clock())
        self.optimizer.step()
        marks.append(clock())
        if warm and frozen:
            self.ms.append([1e3 * (b - a) for a, b in itertools.pairwise(marks)])
        elif warm:
            self.full_ms.append(1e3 * (marks[-1] - marks[0]))

    def measures(self, batch_size: int) -> dict[str, float]:
        """Medians, work and rates."""
        medians = [statistics.median(column) for column in zip(*self.ms, strict=True)]
        ms = dict(zip(PARTS, medians, strict=True))
        gflop = [1e-9 * batch_size * flops for flops in self.flops]
        # the first layer's input needs no gradient
        work = {"forward": sum(gflop), "backward": 2 * sum(gflop) - gflop[0]}
        full = {"full step [ms]": statistics.median(self.full_ms)} if self.full_ms else {}
        return {
            "step [ms]": statistics.median(map(sum, self.ms)),
            **full,
            **{f"{part} [ms]": value for part, value in ms.items()},
            **{f"{part} [GFLOP]": value for part, value in work.items()},
            **{f"{part} [GFLOP/s]": 1e3 * value / ms[part] for part, value in work.items()},
            "optimizer [MB]": 4e-6 * self.streams * self.trained,
            "optimizer [GB/s]": 4e-6 * self.streams * self.trained / ms["optimizer"],
        }


def of_arm(arm: Arm) -> Stepper:
    """The steps of a training, frozen ones if it has such."""
    densities = product_densities(arm.model, arm.config.neurons)
    cycle = arm.cycle
    return Stepper(
        arm.model,
        arm.optimizer,
        STREAMS[arm.config.optimizer],
        arm.task.loss,
        itertools.chain.from_iterable(arm.batches() for _ in itertools.count()),
        [flops * densities[layer] for layer, flops in arm.flops.items()],
        (lambda: True) if cycle is None else (lambda: cycle.frozen),
    )


def of_plain_network(arm: Arm) -> Stepper:
    """The network that is left of a training, trained by torch alone."""
    model = compact(arm.model).train()
    kind = torch.optim.Adam if arm.config.optimizer == "AdaBreg" else torch.optim.SGD
    return Stepper(
        model,
        kind(model.parameters(), arm.config.lr, fused=True),
        STREAMS[kind.__name__],
        arm.task.loss,
        itertools.chain.from_iterable(arm.batches() for _ in itertools.count()),
        list(forward_flops(model, arm.task.train[0][:1]).values()),
    )


def measure_parts(network: str, threads: int, rounds: int) -> list[Row]:
    """The parts of a step, and how many times as fast whole steps are."""
    arms = make_arms(network)
    steppers = {DENSE: of_arm(arms[DENSE])}
    for method in (m for m in (SPARSE_PRODUCTS, SMALLER_LAYERS) if m in arms):
        arms[method].epoch()
        steppers[method] = of_arm(arms[method])
    steppers[LIMIT] = of_plain_network(arms[SMALLER_LAYERS])
    for stepper in steppers.values():
        stepper.model.train()
    for _ in range(rounds):
        for stepper in steppers.values():
            for turn in range(STREAK):
                stepper.step(warm=turn > 0)
    rows = []
    for name, stepper in steppers.items():
        measures = stepper.measures(arms[DENSE].config.batch_size)
        rows += [Row("parts of a step", network, name, threads, k, v) for k, v in measures.items()]
        if name == DENSE:
            whole = measures["step [ms]"]
        else:
            times = whole / measures["step [ms]"]
            rows.append(
                Row("parts of a step", network, name, threads, "times as fast", times, DENSE)
            )
    return rows


def measure_machine(threads: int) -> list[Row]:
    """What this machine can do at best, measured with large dense operands."""
    a, b = torch.randn(2, 1024, 1024)
    large, copy = torch.randn(2, 2**25)
    best = {
        "GFLOP/s": 2e-9 * 1024**3 / min(timed(partial(torch.mm, a, b))() for _ in range(20)),
        "GB/s": 8e-9 * 2**25 / min(timed(partial(copy.copy_, large))() for _ in range(20)),
    }
    names = {"GFLOP/s": "a product of 1024 x 1024", "GB/s": "a copy of 128 MiB"}
    return [Row("parts of a step", "machine", names[k], threads, k, v) for k, v in best.items()]


def main() -> None:
    """Measure the networks that are asked for, and store all rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    asked = parse(parser)
    provenance = environment("cpu") | {"threads": asked.threads}
    torch.set_num_threads(asked.threads)
    torch.set_flush_denormal(True)
    RESULTS.mkdir(exist_ok=True)
    rows = measure_machine(asked.threads)
    for network in asked.networks:
        measured = measure_parts(network, asked.threads, asked.rounds)
        print_tables(measured)
        rows += measured
    write(rows, provenance, RESULTS / f"parts_{asked.threads}")


if __name__ == "__main__":
    main()
