"""Sums over groups (rows, columns, kernels, filters), and over singular values."""

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from bregman.checks import check
from bregman.regularizers.base import Regularizer, Weighted, check_weight, times
from bregman.regularizers.entries import L1


@dataclass(frozen=True)
class GroupL12(Weighted):
    """J(x) = lam sum_g sqrt(n_g) ||x_g||_2, eqs. (1.2) and (1.14). prox shrinks whole groups.

    The groups are the slices that remain when the dimensions ``dim`` are reduced; n_g is the number
    of entries of one. Rows of a linear weight: ``dim=1``. Kernels of a conv weight: ``dim=(2, 3)``.
    Whole filters: ``dim=(1, 2, 3)``.

    Args:
        lam: the weight lambda >= 0.
        dim: the dimension or dimensions that make up one group.

    Raises:
        ValueError: lam is negative, infinite or NaN; dim is empty, names a dimension twice or is
            no integer.
    """

    dim: int | tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            given = self.dim if isinstance(self.dim, Iterable) else (self.dim,)
            dim = tuple(operator.index(d) for d in given)
        except TypeError:
            dim = ()
        check(0 < len(set(dim)) == len(dim), "dim", "one or more different dimensions", self.dim)
        object.__setattr__(self, "dim", dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self._threshold(x) * self._norms(x).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        threshold = times(step, self._threshold(x))
        if threshold == 0 or 1e-12 < threshold < 1e12:
            # what is overwritten in the end can hold the squares until then
            free = out is not None and out.data_ptr() != x.data_ptr() and x.dtype.itemsize >= 4
            norms = self._norms(x, squares=out if free else None)
        else:
            norms = self._scaled_norms(x)
        # what shrinks so little or much is far from where squares are zero or infinite
        norms = self._in_range(norms)
        scale = F.softshrink(norms, threshold).div_(norms)
        return torch.mul(x, scale.to(x.dtype), out=out)

    def subgrad(self, x: Tensor) -> Tensor:
        # scaled first, since the square of a tiny number is zero and that of a huge one infinite
        x = x.clamp(torch.finfo(x.dtype).min, torch.finfo(x.dtype).max)
        x = x / self._in_range(self._sums(x))
        return self._threshold(x) * x / self._in_range(self._norms(x).to(x.dtype))

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return tuple(d % ndim for d in self._dims)

    def norm_weight(self, size: int) -> float:
        return self.lam * math.sqrt(size)

    def levels(self, v: Tensor) -> Tensor:
        return self._norms(v).div(math.sqrt(self._group_size(v))).expand_as(v)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        at_zero = (self._norms(p) - self._threshold(x)).relu()
        elsewhere = self._norms(p - self.subgrad(x))
        return torch.linalg.vector_norm(torch.where(self._sums(x) == 0, at_zero, elsewhere))

    def check_shape(self, shape: torch.Size) -> None:
        axes = [d + len(shape) if d < 0 else d for d in self._dims]
        fits = len(set(axes)) == len(axes) and all(0 <= d < len(shape) for d in axes)
        check(fits, "dim", f"different dimensions of a parameter of shape {tuple(shape)}", self.dim)

    @property
    def _dims(self) -> tuple[int, ...]:
        return self.dim if isinstance(self.dim, tuple) else (self.dim,)

    def _norms(self, x: Tensor, squares: Tensor | None = None) -> Tensor:
        # On a CPU vector_norm is 3 to 15 times slower than this where memory runs across the
        # groups, and on one thread it is slow for groups of a few numbers (mv has one thread, and
        # what other cores wrote comes to it slowly); but its derivative at zero is zero, not NaN.
        # Sharded tensors can't be reshaped.
        x = x.float() if x.dtype.itemsize < 4 else x
        if x.is_cpu and not torch.is_grad_enabled() and type(x) in (Tensor, torch.nn.Parameter):
            n = self._group_size(x)
            last = range(x.dim() - len(self._dims), x.dim())
            if all(x.stride(d) != 1 for d in self._dims):
                return torch.square(x, out=squares).sum(self._dims, keepdim=True).sqrt_()
            rows = x.is_contiguous() and {d % x.dim() for d in self._dims} == set(last)
            if rows and 0 < n < 64 and torch.get_num_threads() == 1:
                sums = torch.mv(torch.square(x, out=squares).reshape(-1, n), x.new_ones(n))
                return sums.sqrt_().view(*x.shape[: last.start], *(1 for _ in last))
        return torch.linalg.vector_norm(x, dim=self._dims, keepdim=True)

    def _scaled_norms(self, x: Tensor) -> Tensor:
        # of numbers whose squares may be zero or infinite
        largest = self._in_range(x.abs().amax(self._dims, keepdim=True))
        return torch.linalg.vector_norm(x / largest, dim=self._dims, keepdim=True) * largest

    def _sums(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, ord=1, dim=self._dims, keepdim=True)

    def _threshold(self, x: Tensor) -> float:
        return self.lam * math.sqrt(self._group_size(x))

    def _group_size(self, x: Tensor) -> int:
        return math.prod(x.shape[d] for d in self._dims)

    @staticmethod
    def _in_range(norms: Tensor) -> Tensor:
        # 0/tiny = 0 settles zero groups without a branch, and inf/inf would be NaN
        return norms.clamp(torch.finfo(norms.dtype).tiny, torch.finfo(norms.dtype).max)


@dataclass(frozen=True)
class SparseGroup(Regularizer):
    """J(x) = lam_l1 ||x||_1 + lam_group sum_g sqrt(n_g) ||x_g||_2: few groups, sparse themselves.

    J is L1(lam_l1) + GroupL12(lam_group, dim). The prox of this sum is exactly the composition of
    the two: soft thresholding first, then the group shrinkage.

    Its lam is the sum of the two weights, and ``with_lam`` keeps their ratio: J is lam times the
    sparse-group norm with the mixing parameter alpha = lam_l1 / lam.

    Args:
        lam_l1: the weight >= 0 of the single entries.
        lam_group: the weight >= 0 of the groups, which sqrt(n_g) multiplies.
        dim: the dimension or dimensions that make up one group, as in GroupL12.

    Raises:
        ValueError: a weight is negative, infinite or NaN; dim is empty or names a dimension twice.
    """

    lam_l1: float
    lam_group: float
    dim: int | tuple[int, ...]

    def __post_init__(self) -> None:
        check_weight(self, "lam_l1")
        check_weight(self, "lam_group")
        object.__setattr__(self, "dim", self._group.dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self._l1(x) + self._group(x)

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return self._group.prox(self._l1.prox(x, step), step, out=out)

    def subgrad(self, x: Tensor) -> Tensor:
        return self._l1.subgrad(x) + self._group.subgrad(x)

    @property
    def lam(self) -> float:
        """The weight of both parts together."""
        return self.lam_l1 + self.lam_group

    def with_lam(self, lam: float) -> Self:
        if not self.lam:
            raise ValueError(f"a weight must be positive for their ratio to be kept, got {self}")
        l1, group = (lam * (weight / self.lam) for weight in (self.lam_l1, self.lam_group))
        return replace(self, lam_l1=l1, lam_group=group)

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return self._group.blocks(ndim)

    def levels(self, v: Tensor) -> Tensor:
        # a group is zero from the root s of ||(|v_g| - a s)_+|| = b sqrt(n_g) s on, a + b = 1: the
        # left minus the right side is convex and falls, so Newton's steps from 0 rise to the root
        unit, s = self.with_lam(1.0), v.new_zeros(())
        a, b = unit.lam_l1, unit._group._threshold(v)
        for _ in range(50):
            rest = v.abs().sub_(a * s).relu_()
            norms = unit._group._norms(rest)
            slope = a * rest.sum(unit._group._dims, keepdim=True) / unit._group._in_range(norms) + b
            rise = (norms - b * s) / unit._group._in_range(slope)
            if not bool((rise > 0).any()):
                break
            s = s + rise.relu_()
        s = s.expand_as(v)
        return torch.minimum(v.abs() / a, s) if a else s

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        # a zero group: dJ is the cube lam_l1 [-1, 1]^n plus the ball of radius lam_group sqrt(n)
        group, beyond_cube = self._group, self._l1.prox(p)
        at_zero = (group._norms(beyond_cube) - group._threshold(x)).relu()
        elsewhere = group._norms(torch.where(x == 0, beyond_cube, p - self.subgrad(x)))
        return torch.linalg.vector_norm(torch.where(group._sums(x) == 0, at_zero, elsewhere))

    def check_shape(self, shape: torch.Size) -> None:
        self._group.check_shape(shape)

    @property
    def _l1(self) -> L1:
        return L1(self.lam_l1)

    @property
    def _group(self) -> GroupL12:
        return GroupL12(self.lam_group, self.dim)


@dataclass(frozen=True)
class Nuclear(Weighted):
    """J(X) = lam times the sum of the singular values of X: low-rank weight matrices.

    A tensor of more than two dimensions is the matrix of shape (first dimension, all others): a
    conv weight has one row per filter. prox is soft thresholding of the singular values, so the
    rank, not the entries, becomes small. A singular value counts as zero when it is below
    max(rows, columns) * eps * (the largest), as in ``torch.linalg.matrix_rank``.

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.svdvals(x.flatten(1)).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        result = (u * F.softshrink(s, times(step, self.lam)) @ vh).view(x.shape)
        return result if out is None else out.copy_(result)

    def subgrad(self, x: Tensor) -> Tensor:
        u, vh = self._row_and_column_space(x)
        return (self.lam * u @ vh).view(x.shape)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        # dJ(X) = lam (U V^T + W) with W orthogonal to both spaces and of spectral norm <= 1
        u, vh = self._row_and_column_space(x)
        gap = p.flatten(1) - self.lam * u @ vh
        free = gap - u @ (u.mT @ gap)
        free = free - (free @ vh.mT) @ vh
        excess = (torch.linalg.svdvals(free) - self.lam).relu()
        return torch.linalg.vector_norm(gap - free).hypot(torch.linalg.vector_norm(excess))

    def check_shape(self, shape: torch.Size) -> None:
        check(len(shape) > 1, "shape", "of at least two dimensions for Nuclear", tuple(shape))

    @staticmethod
    def _row_and_column_space(x: Tensor) -> tuple[Tensor, Tensor]:
        # zero columns of u and rows of vh stand for the zero singular values: no dynamic shapes
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        tol = max(u.shape[0], vh.shape[1]) * torch.finfo(s.dtype).eps * s[:1]
        kept = s > tol
        return u * kept, vh * kept.unsqueeze(1)
