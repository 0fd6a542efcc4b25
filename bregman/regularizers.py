"""Regularizers J: value, prox, subgradient and distance to the subdifferential.

A regularizer is a frozen bag of plain numbers. To change one in the course of training, give the
optimizer's group a new one (``dataclasses.replace``).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F


class Regularizer(ABC):
    """A convex, lower semicontinuous J with a closed-form prox (section 1.4).

    Subclass it as a frozen dataclass of plain numbers: optimizer checkpoints then load with torch's
    default ``torch.load``, since every subclass is registered as safe. What the optimizers need is
    abstract here. ``blocks``, ``levels`` and ``quadratic_weight`` say more of a

        J(x) = sum_b lam N(x_b) + mu/2 ||x||^2,    N positively homogeneous,

    and what implements them is frozen by ``Multilevel`` and steered by ``SparsityTarget``.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        torch.serialization.add_safe_globals([cls])

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """J(x), a 0-d tensor."""

    @abstractmethod
    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        """prox_{step J}(x) = argmin_z 1/2 ||z - x||^2 + step J(z), eq. (1.20).

        Args:
            x: any shape and memory layout, float32 or float64.
            step: the positive factor in front of J.
            out: where to write the result, of x's shape; may be x itself.

        Returns:
            A new tensor of x's shape, or ``out``.
        """

    @abstractmethod
    def subgrad(self, x: Tensor) -> Tensor:
        """The least-norm element of dJ(x), of x's shape; zero where x is zero."""

    @abstractmethod
    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        """The Euclidean distance of p to dJ(x), a 0-d tensor: zero iff p is a subgradient."""

    @property
    def quadratic_weight(self) -> float:
        """mu of the term mu/2 ||x||^2 of J, 0 without one."""
        return 0.0

    def blocks(self, ndim: int) -> tuple[int, ...] | None:
        """The dimensions that make up one block, of a J that is a sum over blocks.

        Args:
            ndim: the number of dimensions of x.

        Returns:
            Numbers in range(ndim), none of them if single entries are the blocks; None if J is no
            sum over blocks that a large enough lam sets to zero.
        """
        return None

    def levels(self, v: Tensor) -> Tensor:
        """Of every entry of v the lam from which on it is zero, and with it its block; v's shape.

        The entry of theta = prox_{delta J}(delta v) is zero if and only if its level is <= lam,
        whatever delta is.

        Raises:
            ValueError: J has no blocks that a large enough lam sets to zero.
        """
        raise ValueError(f"{type(self).__name__} has no blocks that a larger lam sets to zero")

    def with_lam(self, lam: float) -> Self:
        """The same J with another lam; mu stays."""
        fields: dict[str, Any] = {"lam": lam}
        return replace(self, **fields)  # type: ignore[type-var]

    def check_shape(self, shape: torch.Size) -> None:  # noqa: B027 (most J fit every shape)
        """Raise ValueError when J is not defined on tensors of this shape."""


def _check_weight(reg: Regularizer, name: str = "lam") -> None:
    # float(): numbers of numpy would not load with torch's default torch.load
    weight = float(getattr(reg, name))
    if not (0 <= weight < math.inf):
        raise ValueError(f"{name} must be non-negative and finite, got {weight}")
    object.__setattr__(reg, name, weight)


def _check_domain(x: Tensor, name: str) -> None:
    if bool((x < 0).any()):
        raise ValueError(
            f"{name} has no subgradient where x is negative: x must be non-negative, "
            f"got a minimum of {float(x.min())}"
        )


@dataclass(frozen=True)
class Zero(Regularizer):
    """J = 0: no regularization. prox is the identity."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return x.clone() if out is None else out.copy_(x)

    def subgrad(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(p)


@dataclass(frozen=True)
class L1(Regularizer):
    """J(x) = lam ||x||_1, eqs. (1.1) and (1.13). prox is soft thresholding, eq. (1.3).

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN.
    """

    lam: float

    def __post_init__(self) -> None:
        _check_weight(self)

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.vector_norm(x, ord=1)

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        # out=None means a new tensor; the stub of softshrink does not know the argument
        return F.softshrink(x, step * self.lam, out=out)  # type: ignore[call-arg]

    def subgrad(self, x: Tensor) -> Tensor:
        return self.lam * x.sign()

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return ()

    def levels(self, v: Tensor) -> Tensor:
        return v.abs()

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        at_zero = (p.abs() - self.lam).relu()
        return torch.linalg.vector_norm(torch.where(x == 0, at_zero, p - self.lam * x.sign()))


@dataclass(frozen=True)
class GroupL12(Regularizer):
    """J(x) = lam sum_g sqrt(n_g) ||x_g||_2, eqs. (1.2) and (1.14). prox shrinks whole groups.

    The groups are the slices that remain when the dimensions ``dim`` are reduced; n_g is the number
    of entries of one. Rows of a linear weight: ``dim=1``. Kernels of a conv weight: ``dim=(2, 3)``.
    Whole filters: ``dim=(1, 2, 3)``.

    Args:
        lam: the weight lambda >= 0.
        dim: the dimension or dimensions that make up one group.

    Raises:
        ValueError: lam is negative, infinite or NaN; dim is empty or names a dimension twice.
    """

    lam: float
    dim: int | tuple[int, ...]

    def __post_init__(self) -> None:
        _check_weight(self)
        dim = tuple(self.dim) if isinstance(self.dim, Iterable) else (self.dim,)
        if not dim or len(set(dim)) < len(dim):
            raise ValueError(f"dim must name one or more different dimensions, got {self.dim}")
        object.__setattr__(self, "dim", tuple(int(d) for d in dim))

    def __call__(self, x: Tensor) -> Tensor:
        return self._threshold(x) * self._norms(x).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        # what is overwritten in the end can hold the squares until then
        free = out is not None and out.data_ptr() != x.data_ptr()
        norms = self._norms(x, squares=out if free else None)
        scale = F.softshrink(norms, step * self._threshold(x)).div_(self._nonzero(norms))
        return torch.mul(x, scale, out=out)

    def subgrad(self, x: Tensor) -> Tensor:
        # scaled first, since the square of a tiny number is zero
        x = x / self._nonzero(self._sums(x))
        return self._threshold(x) * x / self._nonzero(self._norms(x))

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return tuple(d % ndim for d in self._dims)

    def levels(self, v: Tensor) -> Tensor:
        return self._norms(v).div(math.sqrt(self._group_size(v))).expand_as(v)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        at_zero = (self._norms(p) - self._threshold(x)).relu()
        elsewhere = self._norms(p - self.subgrad(x))
        return torch.linalg.vector_norm(torch.where(self._sums(x) == 0, at_zero, elsewhere))

    def check_shape(self, shape: torch.Size) -> None:
        axes = [d + len(shape) if d < 0 else d for d in self._dims]
        if len(set(axes)) < len(axes) or not all(0 <= d < len(shape) for d in axes):
            raise ValueError(
                f"GroupL12 dim={self.dim} does not fit a parameter of shape {tuple(shape)}: "
                f"allowed are different dimensions from {-len(shape)} to {len(shape) - 1}"
            )

    @property
    def _dims(self) -> tuple[int, ...]:
        return self.dim if isinstance(self.dim, tuple) else (self.dim,)

    def _norms(self, x: Tensor, squares: Tensor | None = None) -> Tensor:
        # On a CPU vector_norm is 3 to 15 times slower than this where memory runs across the
        # groups, and on one thread it is slow for groups of a few numbers (mv has one thread, and
        # what other cores wrote comes to it slowly); but its derivative at zero is zero, not NaN.
        if x.is_cpu and not torch.is_grad_enabled():
            n = self._group_size(x)
            last = range(x.dim() - len(self._dims), x.dim())
            if all(x.stride(d) != 1 for d in self._dims):
                return torch.square(x, out=squares).sum(self._dims, keepdim=True).sqrt_()
            rows = x.is_contiguous() and {d % x.dim() for d in self._dims} == set(last)
            if rows and 0 < n < 64 and torch.get_num_threads() == 1:
                sums = torch.mv(torch.square(x, out=squares).reshape(-1, n), x.new_ones(n))
                return sums.sqrt_().view(*x.shape[: last.start], *(1 for _ in last))
        return torch.linalg.vector_norm(x, dim=self._dims, keepdim=True)

    def _sums(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, ord=1, dim=self._dims, keepdim=True)

    def _threshold(self, x: Tensor) -> float:
        return self.lam * math.sqrt(self._group_size(x))

    def _group_size(self, x: Tensor) -> int:
        return math.prod(x.shape[d] for d in self._dims)

    @staticmethod
    def _nonzero(norms: Tensor) -> Tensor:
        # 0/tiny = 0 settles zero groups without a branch
        return norms.clamp(min=torch.finfo(norms.dtype).tiny)


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
        _check_weight(self, "lam_l1")
        _check_weight(self, "lam_group")
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
            slope = a * rest.sum(unit._group._dims, keepdim=True) / unit._group._nonzero(norms) + b
            rise = (norms - b * s) / unit._group._nonzero(slope)
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
class ElasticNet(Regularizer):
    """J(x) = lam ||x||_1 + mu/2 ||x||^2; with mu = 1/delta it is J_delta of the l1 norm, eq. (2.6).

    Args:
        lam: the weight >= 0 of the l1 norm.
        mu: the weight >= 0 of the squared Euclidean norm.

    Raises:
        ValueError: a weight is negative, infinite or NaN.
    """

    lam: float
    mu: float

    def __post_init__(self) -> None:
        _check_weight(self)
        _check_weight(self, "mu")

    def __call__(self, x: Tensor) -> Tensor:
        return L1(self.lam)(x) + self.mu / 2 * x.square().sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return L1(self.lam).prox(x, step, out=out).div_(1 + step * self.mu)

    def subgrad(self, x: Tensor) -> Tensor:
        return L1(self.lam).subgrad(x).add_(x, alpha=self.mu)

    @property
    def quadratic_weight(self) -> float:
        return self.mu

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return ()

    def levels(self, v: Tensor) -> Tensor:
        return v.abs()

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        return L1(self.lam).subdiff_distance(p - self.mu * x, x)


@dataclass(frozen=True)
class NonNegativeL1(Regularizer):
    """J(x) = lam sum_i x_i where x >= 0, infinite elsewhere. prox is the one-sided shrinkage.

    Where an entry is negative dJ(x) is empty: ``subgrad`` raises, ``subdiff_distance`` is infinite.
    So start an optimizer from non-negative parameters; every later step keeps them so.

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN; in ``subgrad``: an entry of x is negative.
    """

    lam: float

    def __post_init__(self) -> None:
        _check_weight(self)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where((x < 0).any(), math.inf, self.lam * x.sum())

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return torch.sub(x, step * self.lam, out=out).relu_()

    def subgrad(self, x: Tensor) -> Tensor:
        _check_domain(x, type(self).__name__)
        return self.lam * x.sign()

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return ()

    def levels(self, v: Tensor) -> Tensor:
        return v.relu()

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        # dJ is {lam} where x > 0 and the half line below lam where x = 0
        gap = torch.where(x == 0, (p - self.lam).relu(), (p - self.lam).abs())
        return torch.linalg.vector_norm(gap.masked_fill(x < 0, math.inf))


@dataclass(frozen=True)
class NonNegative(NonNegativeL1):
    """J(x) = 0 where x >= 0, infinite elsewhere, as in Example 1: NonNegativeL1 with lam = 0.

    prox is the projection max(x, 0), whatever the step.
    """

    lam: float = field(default=0.0, init=False, repr=False)


@dataclass(frozen=True)
class Nuclear(Regularizer):
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

    lam: float

    def __post_init__(self) -> None:
        _check_weight(self)

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.svdvals(x.flatten(1)).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        result = (u * F.softshrink(s, step * self.lam) @ vh).view(x.shape)
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
        if len(shape) < 2:
            raise ValueError(
                f"Nuclear needs parameters of at least two dimensions, got shape {tuple(shape)}"
            )

    @staticmethod
    def _row_and_column_space(x: Tensor) -> tuple[Tensor, Tensor]:
        # zero columns of u and rows of vh stand for the zero singular values: no dynamic shapes
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        tol = max(u.shape[0], vh.shape[1]) * torch.finfo(s.dtype).eps * s[0]
        kept = s > tol
        return u * kept, vh * kept.unsqueeze(1)
