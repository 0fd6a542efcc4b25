"""The experiments of section 4: one file each, with its runs at each scale in one table."""

from bregman.experiments import (
    architecture_search,
    cifar10_resnet,
    denoising_autoencoder,
    fashion_mnist_cnn,
    mnist_acceleration,
    mnist_comparison,
    what_sparsity_buys,
)
from bregman.experiments.experiment import SCALES, Experiment, Results, Row, Scale, paper_reference

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        mnist_comparison,
        mnist_acceleration,
        fashion_mnist_cnn,
        cifar10_resnet,
        denoising_autoencoder,
        architecture_search,
        what_sparsity_buys,
    )
}

__all__ = [
    "EXPERIMENTS",
    "SCALES",
    "Experiment",
    "Results",
    "Row",
    "Scale",
    "get",
    "paper_reference",
]


def get(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}, allowed: {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
