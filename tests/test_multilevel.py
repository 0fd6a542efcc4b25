"""The cycle: against the textbook algorithm, and beside all that a training loop does."""

import copy
import io
import math
import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from bregman import (
    L1,
    AdaBreg,
    ElasticNet,
    GroupL12,
    LinBreg,
    Multilevel,
    NonNegativeL1,
    Nuclear,
    ProxGD,
    SparseGroup,
    SparsityTarget,
    Zero,
    param_groups,
)
from bregman.multilevel.supports import block_dims
from bregman.suite.models import MLP, ResNet18, SkipMLP
from bregman.suite.training import evaluate, fit

# ---------------------------------------------------------------------------------------------
# Networks from a sparse start, data, optimizers
# ---------------------------------------------------------------------------------------------

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
                    dims = block_dims(reg, p.dim())
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

# ---------------------------------------------------------------------------------------------
# What is computed
# ---------------------------------------------------------------------------------------------


def rests(model, optimizer):
    """What rests in frozen steps: weights that meet constants, and the biases that these are.

    In the network above a filter gives as many inputs of the next layer as it has pixels there.
    """
    regs = {p: group["reg"] for group in optimizer.param_groups for p in group["params"]}
    layers = [layer for layer in model if hasattr(layer, "weight")]
    found = {}
    for before, layer in pairwise(layers):
        reg, weight = regs[before.weight], layer.weight
        of_rows = isinstance(reg, GroupL12) and 0 not in block_dims(reg, before.weight.dim())
        free = isinstance(regs[before.bias], Zero)
        if of_rows and free and isinstance(regs[weight], GroupL12 | Zero):
            dead = ~(before.weight != 0).flatten(1).any(1)
            columns = dead.repeat_interleave(weight.shape[1] // len(dead))
            sizes = [1, -1] + [1] * (weight.dim() - 2)
            found[weight], found[before.bias] = columns.view(sizes).expand_as(weight), dead
    return found


def textbook(model, optimizer, m, steps, cut=(), catch_up=True, lr=lambda k: 1.0):
    """Multilevel training with full gradients and masks; ``optimizer`` is only read.

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
        for p, g in zip(parameters(optimizer), gradients, strict=True):
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
            dims = block_dims(reg, p.dim())
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


@every_optimizer
@every_path
def test_follows_the_textbook(optimizer, regs, path):
    cut = (8, 21)  # in the middle of a cycle: the cycle ends for an evaluation
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 4, path=path)
    supports = []

    def look(k):
        if k in cut:
            assert cycle.frozen
            model.eval()(X[:2])
            model.train()
        if not cycle.frozen and k:
            assert_in_subdifferential(ours)
            supports.append([(p != 0).detach().clone() for p in parameters(ours)])

    train(model, ours, 32, before=look)
    cycle.finish()
    assert len(supports) > 5
    assert not all(same(supports[0], later) for later in supports)

    model, optimizer = build(optimizer, regs)
    thetas, vs = textbook(model, optimizer, 4, 32, cut)
    assert_close([p.detach() for p in parameters(ours)], thetas)
    assert_close([ours.state[p]["subgrad"] for p in parameters(ours)], vs)


@pytest.mark.parametrize(("catch_up", "expected"), [(False, 10.0), (True, 1 + 9 * 5**0.5)])
def test_adabreg_moves_by_tau_where_the_gradient_is_constant(catch_up, expected):
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    optimizer = AdaBreg(model.parameters(), lr=0.01, reg=L1(10.0))
    cycle = Multilevel(model, optimizer, 4, path="masked", catch_up=catch_up)
    weight = model.weight
    for _ in range(50):
        optimizer.zero_grad()
        model(torch.tensor([[1.0, 1.0, -1.0]])).sum().backward()
        optimizer.step()
    cycle.finish()
    v = optimizer.state[weight]["subgrad"]
    torch.testing.assert_close(v[0, 1:] / 0.01, torch.tensor([-expected, expected]))


@pytest.mark.parametrize("optimizer", [LinBreg, AdaBreg])
@pytest.mark.parametrize("reg", [L1(0.5), GroupL12(0.5, 1), ElasticNet(0.5, 1.0)])
def test_a_block_enters_with_no_more_than_one_step(optimizer, reg):
    # after catch-up v may be 29 steps beyond the threshold
    model = torch.nn.Linear(1, 2, bias=False).double()
    weight = model.weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0], [0.0]]))
    optimizer = optimizer(model.parameters(), lr=0.01, reg=reg)
    cycle = Multilevel(model, optimizer, 29)
    while weight[1] == 0:
        assert cycle._steps < 1000
        optimizer.zero_grad()
        model(torch.ones(1, 1).double()).sum().backward()
        optimizer.step()
    assert not cycle.missed, "in a full step"
    assert 0 < -weight[1] <= 0.01 * (1 + 1e-6)
    cycle.finish()
    assert_in_subdifferential(optimizer)


@pytest.mark.parametrize("path", ["masked", "gathered"])
def test_biases_with_a_regularizer_do_not_rest_nor_what_meets_them(path):
    def made():
        model, optimizer = build("LinBreg", "rows")
        optimizer.param_groups[-1]["reg"] = L1(0.01)
        assert {p.dim() for p in optimizer.param_groups[-1]["params"]} == {1}
        return model, optimizer

    model, ours = made()
    cycle = Multilevel(model, ours, 4, path=path)
    train(model, ours, 14)
    cycle.finish()
    thetas, _ = textbook(*made(), 4, 14)
    assert_close([p.detach() for p in parameters(ours)], thetas)
    assert any((layer.weight == 0).all(1).any() for layer in (model[1], model[3]))


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters"])
def test_without_catch_up_a_full_step_counts_once(optimizer, regs):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 3, catch_up=False)
    train(model, ours, 14)
    cycle.finish()
    twin, plain = build(optimizer, regs)
    thetas, _ = textbook(twin, plain, 3, 14, catch_up=False)
    assert_close([p.detach() for p in parameters(ours)], thetas)


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters"])
@pytest.mark.parametrize("fused", [None, True])
def test_without_frozen_steps_it_is_the_optimizer_bit_for_bit(optimizer, regs, fused):
    (model, ours), (twin, plain) = (build(optimizer, regs, fused=fused) for _ in range(2))
    cycle = Multilevel(model, ours, 0)
    train(model, ours, 10)
    train(twin, plain, 10)
    assert same(values(ours), values(plain))
    assert not cycle.paths


@pytest.mark.parametrize("path", ["auto", "gathered"])
def test_batch_normalization_and_shortcuts(path):
    # rows of a residual network are no neurons of a chain: outputs get their full width again
    def run(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ResNet18(width=4, classes=4).double()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 4:
                    p[::2] = 0
        reg = GroupL12(0.01, (1, 2, 3))
        optimizer = LinBreg(param_groups(model, linear=GroupL12(0.01, 1), conv=reg), lr=0.05)
        cycle = Multilevel(model, optimizer, 3, path=path)
        for k in range(6):
            optimizer.zero_grad()
            images = X[4 * k : 4 * k + 4].expand(-1, 3, -1, -1)
            F.cross_entropy(model(images), Y[4 * k : 4 * k + 4]).backward()
            optimizer.step()
        cycle.finish()
        return list(model.state_dict().values()), set(cycle.paths.values())

    (found, paths), (expected, _) = run(path), run("masked")
    assert paths == {"gathered"}
    assert_close(found, expected, 1e-10)


# ---------------------------------------------------------------------------------------------
# What is not computed
# ---------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The largest number of entries of a tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, list | tuple) else [out]:
            if isinstance(t, torch.Tensor) and t.layout == torch.strided:
                self.numel = max(self.numel, t.numel())
        return out


@every_optimizer
@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("rows", "gathered")])
def test_frozen_steps_form_nothing_of_full_size(optimizer, regs, path):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 3, path=path)
    full = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    train(model, ours, 1)
    assert cycle.frozen
    small = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    for p, whole in zip(small, full, strict=True):
        assert p.numel() < whole.numel()
        assert {s.numel() for s in ours.state[p].values()} <= {p.numel(), 1}
    ours.zero_grad()
    with Largest() as largest:
        minibatch_loss(model, 1).backward()
        ours.step()
    assert all(p.grad is None for p in full)
    assert all(p.grad.shape == p.shape for p in small)
    # the batch is the largest: 16 samples of 64 entries
    assert max(p.numel() for p in small) <= largest.numel <= 16 * 64 < full[0].numel()


# ---------------------------------------------------------------------------------------------
# In the middle of a cycle
# ---------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters", "kernels"])
@pytest.mark.parametrize(
    "look",
    [
        lambda model, optimizer, cycle: evaluate(model, (X[:4], Y[:4]), F.cross_entropy),
        lambda model, optimizer, cycle: model.eval()(X[:4]),
        lambda model, optimizer, cycle: model.state_dict(),
        lambda model, optimizer, cycle: optimizer.state_dict(),
        lambda model, optimizer, cycle: cycle.state_dict(),
        lambda model, optimizer, cycle: cycle.finish(),
    ],
    ids=["evaluate", "eval", "model", "optimizer", "cycle", "finish"],
)
def test_whoever_looks_finds_whole_weights(optimizer, regs, look):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 5)
    whole, plain_forward = parameters(ours), [type(m).forward for m in model]
    train(model, ours, 4)
    assert cycle.frozen
    assert cycle.missed == 3
    look(model, ours, cycle)
    assert not cycle.frozen
    assert all(p is q for p, q in zip(parameters(ours), whole, strict=True))
    assert {id(p) for p in model.parameters()} == {id(p) for p in whole}
    assert set(ours.state) == set(whole)
    assert all(s.shape in (p.shape, ()) for p in whole for s in ours.state[p].values())
    assert_in_subdifferential(ours)
    assert [m.forward.__func__ for m in model] == plain_forward
    assert not model._forward_pre_hooks
    twin, plain = build(optimizer, regs)
    thetas, vs = textbook(twin, plain, 5, 4)
    assert_close([p.detach() for p in whole], thetas)
    assert_close([ours.state[p]["subgrad"] for p in whole], vs)


def test_outputs_are_the_same_before_and_after_the_cycle_ends():
    model, ours = build("LinBreg", "filters")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 4)
    before = model(X[:7])
    cycle.finish()
    torch.testing.assert_close(model(X[:7]), before, rtol=1e-12, atol=1e-12)


def test_a_gradient_that_waits_for_its_step_is_kept():
    (model, ours), (twin, plain) = (build("LinBreg", "l1") for _ in range(2))
    cycles = [Multilevel(model, ours, 5), Multilevel(twin, plain, 5, catch_up=False)]
    for net, optimizer in ((model, ours), (twin, plain)):
        train(net, optimizer, 3)
        optimizer.zero_grad()
        minibatch_loss(net, 3).backward()
    model.eval()(X[:2])
    ours.step()
    plain.step()
    for cycle in cycles:
        cycle.finish()
    assert_close(values(ours), values(plain))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize(("regs", "steps"), [("l1", 3), ("filters", 3), ("l1", 6), ("rows", 12)])
def test_a_copy_of_the_model_is_a_model_of_its_own(copied, regs, steps):
    model, ours = build("momentum", regs)
    cycle = Multilevel(model, ours, 5)
    train(model, ours, steps)
    twin = copied(model)
    torch.testing.assert_close(twin(X[:5]), model(X[:5]))
    expected = twin.eval()(X[:5])
    train(model, ours, 4, start=steps)
    assert torch.equal(twin(X[:5]), expected)
    whole = build("momentum", regs)[0].state_dict()
    assert {key: t.shape for key, t in twin.state_dict().items()} == {
        key: t.shape for key, t in whole.items()
    }
    cycle.finish()
    assert not torch.equal(model(X[:5]), expected)


def test_weights_edited_between_two_cycles():
    def run(path):
        model, ours = build("LinBreg", "l1")
        cycle = Multilevel(model, ours, 3, path=path)

        def edit(k):
            if k == 8:
                assert not cycle.frozen
                with torch.no_grad():
                    model[1].weight[:, :5] = 0.1
                    model[3].weight.mul_(0.5)
                ours.resync()

        train(model, ours, 12, before=edit)
        cycle.finish()
        return values(ours)

    assert_close(run("csr"), run("masked"))


# ---------------------------------------------------------------------------------------------
# What a training loop does besides
# ---------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("filters", "gathered")])
def test_a_run_through_fit_resumes_bit_for_bit(optimizer, regs, path, tmp_path):
    def run(epochs, checkpoint=None):
        model, ours = build(optimizer, regs)
        cycle = Multilevel(model, ours, 3, path=path)
        result = fit(
            model, ours, (X[:350], Y[:350]), (X[350:], Y[350:]), epochs=epochs, batch_size=32,
            generator=torch.Generator().manual_seed(5), stateful={"multilevel": cycle},
            scheduler=lr_scheduler.StepLR(ours, 2, 0.5), checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )  # fmt: skip
        return result.history, values(ours), cycle.missed

    expected = run(6)
    # eleven steps make an epoch, which ends in the middle of a cycle
    assert expected[2] == 2
    run(3, tmp_path / "run.ckpt")
    history, found, _ = run(6, tmp_path / "run.ckpt")
    assert history == expected[0]
    assert same(found, expected[1])


def test_state_dict_loads_with_torchs_default():
    model, ours = build("AdaBreg", "filters")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 4)
    file = io.BytesIO()
    torch.save(cycle.state_dict(), file)
    file.seek(0)
    twin, other = build("AdaBreg", "filters")
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    second = Multilevel(twin, other, 5)
    second.load_state_dict(torch.load(file))
    assert second.missed == 3
    for net, optimizer in ((model, ours), (twin, other)):
        train(net, optimizer, 1, start=4)
    cycle.finish()
    second.finish()
    assert same(values(ours), values(other))


def test_loading_in_the_middle_of_a_cycle():
    model, ours = build("momentum", "rows")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 6)
    stored = copy.deepcopy([part.state_dict() for part in (model, ours, cycle)])
    train(model, ours, 3, start=6)
    expected = model.state_dict()
    train(model, ours, 2, start=9)
    assert cycle.frozen
    for part, state in zip((model, ours, cycle), stored, strict=True):
        part.load_state_dict(state)
    train(model, ours, 3, start=6)
    assert_close(model.state_dict().values(), expected.values())


def test_the_learning_rate_of_every_step_counts():
    model, ours = build("momentum", "l1")
    cycle = Multilevel(model, ours, 3)
    scheduler = lr_scheduler.LambdaLR(ours, lambda k: 1 / (1 + k))
    for k in range(10):
        train(model, ours, 1, start=k)
        scheduler.step()
    cycle.finish()
    twin, plain = build("momentum", "l1")
    thetas, _ = textbook(twin, plain, 3, 10, lr=lambda k: 1 / (1 + k))
    assert_close([p.detach() for p in parameters(ours)], thetas)


def test_closures():
    (model, ours), (twin, plain) = (build("AdaBreg", "filters") for _ in range(2))
    cycles = [Multilevel(model, ours, 3), Multilevel(twin, plain, 3)]
    train(twin, plain, 9)
    for k in range(9):

        def closure(k=k):
            ours.zero_grad()
            loss = minibatch_loss(model, k)
            loss.backward()
            return loss.item()

        assert ours.step(closure) > 0
    for cycle in cycles:
        cycle.finish()
    assert same(values(ours), values(plain))


def test_clipping_and_grad_scaler_see_the_small_gradients():
    def run(scaler):
        model, ours = build("LinBreg", "rows")
        cycle = Multilevel(model, ours, 3)
        for k in range(10):
            ours.zero_grad()
            loss = minibatch_loss(model, k)
            if k == 6:  # one that the scaler skips
                loss = loss * (torch.inf if scaler.is_enabled() else 0)
            scaler.scale(loss).backward()
            scaler.unscale_(ours)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            if k != 6 or scaler.is_enabled():
                scaler.step(ours)
            scaler.update()
        cycle.finish()
        return values(ours)

    scalers = [torch.amp.GradScaler("cpu", 1024.0, enabled=enabled) for enabled in (True, False)]
    assert_close(*map(run, scalers))


@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("filters", "gathered")])
def test_autocast(regs, path):
    def run(path):
        model, _ = build("LinBreg", regs)
        model.float()
        linear, conv, _ = REGULARIZERS[regs]
        ours = LinBreg(param_groups(model, linear=linear, conv=conv), lr=0.1)
        cycle = Multilevel(model, ours, 3, path=path)
        for k in range(10):
            ours.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = minibatch_loss(model, k)
            loss.backward()
            ours.step()
        cycle.finish()
        return [p.detach() for p in parameters(ours)]

    # products in another precision, or of numbers that were rounded to 8 bits
    assert_close(run(path), run("masked"), 0.05)


def test_a_group_added_later_is_frozen_from_its_first_step_on():
    (model, ours), (twin, plain) = (build("LinBreg", "l1") for _ in range(2))
    for net, optimizer in ((model, ours), (twin, plain)):
        del optimizer.param_groups[0]["params"][2]
        cycle = Multilevel(net, optimizer, 3, path="csr")
        train(net, optimizer, 3)
        assert cycle.paths["5"] == "dense: its weight had no step of the optimizer"
        optimizer.add_param_group({"params": [net[5].weight], "reg": L1(0.02), "lr": 0.05})
        train(net, optimizer, 3, start=3)
        assert cycle.paths["5"] == "csr"
        cycle.finish()
        assert_in_subdifferential(optimizer)


def test_a_regularizer_replaced_within_a_cycle():
    model, ours = build("LinBreg", "l1")
    cycle = Multilevel(model, ours, 4)
    train(model, ours, 8)
    assert cycle.frozen
    for lam in (0.01, 0.2):
        ours.param_groups[0]["reg"] = replace(ours.param_groups[0]["reg"], lam=lam)
        train(model, ours, 1, start=8)
        cycle.finish()
        assert_in_subdifferential(ours)
        train(model, ours, 2, start=9)


def test_sparsity_on_target_between_two_cycles():
    model, ours = build("LinBreg", "l1")
    cycle = Multilevel(model, ours, 4)
    target = SparsityTarget(ours, 0.1, every=1)
    ours.register_step_post_hook(lambda *_: cycle.frozen or target.step())
    train(model, ours, 100)
    assert not cycle.frozen
    assert target.steps == 20
    assert_in_subdifferential(ours)
    weights = torch.cat([p.detach().flatten() for p in ours.param_groups[0]["params"]])
    assert 0.05 < weights.count_nonzero() / len(weights) < 0.15


def test_regularized_parameters_outside_of_layers_with_a_path_stay_dense_and_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(1, 3, 3), nn.Flatten(), nn.Linear(300, 4)).double()
    groups = [
        {"params": [model[0].weight, model[2].weight], "reg": L1(0.01)},
        {"params": [model[0].bias, model[2].bias]},
    ]
    cycle = Multilevel(model, LinBreg(groups, lr=0.1), 3, path="csr")
    assert cycle.paths == {"0.weight": "dense: outside of linear and convolution layers"}
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    for _ in range(3):
        before = model[0].weight.detach().clone()
        cycle.optimizer.zero_grad()
        model(images).square().mean().backward()
        cycle.optimizer.step()
        assert not torch.equal(model[0].weight, before), "it moves in frozen steps as in full ones"
    assert cycle.frozen
    assert cycle.paths["2"] == "csr"
    assert model[0].weight.shape == (1, 3, 3, 3)


def test_layers_that_cannot_be_frozen_take_full_steps():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(2 * x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 8), Own(8, 8), nn.Linear(8, 8)
            self.d, self.e = nn.Linear(8, 8), nn.Linear(8, 4)
            self.d.weight = self.c.weight
            self.e.weight.requires_grad_(False)

        def forward(self, x):
            return self.e(self.d(self.c(self.b(self.a(x.flatten(1))).relu()).relu()))

    model = Net().double()
    ours = LinBreg(param_groups(model, linear=L1(0.01)), lr=0.1)
    cycle = Multilevel(model, ours, 3, path="csr")
    before = [p.detach().clone() for p in model.parameters()]
    train(model, ours, 2)
    cycle.finish()
    assert cycle.paths == {
        "a": "csr",
        "b": "dense: Own may have a forward of its own",
        "c": "dense: its weight is shared",
        "d": "dense: its weight is shared",
        "e": "dense: its weight had no step of the optimizer",
    }
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert changed.count(False) == 1


def test_scalars_between_layers_take_part():
    def run(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SkipMLP(64, depth=2, classes=4).double()
        ours = LinBreg(model.param_groups(GroupL12(0.03, 1), skips=L1(0.001)), lr=0.1)
        cycle = Multilevel(model, ours, 3, path=path)
        train(model, ours, 9)
        cycle.finish()
        assert_in_subdifferential(ours)
        return values(ours)

    assert_close(run("gathered"), run("masked"))


# ---------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------


def linbreg(model, reg):
    return LinBreg(param_groups(model, linear=reg), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(frozen_steps=-1), ValueError, "must be an integer of at least 0, got -1"),
        (dict(frozen_steps=2.5), ValueError, "frozen_steps must be an integer .*, got 2.5"),
        (dict(path="fast"), ValueError, "path must be one of auto, masked, csr, .* 'fast'"),
        (dict(reg=Nuclear(0.1)), ValueError, r"reg must be a sum over blocks .*Nuclear\(lam=0.1\)"),
        (dict(reg=None), ValueError, "optimizer must regularize the weight of a linear or conv"),
        (dict(optimizer=ProxGD), TypeError, "optimizer must be LinBreg or AdaBreg, got ProxGD"),
        (dict(optimizer=torch.optim.SGD), TypeError, "must be LinBreg or AdaBreg, got SGD"),
        (dict(wrap=nn.DataParallel), TypeError, "neither compiled nor wrapped .* got DataParallel"),
        (dict(wrap=torch.compile), TypeError, "neither compiled .*, got OptimizedModule"),
        (dict(device="meta", path="csr"), ValueError, "'csr' needs a model on the cpu, got"),
    ],
)  # fmt: skip
def test_bad_input(arguments, error, message):
    model = MLP((4, 3, 2))
    if "optimizer" in arguments:
        optimizer = arguments["optimizer"](model.parameters(), lr=0.1)
    else:
        optimizer = linbreg(model, arguments.get("reg", L1(0.1)))
    if "device" in arguments:  # in place of a GPU; after the optimizer, which takes no meta tensors
        for p in model.parameters():
            torch.utils.swap_tensors(p, nn.Parameter(p.detach().to(arguments["device"])))
    model = arguments.get("wrap", lambda model: model)(model)
    options = {"path": arguments.get("path", "auto")}
    with pytest.raises(error, match=message):
        Multilevel(model, optimizer, arguments.get("frozen_steps", 3), **options)


def test_a_module_compiled_in_place():
    model = MLP((4, 3, 2))
    model.compile()
    with pytest.raises(TypeError, match="neither compiled"):
        Multilevel(model, linbreg(model, L1(0.1)), 3)


def test_a_bad_regularizer_added_later_raises_at_its_first_full_step():
    model, ours = build("LinBreg", "l1")
    del ours.param_groups[0]["params"][2]
    cycle = Multilevel(model, ours, 1)
    train(model, ours, 2)
    ours.add_param_group({"params": [model[5].weight], "reg": Nuclear(0.1)})
    with pytest.raises(ValueError, match="reg must be a sum over blocks"):
        train(model, ours, 1, start=2)
    assert not cycle.frozen
    assert_in_subdifferential(ours)
