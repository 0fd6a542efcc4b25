"""The state of a cycle travels in the optimizer's, and every step can be gone on from."""

import copy
import io
import warnings

import pytest
import torch
from multilevel_cases import X, Y, build, every_optimizer, parameters, same, train, values
from torch import nn
from torch.optim import lr_scheduler

from bregman import GroupL12, Multilevel, param_groups
from bregman.suite.models import MLP
from bregman.suite.training import fit

every_kind = pytest.mark.parametrize(
    ("regs", "path"),
    [("l1", "csr"), ("rows", "masked"), ("filters", "gathered"), ("kernels", "auto"),
     ("channels", "auto")],
)  # fmt: skip


def stored(*parts):
    """What torch.save and torch's default torch.load make of the parts' states."""
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    file.seek(0)
    return torch.load(file)


@every_optimizer
@every_kind
@pytest.mark.parametrize("model_first", [True, False])
def test_a_training_goes_on_bit_for_bit_from_any_step(optimizer, regs, path, model_first):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 4, path=path)
    states = []
    train(model, ours, 12, before=lambda k: states.append((cycle.frozen, stored(model, ours))))
    assert {frozen for frozen, _ in states} == {True, False}
    # to store it has changed nothing
    twin, plain = build(optimizer, regs)
    Multilevel(twin, plain, 4, path=path)
    train(twin, plain, 12)
    assert same(values(ours), values(plain))
    for k, (frozen, (of_model, of_optimizer)) in enumerate(states):
        twin, other = build(optimizer, regs)
        third = Multilevel(twin, other, 4, path=path)
        train(twin, other, 7, start=50)
        if model_first:
            twin.load_state_dict(of_model)
        other.load_state_dict(of_optimizer)
        if not model_first:
            twin.load_state_dict(of_model)
        assert third.frozen == frozen
        train(twin, other, 12 - k, start=k)
        assert same(values(other), values(ours))


def test_loading_into_the_cycle_that_stored_it():
    model, ours = build("momentum", "rows")
    Multilevel(model, ours, 5)
    train(model, ours, 4)
    states = copy.deepcopy([model.state_dict(), ours.state_dict()])
    train(model, ours, 5, start=4)
    expected = values(ours)
    train(model, ours, 2, start=9)
    model.load_state_dict(states[0])
    ours.load_state_dict(states[1])
    train(model, ours, 5, start=4)
    assert same(values(ours), expected)


def test_a_state_without_a_cycle_and_a_cycle_without_a_state():
    model, ours = build("AdaBreg", "filters")
    cycle = Multilevel(model, ours, 4)
    train(model, ours, 7)
    assert cycle.frozen
    of_model, of_optimizer = stored(model, ours)
    twin, plain = build("AdaBreg", "filters")
    twin.load_state_dict(of_model)
    with pytest.warns(UserWarning, match=r"state_dict has \['multilevel'\] of what was attached"):
        plain.load_state_dict(of_optimizer)
    assert same(values(plain), values(ours)), "weights and states are whole all the same"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # one of a plain optimizer starts with a full step
        of_model, of_optimizer = stored(twin, plain)
        model.load_state_dict(of_model)
        ours.load_state_dict(of_optimizer)
    assert not cycle.frozen
    train(model, ours, 1, start=7)
    train(twin, plain, 1, start=7)
    assert same(values(plain), values(ours))


@pytest.mark.parametrize(
    "other",
    [lambda: nn.ModuleDict({"body": MLP((64, 20, 15, 4)).double()}),
     lambda: MLP((64, 9, 15, 4)).double()],
    ids=["names", "sizes"],
)  # fmt: skip
@pytest.mark.parametrize("own_steps", [0, 3])
def test_a_state_of_another_network_is_refused_and_nothing_changes(other, own_steps):
    model, ours = build("AdaBreg", "rows")
    Multilevel(model, ours, 4)
    train(model, ours, 3)
    twin = other()
    optimizer = type(ours)(param_groups(twin, linear=GroupL12(0.03, 1)), lr=0.3)
    cycle = Multilevel(twin, optimizer, 4)
    net = twin["body"] if isinstance(twin, nn.ModuleDict) else twin
    train(net, optimizer, own_steps)
    before = values(optimizer), [dict(group) for group in optimizer.param_groups], cycle.frozen
    with pytest.raises(
        ValueError, match=r"over this model, got one with 1\.weight of shape \(20, 64\)"
    ):
        optimizer.load_state_dict(stored(model, ours)[1])
    assert same(values(optimizer), before[0])
    for group, kept in zip(optimizer.param_groups, before[1], strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == {
            k: v for k, v in kept.items() if k != "params"
        }
    assert cycle.frozen == before[2]


def test_a_state_is_that_of_its_moment():
    model, ours = build("momentum", "l1")
    Multilevel(model, ours, 4, path="csr")
    train(model, ours, 3)
    state = copy.deepcopy(ours.state_dict())
    expected = values(ours)[len(parameters(ours)) :]
    train(model, ours, 5, start=3)
    found = [t for s in state["state"].values() for t in s.values()]
    assert {type(t) for t in found} == {torch.Tensor}
    assert same(found, expected)


@every_optimizer
@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("filters", "gathered")])
def test_a_run_through_fit_resumes_bit_for_bit(optimizer, regs, path, tmp_path):
    def run(epochs, checkpoint=None):
        model, ours = build(optimizer, regs)
        cycle = Multilevel(model, ours, 3, path=path)
        result = fit(
            model, ours, (X[:350], Y[:350]), (X[350:], Y[350:]), epochs=epochs, batch_size=32,
            generator=torch.Generator().manual_seed(5), scheduler=lr_scheduler.StepLR(ours, 2, 0.5),
            checkpoint=checkpoint, checkpoint_seconds=0.0,
        )  # fmt: skip
        return result.history, values(ours), cycle.missed

    expected = run(6)
    # eleven steps make an epoch, and four a cycle
    assert expected[2] == 1
    run(3, tmp_path / "run.ckpt")
    history, found, _ = run(6, tmp_path / "run.ckpt")
    assert history == expected[0]
    assert same(found, expected[1])
