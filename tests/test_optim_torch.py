"""torch's generic demands on an optimizer, with its own tools and entries for the three here.

torch ships the inputs, schedulers and errors of its optimizer tests
(``torch.testing._internal.common_optimizers``), not the tests themselves: those are written anew
here, over the same table. What they ask of torch's optimizers and not of these:

- complex parameters and sparse gradients: refused in words, since J and its prox are real and dense
- ``foreach=`` as an argument: the step is fused, one parameter after the other, or on a device
  foreach by itself; in a group the key is kept and not read
- ``capturable``, ``differentiable``: refused, since a step reads neither; autograd through a step
  would have to differentiate v, which is no leaf of the loss
- a ``step`` that is no tensor: no checkpoint of AdaBreg was ever written so
"""

import copy
import inspect
import io
import warnings

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LinearLR, ReduceLROnPlateau, StepLR

pytest.importorskip("torch.testing._internal.common_optimizers", exc_type=ImportError)
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    TensorTracker,
    get_error_inputs_for_all_optims,
)

from bregman import L1, AdaBreg, GroupL12, LinBreg, ProxGD

COMMON = [
    ({}, "default"),
    ({"lr": 0.01}, "other lr"),
    ({"lr": torch.tensor(0.01)}, "tensor lr"),
    ({"weight_decay": 0.1}, "weight_decay"),
    ({"maximize": True}, "maximize"),
    ({"weight_decay": 0.1, "maximize": True}, "weight_decay, maximize"),
    ({"reg": L1(1e-3)}, "l1"),
    ({"reg": L1(1e-3), "lr": torch.tensor([0.01]), "weight_decay": 0.1}, "l1, tensor, decay"),
]
DELTA = [({"delta": 0.5, "reg": L1(1e-3)}, "delta")]
MOMENTUM = [({"momentum": 0.9}, "momentum"), ({"momentum": 0.9, "reg": L1(1e-3)}, "momentum, l1")]
BETAS = [({"betas": (0.8, 0.99), "eps": 1e-6}, "betas, eps")]
WRONG = [
    (dict(lr=-1e-2), "lr must be non-negative"),
    (dict(weight_decay=-0.5), "weight_decay must be non-negative"),
    (dict(reg=0.1), "reg must be a Regularizer"),
]


def info(cls, own, wrong):
    def errors(device, dtype):
        inputs = [OptimizerInput(params=None, kwargs=kwargs) for kwargs, _ in WRONG + wrong]
        return get_error_inputs_for_all_optims(device, dtype) + [
            ErrorOptimizerInput(one, error_type=ValueError, error_regex=message)
            for one, (_, message) in zip(inputs, WRONG + wrong, strict=True)
        ]

    return OptimizerInfo(
        cls,
        optim_inputs_func=lambda device, dtype=None: [
            OptimizerInput(params=None, kwargs=kwargs, desc=desc) for kwargs, desc in COMMON + own
        ],
        optim_error_inputs_func=errors,
        scheduler_inputs=(
            [lambda opt: StepLR(opt, gamma=0.9, step_size=10)],
            [lambda opt: LinearLR(opt, start_factor=0.4, total_iters=4)],
            [lambda opt: ConstantLR(opt, factor=0.4, total_iters=4)],
            [lambda opt: StepLR(opt, gamma=0.9, step_size=10), lambda opt: LinearLR(opt)],
            [lambda opt: ExponentialLR(opt, gamma=0.95), lambda opt: ReduceLROnPlateau(opt)],
        ),
        supported_impls=("fused",),
        not_og_supported_flags=("maximize", "fused", "weight_decay"),
        supports_complex=False,
        supports_fused_on=("cpu", "cuda"),
    )


INFOS = [
    info(LinBreg, DELTA + MOMENTUM, [(dict(momentum=-0.5), "momentum must be in")]),
    info(AdaBreg, DELTA + BETAS, [(dict(betas=(1.0, 0.0)), "betas must be two numbers")]),
    info(ProxGD, [], []),
]
every_info = pytest.mark.parametrize("optim", INFOS, ids=lambda optim: optim.name)
every_input = pytest.mark.parametrize(
    ("optim", "given"),
    [
        pytest.param(optim, given, id=f"{optim.name}-{given.desc}")
        for optim in INFOS
        for given in optim.optim_inputs_func(device="cpu")
    ],
)


def model_and_loss(layout=torch.clone):
    torch.manual_seed(0)
    weight, bias = (nn.Parameter(layout(torch.randn(s))) for s in [(10, 5), (10,)])
    x = torch.randn(5)
    return [weight, bias], lambda: (weight.mv(x) + bias).pow(2).sum()


def closure_of(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


@every_info
def test_errors(optim):
    for error in optim.optim_error_inputs_func(device="cpu", dtype=torch.float32):
        given = error.optimizer_error_input
        params = given.params
        if params is None:
            params = [nn.Parameter(torch.randn(1, 1))]
        assert error.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
        if issubclass(error.error_type, Warning):
            with pytest.warns(error.error_type, match=error.error_regex):
                optim.optim_cls(params, **given.kwargs)
        else:
            with pytest.raises(error.error_type, match=error.error_regex):
                optim.optim_cls(params, **given.kwargs)


@every_info
def test_the_table_names_every_option(optim):
    options = set(inspect.signature(optim.optim_cls).parameters) - {"params"}
    given = {key for one in optim.optim_inputs_func(device="cpu") for key in one.kwargs}
    assert options == given | set(optim.supported_impls)


@pytest.mark.parametrize("layout", [torch.clone, lambda x: torch.stack([x, x], -1)[..., 0]],
                         ids=["contiguous", "strided"])  # fmt: skip
@every_input
def test_goes_into_the_right_direction(optim, given, layout):
    for schedules in [(), *optim.scheduler_inputs]:
        params, loss = model_and_loss(layout)
        optimizer = optim.optim_cls(params, **{"lr": 1e-3, **copy.deepcopy(given.kwargs)})
        schedulers = [make(optimizer) for make in schedules]
        closure = closure_of(optimizer, loss)
        first = closure().item()
        for _ in range(20):
            value = optimizer.step(closure)
            for scheduler in schedulers:
                scheduler.step(*[value] if isinstance(scheduler, ReduceLROnPlateau) else [])
        last = closure().item()
        assert last > first if given.kwargs.get("maximize") else last < first


@every_input
def test_fused_and_default_match_the_loop(optim, given):
    runs = []
    for fused in (False, True, None):
        params, loss = model_and_loss()
        optimizer = optim.optim_cls(params, **copy.deepcopy(given.kwargs), fused=fused)
        tracker = TensorTracker()
        for _ in range(7):
            optimizer.step(closure_of(optimizer, loss))
        for p in params:
            for t in (p, *optimizer.state.get(p, {}).values()):
                tracker.add(t)
        runs.append(tracker.tensors)
    for other in runs[1:]:
        torch.testing.assert_close(runs[0], other, rtol=1e-4, atol=1e-5)


@every_input
def test_a_tensor_learning_rate_does_as_a_number(optim, given):
    runs = []
    for shape in (None, (), (1,), (1, 1)):
        lr = 0.02 if shape is None else torch.full(shape, 0.02)
        params, loss = model_and_loss()
        optimizer = optim.optim_cls(params, **{**copy.deepcopy(given.kwargs), "lr": lr})
        for _ in range(5):
            optimizer.step(closure_of(optimizer, loss))
        runs.append([p.detach() for p in params])
    for other in runs[1:]:
        torch.testing.assert_close(runs[0], other, rtol=1e-5, atol=1e-6)


@every_info
def test_options_of_groups(optim):
    params, loss = model_and_loss()
    weight, bias = params
    optimizer = optim.optim_cls(
        [{"params": [weight], "weight_decay": 0.5}, {"params": [bias], "lr": 0.0}], lr=0.01
    )
    closure = closure_of(optimizer, loss)
    kept = bias.detach().clone()
    for _ in range(50):
        optimizer.step(closure)
    # with J = 0 nothing else shrinks what the loss does not see
    assert torch.equal(bias, kept)
    decayed = weight.detach().norm()
    params, loss = model_and_loss()
    optimizer = optim.optim_cls([params[0]], lr=0.01)
    for _ in range(50):
        optimizer.step(closure_of(optimizer, loss))
    assert decayed < params[0].norm()


@every_input
def test_no_gradients_or_gradients_of_zero_change_nothing(optim, given):
    params, _ = model_and_loss()
    optimizer = optim.optim_cls(params, **copy.deepcopy(given.kwargs))
    before = copy.deepcopy(params)
    optimizer.step()
    assert all(map(torch.equal, params, before))
    if given.kwargs.get("weight_decay") or (optim.optim_cls is ProxGD and "reg" in given.kwargs):
        return  # weight decay is a gradient, and ProxGD shrinks in every step
    for _ in range(3):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert all(map(torch.equal, params, before))


@every_input
def test_can_be_printed(optim, given):
    params, _ = model_and_loss()
    optimizer = optim.optim_cls(params, **copy.deepcopy(given.kwargs))
    text = repr(optimizer)
    assert text.startswith(optim.name)
    assert all(name in text for name in ("lr", "reg", "weight_decay", "fused"))


@every_input
def test_state_dict_is_deterministic_and_resumes(optim, given):
    params, loss = model_and_loss()
    optimizer = optim.optim_cls(params, **copy.deepcopy(given.kwargs))
    for _ in range(3):
        optimizer.step(closure_of(optimizer, loss))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    twins, twin_loss = model_and_loss()
    with torch.no_grad():
        for q, p in zip(twins, params, strict=True):
            q.copy_(p)
    twin = optim.optim_cls(twins, lr=7.0)
    kept = copy.deepcopy(state)
    twin.load_state_dict(state)
    for _ in range(3):
        optimizer.step(closure_of(optimizer, loss))
        twin.step(closure_of(twin, twin_loss))
    assert all(map(torch.equal, params, twins))
    assert state["param_groups"] == kept["param_groups"]
    a, b = optimizer.state_dict(), twin.state_dict()
    assert str(a) == str(b)


@every_input
def test_older_checkpoints_load(optim, given):
    params, loss = model_and_loss()
    optimizer = optim.optim_cls(params, **copy.deepcopy(given.kwargs))
    optimizer.step(closure_of(optimizer, loss))
    for flag in optim.not_og_supported_flags:
        state = copy.deepcopy(optimizer.state_dict())
        for group in state["param_groups"]:
            del group[flag]
        again = optim.optim_cls(params)
        again.load_state_dict(state)
        again.step(closure_of(again, loss))


@every_info
def test_deepcopy_has_all_public_attributes(optim):
    params, loss = model_and_loss()
    optimizer = optim.optim_cls(params)
    optimizer.step(closure_of(optimizer, loss))
    public = lambda o: {k for k in vars(o) if not k.startswith("_")}  # noqa: E731
    assert public(optimizer) == public(copy.deepcopy(optimizer))


@every_info
def test_named_and_plain_checkpoints_load_into_each_other(optim):
    params, loss = model_and_loss()
    names = list(zip(["weight", "bias"], params, strict=True))
    plain, named = optim.optim_cls(params), optim.optim_cls(names)
    for optimizer in (plain, named):
        optimizer.step(closure_of(optimizer, loss))
    named.load_state_dict(plain.state_dict())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    plain.load_state_dict(named.state_dict())
    plain.step(closure_of(plain, loss))


@every_info
def test_load_hooks_run_in_order_and_may_replace_the_state(optim):
    params, loss = model_and_loss()
    optimizer = optim.optim_cls(params, lr=0.1)
    optimizer.step(closure_of(optimizer, loss))

    def slower(opt, state):
        state = copy.deepcopy(state)
        for group in state["param_groups"]:
            group["lr"] *= 0.5
        return state

    optimizer.register_load_state_dict_pre_hook(slower)
    optimizer.register_load_state_dict_pre_hook(slower, prepend=True)
    optimizer.register_load_state_dict_post_hook(lambda opt: fired.append(opt))
    fired = []
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.025
    assert fired == [optimizer]


@every_info
def test_parameters_of_two_precisions(optim):
    params = [nn.Parameter(torch.randn(4, dtype=d)) for d in (torch.float32, torch.float64,
              torch.bfloat16, torch.float16)]  # fmt: skip
    for fused in (None, False, True):
        optimizer = optim.optim_cls(params, lr=0.1, reg=GroupL12(1e-3, 0), fused=fused)
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        for p, b in zip(params, before, strict=True):
            assert p.isfinite().all()
            assert torch.all(p < b)


@every_info
def test_the_default_dtype_does_not_matter(optim):
    params, loss = model_and_loss()
    optimizer = optim.optim_cls(params, reg=L1(1e-3))
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        optimizer.step(closure_of(optimizer, loss))
    finally:
        torch.set_default_dtype(default)
    optimizer.step(closure_of(optimizer, loss))
    for p in params:
        for s in optimizer.state.get(p, {}).values():
            assert s.dtype == torch.float32


@every_info
def test_compiled_step(optim):
    params, loss = model_and_loss()
    twins, twin_loss = model_and_loss()
    options = dict(lr=torch.tensor(0.01), reg=L1(1e-2))
    optimizer, plain = optim.optim_cls(params, **options), optim.optim_cls(twins, **options)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(4):
            closure_of(optimizer, loss)()
            step()
            closure_of(plain, twin_loss)()
            plain.step()
    torch.testing.assert_close(params, twins)
