"""Sums over single entries."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from bregman.checks import check
from bregman.regularizers.base import Weighted, check_weight, times


@dataclass(frozen=True)
class _Entrywise(Weighted):
    """A sum over single entries, each of which is zero from some lam on."""

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return ()

    def levels(self, v: Tensor) -> Tensor:
        return v.abs()


@dataclass(frozen=True)
class L1(_Entrywise):
    """J(x) = lam ||x||_1, eqs. (1.1) and (1.13). prox is soft thresholding, eq. (1.3).

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.vector_norm(x, ord=1)

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        # out=None means a new tensor; the stub of softshrink does not know the argument
        return F.softshrink(x, times(step, self.lam), out=out)  # type: ignore[call-arg]

    def subgrad(self, x: Tensor) -> Tensor:
        return self.lam * x.sign()

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        at_zero = (p.abs() - self.lam).relu()
        return torch.linalg.vector_norm(torch.where(x == 0, at_zero, p - self.lam * x.sign()))


@dataclass(frozen=True)
class ElasticNet(_Entrywise):
    """J(x) = lam ||x||_1 + mu/2 ||x||^2; with mu = 1/delta it is J_delta of the l1 norm, eq. (2.6).

    Args:
        lam: the weight >= 0 of the l1 norm.
        mu: the weight >= 0 of the squared Euclidean norm.

    Raises:
        ValueError: a weight is negative, infinite or NaN.
    """

    mu: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight(self, "mu")

    def __call__(self, x: Tensor) -> Tensor:
        return L1(self.lam)(x) + self.mu / 2 * x.square().sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return L1(self.lam).prox(x, step, out=out).div_(1 + times(step, self.mu))

    def subgrad(self, x: Tensor) -> Tensor:
        return L1(self.lam).subgrad(x).add_(x, alpha=self.mu)

    @property
    def quadratic_weight(self) -> float:
        return self.mu

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        return L1(self.lam).subdiff_distance(p - self.mu * x, x)


@dataclass(frozen=True)
class NonNegativeL1(_Entrywise):
    """J(x) = lam sum_i x_i where x >= 0, infinite elsewhere. prox is the one-sided shrinkage.

    Where an entry is negative dJ(x) is empty: ``subgrad`` raises, ``subdiff_distance`` is infinite.
    So start an optimizer from non-negative parameters; every later step keeps them so.

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN; in ``subgrad``: an entry of x is negative.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where((x < 0).any(), math.inf, self.lam * x.sum())

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        return torch.sub(x, times(step, self.lam), out=out).relu_()

    def subgrad(self, x: Tensor) -> Tensor:
        check(not bool((x < 0).any()), "x", "non-negative to have a subgradient", x)
        return self.lam * x.sign()

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
