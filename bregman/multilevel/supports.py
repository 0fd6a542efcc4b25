"""The support of a weight: the blocks that are not zero, out of the whole weight and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bregman.optim.base import laid_out_as


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

    def renew(self, part: Tensor, full: Tensor) -> None:
        """Read the entries again, into a restriction."""
        part.copy_(self.restrict(full))

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write the entries back; what is outside of the support stays as it is."""
        flat = full.flatten().index_copy_(0, self.index.flatten(), part.flatten())
        if not full.is_contiguous():  # then flat is a copy
            full.copy_(flat.view(full.shape))

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A tensor like ``full`` with other entries at the support; differentiable in ``part``."""
        spread = full.flatten().index_copy(0, self.index.flatten(), part.flatten())
        return laid_out_as(full, spread.view(full.shape))


@dataclass(frozen=True)
class Grid:
    """Some rows (dimension 0) and columns (dimension 1) of a parameter.

    Attributes:
        rows: the indices of the rows.
        columns: likewise, in ascending order; None for all.
        rest: the other columns, where these meet constants and rest; None if they are zero.
    """

    rows: Tensor
    columns: Tensor | None = None
    rest: Tensor | None = None

    @property
    def resting(self) -> "Grid":
        """What rests in these rows."""
        return Grid(self.rows, self.rest)

    def restrict(self, full: Tensor) -> Tensor:
        """The entries at the support, a new tensor."""
        part = full.index_select(0, self.rows)
        if self.columns is not None:
            part = part.index_select(1, self.columns)
        return laid_out_as(full[tuple(map(slice, part.shape))], part)

    def renew(self, part: Tensor, full: Tensor) -> None:
        """Read the entries again, into a restriction."""
        part.copy_(self.restrict(full))

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write the entries back; what is outside of the support stays as it is."""
        full[self._at] = part

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        """A tensor like ``full`` with other entries at the support; differentiable in ``part``."""
        return laid_out_as(full, full.index_put(self._at, part))

    @property
    def _at(self) -> tuple[Tensor, ...]:
        if self.columns is None:
            return (self.rows,)
        return self.rows.unsqueeze(1), self.columns


@dataclass(frozen=True, kw_only=True)
class RestingGrid(Grid):
    """A grid in which one more column stands for those that rest, with their norm in each row.

    So a regularizer of whole rows sees their whole norms. What rests keeps its direction; a prox
    changes its length alone.

    Attributes:
        rest: at least one column.
        direction: what rests of v, each row scaled to norm one (or zero).
    """

    rest: Tensor
    direction: Tensor

    @classmethod
    def of(cls, v: Tensor, rows: Tensor, columns: Tensor, rest: Tensor) -> "RestingGrid":
        """The support for a parameter with this v."""
        resting = Grid(rows, rest).restrict(v)
        norms = _row_norms(resting).clamp_(min=torch.finfo(v.dtype).tiny)
        return cls(rows, columns, rest=rest, direction=resting.div_(norms))

    def restrict(self, full: Tensor) -> Tensor:
        """The entries that do not rest, and a column of zeros; a new tensor."""
        part = super().restrict(full)
        last = part.new_zeros(len(part), 1, *part.shape[2:])
        part = torch.cat([part, last], 1)
        return laid_out_as(full[tuple(map(slice, part.shape))], part)

    def measure(self, part: Tensor, full: Tensor) -> None:
        """Write the norms of what rests into the last column of a restriction."""
        self.norms(part).copy_(_row_norms(self.resting.restrict(full)))

    def norms(self, part: Tensor) -> Tensor:
        """The numbers in the last column of a restriction, one per row, to multiply these with."""
        return part[:, -1:, *(slice(1) for _ in part.shape[2:])]

    def renew(self, part: Tensor, full: Tensor) -> None:
        part[:, :-1] = super().restrict(full)

    def prolong(self, part: Tensor, full: Tensor) -> None:
        """Write back the entries that do not rest; all others stay as they are."""
        super().prolong(part[:, :-1], full)

    def stretch(self, part: Tensor, full: Tensor) -> None:
        """Give what rests the lengths in the last column."""
        self.resting.prolong(self._stretched(part), full)

    def spread(self, part: Tensor, full: Tensor) -> Tensor:
        spread = super().spread(part[:, :-1], full)
        return self.resting.spread(self._stretched(part.detach()), spread)

    def _stretched(self, part: Tensor) -> Tensor:
        return (self.direction * self.norms(part)).to(part.dtype)


Support = Entries | Grid


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
    first, *free = (d for d in range(weight.dim()) if d not in dims)
    index = torch.arange(weight.numel(), device=weight.device).view(weight.shape)
    blocks = index.permute(first, *free, *dims).flatten(0, len(free))
    index = blocks[nonzero_blocks(weight, dims).flatten()].movedim(0, first)
    for d in free:
        index = index.unsqueeze(d)
    return Entries(index)


def missing(index: Tensor, size: int) -> Tensor:
    """The numbers in range(size) that are not in ``index``, in ascending order."""
    left = torch.ones(size, dtype=torch.bool, device=index.device)
    return left.index_fill(0, index, False).nonzero().flatten()


def _row_norms(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True)
