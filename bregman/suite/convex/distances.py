"""Bregman distances: the geometry in which the iterations of section 2 converge."""

import torch
from torch import Tensor

from bregman.regularizers import Regularizer
from bregman.suite.convex import checks


def bregman_distance(reg: Regularizer, z: Tensor, theta: Tensor, p: Tensor) -> Tensor:
    """D_J^p(z, theta) = J(z) - J(theta) - <p, z - theta>, eq. (1.17): the gap under a tangent of J.

    Args:
        reg: J.
        z: where J is compared with its tangent.
        theta: where the tangent touches, of z's shape, J(theta) finite.
        p: its slope, a subgradient of J at theta, of z's shape; otherwise the gap may be negative.

    Returns:
        A 0-d tensor, >= 0 up to rounding; infinite where J(z) is.

    Raises:
        ValueError: the shapes differ, or J(theta) is not finite.
    """
    checks.same_shape("theta", theta, z.shape)
    checks.same_shape("p", p, z.shape)
    value = reg(theta)
    if not bool(value.isfinite()):
        raise ValueError(f"theta must have a finite J(theta), got {value.item()}")
    return reg(z) - value - (p * (z - theta)).sum()


def symmetric_bregman_distance(theta1: Tensor, theta2: Tensor, p1: Tensor, p2: Tensor) -> Tensor:
    """D_J^p1(theta2, theta1) + D_J^p2(theta1, theta2) = <p1 - p2, theta1 - theta2>, eq. (1.19).

    Args:
        theta1: a point.
        theta2: another one, of the same shape.
        p1: a subgradient of J at theta1.
        p2: a subgradient of J at theta2.

    Returns:
        A 0-d tensor, >= 0 up to rounding. J itself drops out.

    Raises:
        ValueError: the shapes differ.
    """
    for name, value in (("theta2", theta2), ("p1", p1), ("p2", p2)):
        checks.same_shape(name, value, theta1.shape)
    return ((p1 - p2) * (theta1 - theta2)).sum()


def elastic_bregman_distance(
    reg: Regularizer, z: Tensor, theta: Tensor, v: Tensor, delta: float = 1.0
) -> Tensor:
    """The Bregman distance of J_delta, from that of J: Lemma 13.

    D_{J_delta}^v(z, theta) = D_J^p(z, theta) + ||z - theta||^2 / (2 delta), p = v - theta / delta.
    Computed so, it keeps its digits when z and theta are close.

    Args:
        reg: J.
        z: the point compared, usually theta*.
        theta: the iterate, of z's shape.
        v: the subgradient of J_delta at theta that LinBreg carries, of z's shape.
        delta: the weight of the quadratic term, positive.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: the shapes differ, delta is not positive, or J(theta) is not finite.
    """
    checks.positive("delta", delta)
    gap = bregman_distance(reg, z, theta, v - theta / delta)
    return gap + torch.linalg.vector_norm(z - theta).square() / (2 * delta)
