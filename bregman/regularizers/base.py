"""What a regularizer is, and J = 0."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bregman.checks import check

# where checkpoints find the package's own regularizers, in whichever file they are
_PUBLIC = "bregman.regularizers"
# softshrink takes no infinite lambda
_LARGEST = torch.finfo(torch.float32).max


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
        if cls.__module__.startswith(f"{_PUBLIC}."):
            cls.__module__ = _PUBLIC
        torch.serialization.add_safe_globals([cls])

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """J(x), a 0-d tensor."""

    @abstractmethod
    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        """prox_{step J}(x) = argmin_z 1/2 ||z - x||^2 + step J(z), eq. (1.20).

        Args:
            x: any shape and memory layout, float32 or float64.
            step: the factor >= 0 in front of J.
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

        lam and N are the same for every block: what reads this moves blocks out of their places, so
        a J whose weights depend on the position has None.

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
        """The same J with another lam, the attribute that steering reads; mu stays."""
        return replace(self, lam=lam)  # type: ignore[type-var]

    def norm_weight(self, size: int) -> float | None:
        """w of a J that is the sum of w ||x_b|| over its blocks, None if J is no such sum.

        Args:
            size: the number of entries of one block.
        """
        return None

    def check_shape(self, shape: torch.Size) -> None:  # noqa: B027 (most J fit every shape)
        """Raise ValueError when J is not defined on tensors of this shape."""


def check_weight(reg: Regularizer, name: str = "lam") -> None:
    """Raise ValueError unless a weight of J is a number >= 0, and make it a float."""
    weight = getattr(reg, name)
    holds = hasattr(weight, "__float__") and 0 <= float(weight) < math.inf
    check(holds, name, "non-negative and finite", weight)
    # numbers of numpy would not load with torch's default torch.load
    object.__setattr__(reg, name, float(weight))


@dataclass(frozen=True)
class Weighted(Regularizer):
    """A J with the weight lam."""

    lam: float

    def __post_init__(self) -> None:
        check_weight(self)


def times(step: float, weight: float) -> float:
    """What a prox shrinks by: step times weight, where no weight is none in any step.

    Raises:
        ValueError: step is negative or NaN.
    """
    check(step >= 0, "step", "non-negative", step)
    return min(step * weight, _LARGEST) if weight else 0.0


@dataclass(frozen=True)
class Zero(Regularizer):
    """J = 0: no regularization. prox is the identity."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.new_zeros(())

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        times(step, 0.0)
        return x.clone() if out is None else out.copy_(x)

    def subgrad(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(p)
