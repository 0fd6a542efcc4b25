"""Search the lambdas of notebook 08 that the paper does not give, on the validation set.

    python scripts/search_cifar10_resnet.py --device cuda --jobs 6

Writes results/<scale>/cifar10_resnet_search/: what every setting gave, not only the best one. The
runs are shorter than the paper's, so densities are still on their way; with --epochs 100 they are
the very runs that the experiment asks for, and it takes them from the store.
"""

import argparse
import dataclasses
from typing import Any

from bregman.suite.experiments import SCALE_NAMES, Experiment, Row
from bregman.suite.experiments import cifar10_resnet as table3

# what is tried, on top of the settings in the experiment
GRID: dict[str, tuple[dict[str, Any], list[dict[str, float]]]] = {
    "SGD": (table3.SGD_MOMENTUM, [{"lr": lr} for lr in (0.03, 0.1)]),
    "Lasso": (table3.LASSO, [{"lam": lam} for lam in (1e-6, 1e-5, 1e-4)]),
    "LinBreg": (table3.LINBREG, [{"lam": lam} for lam in (0.03, 0.1, 0.3)]),
    "LinBreg β=0.9": (table3.MOMENTUM, [{"lam": lam} for lam in (0.03, 0.1, 0.3)]),
    "AdaBreg": (table3.ADABREG, [{"lam": lam} for lam in (0.05, 0.1, 0.2)]),
}


def rows() -> tuple[Row, ...]:
    """Every setting twice where it is thresholded: as trained, and after that."""
    found = []
    for name, (common, tried) in GRID.items():
        for settings in tried:
            label = " ".join([name, *(f"{key}={value:g}" for key, value in settings.items())])
            merged = {**common, **settings}
            found.append(Row(label, "Search", "", name, merged))
            if "max_drop" in merged:
                found.append(Row(f"{label} + threshold", "Search", "", name, merged, "thresh"))
    return tuple(found)


def search(epochs: int) -> Experiment:
    """The experiment of all settings, each for that many epochs."""
    scales = {
        name: dataclasses.replace(scale, epochs=epochs) for name, scale in table3.SCALES.items()
    }
    return dataclasses.replace(
        table3.EXPERIMENT, name="cifar10_resnet_search", scales=scales, rows=rows()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", choices=SCALE_NAMES, default="paper")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int)
    arguments = vars(parser.parse_args())
    summary = search(arguments.pop("epochs")).run(**arguments, make=True).summary.set_index("label")
    measures = ["n_total_pct", "n_conv_pct", "val_acc_pct", "seconds"]
    print(summary[measures].round(2).to_string())
