"""A command of its own for tests: four small runs of as many epochs as are asked for.

python long_runs.py RESULTS EPOCHS JOBS [CLUSTER]
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from bregman.suite.experiments import Experiment, Scale, get
from bregman.suite.stopping import Stopped
from bregman.suite.training import fit


def train(config, device, checkpoint, on_epoch):
    with (checkpoint.path.parent / "begun").open("a") as file:
        file.write(f"{checkpoint.path.stem}\n")
    # a checkpoint every few batches
    with mock.patch.dict(fit.__kwdefaults__, checkpoint_seconds=0.05):
        return get("mnist_comparison").train(config, device, checkpoint, on_epoch)


def experiment(epochs: int) -> Experiment:
    known = get("mnist_comparison")
    scale = Scale(epochs, mini=True)
    return replace(known, scales={"smoke": scale}, rows=known.rows[:4], train=train)


def configs(epochs: int) -> list[Any]:
    known = experiment(epochs)
    return [known.config(known.scale("smoke"), 0, **row.settings) for row in known.rows]


if __name__ == "__main__":
    os.environ["BREGMAN_RESULTS"] = sys.argv[1]
    Path(sys.argv[1]).mkdir(exist_ok=True, parents=True)
    cluster = sys.argv[4] if len(sys.argv) > 4 else None
    try:
        experiment(int(sys.argv[2])).run("smoke", jobs=int(sys.argv[3]), cluster=cluster)
    except Stopped as stopped:
        print(stopped, flush=True)
        sys.exit(130)
