"""The exercises of notebooks 03 and 04: further wrong answers, each told its own fault."""

import math

import pytest
import torch

from bregman.suite.course.convergence_theory import check_momentum, check_proxgd
from bregman.suite.course.sparse_initialization import check_leaky_alpha, check_sparse_weights


def shrink(x, threshold):
    return x.sign() * (x.abs() - threshold).clamp(min=0)


def momentum(*, beta_used=True, on_theta=False, steps_off=0, scaled=True, only_theta=False):
    def answer(gradient, theta, v, tau, beta, lam, delta, steps):
        m = torch.zeros_like(v)
        for _ in range(steps - steps_off):
            g = gradient(theta)
            m = beta * m + (1 - beta) * tau * g if beta_used else tau * g
            v = v - (tau * g if on_theta else m)
            theta = (delta if scaled else 1) * shrink(v, lam) - (m if on_theta else 0)
        return theta if only_theta else (theta, v)

    return answer


def proxgd(*, shrunk=True, memory=False, start=True):
    def answer(gradient, theta, tau, lam, steps):
        path, v = [theta], theta + lam * theta.sign()
        for _ in range(steps):
            v = v - tau * gradient(theta)
            x = theta - tau * gradient(theta)
            theta = shrink(v, lam) if memory else shrink(x, tau * lam) if shrunk else x
            path.append(theta)
        return torch.stack(path if start else path[1:])

    return answer


def weights(*, power=0.5, each=False, own_generator=False, keep=1.0):
    def answer(shape, r, alpha, group, generator):
        if own_generator:
            generator = torch.Generator()
            generator.seed()
        kept = {"entry": shape, "row": shape[:1], "kernel": shape[:2]}["entry" if each else group]
        kept = tuple(kept) + (1,) * (len(shape) - len(kept))
        mask = torch.rand(kept, generator=generator) < keep * r
        return (alpha / r) ** power * torch.randn(shape, generator=generator) * mask

    return answer


FAULTS = [
    (check_momentum, momentum(), "✓ Algorithm 2"),
    (check_momentum, momentum(beta_used=False), "LinBreg without momentum"),
    (check_momentum, momentum(on_theta=True), "acts on theta"),
    (check_momentum, momentum(steps_off=1), "one step is missing"),
    (check_momentum, momentum(scaled=False), "✗"),
    (check_momentum, momentum(only_theta=True), "return two tensors"),
    (check_momentum, lambda *_: None, "… not yet done"),
    (check_proxgd, proxgd(), "✓ ProxGD"),
    (check_proxgd, proxgd(shrunk=False), "nothing is shrunk"),
    (check_proxgd, proxgd(memory=True), "this is LinBreg"),
    (check_proxgd, proxgd(start=False), "the start and all iterates"),
    (check_sparse_weights, weights(), "✓ the variance"),
    (check_sparse_weights, weights(power=1.0), "wants its root"),
    (check_sparse_weights, weights(each=True), "row: a row is kept in part"),
    (check_sparse_weights, weights(own_generator=True), "one generator, two results"),
    (check_sparse_weights, weights(keep=2.0), "are kept, asked for were 20%"),
    (check_leaky_alpha, lambda n, s: 2 / ((1 + s**2) * n), "✓ the variance is kept"),
    (check_leaky_alpha, lambda n, s: 2 / n, "the variance is multiplied by 1.09"),
    (check_leaky_alpha, lambda n, s: math.sqrt(-1), "raises ValueError"),
]


@pytest.mark.parametrize(("check", "answer", "said"), FAULTS)
def test_an_answer_is_told_its_fault(check, answer, said, capsys):
    check(answer)
    assert said in capsys.readouterr().out
