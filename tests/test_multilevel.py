"""The cycle against the textbook algorithm, and one path against the other."""

from dataclasses import dataclass

import pytest
import torch
from multilevel_cases import (
    OPTIMIZERS,
    X,
    Y,
    assert_close,
    assert_in_subdifferential,
    build,
    every_optimizer,
    every_path,
    minibatch_loss,
    parameters,
    same,
    textbook,
    train,
    values,
)
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bregman import (
    L1,
    AdaBreg,
    ElasticNet,
    GroupL12,
    LinBreg,
    Multilevel,
    Nuclear,
    ProxGD,
    param_groups,
)
from bregman.regularizers import Regularizer
from bregman.suite.models import MLP, ResNet18


@every_optimizer
@every_path
def test_follows_the_textbook(optimizer, regs, path):
    cut = (8, 21)  # here the cycle is ended in its middle
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 4, path=path)
    supports = []

    def look(k):
        if k in cut:
            assert cycle.frozen
            cycle.finish()
        if k:
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
    for _ in range(1000):
        if weight[1] != 0:
            break
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


@every_optimizer
@pytest.mark.parametrize("path", ["gathered", "auto", "csr"])
@pytest.mark.parametrize("dead", [0, 15, 16])
@pytest.mark.parametrize("kind", ["linear", "conv", "conv, then linear"])
def test_no_path_changes_what_is_trained(optimizer, path, dead, kind):
    """However many rows of the first layer are dead, be it all: weights differ by rounding."""

    def run(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = {
                "linear": lambda: MLP((64, 16, 8, 4)),
                "conv": lambda: nn.Sequential(
                    nn.Conv2d(1, 16, 5), nn.ReLU(), nn.Conv2d(16, 6, 3), nn.ReLU(), nn.Flatten(),
                    nn.Linear(24, 4),
                ),
                "conv, then linear": lambda: nn.Sequential(
                    nn.Conv2d(1, 16, 7), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
                    nn.Linear(8, 4),
                ),
            }[kind]().double()  # fmt: skip
        first = next(module for module in model if hasattr(module, "weight"))
        with torch.no_grad():
            first.weight[:dead] = 0
            first.bias.fill_(0.3)
        cls, options = OPTIMIZERS[optimizer]
        regs = {"linear": GroupL12(0.05, 1), "conv": GroupL12(0.05, (1, 2, 3))}
        ours = cls(param_groups(model, **regs), **options)
        cycle = Multilevel(model, ours, 4, path=path)
        train(model, ours, 14)
        cycle.finish()
        assert_in_subdifferential(ours)
        return values(ours)

    assert_close(run(path), run("masked"))


@dataclass(frozen=True)
class LogNorms(Regularizer):
    """J(x) = lam sum ||x_row||, as a user may write it; with w, what meets constants rests."""

    lam: float
    says_weight: bool

    def __call__(self, x):
        return self.lam * x.norm(dim=1).sum()

    def prox(self, x, step=1.0, *, out=None):
        norms = x.norm(dim=1, keepdim=True)
        shrunk = x * ((norms - step * self.lam).relu() / norms.clamp(min=1e-300))
        return shrunk if out is None else out.copy_(shrunk)

    def subgrad(self, x):
        return self.lam * x / x.norm(dim=1, keepdim=True).clamp(min=1e-300)

    def subdiff_distance(self, p, x):
        at_zero = (p.norm(dim=1) - self.lam).relu()
        elsewhere = (p - self.subgrad(x)).norm(dim=1)
        return torch.where(x.norm(dim=1) == 0, at_zero, elsewhere).norm()

    def blocks(self, ndim):
        return (1,)

    def norm_weight(self, size):
        return self.lam if self.says_weight else None


@every_optimizer
@pytest.mark.parametrize("path", ["masked", "gathered"])
def test_a_regularizer_of_a_users_own(optimizer, path):
    def run(reg):
        model, _ = build(optimizer, "rows")
        cls, options = OPTIMIZERS[optimizer]
        ours = cls(param_groups(model, linear=reg), **options)
        cycle = Multilevel(model, ours, 4, path=path)
        train(model, ours, 14)
        cycle.finish()
        assert_in_subdifferential(ours)
        assert set(cycle.paths.values()) == {path}
        return model, ours

    model, ours = run(LogNorms(0.1, False))
    twin, plain = build(optimizer, "rows")
    for group in plain.param_groups[:1]:
        group["reg"] = LogNorms(0.1, False)
    thetas, _ = textbook(twin, plain, 4, 14)
    assert_close([p.detach() for p in parameters(ours)], thetas)
    # where all rows are of one size it is GroupL12, and what rests there has to rest here
    sizes = {1: 64, 3: 20, 5: 15}
    model, ours = run(LogNorms(0.1, True))
    twin, _ = build(optimizer, "rows")
    groups = [
        {"params": [twin[i].weight], "reg": GroupL12(0.1 / n**0.5, 1)} for i, n in sizes.items()
    ]
    groups.append({"params": [twin[i].bias for i in sizes]})
    cls, options = OPTIMIZERS[optimizer]
    other = cls(groups, **options)
    cycle = Multilevel(twin, other, 4, path=path)
    train(twin, other, 14)
    cycle.finish()
    assert_close([p.detach() for p in model.parameters()], [p.detach() for p in twin.parameters()])


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
    full = max(p.numel() for p in model.parameters())
    train(model, ours, 2)
    assert cycle.frozen
    ours.zero_grad()
    with Largest() as largest:
        minibatch_loss(model, 2).backward()
        ours.step()
    # the batch is the largest: 16 samples of 64 entries
    assert max(cycle.trained.values()) <= largest.numel <= 16 * 64 < full


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
        (dict(path="fast"), ValueError, "path must be one of auto, masked, .* 'fast'"),
        (dict(reg=Nuclear(0.1)), ValueError, r"reg must be a sum over blocks .*Nuclear\(lam=0.1\)"),
        (dict(reg=None), ValueError, "optimizer must regularize the weight of a linear or conv"),
        (dict(optimizer=ProxGD), TypeError, "optimizer must be LinBreg or AdaBreg, got ProxGD"),
        (dict(optimizer=torch.optim.SGD), TypeError, "must be LinBreg or AdaBreg, got SGD"),
        (dict(wrap=nn.DataParallel), TypeError, "neither compiled nor wrapped .* got DataParallel"),
        (dict(wrap=torch.compile), TypeError, "neither compiled .*, got OptimizedModule"),
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


def test_sparse_products_need_a_cpu():
    model = MLP((4, 3, 2))
    optimizer = linbreg(model, L1(0.1))
    with pytest.raises(ValueError, match="'csr' needs a model on the cpu, got one on meta"):
        Multilevel(model.to("meta"), optimizer, 3, path="csr")


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
