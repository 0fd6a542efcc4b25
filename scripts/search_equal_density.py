"""Tune the methods of Table 1 alike, at equal density, then run what was best with three seeds.

    python scripts/search_equal_density.py --scale paper --jobs 1

Writes results/<scale>/equal_density_search/, a row per trial, and prints what was chosen, for
``CHOSEN`` in bregman/suite/experiments/equal_density.py; then results/<scale>/equal_density/ and
the figure equal_density. What is in the store is not run again.
"""

import argparse

from bregman.suite.experiments.equal_density import FAMILIES, choose, experiment, search
from bregman.suite.plots.equal_density import equal_density
from bregman.suite.plots.style import save

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", choices=("smoke", "quick", "paper"), default="paper")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--trials-only", action="store_true", help="leave out the whole runs")
    arguments = parser.parse_args()
    options = {"device": arguments.device, "jobs": arguments.jobs, "make": True}
    _, trials = search(arguments.scale, FAMILIES, **options)
    measures = ["config_gain", "config_lr", "config_lam", "n_total_pct", "val_acc_pct"]
    print(trials.set_index("label")[measures].to_string())
    chosen = choose(trials)
    print(chosen)
    if not arguments.trials_only:
        results = experiment(chosen).run(arguments.scale, **options)
        print(save(equal_density(results), "equal_density", arguments.scale))
