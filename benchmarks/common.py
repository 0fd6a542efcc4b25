"""What all benchmarks share: the shapes of two networks, timing side by side, rows of results.

Imports no ``bregman``: the peer package of the same import name uses this module too.
"""

import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch.profiler import ProfilerActivity, profile

Shapes = list[tuple[int, ...]]


class Row(NamedTuple):
    """One number: ``value`` of ``metric``, where a ratio is over ``baseline``."""

    benchmark: str
    case: str
    name: str
    threads: int
    metric: str
    value: float
    baseline: str = ""
    target: str = ""


def resnet18_shapes() -> Shapes:
    """The 62 parameters of ResNet-18 for CIFAR-10: a 3 x 3 stem, 10 classes, 11.17 million."""
    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=10)
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return [tuple(p.shape) for p in model.parameters()]


def mlp_shapes() -> Shapes:
    """The parameters of the MLP 784-200-80-10."""
    return [(200, 784), (200,), (80, 200), (80,), (10, 80), (10,)]


CASES: dict[str, Callable[[], Shapes]] = {"ResNet-18": resnet18_shapes, "MLP": mlp_shapes}
# so many steps a measurement: as in training, the small network stays in the cache between steps
REPEAT = {"ResNet-18": 1, "MLP": 10}


def make_parameters(shapes: Shapes, channels_last: bool = False) -> list[torch.nn.Parameter]:
    """Random parameters with random gradients in the same memory format."""
    parameters = []
    for shape in shapes:
        weight = 0.05 * torch.randn(shape)
        if channels_last and weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        parameter = torch.nn.Parameter(weight)
        parameter.grad = 0.01 * torch.randn_like(weight)
        parameters.append(parameter)
    return parameters


def interleaved(
    candidates: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Run all candidates once per round, in random order: a slow minute hits all of them alike.

    Args:
        candidates: each runs its work once and returns the seconds that it took.
        rounds: number of measured rounds.
        warmup: number of rounds before.

    Returns:
        Seconds per candidate, one per round.
    """
    order = list(candidates)
    shuffle = random.Random(0).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(warmup + rounds):
        shuffle(order)
        for name in order:
            elapsed = candidates[name]()
            if index >= warmup:
                seconds[name].append(elapsed)
    return seconds


def clock() -> float:
    """Seconds: CPU time where one thread computes (others may share the core), else wall time."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def timed(work: Callable[[], object], repeat: int = 1) -> Callable[[], float]:
    """A function that repeats the work and returns the seconds that one repetition took."""

    def run() -> float:
        start = clock()
        for _ in range(repeat):
            work()
        return (clock() - start) / repeat

    return run


def allocations(work: Callable[[], object]) -> tuple[int, int]:
    """What a piece of work allocates, from the profiler's record of allocations and releases.

    Returns:
        The most bytes alive at once, and the bytes still alive after it.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    alive = peak = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        alive += change["args"]["Bytes"]
        peak = max(peak, alive)
    return peak, alive


def ratio_rows(
    benchmark: str,
    case: str,
    threads: int,
    seconds: Mapping[str, list[float]],
    comparisons: list[tuple[str, str, str]],
) -> list[Row]:
    """Medians in milliseconds, and for each (name, baseline, target) two robust ratios."""
    rows = [
        Row(benchmark, case, name, threads, "ms", 1e3 * statistics.median(values))
        for name, values in seconds.items()
    ]
    for name, baseline, target in comparisons:
        pairs = zip(seconds[name], seconds[baseline], strict=True)
        per_round = statistics.median(ours / theirs for ours, theirs in pairs)
        of_minima = min(seconds[name]) / min(seconds[baseline])
        rows += [
            Row(benchmark, case, name, threads, "ratio", per_round, baseline, target),
            Row(benchmark, case, name, threads, "ratio_of_minima", of_minima, baseline),
        ]
    return rows
