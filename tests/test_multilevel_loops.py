"""The cycle beside all that a training loop does."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
from multilevel_cases import (
    REGULARIZERS,
    X,
    assert_close,
    assert_in_subdifferential,
    build,
    minibatch_loss,
    parameters,
    same,
    textbook,
    train,
    values,
)
from torch import nn
from torch.optim import lr_scheduler

from bregman import L1, GroupL12, LinBreg, Multilevel, SparsityTarget, param_groups
from bregman.suite.models import SkipMLP


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


@pytest.mark.parametrize("path", ["csr", "masked"])
def test_a_momentum_that_begins_within_a_cycle(path):
    """With so small a lambda all weights are in the support: as without frozen steps."""

    def run(m):
        model, _ = build("LinBreg", "l1")
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1)
        ours = LinBreg(param_groups(model, linear=L1(1e-9)), lr=0.1)
        cycle = Multilevel(model, ours, m, path=path)
        train(model, ours, 3)
        assert cycle.frozen == bool(m)
        for group in ours.param_groups:
            group["momentum"] = 0.8
        train(model, ours, 7, start=3)
        cycle.finish()
        return values(ours)

    assert_close(run(12), run(0))


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
