"""The figures of notebook 01: waiting, shrinkage, Bregman distances, flows, contrast, shapes of J.

Colours follow the algorithm through all notebooks: Bregman methods blue, ISTA red, exact flows
black, gradient descent gray.
"""

from bregman.suite.plots.inverse_scale_space.geometry import (
    bregman_gaps,
    one_weight,
    proximal_map,
    pull_and_wait,
    shapes,
    subgradients,
    unit_balls,
)
from bregman.suite.plots.inverse_scale_space.scale_spaces import (
    band_frame,
    denoising,
    denoising_errors,
    denoising_step,
    flow_frame,
    growing_image,
    image_scale_spaces,
    signal_scale_spaces,
)

__all__ = ["band_frame", "bregman_gaps", "denoising", "denoising_errors", "denoising_step",
           "flow_frame", "growing_image", "image_scale_spaces", "one_weight", "proximal_map",
           "pull_and_wait", "shapes", "signal_scale_spaces", "subgradients",
           "unit_balls"]  # fmt: skip
