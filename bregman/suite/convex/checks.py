"""Checks of arguments: each names the argument, the value got and what is allowed."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def positive(name: str, value: float) -> None:
    """Raise ValueError unless value is positive and finite."""
    if not (0 < value < math.inf):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless value is finite and not below least."""
    if not (least <= value < math.inf):
        raise ValueError(f"{name} must be at least {least} and finite, got {value}")


def matrix(name: str, value: Tensor) -> None:
    """Raise ValueError unless value is a finite float64 matrix that is not empty."""
    finite(name, value)
    if value.ndim != 2 or value.numel() == 0:
        raise ValueError(f"{name} must be a non-empty matrix, got shape {tuple(value.shape)}")


def finite(name: str, value: Tensor) -> None:
    """Raise ValueError unless value is a float64 tensor of finite numbers."""
    if value.dtype != torch.float64:
        raise ValueError(f"{name} must be float64, got {value.dtype}")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinite entries")


def same_shape(name: str, value: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless value has this shape."""
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
