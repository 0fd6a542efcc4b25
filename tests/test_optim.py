"""One contract table: every optimizer and regularizer against every property."""

import copy
import io
import pickle
import warnings
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import reference
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from bregman import L1, AdaBreg, GroupL12, LinBreg, ProxGD, Regularizer, Zero

# ---------------------------------------------------------------------------------------------
# The table: optimizer, options and the same algorithm in the reference; regularizers per parameter
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    optimizer: type
    options: dict
    reference: object


OPTIMIZERS = {
    "LinBreg": Config(LinBreg, dict(lr=0.25), reference.linbreg),
    "LinBreg delta": Config(LinBreg, dict(lr=0.25, delta=2.0), partial(reference.linbreg, delta=2)),
    "LinBreg momentum": Config(LinBreg, dict(lr=0.25, momentum=0.9), reference.linbreg_momentum),
    "LinBreg momentum delta": Config(
        LinBreg,
        dict(lr=0.2, momentum=0.7, delta=0.6),
        partial(reference.linbreg_momentum, beta=0.7, delta=0.6),
    ),
    "AdaBreg": Config(AdaBreg, dict(lr=0.02), reference.adabreg),
    "AdaBreg delta": Config(
        AdaBreg,
        dict(lr=0.02, betas=(0.8, 0.99), eps=1e-3, delta=2.0),
        partial(reference.adabreg, beta1=0.8, beta2=0.99, eps=1e-3, delta=2),
    ),
    "ProxGD": Config(ProxGD, dict(lr=0.25), reference.proxgd),
}
BREGMAN = [name for name in OPTIMIZERS if name != "ProxGD"]
REGULARIZERS = ["l1", "groups"]


def regularizers(name, regs):
    """Of the conv weight, the linear weight and the two biases: the package's, the reference's."""
    if regs == "l1":  # ProxGD's are smaller, since the others add gradients up in v
        conv, linear = (0.03, 0.02) if name == "ProxGD" else (0.3, 0.2)
        ours = L1(conv), L1(linear)
        theirs = reference.J(conv), reference.J(linear)
    else:
        conv, linear = (0.025, 0.017) if name == "ProxGD" else (0.7, 0.35)
        ours = GroupL12(conv, dim=(2, 3)), GroupL12(linear, dim=1)
        theirs = reference.J(conv, (2, 3)), reference.J(linear, (1,))
    return [*ours, None], [*theirs, reference.J(0.0), reference.J(0.0)]


every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
every_bregman = pytest.mark.parametrize("name", BREGMAN)
every_regularizer = pytest.mark.parametrize("regs", REGULARIZERS)
every_kernel = pytest.mark.parametrize("fused", [None, False, True], ids="fused={}".format)


def make_model(dtype=torch.float32):
    """A conv and a linear layer from a sparse start: zero entries, zero kernels, zero rows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5))
        model = model.to(dtype)
        with torch.no_grad():
            for layer in (model[0], model[3]):
                layer.weight.mul_(2 * (torch.rand_like(layer.weight) < 0.5))
                layer.weight[1:3] = 0
    return model


def groups_of(model, conv=None, linear=None, rest=None):
    return [
        dict(params=[model[0].weight], reg=conv),
        dict(params=[model[3].weight], reg=linear),
        dict(params=[model[0].bias, model[3].bias], reg=rest),
    ]


def build(name, regs="l1", dtype=torch.float32, model=None, **options):
    model = make_model(dtype) if model is None else model
    groups = groups_of(model, *regularizers(name, regs)[0])
    return model, OPTIMIZERS[name].optimizer(groups, **{**OPTIMIZERS[name].options, **options})


DATA = np.random.default_rng(1)
X = torch.tensor(DATA.normal(size=(64, 2, 5, 5)))
Y = torch.tensor(DATA.integers(0, 5, size=64))


def minibatch_loss(model, k):
    rows = np.random.default_rng(k).permutation(64)[:8]
    return F.cross_entropy(model(X[rows].to(next(model.parameters()).dtype)), Y[rows])


def train(model, optimizer, steps, start=0, after=lambda k: None):
    for k in range(start, start + steps):
        optimizer.zero_grad()
        minibatch_loss(model, k).backward()
        optimizer.step()
        after(k)


def parameters(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def values(optimizer):
    """Copies of all that a step may change: parameters, then states."""
    states = [s for p in parameters(optimizer) for s in optimizer.state.get(p, {}).values()]
    return [t.detach().clone() for t in parameters(optimizer) + states]


def same(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def assert_in_subdifferential(optimizer):
    """v - theta/delta in dJ(theta), up to rounding: what makes an iteration a Bregman one."""
    for group in optimizer.param_groups:
        for p in group["params"]:
            v, theta = optimizer.state[p]["subgrad"], p.detach()
            distance = group["reg"].subdiff_distance(v - theta / group["delta"], theta)
            tolerance = 10 * torch.finfo(p.dtype).eps * (1 + v.norm())
            assert distance <= tolerance


def load_default(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file)


# ---------------------------------------------------------------------------------------------
# What is computed
# ---------------------------------------------------------------------------------------------


def wobbly(k):
    return 1 + 0.5 * np.sin(k)


@cache
def reference_run(name, regs):
    """The first and the last of 100 iterates of the reference, on gradients at its own iterates."""
    model = make_model(torch.float64)
    params = [p for group in groups_of(model) for p in group["params"]]
    algorithms = [
        OPTIMIZERS[name].reference(p.detach().numpy().copy(), J)
        for p, J in zip(params, regularizers(name, regs)[1], strict=True)
    ]
    start = thetas = [next(algorithm) for algorithm in algorithms]
    for k in range(100):
        with torch.no_grad():
            for p, theta in zip(params, thetas, strict=True):
                p.copy_(torch.from_numpy(theta))
        gradients = torch.autograd.grad(minibatch_loss(model, k), params)
        tau = OPTIMIZERS[name].options["lr"] * wobbly(k)
        thetas = [a.send((g.numpy(), tau)) for a, g in zip(algorithms, gradients, strict=True)]
    return start, thetas


@every_kernel
@every_regularizer
@every_optimizer
def test_follows_the_paper_for_100_steps(name, regs, fused):
    """Against the slow reference, on minibatches and with a step size that changes every step."""
    model, optimizer = build(name, regs, torch.float64, fused=fused)
    schedule = lr_scheduler.LambdaLR(optimizer, wobbly)
    train(model, optimizer, 100, after=lambda k: schedule.step())
    start, end = reference_run(name, regs)
    for p, theta in zip(parameters(optimizer), end, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), theta, rtol=1e-9, atol=1e-12)
        assert np.array_equal(p.detach().numpy() == 0, theta == 0)
    # some groups ended above the threshold, some below, and some crossed it
    before, after = (
        [
            bool(theta[g].any())
            for theta, J in zip(thetas, regularizers(name, regs)[1], strict=True)
            for g in reference.groups(theta.shape, J.dim)
            if J.lam
        ]
        for thetas in (start, end)
    )
    message = "the options must let some groups become non-zero, and not all: try another lr"
    assert 0 < sum(after) < len(after), message
    assert before != after, message


class Kernels(TorchDispatchMode):
    """Record the names of the operations that run."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names = [*getattr(self, "names", []), func.name()]
        return func(*args, **(kwargs or {}))


@every_kernel
@every_optimizer
def test_fused_is_the_choice_of_torchs_kernel(name, fused):
    model, optimizer = build(name, fused=fused)
    minibatch_loss(model, 0).backward()
    with Kernels() as kernels:
        optimizer.step()
    adam = OPTIMIZERS[name].optimizer is AdaBreg
    found = {kernel for kernel in kernels.names if "_fused_" in kernel}
    # on a CPU Adam's fused kernel is the default, by far the fastest
    uses = fused or (fused is None and adam)
    assert found == ({f"aten::_fused_{'adam' if adam else 'sgd'}_"} if uses else set())


@pytest.mark.parametrize("maximize", [False, True])
@every_kernel
@pytest.mark.parametrize(
    ("ours", "theirs", "lr"),
    [
        (LinBreg, torch.optim.SGD, 0.1),
        (ProxGD, torch.optim.SGD, 0.1),
        (AdaBreg, torch.optim.Adam, 1e-2),
    ],
)
def test_without_regularizer_it_is_torchs_optimizer_bit_for_bit(ours, theirs, lr, fused, maximize):
    models = make_model(), make_model()
    torchs = True if ours is AdaBreg and fused is None else fused
    for model, cls, kernel in zip(models, (ours, theirs), (fused, torchs), strict=True):
        train(model, cls(model.parameters(), lr=lr, fused=kernel, maximize=maximize), 20)
    assert same(list(models[0].parameters()), list(models[1].parameters()))
    assert not torch.equal(models[0][0].weight, make_model()[0].weight)


def test_momentum_is_torchs_dampened_form_at_constant_learning_rate():
    # torch sets the first buffer to g, the paper to (1 - beta) tau g: level it by a zero g
    models = make_model(torch.float64), make_model(torch.float64)
    ours = LinBreg(models[0].parameters(), lr=0.3, momentum=0.9)
    theirs = torch.optim.SGD(models[1].parameters(), lr=0.3, momentum=0.9, dampening=0.9)
    for model, optimizer in zip(models, (ours, theirs), strict=True):
        (0 * minibatch_loss(model, 0)).backward()
        optimizer.step()
        train(model, optimizer, 30)
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-13)


@every_kernel
def test_momentum_of_a_tiny_learning_rate(fused):
    # tau stands inside the average, where 1 - (1 - tau) would lose its digits
    p = nn.Parameter(torch.zeros(3))
    optimizer = LinBreg([p], lr=1e-6, momentum=0.9, fused=fused)
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), -1e-7), rtol=1e-6, atol=0)


def test_delta_alone_scales_the_learning_rate():
    # J = 0 gives SGD with learning rate delta tau (section 2)
    models = make_model(torch.float64), make_model(torch.float64)
    train(models[0], LinBreg(models[0].parameters(), lr=0.1, delta=3.0), 20)
    train(models[1], torch.optim.SGD(models[1].parameters(), lr=0.3), 20)
    for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_regularizer
@every_bregman
def test_v_stays_a_subgradient(name, regs, dtype):
    model, optimizer = build(name, regs, dtype)
    train(model, optimizer, 40, after=lambda k: assert_in_subdifferential(optimizer))
    assert any((p == 0).any() for p in parameters(optimizer))
    assert all(p.dtype == s.dtype for p in parameters(optimizer)
               for key, s in optimizer.state[p].items() if key != "step")  # fmt: skip


@every_regularizer
@every_optimizer
def test_maximize_is_minimizing_the_negative(name, regs):
    runs = [build(name, regs, maximize=maximize) for maximize in (False, True)]
    for sign, (model, optimizer) in zip((1, -1), runs, strict=True):
        for k in range(10):
            optimizer.zero_grad()
            (sign * minibatch_loss(model, k)).backward()
            optimizer.step()
    assert same(values(runs[0][1]), values(runs[1][1]))


@pytest.mark.parametrize(("reg", "seed"), [(L1(5.0), 0), (GroupL12(0.5, dim=1), 1)])
@pytest.mark.parametrize(("momentum", "delta"), [(0.0, 1.0), (0.9, 1.0), (0.0, 2.0)])
def test_linbreg_solves_the_constrained_problem(reg, seed, momentum, delta):
    """min J_delta s.t. A x = b, and for l1 with a large lam the sparsest: basis pursuit."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(12, 24)) / np.sqrt(12)
    x_true = np.zeros((8, 3))
    x_true[[1, 6]] = (
        rng.normal(size=(2, 3)) if isinstance(reg, GroupL12) else [[1, 0, 0], [0, -2, 0]]
    )
    b = A @ x_true.ravel()
    x = nn.Parameter(torch.zeros(8, 3, dtype=torch.float64))
    optimizer = LinBreg([x], lr=1 / (delta * np.linalg.norm(A, 2) ** 2), reg=reg,
                        momentum=momentum, delta=delta)  # fmt: skip
    A_t, b_t = torch.tensor(A), torch.tensor(b)
    for _ in range(3000):
        x.grad = (A_t.T @ (A_t @ x.detach().ravel() - b_t)).reshape(8, 3)
        optimizer.step()

    cp = pytest.importorskip("cvxpy")  # here, for the distributed workers to start without it
    z = cp.Variable((8, 3))
    J = cp.sum(cp.norm1(z) if isinstance(reg, L1) else np.sqrt(3) * cp.norm2(z, axis=1))
    objective = reg.lam * J + cp.sum_squares(z) / (2 * delta)
    cp.Problem(cp.Minimize(objective), [A @ cp.vec(z, order="C") == b]).solve(
        cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    np.testing.assert_allclose(x.detach().numpy(), z.value, rtol=0, atol=1e-5)
    if isinstance(reg, L1):
        linprog = pytest.importorskip("scipy.optimize").linprog
        pursuit = linprog(np.ones(48), A_eq=np.hstack([A, -A]), b_eq=b).x
        pursuit = (pursuit[:24] - pursuit[24:]).reshape(8, 3)
        np.testing.assert_allclose(x.detach().numpy(), pursuit, rtol=0, atol=1e-5)
        assert np.array_equal(x.detach().numpy() != 0, np.abs(pursuit) > 1e-9)


@pytest.mark.parametrize("reg", [L1(5.0), GroupL12(5.0, dim=1)], ids=["l1", "groups"])
def test_proxgd_solves_the_lasso(reg):
    rng = np.random.default_rng(0)
    A, b = rng.normal(size=(40, 24)), rng.normal(size=40)
    x = nn.Parameter(torch.zeros(8, 3, dtype=torch.float64))
    optimizer = ProxGD([x], lr=1 / np.linalg.norm(A, 2) ** 2, reg=reg)
    for _ in range(1000):
        optimizer.zero_grad()
        ((torch.tensor(A) @ x.ravel() - torch.tensor(b)).square().sum() / 2).backward()
        optimizer.step()

    cp = pytest.importorskip("cvxpy")
    z = cp.Variable((8, 3))
    J = cp.sum(cp.norm1(z) if isinstance(reg, L1) else np.sqrt(3) * cp.norm2(z, axis=1))
    loss = cp.sum_squares(A @ cp.vec(z, order="C") - b) / 2
    cp.Problem(cp.Minimize(loss + reg.lam * J)).solve(
        cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    np.testing.assert_allclose(x.detach().numpy(), z.value, rtol=0, atol=1e-5)
    assert 0 < x.count_nonzero() < 24


# ---------------------------------------------------------------------------------------------
# A torch optimizer: closures, groups, gradients, hooks
# ---------------------------------------------------------------------------------------------


@every_optimizer
def test_closure_is_called_once_and_its_value_returned(name):
    (model, optimizer), (twin, plain) = build(name), build(name)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = minibatch_loss(model, len(calls))
        loss.backward()  # needs gradients switched on, wherever step is called
        calls.append(loss)
        return loss

    for k in range(3):
        with torch.no_grad():
            assert optimizer.step(closure) is calls[k]
    assert len(calls) == 3
    train(twin, plain, 3)
    assert same(values(optimizer), values(plain))
    assert optimizer.step() is None


@every_optimizer
def test_options_of_a_group_are_its_own(name):
    """Three groups with options of their own do as three optimizers would."""
    cls = OPTIMIZERS[name].optimizer
    options = [dict(lr=0.1, reg=L1(0.01)), dict(lr=0.4), dict(reg=L1(0.3))]
    if cls is not ProxGD:
        options[0]["delta"], options[1]["delta"] = 3.0, 0.5
    if cls is LinBreg:
        options[1]["momentum"], options[2]["momentum"] = 0.5, 0.0
    if cls is AdaBreg:
        options[1]["betas"], options[2]["eps"] = (0.5, 0.6), 0.1
    options[2]["maximize"] = True
    together = [nn.Parameter(torch.linspace(-1, 1, 6)) for _ in options]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    defaults = OPTIMIZERS[name].options
    one = cls([{**o, "params": [p]} for o, p in zip(options, together, strict=True)], **defaults)
    many = [cls([p], **{**defaults, **o}) for o, p in zip(options, alone, strict=True)]
    for k in range(5):
        for p in together + alone:
            p.grad = torch.cos(torch.arange(6.0) + k)
        for optimizer in (one, *many):
            optimizer.step()
    assert same(together, alone)
    assert not same(together[:1], together[1:2])


@every_optimizer
def test_group_added_later(name):
    """It starts from its own v, moments and step count."""
    model, optimizer = build(name)
    train(model, optimizer, 3)
    late, fresh = (nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(2))
    optimizer.add_param_group(dict(params=late, reg=L1(0.1), lr=0.2))
    other = OPTIMIZERS[name].optimizer(
        [fresh], **{**OPTIMIZERS[name].options, "lr": 0.2}, reg=L1(0.1)
    )
    for k in range(4):
        late.grad = fresh.grad = torch.cos(torch.arange(6.0) + k)
        optimizer.step()
        other.step()
    assert torch.equal(late, fresh)
    assert not torch.equal(late, torch.linspace(-1, 1, 6))


@every_regularizer
@every_optimizer
def test_parameter_without_gradient_is_left_alone(name, regs):
    model, optimizer = build(name, regs)
    idle = model[3].weight
    before_any_step = idle.detach().clone()
    minibatch_loss(model, 0).backward()
    idle.grad = None
    optimizer.step()
    assert torch.equal(idle, before_any_step)
    assert not optimizer.state.get(idle)

    train(model, optimizer, 3)
    before, state = idle.detach().clone(), copy.deepcopy(optimizer.state[idle])
    moving = model[0].weight.detach().clone()
    minibatch_loss(model, 5).backward()
    idle.grad = None
    optimizer.step()
    assert torch.equal(idle, before)
    assert same(list(optimizer.state[idle].values()), list(state.values()))
    assert not torch.equal(model[0].weight, moving)


@every_optimizer
def test_no_gradient_at_all(name):
    _, optimizer = build(name)
    before = values(optimizer)
    optimizer.step()
    assert same(values(optimizer), before)


@every_kernel
@every_regularizer
@every_optimizer
def test_gradients_are_read_only(name, regs, fused):
    for maximize in (False, True):
        model, optimizer = build(name, regs, fused=fused, maximize=maximize)
        for k in range(3):
            optimizer.zero_grad()
            minibatch_loss(model, k).backward()
            grads = [(p.grad, p.grad.clone()) for p in model.parameters()]
            optimizer.step()
            for p, (grad, before) in zip(model.parameters(), grads, strict=True):
                assert p.grad is grad
                assert torch.equal(grad, before)


@every_optimizer
def test_zero_grad(name):
    model, optimizer = build(name)
    minibatch_loss(model, 0).backward()
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad.count_nonzero() == 0 for p in model.parameters())
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@every_optimizer
def test_hooks_fire_exactly_once(name):
    model, optimizer = build(name)
    fired = []
    optimizer.register_step_pre_hook(lambda *_: fired.append("before"))
    optimizer.register_step_post_hook(lambda *_: fired.append("after"))
    optimizer.register_state_dict_post_hook(lambda *_: fired.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda *_: fired.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda *_: fired.append("loaded"))
    train(model, optimizer, 1)
    assert fired == ["before", "after"]
    optimizer.load_state_dict(optimizer.state_dict())
    assert fired[2:] == ["saved", "loading", "loaded"]


@every_optimizer
def test_named_parameters(name):
    model, twin = make_model(), make_model()
    cls, options = OPTIMIZERS[name].optimizer, OPTIMIZERS[name].options
    named = cls(model.named_parameters(), reg=L1(0.05), **options)
    plain = cls(twin.parameters(), reg=L1(0.05), **options)
    assert named.param_groups[0]["param_names"] == [key for key, _ in model.named_parameters()]
    train(model, named, 3)
    train(twin, plain, 3)
    assert same(values(named), values(plain))
    state = load_default(named.state_dict())
    cls(make_model().named_parameters(), **options).load_state_dict(state)


@every_kernel
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("LinBreg", {"subgrad"}),
        ("LinBreg momentum", {"subgrad", "momentum_buffer"}),
        ("AdaBreg", {"subgrad", "exp_avg", "exp_avg_sq", "step"}),
        ("ProxGD", set()),
    ],
)
def test_names_and_number_of_state_tensors(name, keys, fused):
    model, optimizer = build(name, fused=fused)
    train(model, optimizer, 3)
    for p in parameters(optimizer):
        state = optimizer.state.get(p, {})
        assert set(state) == keys
        for key, s in state.items():
            assert s.shape == (() if key == "step" else p.shape)
            assert s.data_ptr() != p.data_ptr()
        assert state.get("step", 3) == 3


# ---------------------------------------------------------------------------------------------
# Memory: nothing moves, any layout will do
# ---------------------------------------------------------------------------------------------


@every_kernel
@every_regularizer
@every_optimizer
def test_parameters_keep_their_storage(name, regs, fused):
    model = make_model().to(memory_format=torch.channels_last)
    model, optimizer = build(name, regs, model=model, fused=fused)
    places = [(p.data_ptr(), p.stride(), p._version) for p in parameters(optimizer)]
    row, start = model[3].weight.detach()[0], model[3].weight[0].detach().clone()
    train(model, optimizer, 3)
    for p, (pointer, stride, version) in zip(parameters(optimizer), places, strict=True):
        assert (p.data_ptr(), p.stride()) == (pointer, stride)
        assert p._version > version  # autograd notices that a saved weight has changed
        assert p.is_leaf
        assert p.requires_grad
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(row, model[3].weight[0])
    assert not torch.equal(row, start)


def as_channels_last(p):
    return p.to(memory_format=torch.channels_last) if p.dim() == 4 else p.clone()


def as_transposed(p):
    return p.mT.contiguous().mT if p.dim() > 1 else p.clone()


def as_view_of_a_flat_buffer(p):
    buffer = torch.full((p.numel() + 2,), 7.0, dtype=p.dtype)
    return buffer[1:-1].view(p.shape).copy_(p)


def as_slice(p):
    return torch.full((*p.shape, 2), 7.0, dtype=p.dtype)[..., 0].copy_(p)


@every_kernel
@pytest.mark.parametrize(
    "layout", [as_channels_last, as_transposed, as_view_of_a_flat_buffer, as_slice]
)
@every_regularizer
@every_optimizer
def test_any_memory_layout(name, regs, layout, fused):
    if layout is as_slice and fused and name == "ProxGD":
        pytest.skip("torch's fused kernels step on dense parameters only")
    model = make_model(torch.float64)
    for layer in (model[0], model[3]):
        for key in ("weight", "bias"):
            setattr(layer, key, nn.Parameter(layout(getattr(layer, key).detach())))
    model, optimizer = build(name, regs, model=model, fused=fused)
    twin, plain = build(name, regs, torch.float64)
    train(model, optimizer, 10)
    train(twin, plain, 10)
    for p, q in zip(parameters(optimizer), parameters(plain), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
        if layout in (as_view_of_a_flat_buffer, as_slice):  # the neighbours are untouched
            storage = torch.tensor([], dtype=p.dtype).set_(p.untyped_storage())
            assert (storage == 7).sum() == (2 if layout is as_view_of_a_flat_buffer else p.numel())


@pytest.mark.parametrize("shape", [(4, 2, 3, 3), (4, 1, 3, 3), (4, 2, 1, 1), (1, 1, 3, 3)], ids=str)
@pytest.mark.parametrize("reg", [None, L1(0.1), GroupL12(0.1, (2, 3)), GroupL12(0.1, (1, 2, 3))])
@pytest.mark.parametrize("name", BREGMAN)
def test_state_has_the_parameters_strides(name, reg, shape):
    # to the letter, also where a dimension has size 1: the fused CUDA kernels compare strides
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    p = nn.Parameter(weight.to(memory_format=torch.channels_last))
    config = OPTIMIZERS[name]
    optimizer = config.optimizer([p], reg=reg, **config.options)
    p.square().sum().backward()
    optimizer.step()
    for key, s in optimizer.state[p].items():
        assert key == "step" or s.stride() == p.stride(), key


# ---------------------------------------------------------------------------------------------
# Saving, copying, scheduling, scaling, distributing
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("into", ["the same options", "other options"])
@every_kernel
@every_regularizer
@every_optimizer
def test_resumes_bit_for_bit_through_default_torch_load(name, regs, fused, into):
    model, optimizer = build(name, regs, fused=fused)
    train(model, optimizer, 5)
    saved = load_default({"model": model.state_dict(), "optimizer": optimizer.state_dict()})

    if into == "the same options":
        model_2, resumed = build(name, regs, fused=fused)
    else:
        model_2 = make_model()
        other = dict(lr=7.0, fused=not fused, reg=L1(3.0), maximize=True)
        if name in BREGMAN:
            other["delta"] = 9.0
        groups = [{"params": group["params"]} for group in groups_of(model_2)]
        resumed = OPTIMIZERS[name].optimizer(groups, **other)
        train(model_2, resumed, 1)
    model_2.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for group, original in zip(resumed.param_groups, optimizer.param_groups, strict=True):
        assert {**group, "params": 0} == {**original, "params": 0}
    train(model, optimizer, 5, start=5)
    train(model_2, resumed, 5, start=5)
    assert same(values(resumed), values(optimizer))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))],
                         ids=["deepcopy", "pickle"])  # fmt: skip
@every_regularizer
@every_optimizer
def test_copy_continues_bit_for_bit(name, regs, copied):
    model, optimizer = build(name, regs)
    train(model, optimizer, 5)
    model_2, optimizer_2 = copied((model, optimizer))
    train(model, optimizer, 5, start=5)
    assert not same(values(optimizer_2), values(optimizer))
    train(model_2, optimizer_2, 5, start=5)
    assert same(values(optimizer_2), values(optimizer))


SCHEDULERS = {
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, step_size=2, gamma=0.3),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=8),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(
        opt, max_lr=0.3, total_steps=10, base_momentum=0.5, max_momentum=0.9,
        cycle_momentum="momentum" in opt.defaults or "betas" in opt.defaults),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5),
}  # fmt: skip


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@every_optimizer
def test_learning_rate_schedulers(name, scheduler):
    """They set what they set for torch's optimizers, and the next step goes by it."""
    (model, optimizer), (twin, by_hand) = build(name), build(name)
    lr = OPTIMIZERS[name].options["lr"]
    theirs = {
        LinBreg: lambda params: torch.optim.SGD(params, lr=lr, momentum=0.9),
        AdaBreg: lambda params: torch.optim.Adam(params, lr=lr),
        ProxGD: lambda params: torch.optim.Adagrad(params, lr=lr),
    }[type(optimizer)]([nn.Parameter(torch.zeros(1)) for _ in range(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        theirs.step()
        schedules = [SCHEDULERS[scheduler](opt) for opt in (optimizer, theirs)]
        seen = set()
        for k in range(8):
            for group in by_hand.param_groups:
                group["lr"] = theirs.param_groups[0]["lr"]
                if scheduler == "OneCycleLR" and "momentum" in group:
                    group["momentum"] = theirs.param_groups[0]["momentum"]
                if scheduler == "OneCycleLR" and "betas" in group:
                    group["betas"] = (theirs.param_groups[0]["betas"][0], group["betas"][1])
            seen.add((group["lr"], group.get("momentum", group.get("betas"))))
            train(twin, by_hand, 1, start=k)
            train(model, optimizer, 1, start=k)
            theirs.step()
            assert same(values(optimizer), values(by_hand))
            for schedule in schedules:
                schedule.step(*[1.0] if scheduler == "ReduceLROnPlateau" else [])
    assert len(seen) > 2
    if scheduler == "OneCycleLR" and optimizer.defaults.keys() & {"momentum", "betas"}:
        assert len({moment for _, moment in seen}) > 2


@every_kernel
@every_optimizer
def test_grad_scaler(name, fused):
    (model, optimizer), (twin, plain) = build(name, fused=fused), build(name, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for k in range(3):
        optimizer.zero_grad()
        scaler.scale(minibatch_loss(model, k)).backward()
        scaler.step(optimizer)
        scaler.update()
    train(twin, plain, 3)
    assert same(values(optimizer), values(plain))  # 1024 is a power of two: no rounding

    before = values(optimizer)
    optimizer.zero_grad()
    scaler.scale(minibatch_loss(model, 3)).backward()
    model[0].weight.grad[0, 0, 0, 0] = torch.inf
    assert scaler.step(optimizer) is None
    scaler.update()
    assert scaler.get_scale() == 512
    assert same(values(optimizer), before)


def distributed_worker(rank, folder):
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message=".*changed from outside")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for name in ("LinBreg momentum", "AdaBreg", "ProxGD"):
        for regs in REGULARIZERS:
            model, optimizer = build(name, regs, torch.float64)
            replica = nn.parallel.DistributedDataParallel(model)
            for k in range(4):
                optimizer.zero_grad()
                minibatch_loss(replica, 2 * k + rank).backward()
                optimizer.step()
            results[name, regs] = values(optimizer)
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.barrier()  # neither may leave while the other still talks to it
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed_replicas_stay_identical(tmp_path):
    torch.multiprocessing.spawn(distributed_worker, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, regs in first:
        assert same(first[name, regs], second[name, regs])
        # as one process would do that averages the two gradients
        model, optimizer = build(name, regs, torch.float64)
        for k in range(4):
            optimizer.zero_grad()
            (0.5 * (minibatch_loss(model, 2 * k) + minibatch_loss(model, 2 * k + 1))).backward()
            optimizer.step()
        torch.testing.assert_close(first[name, regs], values(optimizer), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------------------------------
# Edits from outside
# ---------------------------------------------------------------------------------------------


def prune(model):
    """Halve, prune a row and a kernel, activate zeros."""
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.mul_(0.5)
            layer.weight[0] = 0
            layer.weight[1] = 0.1


@every_regularizer
@every_bregman
def test_edit_without_resync_is_undone_by_the_next_step(name, regs):
    (model, optimizer), (twin, plain) = build(name, regs), build(name, regs)
    train(model, optimizer, 5)
    train(twin, plain, 5)
    for a, b in ((model, optimizer), (twin, plain)):
        b.zero_grad()
        minibatch_loss(a, 5).backward()
    prune(model)
    with pytest.warns(UserWarning, match=r"changed from outside.*resync\(\)"):
        optimizer.step()
    plain.step()
    assert same(values(optimizer), values(plain))


@every_regularizer
@every_bregman
def test_edit_with_resync_is_where_the_next_step_starts(name, regs):
    model, optimizer = build(name, regs, torch.float64)
    train(model, optimizer, 5)
    prune(model)
    edited = [p.detach().clone() for p in parameters(optimizer)]
    kept = [{**optimizer.state[p]} for p in parameters(optimizer)]
    moments = [s.clone() for state in kept for key, s in state.items() if key != "subgrad"]
    optimizer.resync()
    assert same([p.detach() for p in parameters(optimizer)], edited)
    assert same([s for state in kept for key, s in state.items() if key != "subgrad"], moments)
    assert_in_subdifferential(optimizer)
    for p, J in zip(parameters(optimizer), regularizers(name, regs)[1], strict=True):
        delta = optimizer.defaults["delta"]
        v = J.subgrad(p.detach().numpy()) + p.detach().numpy() / delta
        torch.testing.assert_close(optimizer.state[p]["subgrad"], torch.tensor(v))

    for group in optimizer.param_groups:
        group["lr"] = 0.0
        if "momentum" in group:
            group["momentum"] = 0.0
    train(model, optimizer, 1, start=5)  # a step of length zero
    for p, before in zip(parameters(optimizer), edited, strict=True):
        torch.testing.assert_close(p.detach(), before, rtol=1e-12, atol=1e-14)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    train(model, optimizer, 3, start=6, after=lambda k: assert_in_subdifferential(optimizer))


@every_bregman
def test_resync_before_the_first_step_is_harmless(name):
    (model, optimizer), (twin, plain) = build(name), build(name)
    optimizer.resync()
    assert optimizer.state_dict()["state"] == plain.state_dict()["state"] == {}
    train(model, optimizer, 3)
    train(twin, plain, 3)
    assert same(values(optimizer), values(plain))


@every_regularizer
@every_bregman
def test_update_parameters_is_the_prox_of_v(name, regs):
    model, optimizer = build(name, regs, torch.float64)
    train(model, optimizer, 5)
    for group in optimizer.param_groups[:2]:
        group["reg"] = replace(group["reg"], lam=2 * group["reg"].lam)
    optimizer.param_groups[1]["delta"] *= 3
    before = [copy.deepcopy(optimizer.state[p]) for p in parameters(optimizer)]
    optimizer.update_parameters()
    for p, state in zip(parameters(optimizer), before, strict=True):
        assert same(list(optimizer.state[p].values()), list(state.values()))
    assert_in_subdifferential(optimizer)
    for i, J in enumerate(regularizers(name, regs)[1][:2]):
        [p], delta = (optimizer.param_groups[i][key] for key in ("params", "delta"))
        v = optimizer.state[p]["subgrad"].numpy()
        theta = replace(J, lam=2 * J.lam).prox(delta * v, delta)
        torch.testing.assert_close(p.detach(), torch.tensor(theta), rtol=1e-12, atol=1e-14)


@every_regularizer
@every_bregman
def test_update_parameters_after_a_step_changes_nothing(name, regs):
    model, optimizer = build(name, regs)
    optimizer.update_parameters()  # before the first step there is no v
    assert same(values(optimizer), values(build(name, regs)[1]))
    train(model, optimizer, 5)
    before = values(optimizer)
    optimizer.update_parameters()
    assert same(values(optimizer), before)


@every_bregman
def test_subgrad_of_tiny_weights_keeps_training(name):
    # dead units after weight decay: the squares of their weights underflow
    model = make_model()
    with torch.no_grad():
        model[0].weight[1:3] = 1e-25
        model[3].weight[1:3] = 1e-30
    start = model[3].weight.detach().clone()
    model, optimizer = build(name, "groups", model=model)
    train(model, optimizer, 1)
    assert (model[3].weight - start).abs().max() < 1


@every_regularizer
@every_optimizer
def test_regularizer_replaced_in_mid_run(name, regs):
    model, optimizer = build(name, regs)
    train(model, optimizer, 10)
    before = model[3].weight.count_nonzero()
    for group in optimizer.param_groups[:2]:
        group["reg"] = replace(group["reg"], lam=100.0)
    train(model, optimizer, 1, start=10)
    assert before > 0
    assert model[0].weight.count_nonzero() == model[3].weight.count_nonzero() == 0
    if name in BREGMAN:
        assert_in_subdifferential(optimizer)
    for group in optimizer.param_groups[:2]:
        group["reg"] = replace(group["reg"], lam=0.0)
    train(model, optimizer, 2, start=11)
    assert model[3].weight.count_nonzero() > 0


# ---------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------

BAD = [
    *[(cls, {"lr": lr}, f"lr must be non-negative and finite, got {lr}")
      for cls in (LinBreg, AdaBreg, ProxGD) for lr in (-0.1, np.nan, np.inf)],
    *[(cls, {"delta": delta}, f"delta must be positive, got {delta}")
      for cls in (LinBreg, AdaBreg) for delta in (0.0, -1.0, np.nan, np.inf)],
    *[(LinBreg, {"momentum": beta}, rf"momentum must be in \[0, 1\), got {beta}")
      for beta in (3, 1, -0.1, np.nan)],
    *[(AdaBreg, {"betas": betas}, r"betas must be two numbers in \[0, 1\), got \(")
      for betas in ((0.9, 1.0), (1.0, 0.9), (-0.1, 0.9), (0.9, np.nan), (0.9,), (0.9, 0.9, 0.9))],
    *[(AdaBreg, {"eps": eps}, f"eps must be non-negative and finite, got {eps}")
      for eps in (-1e-8, np.nan, np.inf)],
    *[(cls, {"reg": reg}, "reg must be a Regularizer such as .*, got ")
      for cls in (LinBreg, AdaBreg, ProxGD) for reg in (0.1, "l1", L1, [L1(0.1)])],
    *[(cls, {"reg": GroupL12(0.1, dim=dim)}, r"dim must be different dimensions .* \(2, 3\), got")
      for cls in (LinBreg, AdaBreg, ProxGD) for dim in ((2, 3), (1, -1))],
]  # fmt: skip


def describe(value):
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.mark.parametrize(("cls", "options", "message"), BAD, ids=describe)
def test_bad_options(cls, options, message):
    p, late = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    with pytest.raises(ValueError, match=message):
        cls([p], **options)
    with pytest.raises(ValueError, match=message):
        cls([{"params": [p], **options}])
    optimizer = cls([p])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [late], **options})
    assert [group["params"] for group in optimizer.param_groups] == [[p]]
    optimizer.add_param_group({"params": [late]})  # the failure left nothing behind
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("cls", [LinBreg, AdaBreg, ProxGD])
def test_bad_parameters(cls):
    p = nn.Parameter(torch.ones(2))
    optimizer = cls([p])
    for bad, message in [
        (
            {"params": [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2) * 1j)]},
            "real.*complex",
        ),
        ({"params": [p]}, "some parameters appear in more than one parameter group"),
    ]:
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(bad)
        assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match="empty parameter list"):
        cls([])
    with pytest.raises(ValueError, match=r"real parameters, got torch\.complex64"):
        cls([nn.Parameter(torch.ones(2) * 1j)])


@pytest.mark.parametrize("cls", [LinBreg, AdaBreg, ProxGD])
@pytest.mark.parametrize(
    ("key", "meant"),
    [("leaning_rate", "lr"), ("lam", "reg"), ("weightdecay", "weight_decay"), ("LR", "lr")],
)
def test_near_miss_of_an_option_is_named_beside_the_allowed_ones(cls, key, meant):
    p = nn.Parameter(torch.ones(2))
    message = (
        rf"unknown option \['{key}'\] = 3 .*{cls.__name__}, did you mean '{meant}', "
        "allowed: .*'lr'.*'reg'"
    )
    with pytest.raises(ValueError, match=message):
        cls([{"params": [p], key: 3}])
    optimizer = cls([p])
    with pytest.raises(ValueError, match=key):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], key: 3})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(TypeError, match=key):
        cls([p], **{key: 3})


def test_options_of_another_optimizer_are_unknown():
    p = nn.Parameter(torch.ones(2))
    for cls, option in [
        (ProxGD, "delta"),
        (ProxGD, "momentum"),
        (AdaBreg, "momentum"),
        (LinBreg, "eps"),
    ]:
        with pytest.raises(ValueError, match=option):
            cls([{"params": [p], option: 0.5}])


@pytest.mark.parametrize("name", ["LinBreg momentum", "AdaBreg", "ProxGD"])
def test_sparse_gradient_raises_before_anything_changed(name):
    model = nn.ModuleList([nn.Linear(3, 2), nn.Embedding(4, 3, sparse=True)])
    config = OPTIMIZERS[name]
    optimizer = config.optimizer(model.parameters(), reg=L1(0.1), **config.options)
    before = values(optimizer)
    model[0](model[1](torch.tensor([0, 2]))).sum().backward()
    with pytest.raises(
        RuntimeError, match=r"dense gradients, got layout torch.sparse_coo.*\(4, 3\)"
    ):
        optimizer.step()
    assert same(values(optimizer), before)


def test_no_regularizer_is_zero():
    model = make_model()
    optimizer = LinBreg([{"params": model[0].parameters(), "reg": None}], reg=L1(0.1))
    assert optimizer.param_groups[0]["reg"] == Zero()
    optimizer.add_param_group({"params": model[3].parameters()})
    assert optimizer.param_groups[1]["reg"] == L1(0.1)
    assert all(isinstance(group["reg"], Regularizer) for group in optimizer.param_groups)
