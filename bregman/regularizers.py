"""Regularizers J: value, prox, subgradient and distance to the subdifferential.

A regularizer is a frozen bag of plain numbers. To change one in the course of training, give the
optimizer's group a new one (``dataclasses.replace``).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Regularizer(ABC):
    """A convex, lower semicontinuous J with a closed-form prox (section 1.4).

    Subclass it as a frozen dataclass of plain numbers: optimizer checkpoints then load with torch's
    default ``torch.load``, since every subclass is registered as safe.
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

    def check_shape(self, shape: torch.Size) -> None:  # noqa: B027 (most J fit every shape)
        """Raise ValueError when J is not defined on tensors of this shape."""


def _check_lam(lam: float) -> None:
    if not (0 <= lam < math.inf):
        raise ValueError(f"lam must be non-negative and finite, got {lam}")


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
        _check_lam(self.lam)

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.vector_norm(x, ord=1)

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        # out=None means a new tensor; the stub of softshrink does not know the argument
        return F.softshrink(x, step * self.lam, out=out)  # type: ignore[call-arg]

    def subgrad(self, x: Tensor) -> Tensor:
        return self.lam * x.sign()

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
        _check_lam(self.lam)
        dim = tuple(self.dim) if isinstance(self.dim, Iterable) else (self.dim,)
        if not dim or len(set(dim)) < len(dim):
            raise ValueError(f"dim must name one or more different dimensions, got {self.dim}")
        object.__setattr__(self, "dim", dim)

    def __call__(self, x: Tensor) -> Tensor:
        return self._threshold(x) * self._norms(x).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        norms = self._norms(x)
        shrunk = (norms - step * self._threshold(x)).relu_()
        return torch.mul(x, shrunk.div_(self._nonzero(norms)), out=out)

    def subgrad(self, x: Tensor) -> Tensor:
        return self._threshold(x) * x / self._nonzero(self._norms(x))

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        at_zero = (self._norms(p) - self._threshold(x)).relu()
        elsewhere = self._norms(p - self.subgrad(x))
        return torch.linalg.vector_norm(torch.where(self._norms(x) == 0, at_zero, elsewhere))

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

    def _norms(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=self._dims, keepdim=True)

    def _threshold(self, x: Tensor) -> float:
        return self.lam * math.sqrt(math.prod(x.shape[d] for d in self._dims))

    @staticmethod
    def _nonzero(norms: Tensor) -> Tensor:
        # 0/tiny = 0 settles zero groups without a branch
        return norms.clamp(min=torch.finfo(norms.dtype).tiny)
