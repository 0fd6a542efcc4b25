"""Whole trainings of the same network, dense and sparse, side by side: what sparsity really saves.

    python benchmarks/sparse_training.py [--threads N] [--epochs N] [NETWORK ...]

One network after the other: an epoch of each method in turn, so that a slow minute hits all of them
alike. Then the memory of a step, steps at other batch sizes, and inference with what was trained.
Rows are those of the experiment "what_sparsity_buys" at the paper's scale, in float32 like torch's
own default, and where that is possible also in bfloat16. Denormal numbers are flushed to zero for
all: the moments of dead neurons decay to them, and dense Adam would take twice as long. Adds to
sparse_training/ beside this file.
"""

import argparse
import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from common import Row, allocations, clock, interleaved, timed
from inference import file_size
from report import print_tables, write
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

from bregman.compact import compact
from bregman.flops import forward_flops
from bregman.inference import to_csr
from bregman.initialization import sparse_init_
from bregman.layers import param_groups, weights
from bregman.multilevel import Multilevel
from bregman.optim import LinBreg
from bregman.regularizers import L1, GroupL12
from bregman.sparsity import sparsity_summary
from bregman.suite.analysis.cost import product_densities, sparse_share, training_share
from bregman.suite.data import batches, load
from bregman.suite.experiments.parts import Task
from bregman.suite.experiments.quality import ssim
from bregman.suite.experiments.sparse_training import SparseTraining
from bregman.suite.experiments.what_sparsity_buys import (
    DENSE,
    EXPERIMENT,
    SHORT,
    SMALLER_LAYERS,
    SPARSE_PRODUCTS,
    WHOLE_RUNS,
)
from bregman.suite.models import MLP
from bregman.suite.runs import environment
from bregman.suite.training import accuracy, evaluate

RESULTS = Path(__file__).parent / "sparse_training"
WHOLE, STEPS, INFERENCE = "whole training", "training step", "inference"
# network: times as fast as dense SGD or Adam, points of accuracy or SSIM that may be lost
NETWORKS = {"wide MLP": (4.0, 0.3), "autoencoder": (4.0, 0.01), "CNN": (1.5, 0.3)}


class Arm:
    """One method that trains a network, epoch by epoch.

    Args:
        config: of the run.
        task: what it learns.
        drawn: the state of the generator after the split, the same for all arms.
    """

    def __init__(self, config: SparseTraining, task: Task, drawn: Tensor) -> None:
        torch.manual_seed(config.seed)
        generator = torch.Generator()
        generator.set_state(drawn)
        self.config, self.task = config, task
        self.dtype = None if config.autocast is None else getattr(torch, config.autocast)
        self.model = config.make_model(generator)
        self.optimizer = config.make_optimizer(self.model)
        attached = config.attach_to(self.model, self.optimizer, 0, generator)
        self.cycle: Multilevel | None = attached.get("multilevel")
        self.scheduler = CosineAnnealingLR(self.optimizer, config.epochs)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.flops = forward_flops(self.model, task.train[0][:1])
        self.seconds: list[float] = []
        self.qualities: list[float] = []
        self.shares = [self._share()]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        config, transform = self.config, self.task.transform
        for x, y in batches(
            *self.task.train, batch_size=config.batch_size, generator=self.generator
        ):
            yield (x if transform is None else transform(x, self.generator)), y

    def gradients(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
            loss = self.task.loss(self.model(x), y)
        loss.backward()

    def epoch(self) -> None:
        """Train for an epoch on the clock, and look at the result beside it."""
        self.model.train()
        start = clock()
        for x, y in self.batches():
            self.gradients(x, y)
            self.optimizer.step()
        if self.cycle is not None:
            self.cycle.finish()
        self.seconds.append(clock() - start)
        self.scheduler.step()
        self.qualities.append(self.quality(self.task.val))
        self.shares.append(self._share())

    def quality(self, samples: tuple[Tensor, Tensor]) -> float:
        """The accuracy in percent, or the SSIM."""
        if self.config.network == "autoencoder":
            return evaluate(self.model, samples, ssim)[0]
        return 100 * evaluate(self.model, samples, accuracy)[0]

    def flops_pct(self) -> float:
        """The theoretical FLOPs so far, relative to a dense training of as many epochs."""
        if self.config.optimizer in ("SGD", "Adam"):
            return 100.0
        # the end of an epoch ends a cycle
        steps = math.ceil(len(self.task.train[0]) / self.config.batch_size)
        frozen = steps / math.ceil(steps / (self.config.frozen_steps + 1)) - 1
        return 100 * training_share(self.shares, frozen)

    def peaks(self) -> tuple[float, float]:
        """The most MiB that a forward and backward pass adds: in a full step, in a frozen one."""
        self.model.train()
        found = []
        for x, y in itertools.islice(self.batches(), 2):
            self.optimizer.zero_grad()
            found.append(allocations(partial(self.gradients, x, y))[0] / 2**20)
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.cycle is not None:
            self.cycle.finish()
        return found[0], found[1]

    def seconds_to(self, quality: float) -> float:
        """The seconds until the validation set shows this quality; infinite if it never does."""
        for n, reached in enumerate(self.qualities, 1):
            if reached >= quality:
                return sum(self.seconds[:n])
        return math.inf

    def _share(self) -> float:
        return sparse_share(self.flops, product_densities(self.model, self.config.neurons))


def make_arms(network: str, epochs: int | None = None) -> dict[str, Arm]:
    """The whole runs of the experiment with this network, by method and precision.

    Args:
        network: one of ``NETWORKS``.
        epochs: at most, as many as the experiment has if None.
    """
    scale = EXPERIMENT.scale("paper")
    configs = {}
    for row in EXPERIMENT.rows_at("paper"):
        if row.artifact == f"{WHOLE_RUNS}: {network}" and row.strategy != SHORT:
            config = EXPERIMENT.config(scale, 0, **row.settings)
            config = replace(config, autocast=None)
            if epochs is not None:
                config = replace(config, epochs=min(config.epochs, epochs))
            configs[row.strategy] = config
            if row.strategy in (DENSE, SMALLER_LAYERS):
                half = replace(config, autocast="bfloat16")
                configs[f"{row.strategy}, bfloat16"] = half
    generator = torch.Generator().manual_seed(0)
    task = configs[DENSE].make_task(load(configs[DENSE].dataset), generator)
    drawn = generator.get_state()
    return {name: Arm(config, task, drawn) for name, config in configs.items()}


def measure_whole(network: str, threads: int, arms: Mapping[str, Arm]) -> list[Row]:
    """Train all arms, an epoch of each in turn."""
    wanted, may_lose = NETWORKS[network]
    shuffle = random.Random(0).shuffle
    for epoch in range(max(arm.config.epochs for arm in arms.values())):
        order = [name for name, arm in arms.items() if epoch < arm.config.epochs]
        shuffle(order)
        for name in order:
            arms[name].epoch()
        last = {name: (arms[name].seconds[-1], arms[name].qualities[-1]) for name in order}
        print(epoch + 1, {name: f"{s:.1f} s {q:.4g}" for name, (s, q) in last.items()})

    test = {name: arm.quality(arm.task.test) for name, arm in arms.items()}
    level = max(arms[DENSE].qualities) - may_lose
    measure = "SSIM" if network == "autoencoder" else "test accuracy"
    rows = []
    for name, arm in arms.items():
        # a sparse training is set against the dense one of the same precision
        half = f"{DENSE}, bfloat16"
        against = half if arm.dtype is not None and name != half else DENSE
        sparse = arm.config.path != "masked"
        full, frozen = arm.peaks()
        most = f"<= {math.ceil(100 * arms[against].peaks()[0]) / 100}" if sparse else ""
        values: list[tuple[str, float, str, str]] = [
            ("seconds", sum(arm.seconds), "", ""),
            ("seconds per epoch", statistics.median(arm.seconds), "", ""),
            ("seconds to dense quality", arm.seconds_to(level), "", ""),
            (measure, test[name], "", ""),
            ("non-zero weights [%]", 100 * sparsity_summary(arm.model)["n_total"], "", ""),
            ("FLOPs [%]", arm.flops_pct() * arm.config.epochs / arms[DENSE].config.epochs, "", ""),
            ("gradients and activations [MiB]", full, against if most else "", most),
        ]
        if arm.cycle is not None and arm.config.frozen_steps:
            values.append(("gradients and activations, frozen [MiB]", frozen, "", ""))
        if name != DENSE:
            times = sum(arms[against].seconds) / sum(arm.seconds)
            gained = test[name] - test[against]
            values += [
                ("times as fast", times, against, f">= {wanted}" if sparse else ""),
                (f"{measure} gained", gained, against, f">= -{may_lose}" if sparse else ""),
            ]
        rows += [
            Row(WHOLE, network, name, threads, metric, value, baseline, target)
            for metric, value, baseline, target in values
        ]
    return rows


def training_cycle(
    batch: int, method: str, density: float, frozen_steps: int
) -> Callable[[], float]:
    """The seconds of a step of the wide MLP, the mean over a cycle, with a support that stays."""
    torch.manual_seed(0)
    model = MLP((784, 2048, 2048, 10))
    x, y = torch.randn(batch, 1, 28, 28), torch.randint(10, (batch,))
    if method == DENSE:
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 1e-6, fused=True)
    else:
        *hidden, output = (weight.layer for weight in weights(model))
        rows = method == SMALLER_LAYERS
        group = "row" if rows else "entry"
        # the learning rate is too small for anything to enter or leave
        sparse_init_(nn.ModuleList(hidden), density, group=group, generator=torch.Generator())
        reg = GroupL12(1.0, dim=1) if rows else L1(1.0)
        groups = param_groups(nn.Sequential(*hidden), linear=reg)
        groups.append({"params": list(output.parameters())})
        optimizer = LinBreg(groups, lr=1e-6, fused=True)
        Multilevel(model, optimizer, frozen_steps)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return timed(step, frozen_steps + 1)


def measure_steps(threads: int, rounds: int) -> list[Row]:
    """Steps of the wide MLP at several batch sizes, with frozen supports and m = 19."""
    rows = []
    for batch in (1, 128, 512):
        arms = {DENSE: training_cycle(batch, DENSE, 1.0, 19)}
        for method in (SPARSE_PRODUCTS, SMALLER_LAYERS):
            for density in (0.05, 0.02):
                name = f"{method}, {100 * density:g} %"
                arms[name] = training_cycle(batch, method, density, 19)
        seconds = interleaved(arms, rounds, warmup=2)
        rows += times_as_fast(STEPS, f"wide MLP, batch {batch}", threads, seconds, "")
    return rows


def measure_inference(threads: int, rounds: int, arms: Mapping[str, Arm]) -> list[Row]:
    """The trained wide MLPs as they are, in CSR and compact; the sizes of their files."""
    models = {
        DENSE: arms[DENSE].model,
        "CSR": to_csr(arms[SPARSE_PRODUCTS].model),
        "compact": compact(arms[SMALLER_LAYERS].model),
    }
    rows = [
        Row(INFERENCE, "wide MLP", name, threads, "file [kB]", file_size(model) / 1000)
        for name, model in models.items()
    ]
    for batch in (1, 128):
        images = torch.randn(batch, 1, 28, 28)
        candidates = {name: timed(partial(net, images), 20) for name, net in models.items()}
        with torch.inference_mode():
            seconds = interleaved(candidates, rounds)
        rows += times_as_fast(INFERENCE, f"wide MLP, batch {batch}", threads, seconds, ">= 5")
    return rows


def times_as_fast(
    benchmark: str, case: str, threads: int, seconds: Mapping[str, list[float]], target: str
) -> list[Row]:
    """Medians in milliseconds, and how many times as fast as dense, the median over the rounds."""
    rows = []
    for name, values in seconds.items():
        rows.append(Row(benchmark, case, name, threads, "ms", 1e3 * statistics.median(values)))
        if name != DENSE:
            ratio = statistics.median(a / b for a, b in zip(seconds[DENSE], values, strict=True))
            rows.append(Row(benchmark, case, name, threads, "times as fast", ratio, DENSE, target))
    return rows


def measure(network: str, threads: int, arms: Mapping[str, Arm]) -> Iterator[list[Row]]:
    """All that is measured of a network, part by part."""
    yield measure_whole(network, threads, arms)
    if network == "wide MLP":
        yield measure_steps(threads, rounds=10)
        yield measure_inference(threads, 50, arms)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with networks (all if none is named) and a number of threads."""
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    if unknown := set(asked.networks) - NETWORKS.keys():
        parser.error(f"unknown network {', '.join(unknown)}, allowed: {', '.join(NETWORKS)}")
    asked.networks = asked.networks or list(NETWORKS)
    return asked


def main() -> None:
    """Measure the networks that are asked for, and store the rows of each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="at most")
    asked = parse(parser)
    # taken first: it tells which code was measured
    provenance = environment("cpu") | {"threads": asked.threads}
    torch.set_num_threads(asked.threads)
    torch.set_flush_denormal(True)
    RESULTS.mkdir(exist_ok=True)
    for network in asked.networks:
        arms = make_arms(network, asked.epochs)
        stem = f"{network.lower().replace(' ', '_')}_{asked.threads}"
        rows: list[Row] = []
        for measured in measure(network, asked.threads, arms):
            print_tables(measured)
            rows += measured
            # written after each part, since the first takes long
            write(rows, provenance, RESULTS / stem)


if __name__ == "__main__":
    main()
