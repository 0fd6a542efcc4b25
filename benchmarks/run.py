"""Measure the suite's speed and memory against torch and the peer package.

Prints tables; writes results.csv and results.json beside this file. ``--quick`` takes a tenth
of the rounds and writes nothing.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import inference
import memory
import optimizer_step
import training_epoch
from common import CASES, Row
from report import print_tables, write

from bregman.suite.runs import environment

HERE = Path(__file__).parent
PEER = HERE / ".peer"
# without its dependency on torch, so that both packages run on the same torch
PEER_PACKAGES = ["bregman-learning", "igraph", "texttable"]
ROUNDS = {"ResNet-18": 50, "MLP": 100}


def install_peer() -> bool:
    """Install the peer package into a folder of its own; False, and a word why, if that fails."""
    if (PEER / "bregman").exists():
        return True
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(PEER)]
    done = subprocess.run([*pip, *PEER_PACKAGES], capture_output=True, text=True)
    if done.returncode:
        print(f"bregman-learning can't be installed, its rows are left out:\n{done.stderr}")
    return done.returncode == 0


def measure_peer(case: str, threads: int, rounds: int) -> list[Row]:
    """The peer package's rows, from a process that imports it as ``bregman``."""
    done = subprocess.run(
        [sys.executable, str(HERE / "peer.py"), case, str(threads), str(rounds)],
        env={**os.environ, "PYTHONPATH": str(PEER)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [Row(*values) for values in json.loads(done.stdout)]


def against_peer(rows: list[Row]) -> list[Row]:
    """How many times faster than the peer: both were timed beside the same torch optimizer."""
    ratios = {(row.name, row.baseline): row for row in rows if row.metric == "ratio"}
    made = []
    for name, baseline in (("LinBreg l1", "SGD fused"), ("AdaBreg l1", "Adam fused")):
        ours = ratios[name, baseline]
        peer = ratios[f"bregman-learning {name}", baseline]
        made.append(peer._replace(value=peer.value / ours.value, baseline=ours.name, target=">= 3"))
    return made


def main(quick: bool) -> None:
    """Run all benchmarks."""
    # taken first: it tells which code was measured
    provenance = {key: value for key, value in environment("cpu").items() if key != "threads"}
    share = 10 if quick else 1
    rows = memory.measure()
    has_peer = install_peer()
    for case in CASES:
        for threads in (1, 2):
            rounds = ROUNDS[case] // share
            measured = optimizer_step.measure(case, threads, rounds)
            if has_peer:
                measured += measure_peer(case, threads, rounds)
                measured += against_peer(measured)
            rows += measured
    for threads in (1, 2):
        rows += training_epoch.measure(threads, rounds=1 if quick else 7)
    try:
        rows += inference.measure(rounds=50 // share)
    except KeyError as error:
        print(f"inference is left out: {error.args[0]}")
    print_tables(rows)
    if quick:
        return
    write(rows, provenance, HERE / "results")


if __name__ == "__main__":
    main(quick="--quick" in sys.argv[1:])
