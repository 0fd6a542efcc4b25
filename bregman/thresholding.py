"""Thresholding after training, section 4.5: small weights are set to zero while that is cheap."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bregman.checks import check
from bregman.layers import Weight, modes_kept, weights, whole

Unit = Literal["entry", "kernel"]


@torch.no_grad()
def threshold_(model: nn.Module, threshold: float, *, conv: Unit = "entry") -> None:
    """Set small weights of the linear and convolution layers to zero, in place.

    Biases, normalization layers, embeddings and frozen weights stay as they are;
    ``bregman.layers.weights`` says what counts as what. Weights are measured as
    their layers compute with them, and those that stay keep their size behind a weight norm too.
    Batch normalization still has the running statistics of before: ``refresh_batch_norm_``
    recomputes them.

    Args:
        model: a module with linear or convolution layers.
        threshold: what is at most this large goes, >= 0. Linear weights are measured one by one.
        conv: "entry" measures convolution weights one by one too; "kernel" measures each kernel
            K_ij by the root of its mean square, and drops it as a whole.

    Raises:
        ValueError: threshold is negative or not finite, conv is something else, or a
            parametrization can't hold zeros.
    """
    check(0 <= threshold < math.inf, "threshold", "non-negative and finite", threshold)
    for weight in _thresholded(model):
        weight.zero_((_sizes(weight, conv) <= threshold).expand_as(weight.parameter))


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
        model: a module with linear or convolution layers; left as it was, buffers and modes
            included, if ``score`` raises too.
        score: from the thresholded model to, say, its validation accuracy. It may change buffers:
            with batch normalization it should start with ``refresh_batch_norm_``.
        max_drop: how far the score may fall below that of the untouched model, >= 0.
        conv: as in ``threshold_``.
        resolution: the bisection ends when the numbers of kept weights (or kernels) on its two
            sides differ by this share, or by one.

    Returns:
        The threshold for ``threshold_``; 0, which changes nothing, if no candidate will do.

    Raises:
        ValueError: max_drop or resolution is out of range, conv is unknown, or the model has no
            weight to be thresholded.
    """
    check(0 <= max_drop < math.inf, "max_drop", "non-negative and finite", max_drop)
    check(0 < resolution < 1, "resolution", "in (0, 1)", resolution)
    found = _thresholded(model)
    check(bool(found), "model", "one with a linear or convolution layer", type(model).__name__)
    candidates = torch.cat([whole(_sizes(weight, conv)).flatten() for weight in found])
    candidates = candidates[candidates > 0].sort().values
    saved = deepcopy(model.state_dict())

    def restore() -> None:
        model.load_state_dict(saved)
        for weight in found:
            weight.value  # noqa: B018 (a weight that a hook computes follows)

    # numbers of kept units: `affordable` is known to be enough, `too_few` is not; -1 is below none
    affordable, too_few, threshold = len(candidates), -1, 0.0
    with modes_kept(model):
        try:
            limit = score(model) - max_drop
            while affordable - too_few > max(1, resolution * affordable):
                kept = (affordable + too_few) // 2
                candidate = float(candidates[len(candidates) - kept - 1])
                restore()
                threshold_(model, candidate, conv=conv)
                if score(model) >= limit:
                    affordable, threshold = kept, candidate
                else:
                    too_few = kept
        finally:
            restore()
    return threshold


def refresh_batch_norm_(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> None:
    """Recompute the running statistics of batch normalization, after weights were edited.

    They become the mean over all samples, batches weighted by their sizes, whatever the layers'
    momentum; weights, momentum and modes stay. A layer that the model calls several times has the
    mean over its calls, and one that it does not call, or that is in eval mode when it does (frozen
    by a ``train`` of the model's own), keeps what it has. A model without batch normalization is
    not even evaluated.

    Args:
        model: changed in place.
        batches: one or more, on the model's device, augmented as in training; of a tuple such as
            (inputs, targets) the first tensor. Each goes through the model once, in train mode and
            without gradients. A batch of one sample, which has no variance, goes along with the one
            before it.

    Raises:
        TypeError: batches is one tensor, whose items are samples.
        ValueError: there is no batch; nothing changes.
    """
    if isinstance(batches, Tensor):
        raise TypeError(
            "batches must be an iterable of batches, such as inputs.split(1000), got one tensor of "
            f"shape {tuple(batches.shape)}"
        )
    momenta = {norm: norm.momentum for norm in model.modules() if isinstance(norm, _BatchNorm)}
    if not momenta:
        return
    seen: Counter[nn.Module] = Counter()

    def weigh(norm: Any, args: tuple[Tensor]) -> None:
        # one in eval mode is frozen, and these batches are none of its own
        if norm.training and not seen[norm]:
            norm.reset_running_stats()
        seen[norm] += norm.training * len(args[0])
        norm.momentum = len(args[0]) / max(seen[norm], 1)

    hooks = [norm.register_forward_pre_hook(weigh) for norm in momenta]
    try:
        with modes_kept(model), torch.no_grad():
            model.train()
            for batch in _of_two_or_more(batches):
                model(batch)
    finally:
        for hook, (norm, momentum) in zip(hooks, momenta.items(), strict=True):
            hook.remove()
            norm.momentum = momentum


def _of_two_or_more(batches: Iterable[Tensor | Sequence[Tensor]]) -> Iterator[Tensor]:
    held: Tensor | None = None
    for item in batches:
        batch = item if isinstance(item, Tensor) else item[0]
        if held is not None and min(len(held), len(batch)) > 1:
            yield held
            held = batch
        elif len(batch):
            held = batch if held is None else torch.cat((held, batch))
    if held is None:
        raise ValueError("batches must hold at least one batch, got none")
    yield held


def _thresholded(model: nn.Module) -> list[Weight]:
    return [weight for weight in weights(model) if weight.trained and weight.kind != "embedding"]


def _sizes(weight: Weight, conv: Unit) -> Tensor:
    """The sizes of a weight's units: entries, or kernels (one per pair of channels)."""
    check(conv in get_args(Unit), "conv", f"one of {get_args(Unit)}", conv)
    value = weight.value
    if conv == "kernel" and weight.kind == "conv":
        # squares of small numbers would be zero, those of large ones infinite
        sizes = value.flatten(2).double().square().mean(2).sqrt()
        return sizes.view(*sizes.shape, *(1 for _ in value.shape[2:]))
    return value.abs()
