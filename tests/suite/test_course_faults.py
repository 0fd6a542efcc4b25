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


def other_weights(name):
    """Masks and weights that are not what was asked for, or do not come from the generator."""

    def answer(shape, r, alpha, group, generator):
        own = torch.Generator().manual_seed(0)
        axes = {"entry": len(shape), "row": 1, "kernel": 2}[group]
        kept = tuple(shape[:axes]) + (1,) * (len(shape) - axes)
        n = math.prod(kept)
        first = (torch.arange(n) < r * n).reshape(kept)
        start = int(torch.randint(n, (), generator=generator))
        mask = {
            "first": first,
            "block": first.flatten().roll(start).reshape(kept),
            "column": torch.rand((1, *kept[1:]), generator=generator).expand(kept) < r,
            "own mask": torch.rand(kept, generator=own) < r,
        }.get(name, torch.rand(kept, generator=own if name == "own" else generator) < r)
        normal = torch.randn(shape, generator=own if "own" in name else generator)
        if name == "one per group":
            normal = torch.randn(kept, generator=generator).expand(shape)
        if name == "own mask":
            normal = torch.randn(shape, generator=generator)
        normal = {"constant": torch.ones(shape), "absolute": normal.abs()}.get(name, normal)
        return math.sqrt(alpha / r) * normal * mask

    return answer


def fixed(answer, **values):
    """The answer with some of its parameters as in the first case of the check."""

    def chosen(*args):
        args = list(args)
        for place, value in values.items():
            args[int(place[1:])] = value
        return answer(*args)

    return chosen


FAULTS = [
    (check_sparse_weights, other_weights("constant"), "the mean of the weights"),
    (check_sparse_weights, other_weights("absolute"), "the mean of the weights"),
    (check_sparse_weights, other_weights("own"), "two generators, one result"),
    (check_sparse_weights, other_weights("own mask"), "every draw keeps much the same"),
    (check_sparse_weights, other_weights("own weights"), "two generators, the same weights"),
    (check_sparse_weights, other_weights("one per group"), "row: neighbours have the same weight"),
    (check_sparse_weights, other_weights("first"), "✗ entry"),
    (check_sparse_weights, other_weights("block"), "✗ entry"),
    (check_sparse_weights, other_weights("column"), "neighbours depend on each other"),
    (check_sparse_weights, fixed(weights(), _1=0.2), "✗"),
    (check_sparse_weights, fixed(weights(), _2=0.03), "✗"),
    (check_sparse_weights, lambda *args: weights()(*args).numpy(), "✓ the variance"),
    (check_sparse_weights, lambda *args: weights()(*args).requires_grad_(), "✓ the variance"),
    (check_leaky_alpha, lambda n, s: [2 / n, 2 / n], "return one number"),
    (check_momentum, fixed(momentum(), _3=0.2), "✗"),
    (check_momentum, fixed(momentum(), _4=0.9), "✗"),
    (check_momentum, fixed(momentum(), _5=0.3), "✗"),
    (check_momentum, fixed(momentum(), _6=0.7), "✗"),
    (check_momentum, fixed(momentum(), _7=25), "✗"),
    (check_momentum, lambda *args: [x.numpy() for x in momentum()(*args)], "✓ Algorithm 2"),
    (check_momentum, lambda *args: 3, "return two tensors"),
    (check_proxgd, fixed(proxgd(), _2=0.2), "✗"),
    (check_proxgd, fixed(proxgd(), _3=0.3), "✗"),
    (check_proxgd, lambda *args: proxgd()(*args).numpy(), "✓ ProxGD"),
    (check_proxgd, lambda *args: list(proxgd()(*args)), "✓ ProxGD"),
    (check_proxgd, lambda *args: proxgd()(*args).float(), "✓ ProxGD"),
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


@pytest.mark.parametrize("group", ["row", "kernel"])
@pytest.mark.parametrize(
    ("name", "said"), [("first", "every draw keeps much the same"), ("block", "neighbours")]
)
def test_masks_of_groups_are_random(name, group, said, capsys):
    def answer(*args):
        return (other_weights(name) if args[3] == group else weights())(*args)

    check_sparse_weights(answer)
    assert f"✗ {group}: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(("check", "answer", "said"), FAULTS)
def test_an_answer_is_told_its_fault(check, answer, said, capsys):
    check(answer)
    assert said in capsys.readouterr().out
