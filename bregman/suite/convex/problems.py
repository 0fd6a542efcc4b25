"""Convex losses of known structure, constants and solution.

Every loss is the mean over m samples of a function of one inner product,

    L(theta) = 1/m sum_i l_i(<a_i, theta>),

so the rows of A are the measurements of compressed sensing and the samples of a minibatch at once.
All tensors are float64; every random choice takes its own ``torch.Generator``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from bregman.suite.convex import checks


@dataclass(frozen=True, eq=False)
class Problem(ABC):
    """A convex loss L with its constants, on parameters theta of shape ``shape``.

    Args:
        A: (m, n), one sample a_i per row.
        y: (m,), the data.
        shape: the shape of theta, with n entries; None for (n,).
        truth: the theta that made the data, where known.

    Raises:
        ValueError: a shape does not fit, or a tensor is not float64 and finite.
    """

    A: Tensor
    y: Tensor
    shape: tuple[int, ...] | None = None
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        checks.matrix("A", self.A)
        checks.finite("y", self.y)
        m, n = self.A.shape
        checks.same_shape("y", self.y, (m,))
        if self.shape is None:
            object.__setattr__(self, "shape", (n,))
        if math.prod(self.theta_shape) != n:
            raise ValueError(f"shape must have {n} entries, one per column of A, got {self.shape}")
        if self.truth is not None:
            self.check(self.truth, "truth")

    @property
    def theta_shape(self) -> tuple[int, ...]:
        """The shape of theta."""
        return self.shape if self.shape is not None else (self.A.shape[1],)

    def f(self, theta: Tensor) -> Tensor:
        """L(theta), a 0-d tensor."""
        return self._losses(self._predict(theta)).mean()

    def grad(self, theta: Tensor) -> Tensor:
        """The gradient of L at theta, of theta's shape."""
        slopes = self._slopes(self._predict(theta))
        return (slopes @ self.A / len(self.y)).reshape(self.theta_shape)

    def sample_grads(self, theta: Tensor) -> Tensor:
        """The m gradients whose mean is ``grad(theta)``, of shape (m, *shape)."""
        slopes = self._slopes(self._predict(theta))
        return (slopes.unsqueeze(1) * self.A).reshape(-1, *self.theta_shape)

    @property
    @abstractmethod
    def lipschitz(self) -> float:
        """Lip, the Lipschitz constant of the gradient."""

    @property
    @abstractmethod
    def strong_convexity(self) -> float:
        """mu >= 0, the constant of strong convexity."""

    @abstractmethod
    def minimizer(self) -> Tensor:
        """theta*, the only minimizer of L without regularizer.

        Raises:
            ValueError: there is none, or more than one.
        """

    def check(self, theta: Tensor, name: str) -> None:
        """Raise ValueError unless theta is finite, float64 and of this problem's shape."""
        checks.same_shape(name, theta, self.theta_shape)
        checks.finite(name, theta)

    @abstractmethod
    def _losses(self, z: Tensor) -> Tensor:
        """l_i(z_i)."""

    @abstractmethod
    def _slopes(self, z: Tensor) -> Tensor:
        """l_i'(z_i)."""

    def _predict(self, theta: Tensor) -> Tensor:
        checks.same_shape("theta", theta, self.theta_shape)
        return self.A @ theta.reshape(-1)

    @cached_property
    def _singular_values(self) -> Tensor:
        return torch.linalg.svdvals(self.A)


@dataclass(frozen=True, eq=False)
class LeastSquares(Problem):
    """L(theta) = ||A theta - y||^2 / (2 m), the mean squared residual of m measurements."""

    @property
    def lipschitz(self) -> float:
        return float(self._singular_values[0]) ** 2 / len(self.y)

    @property
    def strong_convexity(self) -> float:
        m, n = self.A.shape
        return float(self._singular_values[-1]) ** 2 / m if self._rank == n else 0.0

    def minimizer(self) -> Tensor:
        m, n = self.A.shape
        if self._rank < n:
            raise ValueError(
                f"the minimizer is not unique: A of shape ({m}, {n}) has rank {self._rank}, "
                f"needed is {n}"
            )
        # noise-free data: the truth itself, whose zeros are exact
        if self.truth is not None and torch.allclose(
            self._predict(self.truth), self.y, rtol=1e-14, atol=1e-14 * float(self.y.abs().max())
        ):
            return self.truth
        return torch.linalg.lstsq(self.A, self.y).solution.reshape(self.theta_shape)

    def _losses(self, z: Tensor) -> Tensor:
        return (z - self.y).square() / 2

    def _slopes(self, z: Tensor) -> Tensor:
        return z - self.y

    @cached_property
    def _rank(self) -> int:
        s = self._singular_values
        tol = max(self.A.shape) * torch.finfo(s.dtype).eps * s[0]
        return int((s > tol).sum())


@dataclass(frozen=True, eq=False)
class LogisticRegression(Problem):
    """L(theta) = 1/m sum_i log(1 + exp(-y_i <a_i, theta>)) + ridge/2 ||theta||^2, y_i = -1 or 1.

    Args:
        ridge: >= 0; it is the constant of strong convexity, which the logistic loss itself lacks.

    Raises:
        ValueError: as for Problem; a label is neither -1 nor 1; ridge is negative.
    """

    ridge: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least("ridge", self.ridge, 0)
        if not bool((self.y.abs() == 1).all()):
            raise ValueError(f"y must hold labels -1 and 1, got {self.y.unique().tolist()[:5]}")

    def f(self, theta: Tensor) -> Tensor:
        return super().f(theta) + self.ridge / 2 * theta.square().sum()

    def grad(self, theta: Tensor) -> Tensor:
        return super().grad(theta) + self.ridge * theta

    def sample_grads(self, theta: Tensor) -> Tensor:
        return super().sample_grads(theta) + self.ridge * theta

    @property
    def lipschitz(self) -> float:
        # l_i'' <= 1/4
        return float(self._singular_values[0]) ** 2 / (4 * len(self.y)) + self.ridge

    @property
    def strong_convexity(self) -> float:
        return self.ridge

    def minimizer(self) -> Tensor:
        """theta* by Newton's method with step halving.

        Raises:
            ValueError: there is no minimizer (separable data), or more than one.
        """
        theta = self.A.new_zeros(self.theta_shape)
        for _ in range(100):
            grad = self.grad(theta)
            slopes = self._slopes(self._predict(theta)).abs()
            hessian = self.A.T * (slopes * (1 - slopes) / len(self.y)) @ self.A
            hessian.diagonal().add_(self.ridge)
            # separable data: theta goes to infinity, gradient and curvature to zero
            curvature, vectors = torch.linalg.eigh(hessian)
            if curvature[0] <= 1e-10 * self.lipschitz:
                break
            if torch.linalg.vector_norm(grad) <= 1e-12 * self.lipschitz:
                return theta
            newton = (vectors / curvature @ (vectors.T @ grad.reshape(-1))).reshape(grad.shape)
            # halve the step until L falls; the margin is for rounding, close to the minimum
            step, enough = 1.0, self.f(theta) * (1 + 1e-14)
            while self.f(theta - step * newton) > enough and step > 1e-8:
                step /= 2
            theta = theta - step * newton
        raise ValueError(
            f"the logistic loss has no unique minimizer with ridge={self.ridge} (separable or "
            "dependent data): ridge must be positive"
        )

    def _losses(self, z: Tensor) -> Tensor:
        return F.softplus(-self.y * z)

    def _slopes(self, z: Tensor) -> Tensor:
        return -self.y * torch.sigmoid(-self.y * z)


def compressed_sensing(
    generator: torch.Generator, m: int, n: int, nonzeros: int, noise: float = 0.0
) -> LeastSquares:
    """Least squares with a sparse truth and a Gaussian matrix.

    Args:
        generator: the only source of randomness.
        m: the number of measurements; m < n for compressed sensing, m > n for strong convexity.
        n: the number of unknowns.
        nonzeros: how many are not zero; each is of size 0.5 to 1.5, with a random sign.
        noise: the standard deviation of the measurement noise.

    Returns:
        The problem, with ``truth``.

    Raises:
        ValueError: a count is not positive, nonzeros > n, or noise is negative.
    """
    _check_counts(m=m, n=n)
    _check_part("nonzeros", nonzeros, n)
    return _measure(generator, m, _sparse(generator, n, nonzeros), noise)


def group_sparse(
    generator: torch.Generator, m: int, groups: int, size: int, active: int, noise: float = 0.0
) -> LeastSquares:
    """Least squares for theta of shape (groups, size) with few non-zero rows: GroupL12(lam, dim=1).

    Args:
        generator: the only source of randomness.
        m: the number of measurements.
        groups: the number of groups.
        size: the number of entries of a group.
        active: how many groups are not zero; their entries are standard normal.
        noise: the standard deviation of the measurement noise.

    Returns:
        The problem, with ``truth``.

    Raises:
        ValueError: a count is not positive, active > groups, or noise is negative.
    """
    _check_counts(m=m, groups=groups, size=size)
    _check_part("active", active, groups)
    truth = torch.zeros(groups, size, dtype=torch.float64)
    chosen = torch.randperm(groups, generator=generator)[:active]
    truth[chosen] = _normal(generator, active, size)
    return _measure(generator, m, truth, noise)


def low_rank(
    generator: torch.Generator, m: int, rows: int, cols: int, rank: int, noise: float = 0.0
) -> LeastSquares:
    """Recovery of a low-rank matrix from m random measurements: Nuclear(lam).

    Args:
        generator: the only source of randomness.
        m: the number of measurements.
        rows: the number of rows of theta.
        cols: the number of columns of theta.
        rank: the rank of the truth, a product of two standard normal factors.
        noise: the standard deviation of the measurement noise.

    Returns:
        The problem, with ``truth``.

    Raises:
        ValueError: a count is not positive, rank > min(rows, cols), or noise is negative.
    """
    _check_counts(m=m, rows=rows, cols=cols)
    _check_part("rank", rank, min(rows, cols))
    truth = _normal(generator, rows, rank) @ _normal(generator, rank, cols) / math.sqrt(rank)
    return _measure(generator, m, truth, noise)


def logistic_regression(
    generator: torch.Generator, m: int, n: int, nonzeros: int, ridge: float = 0.0
) -> LogisticRegression:
    """Logistic regression whose labels follow the logistic model of a sparse truth.

    Args:
        generator: the only source of randomness.
        m: the number of samples, with standard normal features.
        n: the number of features.
        nonzeros: how many features matter.
        ridge: the weight of the added squared norm.

    Returns:
        The problem, with ``truth`` (which is not its minimizer).

    Raises:
        ValueError: a count is not positive, nonzeros > n, or ridge is negative.
    """
    _check_counts(m=m, n=n)
    _check_part("nonzeros", nonzeros, n)
    truth = 2 * _sparse(generator, n, nonzeros)
    A = _normal(generator, m, n)
    positive = torch.rand(m, generator=generator, dtype=torch.float64) < torch.sigmoid(A @ truth)
    return LogisticRegression(A, positive.double() * 2 - 1, truth=truth, ridge=ridge)


def example_1() -> LeastSquares:
    """L(theta) = (theta + 1)^2 of Example 1, theta of shape (1,): as least squares, m = n = 1.

    With J = NonNegative() the iteration converges to 0, which is no critical point of L.
    """
    root = torch.tensor([[math.sqrt(2)]], dtype=torch.float64)
    return LeastSquares(root, -root[0])


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _sparse(generator: torch.Generator, n: int, nonzeros: int) -> Tensor:
    truth = torch.zeros(n, dtype=torch.float64)
    chosen = torch.randperm(n, generator=generator)[:nonzeros]
    sizes = 0.5 + torch.rand(nonzeros, generator=generator, dtype=torch.float64)
    signs = torch.randint(2, (nonzeros,), generator=generator) * 2 - 1
    truth[chosen] = sizes * signs
    return truth


def _measure(generator: torch.Generator, m: int, truth: Tensor, noise: float) -> LeastSquares:
    checks.at_least("noise", noise, 0)
    A = _normal(generator, m, truth.numel())
    y = A @ truth.reshape(-1)
    if noise:
        y = y + noise * _normal(generator, m)
    return LeastSquares(A, y, shape=tuple(truth.shape), truth=truth)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        checks.at_least(name, count, 1)


def _check_part(name: str, part: int, whole: int) -> None:
    if not (1 <= part <= whole):
        raise ValueError(f"{name} must be from 1 to {whole}, got {part}")
