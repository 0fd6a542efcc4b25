"""Search the hyper-parameters of notebook 07 that the paper does not give, on the validation set.

Writes results/<scale>/fashion_mnist_cnn_search/: what every setting gave, not only the best one. A
search run is a tenth of a paper run long. The setting of a row is chosen by hand from the tables:
among those whose density is on its way to the paper's, the one with the best validation accuracy.
"""

import argparse

import torch

from bregman.experiments import SCALES, Experiment, Row, Scale
from bregman.experiments.fashion_mnist_cnn import config, train

DENSE_RATES = ({"lr": 0.02}, {"lr": 0.05}, {"lr": 0.1}, {"lr": 0.01, "momentum": 0.9})

# (strategy, what is common, what is tried), for single weights (Table 1) and groups (Table 2)
GRID = {
    False: (
        ("Vanilla", {"optimizer": "Adam"}, [{"lr": lr} for lr in (3e-4, 1e-3)]),
        ("Pruning", {"optimizer": "SGD", "prune_to": 0.05}, DENSE_RATES),
        (
            "Lasso",
            {"optimizer": "SGD", "max_drop": 0.002},
            [{"lr": lr, "lam": lam} for lr in (0.05, 0.1) for lam in (3e-5, 1e-4, 3e-4)],
        ),
        (
            "ProxGD",
            {"optimizer": "ProxGD"},
            [{"lr": lr, "lam": lam} for lr in (0.05, 0.1) for lam in (1e-4, 3e-4, 1e-3)],
        ),
        (
            "LinBreg",
            {"optimizer": "LinBreg"},
            [{"lr": 0.1, "lam": lam} for lam in (0.1, 0.3, 1.0)],
        ),
    ),
}
