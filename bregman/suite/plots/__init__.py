"""One function per figure, from stored results only. Plotting never trains."""

from bregman.suite.plots.architecture_search import (
    architecture_growth,
    architecture_images,
    architecture_networks,
    architecture_quality,
    architecture_skips,
)
from bregman.suite.plots.cifar10_resnet import resnet_layers, resnet_paths
from bregman.suite.plots.denoising_autoencoder import (
    bottleneck_features,
    bottleneck_width,
    denoised_digits,
    denoising_training,
    hourglass,
    hourglass_frame,
    hourglass_over_seeds,
    quality_over_noise,
    save_hourglass_animation,
)
from bregman.suite.plots.mnist import mnist_acceleration, mnist_comparison
from bregman.suite.plots.motion import Slider, animate, explore
from bregman.suite.plots.paper_and_ours import paper_against_ours
from bregman.suite.plots.style import save, show
from bregman.suite.plots.what_sparsity_buys import (
    accuracy_at_density,
    frozen_steps_map,
    sparsity_targets,
    support_turnover,
    whole_runs,
)

__all__ = [
    "Slider",
    "accuracy_at_density",
    "animate",
    "architecture_growth",
    "architecture_images",
    "architecture_networks",
    "architecture_quality",
    "architecture_skips",
    "bottleneck_features",
    "bottleneck_width",
    "denoised_digits",
    "denoising_training",
    "explore",
    "frozen_steps_map",
    "hourglass",
    "hourglass_frame",
    "hourglass_over_seeds",
    "mnist_acceleration",
    "mnist_comparison",
    "paper_against_ours",
    "quality_over_noise",
    "resnet_layers",
    "resnet_paths",
    "save",
    "save_hourglass_animation",
    "show",
    "sparsity_targets",
    "support_turnover",
    "whole_runs",
]
