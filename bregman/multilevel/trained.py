"""What is trained in frozen steps: it follows from weights and regularizers alone."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bregman.chains import LAYERS, links
from bregman.checks import check
from bregman.layers import CONV
from bregman.multilevel.supports import (
    Grid,
    RestingGrid,
    Support,
    missing,
    nonzero_blocks,
    nonzero_entries,
)
from bregman.optim import BregmanOptimizer
from bregman.regularizers import Regularizer, Zero

Layer = nn.Linear | CONV


def layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """The layers that may be frozen, by name."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, Layer))


def supports(
    model: nn.Module, optimizer: BregmanOptimizer, paths: dict[str, str]
) -> dict[Tensor, Support]:
    """What of parameters is trained in frozen steps; those that are not here, as a whole.

    Args:
        model: has whole weights.
        optimizer: of its parameters.
        paths: is told, by the names of layers, why the weight of one is dense if it is not here.
    """
    found: dict[Tensor, Support] = {}
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    places: Counter[Any] = Counter(p for m in model.modules() for p in m._parameters.values())
    once = {p for p in groups if places[p] == 1 and "subgrad" in optimizer.state.get(p, {})}
    # with such a bias, or none, a dead row can be a constant
    can_rest = {None} | {p for p in once if isinstance(groups[p]["reg"], Zero)}
    fronts = links(model)
    for name, layer in layers(model):
        reason = _obstacle(layer, places[layer.weight], optimizer)
        paths[name] = f"dense: {reason or 'no regularizer'}"
        if reason:
            continue
        front, met = fronts.get(layer, (None, []))[0], None
        rows: Any = None if front is None else found.get(front.weight)
        if isinstance(rows, Grid) and front.bias in can_rest:
            met = _constant_columns(layer, rows, len(front.weight))
        weight, group = layer.weight, groups[layer.weight]
        support = support_of(layer, group, optimizer.state[weight]["subgrad"], met)
        if support is not None:
            found[weight] = support
        if isinstance(support, Grid) and support.rest is not None and front.bias is not None:
            found[front.bias] = Grid(rows.rows)
    return found


def support_of(
    layer: Layer, group: dict[str, Any], v: Tensor, met: Tensor | None = None
) -> Support | None:
    """What of a layer's weight is trained in frozen steps; None for all.

    Args:
        layer: has its whole weight.
        group: the optimizer's, of this weight.
        v: of this weight.
        met: the columns that meet constants; None if there are none.
    """
    weight, reg = layer.weight.detach(), group["reg"]
    dims = blocks(reg, weight.dim())
    live = None if met is None else missing(met, weight.shape[1])
    every_row = torch.arange(len(weight), device=weight.device)
    if dims is None:
        return None if met is None else Grid(every_row, live, met)
    beside = set(range(weight.dim())) - set(dims)
    if beside not in ({0}, {1}) or getattr(layer, "groups", 1) != 1:
        return nonzero_entries(weight, dims)
    left = nonzero_blocks(weight, dims).flatten().nonzero().flatten()
    if beside == {1}:
        return Grid(every_row, left)
    # with weight decay what rests would decay
    if live is None or met is None or group.get("weight_decay") or reg.norm_weight(1) is None:
        return Grid(left)
    return RestingGrid.of(v, left, live, met)


def blocks(reg: Regularizer, ndim: int) -> tuple[int, ...] | None:
    """The dimensions that make up one block of a regularizer, None if J = 0.

    Raises:
        ValueError: J is no sum over blocks.
    """
    dims = reg.blocks(ndim)
    allowed = (
        "a sum over blocks (its method blocks tells them, as that of L1 and GroupL12), or Zero"
    )
    check(dims is not None or isinstance(reg, Zero), "reg", allowed, reg)
    return dims


def _obstacle(layer: Layer, places: int, optimizer: BregmanOptimizer) -> str | None:
    """Why the weight of a layer can't be frozen, None if it can."""
    if type(layer) not in LAYERS:
        return f"{type(layer).__name__} may have a forward of its own"
    if type(layer.weight) is not nn.Parameter:
        return f"its weight is a {type(layer.weight).__name__}"
    if places > 1:
        return "its weight is shared"
    if "subgrad" not in optimizer.state.get(layer.weight, {}):
        return "its weight had no step of the optimizer"
    return None


def _constant_columns(layer: Layer, rows: Grid, n_before: int) -> Tensor | None:
    """What meets dead rows of the layer in front: one column per row, or several in a row."""
    dead = missing(rows.rows, n_before)
    each = torch.arange(layer.weight.shape[1] // n_before, device=dead.device)
    return (dead.unsqueeze(1) * len(each) + each).flatten() if len(dead) else None
