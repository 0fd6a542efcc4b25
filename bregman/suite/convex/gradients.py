"""Exact and noisy gradients of known variance.

Each has finitely many, equally likely outcomes with mean grad L. So every expectation in the
theorems is a finite mean, exact but for rounding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bregman.suite.convex import checks
from bregman.suite.convex.problems import Problem


@dataclass(frozen=True)
class ExactGradient:
    """The gradient of L itself: the deterministic case, sigma = 0.

    Args:
        problem: the loss.
    """

    problem: Problem

    def outcomes(self, theta: Tensor) -> Tensor:
        """All equally likely gradients at theta, of shape (count, *shape)."""
        return self.problem.grad(theta).unsqueeze(0)

    def sample(self, theta: Tensor, generator: torch.Generator | None) -> Tensor:
        """One of the outcomes, of theta's shape; the generator is needed if there are several."""
        outcomes = self.outcomes(theta)
        if len(outcomes) == 1:
            return outcomes[0]
        if generator is None:
            raise ValueError("generator must be a torch.Generator for noisy gradients, got None")
        return outcomes[torch.randint(len(outcomes), (), generator=generator)]

    def variance(self, theta: Tensor) -> Tensor:
        """E ||g - grad L(theta)||^2, a 0-d tensor: the smallest sigma^2 that is valid at theta."""
        noise = self.outcomes(theta) - self.problem.grad(theta)
        return noise.square().sum() / len(noise)


@dataclass(frozen=True)
class AdditiveNoise(ExactGradient):
    """The gradient plus or minus sigma times a random unit vector: variance sigma^2 everywhere.

    Args:
        problem: the loss.
        sigma: the standard deviation of the whole noise vector, >= 0.

    Raises:
        ValueError: sigma is negative, infinite or NaN.
    """

    sigma: float

    def __post_init__(self) -> None:
        checks.at_least("sigma", self.sigma, 0)

    def outcomes(self, theta: Tensor) -> Tensor:
        noise = self.sigma * torch.eye(theta.numel(), dtype=theta.dtype)
        return self.problem.grad(theta) + torch.cat([noise, -noise]).reshape(-1, *theta.shape)


@dataclass(frozen=True)
class Minibatch(ExactGradient):
    """The mean gradient of a minibatch: one of the m / batch_size blocks of consecutive samples.

    Args:
        problem: the loss.
        batch_size: the number of samples of a batch, a divisor of m, so that the mean is unbiased.

    Raises:
        ValueError: batch_size does not divide the number of samples.
    """

    batch_size: int

    def __post_init__(self) -> None:
        m = len(self.problem.y)
        if self.batch_size < 1 or m % self.batch_size:
            raise ValueError(f"batch_size must divide the {m} samples, got {self.batch_size}")

    def outcomes(self, theta: Tensor) -> Tensor:
        grads = self.problem.sample_grads(theta)
        return grads.reshape(-1, self.batch_size, *theta.shape).mean(1)
