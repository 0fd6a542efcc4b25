"""The support of a weight: the blocks that are not zero, out of the whole weight and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bregman.regularizers import (
    L1,
    ElasticNet,
    GroupL12,
    NonNegativeL1,
    Regularizer,
    SparseGroup,
    Zero,
)


@dataclass(frozen=True)
class Entries:
    """Positions in the flattened weight: of single entries, or of all entries of some blocks.

    Attributes:
        index: the positions, in the shape that the restriction has. The dimensions of a block stay
            where they are, so a regularizer of the weight is one of its restriction.
    """

    index: Tensor

    def restrict(self, full: Tensor) -> Tensor:
        """The entries at the support, a new tensor."""
        return full.flatten().index_select(0, self.index.flatten()).view(self.index.shape)

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write the entries back; what is outside of the support stays as it is."""
        flat = full.flatten().index_copy_(0, self.index.flatten(), part.flatten())
        if not full.is_contiguous():  # then flat is a copy
            full.copy_(flat.view(full.shape))

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A weight with other entries at the support; differentiable in ``part``."""
        spread = full.flatten().index_copy(0, self.index.flatten(), part.flatten())
        return _laid_out_as(full, spread.view(full.shape))


@dataclass(frozen=True)
class Grid:
    """Some rows (dimension 0) and columns (dimension 1) of a weight.

    Attributes:
        rows: the indices of the rows.
        columns: likewise, in the order that the restriction has; None for all as they are.
    """

    rows: Tensor
    columns: Tensor | None = None

    def restrict(self, full: Tensor) -> Tensor:
        """The entries at the support, a new tensor."""
        part = full.index_select(0, self.rows)
        if self.columns is not None:
            part = part.index_select(1, self.columns)
        return _laid_out_as(full[: part.shape[0], : part.shape[1]], part)

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write the entries back; what is outside of the support stays as it is."""
        if self.columns is not None and len(self.columns) == full.shape[1]:
            part = part.index_select(1, self.columns.argsort())
        elif self.columns is not None:
            part = full.index_select(0, self.rows).index_copy_(1, self.columns, part)
        full.index_copy_(0, self.rows, part)


Support = Entries | Grid


def block_dims(reg: Regularizer, ndim: int) -> tuple[int, ...] | None:
    """The dimensions that make up one block of a regularizer that is a sum over blocks.

    Args:
        reg: the regularizer J.
        ndim: the number of dimensions of the weight.

    Returns:
        Numbers in range(ndim), none at all if single entries are the blocks; None if J = 0.

    Raises:
        ValueError: J is no such sum.
    """
    match reg:
        case Zero():
            return None
        case L1() | NonNegativeL1() | ElasticNet():
            return ()
        case GroupL12() | SparseGroup():
            dims = reg.dim if isinstance(reg.dim, tuple) else (reg.dim,)
            return tuple(d % ndim for d in dims)
    raise ValueError(
        f"reg must be a sum over blocks of the weight, so that a support can be frozen: L1, "
        f"NonNegativeL1, NonNegative, ElasticNet, GroupL12, SparseGroup or Zero, got {reg}"
    )


def nonzero_blocks(weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Which blocks have a non-zero entry; of the weight's shape, with size 1 along ``dims``."""
    # any() is far slower, and the norm of tiny numbers is zero
    return (weight.amax(dims, keepdim=True) != 0) | (weight.amin(dims, keepdim=True) != 0)


def nonzero_entries(weight: Tensor, dims: tuple[int, ...]) -> Entries:
    """The support made of all entries of the blocks that are not zero.

    Args:
        weight: of any shape.
        dims: what makes up one block, as of ``block_dims``.
    """
    if not dims:
        return Entries(weight.flatten().nonzero().flatten())
    strides = [weight.shape[d + 1 :].numel() for d in range(weight.dim())]
    blocks = nonzero_blocks(weight, dims).nonzero()
    # a block is named by its first entry, along the first dimension that is not inside of blocks
    index = (blocks * torch.tensor(strides, device=weight.device)).sum(1)
    index = _along(min(set(range(weight.dim())) - set(dims)), index, weight.dim())
    for d in dims:
        inside = torch.arange(weight.shape[d], device=weight.device) * strides[d]
        index = index + _along(d, inside, weight.dim())
    return Entries(index)


def _along(dim: int, values: Tensor, ndim: int) -> Tensor:
    return values.view([-1 if d == dim else 1 for d in range(ndim)])


def _laid_out_as(like: Tensor, x: Tensor) -> Tensor:
    """x with its dimensions in memory in the order of a tensor of its shape, as channels_last."""
    strides = torch.empty_like(like, device="meta").stride()
    if x.stride() == strides:
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


def missing(index: Tensor, size: int) -> Tensor:
    """The numbers in range(size) that are not in ``index``, in ascending order."""
    left = torch.ones(size, dtype=torch.bool, device=index.device)
    left[index] = False
    return left.nonzero().flatten()
