"""The support of a weight: the blocks that are not zero, out of the whole weight and back."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        part = part.to(full.dtype)
        flat = full.flatten().index_copy_(0, self.index.flatten(), part.flatten())
        if not full.is_contiguous():  # then flat is a copy
            full.copy_(flat.view(full.shape))

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A weight with other entries at the support; differentiable in ``part``."""
        spread = full.flatten().index_copy(0, self.index.flatten(), part.flatten())
        return _laid_out_as(full, spread.view(full.shape))


@dataclass(frozen=True)
class Grid:
    """Some rows (dimension 0) and columns (dimension 1) of a parameter.

    Attributes:
        rows: the indices of the rows.
        columns: likewise, in ascending order; None for all.
    """

    rows: Tensor
    columns: Tensor | None = None

    def restrict(self, full: Tensor) -> Tensor:
        """The entries at the support, a new tensor."""
        part = full.index_select(0, self.rows)
        if self.columns is not None:
            part = part.index_select(1, self.columns)
        return _laid_out_as(full, part)

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write the entries back; what is outside of the support stays as it is."""
        full.index_copy_(0, self.rows, self._in_rows(part.to(full.dtype), full))

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A parameter with other entries at the support; differentiable in ``part``."""
        return _laid_out_as(full, full.index_copy(0, self.rows, self._in_rows(part, full)))

    def _in_rows(self, part: Tensor, full: Tensor) -> Tensor:
        """The rows of the support, with other entries in its columns."""
        if self.columns is None:
            return part
        return full.index_select(0, self.rows).index_copy(1, self.columns, part)


@dataclass(frozen=True)
class RestingGrid:
    """Rows of which some columns rest: one more column stands for these, with their norm in a row.

    So a regularizer of whole rows sees their whole norms. What rests keeps its direction; a prox
    changes its length alone.

    Attributes:
        rows: the indices of the rows.
        columns: those that do not rest, in ascending order.
        rest: those that do, at least one.
        direction: what rests of v, each row scaled to norm one (or zero).
    """

    rows: Tensor
    columns: Tensor
    rest: Tensor
    direction: Tensor

    @classmethod
    def of(cls, v: Tensor, rows: Tensor, columns: Tensor, rest: Tensor) -> "RestingGrid":
        """The support for a parameter with this v."""
        resting = Grid(rows, rest).restrict(v)
        norms = _row_norms(resting).clamp_(min=torch.finfo(v.dtype).tiny)
        return cls(rows, columns, rest, resting.div_(_per_row(norms, resting)))

    @property
    def moving(self) -> Grid:
        """What does not rest."""
        return Grid(self.rows, self.columns)

    @property
    def resting(self) -> Grid:
        """What does."""
        return Grid(self.rows, self.rest)

    def restrict(self, full: Tensor) -> Tensor:
        """The entries that do not rest, and a column of zeros; a new tensor."""
        part = self.moving.restrict(full)
        last = part.new_zeros(len(part), 1, *part.shape[2:])
        return _laid_out_as(full, torch.cat([part, last], 1))

    def measure(self, full: Tensor, part: Tensor) -> None:
        """Write the norms of what rests into the last column of a restriction."""
        self.norms(part).copy_(_row_norms(self.resting.restrict(full)))

    def norms(self, part: Tensor) -> Tensor:
        """The numbers in the last column of a restriction, one per row; a view."""
        last = part.select(1, -1)
        while last.dim() > 1:
            last = last.select(-1, 0)
        return last

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write back the entries that do not rest; all others stay as they are."""
        self.moving.prolong(part[:, :-1], full)

    def prolong_all(self, part: Tensor, full: Tensor) -> None:
        """Write back what does not rest, and what does with the lengths in the last column."""
        self.prolong(part, full)
        self.resting.prolong(self._stretched(part), full)

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A weight with other entries at the support; differentiable in those that do not rest."""
        rest = self._stretched(part.detach()).to(full.dtype)
        return self.resting.spread(rest, self.moving.spread(part[:, :-1], full))

    def _stretched(self, part: Tensor) -> Tensor:
        return self.direction * _per_row(self.norms(part), self.direction)


def _row_norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1 for _ in like.shape[1:]))


Support = Entries | Grid | RestingGrid


def nonzero_blocks(weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Which blocks have a non-zero entry; of the weight's shape, with size 1 along ``dims``."""
    # any() is far slower, and the norm of tiny numbers is zero
    return (weight.amax(dims, keepdim=True) != 0) | (weight.amin(dims, keepdim=True) != 0)


def nonzero_entries(weight: Tensor, dims: tuple[int, ...]) -> Entries:
    """The support made of all entries of the blocks that are not zero.

    Args:
        weight: of any shape.
        dims: what makes up one block, as of ``Regularizer.blocks``.
    """
    if not dims:
        # on a CPU bytes are searched faster than numbers
        return Entries((weight.flatten() != 0).view(torch.uint8).nonzero().flatten())
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
    """x, no larger than ``like``, with its dimensions in memory in the same order."""
    like = like[tuple(slice(n) for n in x.shape)]
    strides = torch.empty_like(like, device="meta").stride()
    if x.stride() == strides:
        return x
    return x.new_empty_strided(x.shape, strides).copy_(x)


def missing(index: Tensor, size: int) -> Tensor:
    """The numbers in range(size) that are not in ``index``, in ascending order."""
    left = torch.ones(size, dtype=torch.bool, device=index.device)
    left[index] = False
    return left.nonzero().flatten()
