"""What people bring along: learning rates that are tensors, bfloat16, weight decay, keys of their
own in groups, checkpoints, edits from outside, steps that move nothing."""

import copy
import io
import pickle
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

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
    Zero,
    param_groups,
)
from bregman.optim.proxes import prox_together

CLASSES = [LinBreg, AdaBreg, ProxGD]
CASES = {
    "LinBreg": (LinBreg, {}),
    "LinBreg momentum": (LinBreg, {"momentum": 0.9}),
    "AdaBreg": (AdaBreg, {}),
    "ProxGD": (ProxGD, {}),
}
BREGMAN = {name: case for name, case in CASES.items() if name != "ProxGD"}
every_class = pytest.mark.parametrize("cls", CLASSES)
every_case = pytest.mark.parametrize(("cls", "options"), CASES.values(), ids=CASES.keys())
every_bregman = pytest.mark.parametrize(("cls", "options"), BREGMAN.values(), ids=BREGMAN.keys())
every_kernel = pytest.mark.parametrize("fused", [None, False, True], ids="fused={}".format)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def _no_unexpected_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def parameter(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))


def descend(optimizer, steps, start=0):
    """Steps on gradients that are the same for all."""
    for k in range(start, start + steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                generator = torch.Generator().manual_seed(k)
                p.grad = (p.detach() + torch.randn(p.shape, generator=generator)).to(p.dtype)
        optimizer.step()


def stored(obj):
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file)


# ---------------------------------------------------------------------------------------------
# Learning rates
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@every_kernel
@every_case
def test_a_tensor_of_one_element_is_a_learning_rate(cls, options, fused, shape):
    runs = []
    for lr in (0.05, torch.full(shape, 0.05, dtype=torch.float64)):
        p = parameter(6, 4, dtype=torch.float64)
        optimizer = cls([p], lr=lr, reg=L1(0.05), fused=fused, **options)
        descend(optimizer, 5)
        runs.append(p.detach())
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-14)
    assert torch.equal(runs[0] == 0, runs[1] == 0)


@pytest.mark.parametrize("lr", [1e-3, 1e-6, 1e-7, 1e-12, 1e-20])
@pytest.mark.parametrize("tensor", [False, True])
@every_kernel
def test_momentum_of_small_learning_rates(fused, tensor, lr):
    p = nn.Parameter(torch.zeros(3))
    optimizer = LinBreg([p], lr=torch.tensor(lr) if tensor else lr, momentum=0.9, fused=fused)
    for _ in range(2):
        p.grad = torch.tensor([1.0, -2.0, 3.0])
        optimizer.step()
    # m = 0.1 tau g, then 0.19 tau g
    expected = -0.29 * lr * torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("lr", [1e-3, 1e-7, 1e-12, 1e-20])
@every_kernel
def test_small_learning_rates_without_momentum(fused, lr):
    p = nn.Parameter(torch.zeros(3))
    optimizer = LinBreg([p], lr=lr, fused=fused)
    p.grad = torch.tensor([1.0, -2.0, 3.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), -lr * p.grad, rtol=1e-6, atol=0)


@cuda
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_learning_rate_on_the_gpu_is_taken_once(momentum):
    runs = []
    for lr in (0.05, torch.tensor(0.05, device="cuda", dtype=torch.float64)):
        p = nn.Parameter(parameter(6, 4, dtype=torch.float64).detach().cuda())
        optimizer = LinBreg([p], lr=lr, momentum=momentum)
        for _ in range(3):
            p.grad = p.detach().clone()
            optimizer.step()
        runs.append(p.detach().cpu())
    torch.testing.assert_close(*runs)


@every_class
def test_a_learning_rate_of_two_elements_is_refused(cls):
    p = parameter(3)
    message = r"Tensor lr must be 1-element, got \(2,\)"
    with pytest.raises(ValueError, match=message):
        cls([p], lr=torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"lr must be non-negative and finite, got -0\.5"):
        cls([p], lr=torch.tensor(-0.5))
    for lr in (0.1, torch.tensor(0.1)):
        optimizer = cls([p], lr=lr)
        p.grad = torch.ones(3)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = torch.tensor([0.1, 0.2])
        before = p.detach().clone()
        with pytest.raises(ValueError, match=message):
            optimizer.step()
        assert torch.equal(p, before)


# ---------------------------------------------------------------------------------------------
# Precision
# ---------------------------------------------------------------------------------------------


def planted(cls, dtype, **options):
    """Least squares with five weights that are not zero, by minibatches."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(200, 50, generator=generator)
    x = torch.zeros(50)
    x[[3, 10, 20, 33, 47]] = torch.tensor([1.0, -2.0, 1.5, -1.0, 3.0])
    p = nn.Parameter(torch.zeros(50, dtype=dtype))
    optimizer = cls([p], **options)
    for _ in range(2000):
        rows = torch.randint(200, (20,), generator=generator)
        p.grad = (A[rows].T @ (A[rows] @ (p.detach().float() - x)) / 20).to(dtype)
        optimizer.step()
    return p.detach(), x


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (LinBreg, dict(lr=1e-3, reg=L1(1.0))),
        (LinBreg, dict(lr=1e-3, reg=L1(1.0), momentum=0.9, fused=True)),
        (AdaBreg, dict(lr=1e-3, reg=L1(0.3), betas=(0.95, 0.999))),
    ],
    ids=["LinBreg", "momentum", "AdaBreg"],
)
def test_half_precision_finds_what_float32_finds(cls, options, dtype):
    exact, x = planted(cls, torch.float32, **options)
    found, _ = planted(cls, dtype, **options)
    assert torch.equal(found != 0, exact != 0)
    assert torch.all((x != 0) <= (found != 0))
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_kernel
@every_bregman
def test_state_is_float32_also_when_loaded(cls, options, fused, dtype):
    options = dict(lr=0.05, reg=GroupL12(0.05, dim=1), weight_decay=0.1, fused=fused, **options)
    make = lambda p: cls([p], **options)  # noqa: E731
    p = parameter(6, 4, dtype=dtype)
    optimizer = make(p)
    descend(optimizer, 3)
    saved = stored({"p": p.detach(), "optimizer": optimizer.state_dict()})
    q = nn.Parameter(saved["p"].clone())
    resumed = make(q)
    resumed.load_state_dict(saved["optimizer"])
    for state in (optimizer.state[p], resumed.state[q]):
        assert {s.dtype for s in state.values()} == {torch.float32}
    assert all(map(torch.equal, optimizer.state[p].values(), resumed.state[q].values()))
    descend(optimizer, 3, start=3)
    descend(resumed, 3, start=3)
    assert torch.equal(p, q)
    assert all(map(torch.equal, optimizer.state[p].values(), resumed.state[q].values()))
    # theta is read off v, and rounded
    v = optimizer.state[p]["subgrad"]
    assert torch.equal(p, GroupL12(0.05, dim=1).prox(v).to(dtype))


@every_case
def test_float16_gives_no_nan(cls, options):
    for reg in (L1(0.01), GroupL12(0.01, dim=1), SparseGroup(0.01, 0.01, 1), None):
        p = nn.Parameter(torch.full((3, 8), 300.0, dtype=torch.float16))
        optimizer = cls([p], lr=1e-3, reg=reg, **options)
        descend(optimizer, 5)
        assert p.isfinite().all()
        assert 290 < p.mean() < 310


# ---------------------------------------------------------------------------------------------
# Weight decay
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maximize", [False, True])
@every_kernel
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LinBreg, torch.optim.SGD), (AdaBreg, torch.optim.Adam), (ProxGD, torch.optim.SGD)],
)
def test_weight_decay_is_torchs(ours, theirs, fused, maximize):
    p, q = parameter(6, 4, dtype=torch.float64), parameter(6, 4, dtype=torch.float64)
    common = dict(lr=0.02, weight_decay=0.3, maximize=maximize, fused=fused)
    descend(ours([p], **common), 10)
    descend(theirs([q], **common), 10)
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
    undecayed = parameter(6, 4, dtype=torch.float64)
    descend(ours([undecayed], lr=0.02, maximize=maximize, fused=fused), 10)
    assert (undecayed - p).abs().max() > 0.01


@every_case
def test_weight_decay_is_the_gradient_of_a_penalty(cls, options):
    p, q = parameter(6, 4, dtype=torch.float64), parameter(6, 4, dtype=torch.float64)
    decays = cls([{"params": [p], "weight_decay": 0.3}], lr=0.02, reg=L1(0.05), **options)
    plain = cls([q], lr=0.02, reg=L1(0.05), **options)
    for k in range(8):
        descend(decays, 1, start=k)
        g = torch.randn(q.shape, generator=torch.Generator().manual_seed(k))
        q.grad = q.detach() + g + 0.3 * q.detach()
        plain.step()
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------------------------------
# Keys of groups, options, checkpoints
# ---------------------------------------------------------------------------------------------

FOREIGN = {
    "name": "encoder", "layer_id": 3, "lr_scale": 0.5, "config": {"a": 1}, "foreach": None,
    "initial_lr": 0.1, "max_lr": 1.0, "min_lr": 1e-5, "base_momentum": 0.8, "max_momentum": 0.9,
    "rho": 0.05, "adaptive": True, "no_decay": True, "param_type": "weight", "label": "x",
    "step": 3, "alpha": 0.5, "nesterov": False, "amsgrad": False, "dampening": 0,
}  # fmt: skip


@every_class
def test_keys_of_others_are_kept(cls):
    p, q = parameter(4), parameter(4)
    optimizer = cls([{"params": [p], **FOREIGN}], lr=0.1)
    plain = cls([q], lr=0.1)
    descend(optimizer, 3)
    descend(plain, 3)
    assert torch.equal(p, q)
    again = cls([p], lr=0.1)
    for kept in (optimizer, copy.deepcopy(optimizer)):
        assert {key: kept.param_groups[0][key] for key in FOREIGN} == FOREIGN
    again.load_state_dict(stored(optimizer.state_dict()))
    assert {key: again.param_groups[0][key] for key in FOREIGN} == FOREIGN


@pytest.mark.parametrize(
    ("cls", "torchs"), [(LinBreg, torch.optim.SGD), (AdaBreg, torch.optim.Adam)]
)
def test_groups_of_torchs_optimizers_and_of_schedulers_are_taken(cls, torchs):
    theirs = torchs([parameter(4)], lr=0.1)
    torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.3, total_steps=5, cycle_momentum=False)
    optimizer = cls(theirs.param_groups, reg=L1(0.1))
    descend(optimizer, 2)
    assert optimizer.param_groups[0]["initial_lr"] == theirs.param_groups[0]["initial_lr"]


@pytest.mark.parametrize(
    ("cls", "key", "value", "meant"),
    [
        *[(cls, "learning_rate", 0.1, "lr") for cls in CLASSES],
        *[(cls, "weight_deacy", 0.1, "weight_decay") for cls in CLASSES],
        *[(cls, "maximise", True, "maximize") for cls in CLASSES],
        *[(cls, "regularizer", L1(0.1), "reg") for cls in CLASSES],
        (LinBreg, "momentun", 0.9, "momentum"),
        (LinBreg, "detla", 2.0, "delta"),
        (AdaBreg, "beta1", 0.9, "betas"),
        (AdaBreg, "epsilon", 1e-8, "eps"),
        *[(cls, "nesterov", True, None) for cls in CLASSES],
        *[(cls, "amsgrad", True, None) for cls in CLASSES],
        (LinBreg, "dampening", 0.5, None),
        (AdaBreg, "decoupled_weight_decay", True, None),
        (AdaBreg, "momentum", 0.9, None),
        (ProxGD, "momentum", 0.9, None),
        (ProxGD, "delta", 2.0, None),
        (LinBreg, "betas", (0.9, 0.99), "momentum"),
        (AdaBreg, "differentiable", True, None),
    ],
)
def test_keys_that_would_change_nothing_are_refused(cls, key, value, meant):
    message = rf"unknown option \['{key}'\] = {re.escape(repr(value))} .* of {cls.__name__}, "
    message += f"did you mean '{meant}', allowed" if meant else "allowed"
    with pytest.raises(ValueError, match=message):
        cls([{"params": [parameter(3)], key: value}])
    optimizer = cls([parameter(3)])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [parameter(3)], key: value})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "value",
    ["0.1", None, [0.1], torch.nn.Linear, object()],
    ids=["text", "None", "list", "class", "object"],
)
def test_what_is_no_number_is_refused_by_the_arguments_name(value):
    names = {LinBreg: ["lr", "momentum", "delta", "weight_decay"],
             AdaBreg: ["lr", "betas", "eps", "delta", "weight_decay"],
             ProxGD: ["lr", "weight_decay"]}  # fmt: skip
    for cls, options in names.items():
        for name in options:
            with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
                cls([parameter(3)], **{name: value})
            optimizer = cls([parameter(3)])
            optimizer.param_groups[0][name] = value
            with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
                descend(optimizer, 1)


@pytest.mark.parametrize(
    "key",
    ["weight_decay_mult", "weight_decay_scale", "weight_decay_base", "base_weight_decay",
     "lr_scale", "momentum_scale", "Weight_Decay_Mult", "learning_rate_mult", "delta_t",
     "fused_by", "old_delta"],
)  # fmt: skip
@every_case
def test_an_options_name_and_more_is_a_key_of_ones_own(cls, options, key):
    p = parameter(3)
    optimizer = cls([{"params": [p], key: 0.5}], lr=0.1, **options)
    optimizer.add_param_group({"params": [parameter(2)], key: 2})
    plain = cls([parameter(3)], lr=0.1, **options)
    # written later it is stored and loaded too
    plain.param_groups[0][key] = 0.25
    descend(plain, 1)
    other = cls([parameter(3)], lr=0.1, **options)
    other.load_state_dict(plain.state_dict())
    assert other.param_groups[0][key] == 0.25
    assert [group[key] for group in optimizer.param_groups] == [0.5, 2]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "key", ["weight_deca", "weight_decays", "weight_decay_", "weight_decay_2", "weightdecay_",
            "lrr", "lrs", "maximizes", "regs", "fusedd"],
)  # fmt: skip
def test_a_part_of_a_name_or_a_letter_more_is_none(cls, key):
    with pytest.raises(ValueError, match=rf"unknown option \['{key}'\]"):
        cls([{"params": [parameter(3)], key: 0.5}])


@pytest.mark.parametrize("key", ["momentums", "moment_um", "deltas", "beta_1"])
def test_near_misses_of_options_that_only_some_have(key):
    with pytest.raises(ValueError, match=rf"unknown option \['{key}'\]"):
        LinBreg([{"params": [parameter(3)], key: 0.5}])


def test_switches_are_checked():
    for cls in CLASSES:
        with pytest.raises(ValueError, match="fused must be True, False or None, got 'yes'"):
            cls([parameter(3)], fused="yes")
        with pytest.raises(ValueError, match="maximize must be True or False, got None"):
            cls([parameter(3)], maximize=None)


@every_case
def test_no_regularizer_may_be_set_later(cls, options):
    p, q = parameter(4), parameter(4)
    optimizer = cls([p], lr=0.1, reg=L1(0.01), **options)
    twin = cls([q], lr=0.1, reg=L1(0.01), **options)
    descend(optimizer, 2)
    descend(twin, 2)
    optimizer.param_groups[0]["reg"] = None
    twin.param_groups[0]["reg"] = Zero()
    descend(optimizer, 2, start=2)
    descend(twin, 2, start=2)
    assert torch.equal(p, q)
    for change in ("update_parameters", "resync"):
        if hasattr(optimizer, change):
            optimizer.param_groups[0]["reg"] = None
            getattr(optimizer, change)()
            assert optimizer.param_groups[0]["reg"] == Zero()
    optimizer.param_groups[0]["reg"] = 0.1
    before = p.detach().clone()
    with pytest.raises(ValueError, match="reg must be a Regularizer"):
        descend(optimizer, 1)
    assert torch.equal(p, before)


@every_case
@pytest.mark.parametrize("lost", ["weight_decay", "maximize", "fused"])
def test_a_checkpoint_from_before_an_option_loads(cls, options, lost):
    p = parameter(4)
    optimizer = cls([p], lr=0.1, reg=L1(0.01), **options)
    descend(optimizer, 2)
    saved = stored(optimizer.state_dict())
    del saved["param_groups"][0][lost]
    neutral = {"weight_decay": 0.0, "maximize": False, "fused": None}[lost]
    other = {"weight_decay": 0.3, "maximize": True, "fused": True}[lost]
    q = nn.Parameter(p.detach().clone())
    resumed = cls([q], lr=0.1, reg=L1(0.01), **{**options, lost: other})
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0][lost] == neutral
    descend(optimizer, 2, start=2)
    descend(resumed, 2, start=2)
    assert torch.equal(p, q)

    # and so does an optimizer that was pickled whole
    state = copy.deepcopy(optimizer.__getstate__())
    del state["param_groups"][0][lost], state["defaults"][lost]
    old = cls.__new__(cls)
    old.__setstate__(state)
    descend(old, 1)
    old.add_param_group({"params": [parameter(2)]})
    assert old.param_groups[1][lost] == neutral


class _Patient(LinBreg):
    """A LinBreg with an option that old checkpoints have not heard of."""

    def __init__(self, params, patience=5, **options):
        super().__init__(params, **options)
        self.defaults["patience"] = patience
        for group in self.param_groups:
            group.setdefault("patience", patience)


def test_a_checkpoint_from_before_an_option_of_a_subclass_loads():
    plain = LinBreg([parameter(4)], lr=0.1)
    descend(plain, 2)
    patient = _Patient([parameter(4)], lr=0.1, patience=7)
    patient.load_state_dict(stored(plain.state_dict()))
    assert patient.param_groups[0]["patience"] == 7
    descend(patient, 1)


@pytest.mark.parametrize(
    ("cls", "theirs"),
    [
        *[(cls, torch.optim.Adam) for cls in CLASSES],
        *[(cls, torch.optim.SGD) for cls in CLASSES],
        *[(a, b) for a in CLASSES for b in CLASSES if a is not b],
    ],
)
def test_a_checkpoint_of_another_optimizer_is_refused(cls, theirs):
    other = theirs([parameter(4)], lr=0.1)
    descend(other, 2)
    p = parameter(4)
    optimizer = cls([p], lr=0.2, reg=L1(0.01))
    descend(optimizer, 2)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=rf"{cls.__name__}.*(another optimizer|allowed)"):
        optimizer.load_state_dict(other.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    for key, value in before["state"].get(0, {}).items():
        assert torch.equal(after["state"][0][key], value)
    assert not optimizer._optimizer_load_state_dict_pre_hooks


@every_case
def test_what_hooks_make_of_a_checkpoint_is_what_counts(cls, options):
    p = parameter(4, dtype=torch.bfloat16)
    optimizer = cls([p], lr=0.1, reg=L1(0.01), **options)
    descend(optimizer, 2)
    wrapped = {"inner": stored(optimizer.state_dict())}
    q = nn.Parameter(p.detach().clone())
    resumed = cls([q], lr=0.1, **options)
    resumed.register_load_state_dict_pre_hook(lambda _, state: state["inner"])
    resumed.load_state_dict(wrapped)
    descend(optimizer, 2, start=2)
    descend(resumed, 2, start=2)
    assert torch.equal(p, q)


# ---------------------------------------------------------------------------------------------
# Parameters that are refused
# ---------------------------------------------------------------------------------------------


@every_class
def test_parameters_without_numbers_are_refused(cls):
    meta = nn.Linear(3, 2, device="meta")
    for fused in (None, True):
        with pytest.raises(ValueError, match=r"with numbers, got device\(type='meta'\)"):
            cls(meta.parameters(), fused=fused)
    for bad in (torch.ones(2) * 1j, torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=f"real parameters, got {bad.dtype}"):
            cls([bad])


# ---------------------------------------------------------------------------------------------
# Edits from outside
# ---------------------------------------------------------------------------------------------

EDITS = {
    "clamp": lambda p: p.clamp_(-0.1, 0.1),
    "decay by hand": lambda p: p.mul_(1 - 1e-4),
    "copy": lambda p: p.copy_(torch.linspace(-1, 1, p.numel()).view(p.shape)),
    "one entry": lambda p: p.view(-1)[0].add_(0.1),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@every_bregman
def test_an_edit_is_told_once(cls, options, dtype, edit):
    if dtype == torch.bfloat16 and edit is EDITS["decay by hand"]:
        pytest.skip("bfloat16 does not feel it")
    p, q = parameter(5, 3, dtype=dtype), parameter(4, dtype=dtype)
    optimizer = cls([q, p], lr=0.01, reg=L1(0.01), **options)
    descend(optimizer, 2)
    with torch.no_grad():
        edit(p)
    message = r"shape \(5, 3\) was changed from outside.*resync\(\)"
    with pytest.warns(UserWarning, match=message) as told:
        descend(optimizer, 1)
    assert told[0].filename == __file__
    with torch.no_grad():
        edit(p)
    descend(optimizer, 1)  # a second warning would be an error here


@every_bregman
def test_an_edit_of_what_had_no_gradient_for_a_while_is_told(cls, options):
    p, q = parameter(5), parameter(4)
    optimizer = cls([p, q], lr=0.01, **options)
    descend(optimizer, 2)
    with torch.no_grad():
        p.mul_(2)
    for _ in range(2):
        p.grad, q.grad = None, torch.ones(4)
        optimizer.step()
    with pytest.warns(UserWarning, match="changed from outside"):
        descend(optimizer, 1)


@every_bregman
def test_no_word_where_there_was_no_edit(cls, options):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = cls(param_groups(model, linear=GroupL12(0.1, dim=1)), lr=0.1, **options)
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    scaler = torch.amp.GradScaler("cpu")

    def train(optimizer, model, steps=2):
        for _ in range(steps):
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    model.load_state_dict(model.state_dict())  # before the first step
    train(optimizer, model)
    saved = stored([model.state_dict(), optimizer.state_dict()])
    for first in (0, 1):  # a checkpoint, the model first or last
        train(optimizer, model)
        for i in (first, 1 - first):
            (model, optimizer)[i].load_state_dict(copy.deepcopy(saved[i]))
        train(optimizer, model)
    with torch.no_grad():  # the same numbers once more
        weights = [p.clone() for p in model.parameters()]
        for p in model.parameters():
            p.zero_()
        for p, weight in zip(model.parameters(), weights, strict=True):
            p.copy_(weight)
    train(optimizer, model)
    for copied in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        other_model, other = copied((model, optimizer))
        train(other, other_model)
    with torch.no_grad():
        model[0].weight.mul_(0.5)
    optimizer.resync()
    train(optimizer, model)
    optimizer.param_groups[0]["reg"] = GroupL12(0.2, dim=1)
    optimizer.update_parameters()
    train(optimizer, model)
    optimizer.add_param_group({"params": [parameter(3)]})
    train(optimizer, model)
    average = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(2):
        train(optimizer, model)
        average.update_parameters(model)


@pytest.mark.parametrize("finish", [False, True])
@every_bregman
def test_no_word_about_multilevel(cls, options, finish):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = cls(param_groups(model, linear=GroupL12(0.1, dim=1)), lr=0.05, **options)
    cycle = Multilevel(model, optimizer, frozen_steps=3, path="masked")
    x = torch.randn(16, 4)
    for k in range(20):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
        if finish and k % 4 == 1:
            cycle.finish()
    assert cycle.paths
    cycle.finish()
    with torch.no_grad():
        model[0].bias.mul_(0.5)
    (model(x) - 1).square().mean().backward()
    with pytest.warns(UserWarning, match="changed from outside"):
        optimizer.step()


def test_an_edit_through_data_is_not_seen():
    # as the documentation says: its count of changes is its own
    p = parameter(4)
    optimizer = LinBreg([p], lr=0.01)
    descend(optimizer, 2)
    p.data.mul_(2)
    descend(optimizer, 1)


@every_bregman
def test_data_that_was_replaced_is_told(cls, options):
    # as prune.remove and vector_to_parameters do
    model = nn.Sequential(nn.Linear(6, 5))
    prune.l1_unstructured(model[0], "weight", 0.5)
    optimizer = cls(model.parameters(), lr=0.01, **options)
    for k in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, 6)).sum().backward()
        if k:
            prune.remove(model[0], "weight")
            with pytest.warns(UserWarning, match=r"shape \(5, 6\) was changed from outside"):
                optimizer.step()
        else:
            optimizer.step()


@every_bregman
def test_empty_parameters_may_be_edited(cls, options):
    p, q = nn.Parameter(torch.zeros(0, 3)), parameter(4)
    optimizer = cls([p, q], lr=0.01, **options)
    for _ in range(3):
        descend(optimizer, 1)
        with torch.no_grad():
            p.zero_()


# ---------------------------------------------------------------------------------------------
# States and parameters of other shapes, and parameters that are one memory
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [[(4, 4), (4,)], [(1, 4), (4,)], [(4,), (1, 4)]])
@every_bregman
def test_a_state_of_parameters_in_another_order_is_refused(cls, options, shapes):
    # all of these can be broadcast
    a, b = (parameter(*shape) for shape in shapes)
    optimizer = cls([a, b], lr=0.01, reg=L1(0.01), **options)
    descend(optimizer, 1)
    other = cls([b, a], lr=0.01, reg=L1(0.01), **options)
    other.load_state_dict(optimizer.state_dict())
    before = [p.detach().clone() for p in (a, b)]
    with pytest.raises(ValueError, match="state must be of the parameter's shape"):
        descend(other, 1)
    assert all(map(torch.equal, before, (a, b)))


@every_bregman
def test_data_of_another_shape_is_refused(cls, options):
    p = parameter(4, 4)
    optimizer = cls([p], lr=0.01, reg=L1(0.01), **options)
    descend(optimizer, 1)
    p.grad, p.data = None, torch.ones(4)
    with pytest.raises(ValueError, match=r"shape, \(4,\), got \(4, 4\)"):
        descend(optimizer, 1)


@every_case
def test_two_parameters_that_are_one_memory_are_refused(cls, options):
    # each would write the theta of its own v over that of the other
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = nn.Parameter(first.weight)
    with pytest.raises(ValueError, match=r"one parameter where memory is shared, got \[\(4, 4\)"):
        cls([*first.parameters(), *second.parameters()], **options)
    second.weight = first.weight
    cls([*first.parameters(), second.bias, *nn.LSTM(3, 3).parameters()], **options)
    cls([nn.Parameter(torch.zeros(0)), nn.Parameter(torch.zeros(0))], **options)


# ---------------------------------------------------------------------------------------------
# Steps that move nothing
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["no gradient", "no step size"])
@every_kernel
@every_case
def test_a_step_that_moves_nothing_leaves_theta(cls, options, fused, how):
    if cls is ProxGD and how == "no gradient":
        pytest.skip("its prox shrinks theta whatever the gradient is")
    start = torch.tensor([1e-9, 0.3, -0.7, 0.0, 1e-30])
    p = nn.Parameter(start.clone())
    lr = 0.1 if how == "no gradient" else 0.0
    optimizer = cls([p], lr=lr, reg=L1(0.1), fused=fused, **options)
    for _ in range(3):
        p.grad = torch.zeros(5) if how == "no gradient" else torch.ones(5)
        optimizer.step()
        assert torch.equal(p, start)
    if cls is ProxGD:
        return
    # the first step that moves v is as if there had been none before
    q = nn.Parameter(start.clone())
    other = cls([q], lr=0.1, reg=L1(0.1), fused=fused, **options)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.state[p].update({key: torch.zeros_like(s) for key, s in optimizer.state[p].items()
                               if key != "subgrad"})  # fmt: skip
    descend(optimizer, 1)
    descend(other, 1)
    assert torch.equal(p, q)


@every_bregman
def test_after_resync_a_step_that_moves_nothing_leaves_theta(cls, options):
    p = parameter(5)
    optimizer = cls([p], lr=0.1, reg=L1(0.1), **options)
    descend(optimizer, 2)
    with torch.no_grad():
        p.copy_(torch.tensor([1e-9, 0.3, -0.7, 0.0, 1e-30]))
    optimizer.resync()
    optimizer.param_groups[0]["lr"] = 0.0
    if "momentum" in optimizer.param_groups[0]:
        optimizer.param_groups[0]["momentum"] = 0.0
    before = p.detach().clone()
    descend(optimizer, 2)
    assert torch.equal(p, before)


# ---------------------------------------------------------------------------------------------
# Many parameters in one prox
# ---------------------------------------------------------------------------------------------

SHAPES = [(3,), (), (6, 4), (2, 4), (6, 5), (0, 4), (5, 3, 3, 3), (4, 3, 3, 3), (2, 7, 3, 3),
          (2, 7, 1, 1), (5, 5, 2)]  # fmt: skip


@pytest.mark.parametrize(
    ("reg", "ndim"),
    [
        (L1(0.5), None), (ElasticNet(0.5, 0.3), None), (NonNegativeL1(0.5), None), (Zero(), None),
        (GroupL12(0.5, dim=1), 2), (GroupL12(0.5, dim=0), 2), (GroupL12(0.5, dim=-1), 2),
        (GroupL12(0.2, dim=(0, 1)), 2), (GroupL12(0.3, dim=(2, 3)), 4), (GroupL12(0.3, dim=1), 4),
        (GroupL12(0.2, dim=(1, 2, 3)), 4), (GroupL12(0.2, dim=(1, 3)), 4),
        (SparseGroup(0.2, 0.2, (2, 3)), 4), (Nuclear(0.5), 4),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_together_is_one_after_the_other(reg, ndim, layout):
    shapes = [shape for shape in SHAPES if ndim in (None, len(shape))]
    xs = [parameter(*shape, seed=i).detach() for i, shape in enumerate(shapes)]
    xs = [x.to(memory_format=layout) if x.dim() == 4 else x for x in xs]
    xs.append(xs[-1].double())
    kept = [x.clone() for x in xs]
    params = [torch.full_like(x, torch.nan) for x in xs]
    with torch.no_grad():
        prox_together(reg, 0.7, xs, params)
        for x, before, p in zip(xs, kept, params, strict=True):
            assert torch.equal(x, before)
            expected = reg.prox(x, 0.7)
            if reg.blocks(x.dim()) == ():
                assert torch.equal(p, expected)
            torch.testing.assert_close(p, expected)
            assert torch.equal(p == 0, expected == 0)
            assert p.stride() == x.stride()


def test_together_is_few_operations():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            views = ("view", "reshape", "split", "permute", "detach", "alias", "slice")
            self.n += not any(word in func.name() for word in views)
            return func(*args, **(kwargs or {}))

    for reg in (L1(0.5), ElasticNet(0.5, 0.3), GroupL12(0.3, dim=(2, 3)), Zero()):
        counts = []
        for n in (4, 40):
            xs = [torch.randn(5, 4, 3, 3) for _ in range(n)]
            with torch.no_grad(), Count() as count:
                prox_together(reg, 0.7, xs, [x.clone() for x in xs])
            counts.append(count.n - n)  # the clones
        assert counts[0] == counts[1]


@cuda
@every_kernel
@every_case
def test_a_gpu_does_as_a_cpu(cls, options, fused):
    for reg, shapes in [(L1(0.05), SHAPES), (GroupL12(0.05, (2, 3)), SHAPES[6:9]), (None, SHAPES)]:
        runs = []
        for device in ("cpu", "cuda"):
            params = [nn.Parameter(parameter(*s, seed=i).detach().double().to(device))
                      for i, s in enumerate(shapes)]  # fmt: skip
            optimizer = cls(params, lr=0.05, reg=reg, fused=fused, **options)
            for k in range(5):
                for p in params:
                    g = torch.randn(p.shape, generator=torch.Generator().manual_seed(k))
                    p.grad = p.detach() + g.to(p)
                optimizer.step()
            runs.append([p.detach().cpu() for p in params])
        torch.testing.assert_close(*runs, rtol=1e-9, atol=1e-12)


@cuda
def test_a_gpu_takes_few_launches():
    params = [nn.Parameter(torch.randn(20, 10, device="cuda")) for _ in range(50)]
    optimizer = LinBreg(params, lr=0.1, reg=L1(0.1))
    for p in params:
        p.grad = torch.randn_like(p)
    for _ in range(2):
        optimizer.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        optimizer.step()
        torch.cuda.synchronize()
    launches = sum(
        event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events()
    )
    assert launches < len(params)


@pytest.mark.parametrize("cls", [LinBreg, AdaBreg])
def test_a_parameter_that_has_not_moved_stays_so_through_a_checkpoint(cls):
    theta = torch.tensor([1e-9, 0.3, 0.1234567])

    def stepped(optimizer, p, times):
        for _ in range(times):
            p.grad = torch.zeros_like(p)
            optimizer.step()
        return p

    whole, first, resumed = (torch.nn.Parameter(theta.clone()) for _ in range(3))
    stepped(cls([whole], reg=L1(0.1)), whole, 4)
    optimizer = cls([first], reg=L1(0.1))
    stepped(optimizer, first, 2)
    again = cls([resumed], reg=L1(0.1))
    again.load_state_dict(optimizer.state_dict())
    stepped(again, resumed, 2)
    assert torch.equal(resumed, whole)
    assert torch.equal(whole, theta)


# ---------------------------------------------------------------------------------------------
# Tensors that lie otherwise in memory
# ---------------------------------------------------------------------------------------------


def with_gaps(x):
    """The same numbers in every second place of a larger tensor."""
    return x.repeat_interleave(2, -1)[..., ::2]


LAYOUTS = {
    "gradient in channels last": (lambda p: p, lambda g: g.to(memory_format=torch.channels_last)),
    "gradient transposed": (lambda p: p, lambda g: g.transpose(0, 2).contiguous().transpose(0, 2)),
    "gradient with gaps": (lambda p: p, with_gaps),
    "parameter in channels last": (lambda p: p.to(memory_format=torch.channels_last), lambda g: g),
    "parameter with gaps": (with_gaps, lambda g: g),
    "both transposed": (lambda p: p.mT, lambda g: g.mT.contiguous()),
}


@every_kernel
@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_do_not_depend_on_the_layout_in_memory(cls, options, layout, fused):
    lay_parameter, lay_gradient = LAYOUTS[layout]
    start = parameter(4, 3, 3, 3).detach()
    turned = layout == "both transposed"
    found = []
    for odd in (False, True):
        p = nn.Parameter(lay_parameter(start.clone()) if odd else start.clone())
        optimizer = cls([p], lr=0.1, reg=L1(0.05), fused=fused, **options)
        for k in range(4):
            g = parameter(4, 3, 3, 3, seed=k + 1).detach()
            p.grad = lay_gradient(g) if odd else g
            optimizer.step()
        found.append(p.detach().mT if odd and turned else p.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)


@every_kernel
@every_case
def test_a_gradient_that_is_one_number_for_all(cls, options, fused):
    expanded, plain = nn.Parameter(torch.zeros(100)), nn.Parameter(torch.zeros(100))
    for p, g in ((expanded, torch.ones(1).expand(100)), (plain, torch.ones(100))):
        optimizer = cls([p], lr=0.1, fused=fused, **options)
        p.grad = g
        optimizer.step()
    assert torch.equal(expanded, plain)
    assert plain.unique().numel() == 1


@every_kernel
@every_case
@pytest.mark.parametrize("resumed", [False, True])
def test_a_model_that_becomes_channels_last(cls, options, resumed, fused):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).double()

    def optimizer_of(model):
        return cls(param_groups(model, conv=L1(0.01)), lr=0.01, fused=fused, **options)

    def train(model, optimizer, steps):
        for k in steps:
            x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(k)).double()
            optimizer.zero_grad()
            model(x).sub(1).square().mean().backward()
            optimizer.step()

    plain, changed = network(), network()
    train(plain, optimizer_of(plain), range(8))
    optimizer = optimizer_of(changed)
    train(changed, optimizer, range(4))
    if resumed:
        changed, kept = network().to(memory_format=torch.channels_last), changed
        changed.load_state_dict(kept.state_dict())
        state, optimizer = stored(optimizer.state_dict()), optimizer_of(changed)
        optimizer.load_state_dict(state)
    else:
        changed.to(memory_format=torch.channels_last)
    train(changed, optimizer, range(4, 8))
    for p, q in zip(plain.parameters(), changed.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
