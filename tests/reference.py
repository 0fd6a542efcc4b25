"""The paper's J and its algorithms, letter by letter: slow, numpy float64, nothing of the package.

An algorithm is a generator. It yields theta, and is sent the gradient g and the step size tau::

    algorithm = linbreg(theta, J)
    theta = next(algorithm)
    theta = algorithm.send((g, tau))
"""

from dataclasses import dataclass
from itertools import product

import numpy as np


def groups(shape, dim):
    """Yield the index of every group: all of the dimensions in dim, one entry of the others."""
    dim = [d % len(shape) for d in dim]
    yield from product(*[[slice(None)] if d in dim else range(n) for d, n in enumerate(shape)])


@dataclass
class J:
    """J(theta) = lam sum_g sqrt(n_g) ||g||_2 (1.2); dim = () makes it l1 (1.1)."""

    lam: float
    dim: tuple[int, ...] = ()

    def __call__(self, x):
        return sum(
            self.lam * np.sqrt(np.size(x[g])) * norm(x[g]) for g in groups(x.shape, self.dim)
        )

    def prox(self, x, step=1.0):
        """argmin_z 1/2 ||z - x||^2 + step J(z) (1.20), group by group."""
        z = np.zeros_like(x)
        for g in groups(x.shape, self.dim):
            threshold = step * self.lam * np.sqrt(np.size(x[g]))
            if norm(x[g]) > threshold:
                z[g] = x[g] - threshold * x[g] / norm(x[g])
        return z

    def subgrad(self, x):
        """The least-norm element of dJ(x): lam sqrt(n_g) g / ||g||_2, and 0 where g = 0."""
        p = np.zeros_like(x)
        for g in groups(x.shape, self.dim):
            if norm(x[g]) > 0:
                p[g] = self.lam * np.sqrt(np.size(x[g])) * x[g] / norm(x[g])
        return p

    def project(self, p):
        """The projection on dJ(0), that is on ||g||_2 <= lam sqrt(n_g) for every group g."""
        q = p.copy()
        for g in groups(p.shape, self.dim):
            radius = self.lam * np.sqrt(np.size(p[g]))
            if norm(p[g]) > radius:
                q[g] = radius * p[g] / norm(p[g])
        return q


def norm(g):
    """||g||_2 of a group of any shape."""
    return np.sqrt(np.sum(np.square(g)))


def linbreg(theta, J, delta=1.0):
    """Algorithm 1."""
    v = J.subgrad(theta) + theta / delta
    while True:
        g, tau = yield theta
        v = v - tau * g
        theta = J.prox(delta * v, delta)


def linbreg_momentum(theta, J, delta=1.0, beta=0.9):
    """Algorithm 2."""
    v = J.subgrad(theta) + theta / delta
    m = np.zeros_like(theta)
    while True:
        g, tau = yield theta
        m = beta * m + (1 - beta) * tau * g
        v = v - m
        theta = J.prox(delta * v, delta)


def adabreg(theta, J, delta=1.0, beta1=0.9, beta2=0.999, eps=1e-8):
    """Algorithm 3."""
    v = J.subgrad(theta) + theta / delta
    m1, m2, k = np.zeros_like(theta), np.zeros_like(theta), 0
    while True:
        g, tau = yield theta
        k = k + 1
        m1 = beta1 * m1 + (1 - beta1) * g
        m1_hat = m1 / (1 - beta1**k)
        m2 = beta2 * m2 + (1 - beta2) * g**2
        m2_hat = m2 / (1 - beta2**k)
        v = v - tau * m1_hat / (np.sqrt(m2_hat) + eps)
        theta = J.prox(delta * v, delta)


def proxgd(theta, J):
    """Proximal gradient descent (1.5)."""
    while True:
        g, tau = yield theta
        theta = J.prox(theta - tau * g, tau)
