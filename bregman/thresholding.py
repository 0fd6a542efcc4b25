"""Thresholding after training, section 4.5: small weights are set to zero while that is cheap."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from bregman.layers import weight_layers

Unit = Literal["entry", "kernel"]


@torch.no_grad()
def threshold_(model: nn.Module, threshold: float, *, conv: Unit = "entry") -> None:
    """Set small weights of the linear and convolution layers to zero, in place.

    Biases and normalization layers stay as they are. Batch normalization still has the running
    statistics of before: ``refresh_batch_norm_`` recomputes them.

    Args:
        model: a module with linear or convolution layers.
        threshold: what is at most this large goes, >= 0. Linear weights are measured one by one.
        conv: "entry" measures convolution weights one by one too; "kernel" measures each kernel
            K_ij by the root of its mean square, and drops it as a whole.

    Raises:
        ValueError: threshold is negative or not finite, or conv is something else.
    """
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold must be non-negative and finite, got {threshold}")
    for _, layer in weight_layers(model):
        sizes = _sizes(layer.weight, conv)
        layer.weight.masked_fill_((sizes <= threshold).view(_mask_shape(layer.weight, sizes)), 0)


@torch.no_grad()
def largest_threshold(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    max_drop: float,
    *,
    conv: Unit = "entry",
    resolution: float = 0.01,
) -> float:
    """The largest threshold that lowers a score by at most ``max_drop``.

    The candidates are the sizes that occur in the model, in ascending order. Bisection over their
    ranks takes it for granted that the score falls as the threshold rises; where it does not, the
    answer is one of several thresholds between which the score passes the limit. In any case the
    score was measured at the answer.

    Args:
        model: a module with linear or convolution layers; left as it was, buffers included.
        score: from the thresholded model to, say, its validation accuracy. It may change buffers:
            with batch normalization it should start with ``refresh_batch_norm_``.
        max_drop: how far the score may fall below that of the untouched model, >= 0.
        conv: as in ``threshold_``.
        resolution: the bisection ends when the numbers of kept weights (or kernels) on its two
            sides differ by this share, or by one.

    Returns:
        The threshold for ``threshold_``; 0, which changes nothing, if no candidate will do.

    Raises:
        ValueError: max_drop or resolution is out of range, or conv is unknown.
    """
    if not 0 <= max_drop < math.inf:
        raise ValueError(f"max_drop must be non-negative and finite, got {max_drop}")
    if not 0 < resolution < 1:
        raise ValueError(f"resolution must be in (0, 1), got {resolution}")
    sizes = torch.cat([_sizes(layer.weight, conv).flatten() for _, layer in weight_layers(model)])
    candidates = sizes[sizes > 0].sort().values
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    limit = score(model) - max_drop
    # numbers of kept units: `affordable` is known to be enough, `too_few` is not; -1 is below none
    affordable, too_few = len(candidates), -1
    threshold = 0.0
    while affordable - too_few > max(1, resolution * affordable):
        kept = (affordable + too_few) // 2
        candidate = float(candidates[len(candidates) - kept - 1])
        model.load_state_dict(saved)
        threshold_(model, candidate, conv=conv)
        if score(model) >= limit:
            affordable, threshold = kept, candidate
        else:
            too_few = kept
    model.load_state_dict(saved)
    return threshold


def refresh_batch_norm_(model: nn.Module, inputs: Tensor, batch_size: int = 1000) -> None:
    """Recompute the running statistics of batch normalization, after weights were edited.

    They become the mean over all batches, whatever the layers' momentum; weights, momentum and mode
    stay. A model without batch normalization is not even evaluated.

    Args:
        model: changed in place.
        inputs: N x ..., training inputs on the model's device, as the model takes them.
        batch_size: samples per forward pass, in train mode and without gradients.
    """
    update_bn(inputs.split(batch_size), model)


def _sizes(weight: Tensor, conv: Unit) -> Tensor:
    """The sizes of a weight's units: entries, or kernels (one per pair of channels)."""
    if conv not in get_args(Unit):
        raise ValueError(f"conv must be one of {get_args(Unit)}, got {conv!r}")
    if conv == "kernel" and weight.dim() > 2:
        return weight.flatten(2).square().mean(2).sqrt()
    return weight.abs()


def _mask_shape(weight: Tensor, sizes: Tensor) -> tuple[int, ...]:
    return (*sizes.shape, *(1 for _ in range(weight.dim() - sizes.dim())))
