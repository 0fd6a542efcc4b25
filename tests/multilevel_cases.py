"""Networks from a sparse start, data and optimizers for the tests of multilevel training."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bregman import (
    L1,
    AdaBreg,
    ElasticNet,
    GroupL12,
    LinBreg,
    NonNegativeL1,
    SparseGroup,
    Zero,
    param_groups,
)
from bregman.suite.models import MLP

OPTIMIZERS = {
    "LinBreg": (LinBreg, dict(lr=0.1)),
    "momentum": (LinBreg, dict(lr=0.25, momentum=0.8, delta=2.0)),
    "AdaBreg": (AdaBreg, dict(lr=0.02, delta=0.5, betas=(0.8, 0.95), eps=1e-3)),
}
# of the linear and the convolution weights, and whether the biases are in the group of the first
REGULARIZERS = {
    "l1": (L1(0.05), None, False),
    "l1 with biases": (L1(0.05), None, True),
    "rows": (GroupL12(0.03, 1), None, False),
    "columns": (GroupL12(0.03, 0), None, False),
    "sparse rows": (SparseGroup(0.01, 0.02, 1), None, False),
    "elastic net": (ElasticNet(0.05, 0.1), None, False),
    "non-negative": (NonNegativeL1(0.03), None, False),
    "filters": (GroupL12(0.02, 1), GroupL12(0.02, (1, 2, 3)), False),
    "channels": (L1(0.05), GroupL12(0.02, (0, 2, 3)), False),
    "kernels": (L1(0.05), GroupL12(0.02, (2, 3)), False),
    "convolution entries": (None, L1(0.03), False),
    "only filters": (None, GroupL12(0.015, (1, 2, 3)), False),
}


def network(regs):
    linear, conv, _ = REGULARIZERS[regs]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if conv is None:
            model = MLP((64, 20, 15, 4)).double()
        else:
            model = nn.Sequential(
                nn.Conv2d(1, 6, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 5, 2), nn.Tanh(),
                nn.Flatten(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 4),
            ).double()  # fmt: skip
        with torch.no_grad():
            for p in model.parameters():
                reg = linear if p.dim() == 2 else conv if p.dim() == 4 else None
                if reg is not None:
                    dims = reg.blocks(p.dim())
                    sizes = [1 if d in dims else n for d, n in enumerate(p.shape)]
                    p.mul_(1.5 * (torch.rand(sizes) < 0.5))
                if isinstance(reg, NonNegativeL1):
                    p.abs_()
    return model


def build(optimizer, regs, **changes):
    model, (linear, conv, with_biases) = network(regs), REGULARIZERS[regs]
    cls, options = OPTIMIZERS[optimizer]
    groups = param_groups(model, linear=linear, conv=conv)
    if with_biases:
        groups = [{"params": [p for group in groups for p in group["params"]], "reg": linear}]
    return model, cls(groups, **{**options, **changes})


X = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
Y = torch.randint(4, (400,), generator=torch.Generator().manual_seed(2))


def minibatch_loss(model, k):
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(k))[:16]
    return F.cross_entropy(model(X[rows].to(next(model.parameters()).dtype)), Y[rows])


def train(model, optimizer, steps, start=0, before=lambda k: None):
    for k in range(start, start + steps):
        before(k)
        optimizer.zero_grad()
        minibatch_loss(model, k).backward()
        optimizer.step()


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def values(optimizer):
    """Copies of all parameters and states."""
    states = [s for p in parameters(optimizer) for s in optimizer.state[p].values()]
    return [t.detach().clone() for t in parameters(optimizer) + states]


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def assert_close(a, b, tolerance=1e-12):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def assert_in_subdifferential(optimizer):
    """v - theta/delta in dJ(theta), up to rounding."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            v, theta = optimizer.state[p]["subgrad"], p.detach()
            distance = group["reg"].subdiff_distance(v - theta / group["delta"], theta)
            assert distance <= 1e-14 * (1 + v.norm())


every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
every_path = pytest.mark.parametrize(
    ("regs", "path"),
    [
        *((regs, "masked") for regs in REGULARIZERS),
        *((regs, "csr") for regs in ("l1", "l1 with biases", "non-negative", "kernels")),
        *((regs, "gathered") for regs in ("rows", "columns", "sparse rows", "filters", "channels")),
        ("only filters", "gathered"),
        *((regs, "auto") for regs in ("elastic net", "filters", "kernels", "only filters")),
    ],
)


def rests(model, optimizer):
    """What rests in frozen steps: weights that meet constants, and the biases that these are.

    In the network above a filter gives as many inputs of the next layer as it has pixels there.
    """
    regs = {p: group["reg"] for group in optimizer.param_groups for p in group["params"]}
    layers = [layer for layer in model if hasattr(layer, "weight")]
    found = {}
    for before, layer in pairwise(layers):
        reg, weight = regs[before.weight], layer.weight
        of_rows = isinstance(reg, GroupL12) and 0 not in reg.blocks(before.weight.dim())
        free = isinstance(regs[before.bias], Zero)
        if of_rows and free and isinstance(regs[weight], GroupL12 | Zero):
            dead = ~(before.weight != 0).flatten(1).any(1)
            columns = dead.repeat_interleave(weight.shape[1] // len(dead))
            sizes = [1, -1] + [1] * (weight.dim() - 2)
            found[weight], found[before.bias] = columns.view(sizes).expand_as(weight), dead
    return found


def textbook(model, optimizer, m, steps, cut=(), catch_up=True, lr=lambda k: 1.0, until=None):
    """Multilevel training with full gradients and masks; ``optimizer`` is only read.

    ``until`` says for some parameters, by their numbers, from which step on they are not trained.
    Returns the parameters and their v, in the optimizer's order.
    """
    ada = isinstance(optimizer, AdaBreg)
    state = {}
    missed = m  # the first step is a full one
    n_full = 0
    for k in range(steps):
        gradients = torch.autograd.grad(minibatch_loss(model, k), parameters(optimizer))
        full = missed == m or k in cut
        n_full += full
        for number, (p, g) in enumerate(zip(parameters(optimizer), gradients, strict=True)):
            if k >= (until or {}).get(number, steps):
                continue
            group = next(group for group in optimizer.param_groups if p in set(group["params"]))
            reg, delta, tau = group["reg"], group["delta"], lr(k) * group["lr"]
            theta, zeros = p.detach(), torch.zeros_like(g)
            if p not in state:
                v = reg.subgrad(theta) + theta / delta
                everywhere = torch.ones_like(g, dtype=bool)
                state[p] = dict(v=v, m1=zeros, m2=zeros, inside=everywhere, resting=~everywhere)
            s = state[p]
            moving = torch.ones_like(s["inside"]) if full else s["inside"] & ~s["resting"]
            if ada:
                (b1, b2), t = group["betas"], k + 1
                s["m1"] = torch.where(moving, b1 * s["m1"] + (1 - b1) * g, s["m1"])
                s["m2"] = torch.where(moving, b2 * s["m2"] + (1 - b2) * g**2, s["m2"])
                step = s["m1"] / (1 - b1**t)
                step = tau * step / ((s["m2"] / (1 - b2**t)).sqrt() + group["eps"])
            else:
                beta = group["momentum"]
                s["m1"] = torch.where(moving, beta * s["m1"] + (1 - beta) * tau * g, s["m1"])
                step = s["m1"]
            dims = reg.blocks(p.dim())
            times = 1 + missed if catch_up and k and dims is not None else 1
            times, correction = math.sqrt(times) if ada else times, 1.0
            if ada:
                # the moments of what did not move have seen full steps alone
                first, second = ((1 - b**t) / (1 - b**n_full) for b in (b1, b2))
                correction = first / math.sqrt(second)
            count = moving.to(g)
            count[~s["inside"]] *= times
            count[s["resting"] | ~s["inside"]] *= correction
            s["v"] = s["v"] - step * count
            if full and dims is not None:
                # beyond the subdifferential at zero only the share of one step counts
                homogeneous = L1(reg.lam) if isinstance(reg, ElasticNet) else reg
                beyond = homogeneous.prox(s["v"], 1.0)
                kept = beyond / times
                s["v"] = torch.where(s["inside"], s["v"], s["v"] - beyond + kept)
            theta.copy_(reg.prox(delta * s["v"], delta))
            if full and p.dim() > 1 and dims is not None:
                blocks = theta != 0
                for d in dims:
                    blocks = blocks.any(d, keepdim=True)
                s["inside"] = blocks.expand_as(theta)
        if full:
            for p, resting in rests(model, optimizer).items():
                state[p]["resting"] = resting & state[p]["inside"]
        missed = 0 if full else missed + 1
    return [p.detach() for p in parameters(optimizer)], [s["v"] for s in state.values()]
