"""Make the trials of a study, choose the best of them on validation images, and run these whole.

    python scripts/run_chosen.py tuned_rivals --scale paper --jobs 1
    python scripts/run_chosen.py dense_autoencoders --scale paper --jobs 1

Prints what was chosen, for ``CHOSEN`` in the study's file. What is in the store is not run again.
"""

import argparse
from importlib import import_module

from bregman.suite.experiments import SCALE_NAMES

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=("tuned_rivals", "dense_autoencoders"))
    parser.add_argument("--scale", choices=SCALE_NAMES, default="paper")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    study = import_module(f"bregman.suite.experiments.{arguments.study}")
    options = {"device": arguments.device, "jobs": arguments.jobs, "make": True}
    trials = study.experiment({})
    labels = [row.label for row in study.trial_rows() if arguments.scale in row.scales]
    chosen = study.choose(trials.run(arguments.scale, rows=labels, **options), arguments.scale)
    print("CHOSEN =", chosen)
    study.experiment(chosen).run(arguments.scale, **options)
