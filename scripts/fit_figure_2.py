"""Run the settings that the grid of Figure 2 chose, on all seven curves.

    python scripts/fit_figure_2.py --scale paper --jobs 1

Needs the whole grid in the store (bregman run figure_2 --no-notebooks). It prints what was chosen,
for ``CHOSEN`` in bregman/suite/experiments/figure_2.py, and then makes the runs.
"""

import argparse

from bregman.suite.experiments import SCALE_NAMES
from bregman.suite.experiments.figure_2 import EXPERIMENT, GRID, choose, experiment, ranking

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", choices=SCALE_NAMES, default="paper")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    grid = [row.label for row in EXPERIMENT.rows_at(arguments.scale) if row.artifact == GRID]
    if EXPERIMENT.forecast(arguments.scale, arguments.seed, grid, 1).missing:
        parser.error("the grid is not whole yet: bregman run figure_2 --no-notebooks")
    summary = EXPERIMENT.run(arguments.scale, arguments.seed, rows=[], make=False).summary
    print(ranking(summary).round(3).to_string())
    fits = choose(summary)
    print(fits)
    experiment(fits).run(**vars(arguments), make=True)
