"""Measure the suite's speed and memory against torch and the peer package.

Prints tables; writes results.csv and environment.json beside this file. ``--quick`` takes a tenth
of the rounds and writes nothing.
"""

import csv
import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import inference
import memory
import optimizer_step
import training_epoch
from common import CASES, Row

from bregman.runs import environment

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
    for kind, baseline in (("LinBreg", "SGD fused"), ("AdaBreg", "Adam fused")):
        ours = ratios[f"{kind} l1 fused", baseline]
        peer = ratios[f"bregman-learning {kind} l1", baseline]
        made.append(peer._replace(value=peer.value / ours.value, baseline=ours.name, target=">= 3"))
    return made


def met(row: Row) -> str:
    """Whether the value meets its target, in a word."""
    if not row.target:
        return ""
    sign, bound = row.target.split()
    ok = row.value <= float(bound) if sign == "<=" else row.value >= float(bound)
    return f"{row.target}  {'met' if ok else 'MISSED'}"


def print_tables(rows: list[Row]) -> None:
    """One table per benchmark, case and number of threads."""
    for (benchmark, case, threads), group in groupby(rows, key=lambda row: row[:2] + row[3:4]):
        print(f"\n{benchmark}: {case}, {threads} thread{'s' * (threads > 1)}")
        for row in group:
            if row.metric == "ratio_of_minima":
                continue
            unit = f"{row.metric} over {row.baseline}" if row.baseline else row.metric
            print(f"  {row.name:44} {row.value:9.3f}  {unit:56} {met(row)}".rstrip())


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
    rows += training_epoch.measure(rounds=1 if quick else 7)
    try:
        rows += inference.measure(rounds=50 // share)
    except KeyError as error:
        print(f"inference is left out: {error.args[0]}")
    print_tables(rows)
    if quick:
        return
    with (HERE / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row._replace(value=float(f"{row.value:.4g}")) for row in rows)
    (HERE / "environment.json").write_text(json.dumps(provenance, indent=2) + "\n")


if __name__ == "__main__":
    main(quick="--quick" in sys.argv[1:])
