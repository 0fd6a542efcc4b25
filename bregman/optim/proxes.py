"""theta <- prox(x), for one parameter or for many together."""

import math
from collections import defaultdict
from collections.abc import Hashable

import torch
from torch import Tensor

from bregman.regularizers import Regularizer, Zero


def write_prox(reg: Regularizer, step: float, x: Tensor, p: Tensor) -> None:
    """p <- prox_{step J}(x), rounded where p has less precision."""
    if x.dtype == p.dtype:
        reg.prox(x, step, out=p)
    else:
        p.copy_(reg.prox(x, step))


def prox_together(reg: Regularizer, step: float, xs: list[Tensor], ps: list[Tensor]) -> None:
    """The same of many parameters, with few launches on a device.

    J is a sum over blocks. So blocks of one size, of whichever parameters, can stand in one tensor,
    where a single prox takes them all.
    """
    if isinstance(reg, Zero):
        torch._foreach_copy_(ps, xs)
        return
    alike: dict[Hashable, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for x, p in zip(xs, ps, strict=True):
        dims = reg.blocks(x.dim())
        # sharded parameters know how to do theirs
        if dims is None or len(dims) == x.dim() > 0 or type(x) is not Tensor:
            write_prox(reg, step, x, p)
        else:
            size = x.dim() if dims else 0, dims, tuple(x.shape[d] for d in dims)
            alike[x.device, x.dtype, size].append((x, p))
    for pairs in alike.values():
        dims = reg.blocks(pairs[0][0].dim()) or ()
        rows = [_regroup(x, dims) for x, _ in pairs]
        along = min(set(range(rows[0].dim())) - set(dims))
        row = torch.cat(rows, along)
        parts = reg.prox(row, step, out=row).split([x.shape[along] for x in rows], along)
        thetas = [_regroup(part, dims, p) for part, (_, p) in zip(parts, pairs, strict=True)]
        torch._foreach_copy_([p for _, p in pairs], thetas)


def _regroup(x: Tensor, dims: tuple[int, ...], like: Tensor | None = None) -> Tensor:
    """The blocks of x one after the other along the first dimension that is none of a block's.

    Args:
        x: of any shape, or the result for one.
        dims: what makes up one block; these dimensions stay.
        like: has the shape to go back to.
    """
    if not dims:
        return x.reshape(-1) if like is None else x.view(like.shape)
    beside = [d for d in range(x.dim()) if d not in dims]
    first = list(range(len(beside)))
    moved = x.movedim(beside, first)
    counts = [math.prod(moved.shape[: len(beside)]), *(1 for _ in first[1:])]
    if like is not None:
        counts = [like.shape[d] for d in beside]
    return moved.reshape(*counts, *moved.shape[len(beside) :]).movedim(first, beside)
