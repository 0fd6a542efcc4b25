"""What anybody may do to model and optimizer in the middle of a cycle."""

import copy
import pickle

import pytest
import torch
from multilevel_cases import (
    X,
    Y,
    assert_close,
    assert_in_subdifferential,
    build,
    every_optimizer,
    minibatch_loss,
    parameters,
    rests,
    same,
    textbook,
    train,
    values,
)
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from bregman import L1, GroupL12, LinBreg, Multilevel, param_groups
from bregman.flops import layer_densities
from bregman.suite.models import MLP
from bregman.suite.training import evaluate

every_kind = pytest.mark.parametrize(
    ("regs", "path"),
    [("l1", "csr"), ("rows", "gathered"), ("filters", "gathered"), ("filters", "masked"),
     ("kernels", "auto"), ("columns", "auto")],
)  # fmt: skip


def made(optimizer, regs, path, steps=0, m=4):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, m, path=path)
    train(model, ours, steps)
    return model, ours, cycle


def undisturbed(optimizer, regs, path, steps=14):
    _model, ours, cycle = made(optimizer, regs, path, steps)
    cycle.finish()
    return values(ours)


# ---------------------------------------------------------------------------------------------
# Looking on changes nothing, and what is seen is right
# ---------------------------------------------------------------------------------------------


LOOKS = {
    "evaluate": lambda model, optimizer: evaluate(model, (X[:4], Y[:4]), F.cross_entropy),
    "state": lambda model, optimizer: (model.state_dict(), optimizer.state_dict()),
    "densities": lambda model, optimizer: layer_densities(model),
    "copy": lambda model, optimizer: copy.deepcopy(model)(X[:4]),
    "average": lambda model, optimizer: AveragedModel(model).update_parameters(model),
    "pickle": lambda model, optimizer: pickle.loads(pickle.dumps(model)),
    "norms": lambda model, optimizer: [p.norm() for p in parameters(optimizer)],
    "data": lambda model, optimizer: [p.data.clone() for p in model.parameters()],
    "numpy": lambda model, optimizer: [p.detach().numpy() for p in model.parameters()],
    "gradients": lambda model, optimizer: [p.grad.norm() for p in model.parameters()],
    "input gradient": lambda model, optimizer: torch.autograd.grad(
        model(x := X[:3].clone().requires_grad_()).sum(), x
    ),
    "some gradients": lambda model, optimizer: torch.autograd.grad(
        minibatch_loss(model, 0), list(model.parameters())
    ),
}


@every_kind
def test_transforms_of_torch_func(regs, path):
    model, _, _ = made("AdaBreg", regs, path, 7)
    other = copy.deepcopy(model)

    def seen(model):
        given = {name: p.detach() for name, p in model.named_parameters()}

        def loss(given, x):
            return functional_call(model, given, (x[None],)).square().sum()

        return [
            vmap(lambda x: model(x[None])[0])(X[:4]),
            jacrev(model)(X[:2]),
            *vmap(grad(loss), (None, 0))(given, X[:4]).values(),
        ]

    assert_close(seen(model), seen(other))


@every_kind
@pytest.mark.parametrize("look", LOOKS)
def test_whoever_looks_changes_nothing(regs, path, look):
    optimizer = "AdaBreg"
    model, ours, cycle = made(optimizer, regs, path)
    for k in range(14):
        train(model, ours, 1, start=k)
        LOOKS[look](model, ours)
        model.train()
    cycle.finish()
    assert same(values(ours), undisturbed(optimizer, regs, path))


@every_optimizer
@every_kind
def test_whoever_looks_finds_what_the_textbook_has(optimizer, regs, path):
    model, ours, cycle = made(optimizer, regs, path)
    twin, plain = build(optimizer, regs)
    for k in range(1, 8):
        train(model, ours, 1, start=k - 1)
        thetas, vs = textbook(twin, plain, 4, k)
        twin, plain = build(optimizer, regs)
        assert_close([p.detach() for p in parameters(ours)], thetas)
        assert_close([ours.state[p]["subgrad"] for p in parameters(ours)], vs)
        assert_in_subdifferential(ours)
        state = ours.state_dict()["state"]
        assert_close([state[i]["subgrad"] for i in range(len(vs))], vs)
        assert layer_densities(model) == pytest.approx(
            {
                name: layer.weight.count_nonzero().item() / layer.weight.numel()
                for name, layer in model.named_modules()
                if hasattr(layer, "weight")
            }
        )
        assert cycle.frozen == (k % 5 != 0)


@every_kind
def test_the_gradient_is_that_of_the_whole_weight_on_the_support(regs, path):
    model, ours, _cycle = made("LinBreg", regs, path, 3)
    twin = copy.deepcopy(model)
    ours.zero_grad()
    minibatch_loss(model, 3).backward()
    minibatch_loss(twin, 3).backward()
    before = [p.detach().clone() for p in model.parameters()]
    got = [p.grad for p in model.parameters()]
    asked = torch.autograd.grad(minibatch_loss(model, 3), list(model.parameters()))
    for p, q, g, again in zip(model.parameters(), twin.parameters(), got, asked, strict=True):
        moving = g != 0
        assert g.shape == p.shape
        torch.testing.assert_close(g[moving], q.grad[moving], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(again, g, rtol=1e-12, atol=1e-14)
    ours.step()
    for p, b, g in zip(model.parameters(), before, got, strict=True):
        outside = (b == 0) & (g == 0)
        assert not p[outside].any()


@every_kind
def test_an_average_of_all_steps(regs, path):
    model, ours, _cycle = made("momentum", regs, path, 2)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    ema.update_parameters(model)
    expected = textbook(*build("momentum", regs), 4, 2)[0]
    for k in range(2, 13):
        train(model, ours, 1, start=k)
        ema.update_parameters(model)
        thetas = textbook(*build("momentum", regs), 4, k + 1)[0]
        expected = [0.5 * a + 0.5 * b for a, b in zip(expected, thetas, strict=True)]
    order = {id(p): i for i, p in enumerate(parameters(ours))}
    found = {order[id(p)]: q for p, q in zip(model.parameters(), ema.parameters(), strict=True)}
    assert_close([found[i].detach() for i in range(len(expected))], expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("steps", [3, 5, 12])
@every_kind
def test_a_copy_of_the_model_is_a_plain_model_of_its_own(copied, regs, path, steps):
    model, ours, _cycle = made("momentum", regs, path, steps)
    twin = copied(model)
    assert same(list(twin.state_dict().values()), list(model.state_dict().values()))
    assert {type(p) for p in twin.parameters()} == {nn.Parameter}
    expected = twin(X[:5])
    torch.testing.assert_close(expected, model(X[:5]))
    train(model, ours, 4, start=steps)
    assert torch.equal(twin(X[:5]), expected)
    linear, conv = (L1(0.01), None) if regs == "l1" else (GroupL12(0.01, 1), L1(0.01))
    second = Multilevel(twin, LinBreg(param_groups(twin, linear=linear, conv=conv), lr=0.1), 3)
    train(twin, second.optimizer, 6)
    second.finish()
    assert_in_subdifferential(second.optimizer)


# ---------------------------------------------------------------------------------------------
# Hooks
# ---------------------------------------------------------------------------------------------


@every_optimizer
@every_kind
@pytest.mark.parametrize("post", [False, True])
def test_tensor_hooks_fire_in_every_step_and_change_nothing(optimizer, regs, path, post):
    model, ours, cycle = made(optimizer, regs, path, 7)
    assert cycle.frozen
    fired = dict.fromkeys(range(len(parameters(ours))), 0)
    for i, p in enumerate(parameters(ours)):

        def hook(g, i=i, shape=p.shape):
            fired[i] += 1
            assert g.shape == shape

        (p.register_post_accumulate_grad_hook if post else p.register_hook)(hook)
    train(model, ours, 7, start=7)
    cycle.finish()
    assert set(fired.values()) == {7}
    assert same(values(ours), undisturbed(optimizer, regs, path))


@every_kind
def test_a_hook_that_changes_gradients(regs, path):
    """Half of each gradient is half of the learning rate, without momentum."""

    def run(lr, hooked):
        model, ours = build("LinBreg", regs, lr=lr)
        cycle = Multilevel(model, ours, 4, path=path)
        train(model, ours, 2)
        if hooked:
            for p in model.parameters():
                p.register_hook(lambda g: g / 2)
        else:
            for group in ours.param_groups:
                group["lr"] = lr / 2
        train(model, ours, 10, start=2)
        cycle.finish()
        return values(ours)

    assert_close(run(0.1, True), run(0.1, False))


@every_kind
@pytest.mark.parametrize("everywhere", [False, True])
def test_module_hooks_see_whole_inputs_and_outputs(regs, path, everywhere):
    model, _ours, _cycle = made("momentum", regs, path, 7)
    shapes = {name: (module(X[:16]).shape if name == "" else None)
              for name, module in model.named_modules()}  # fmt: skip
    plain = copy.deepcopy(model)
    seen, expected = [], []
    for net, found in ((model, seen), (plain, expected)):
        for module in net:
            module.register_forward_hook(lambda m, x, y, found=found: found.append((x[0], y)))
            module.register_full_backward_hook(lambda m, x, y, found=found: found.append(y))
        rows = X[:16].clone().requires_grad_()
        net(rows).sum().backward()
        if everywhere and net is model:
            seen.clear()
            handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
            net(rows).sum().backward()
            handle.remove()
    assert shapes[""] == (16, 4)
    assert len(seen) == len(expected) == 2 * len(model)
    for a, b in zip(seen, expected, strict=True):
        assert_close([t.detach() for t in a], [t.detach() for t in b])


@every_kind
def test_a_module_hook_that_changes_what_goes_through(regs, path):
    """Also where it makes other numbers of the constants that dead neurons give."""

    def run(path):
        model, ours, cycle = made("LinBreg", regs, path)
        noise = torch.Generator().manual_seed(0)

        def add_noise(module, x, y):
            return y + torch.rand(y.shape, generator=noise, dtype=y.dtype)

        for module in model:
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(add_noise)
        train(model, ours, 12)
        cycle.finish()
        return values(ours)

    assert_close(run(path), run("masked"))


@every_kind
def test_layers_called_one_by_one(regs, path):
    model, _ours, _cycle = made("LinBreg", regs, path, 7)
    x = X[:16]
    expected = copy.deepcopy(model)(x)
    shapes = []
    for module in model:
        x = module(x)
        shapes.append(x.shape)
    torch.testing.assert_close(x, expected)
    x = X[:16]
    for module, shape in zip(copy.deepcopy(model), shapes, strict=True):
        x = module(x)
        assert x.shape == shape


# ---------------------------------------------------------------------------------------------
# Freezing, edits, moves
# ---------------------------------------------------------------------------------------------


@every_optimizer
@every_kind
@pytest.mark.parametrize("how", ["method", "attribute", "module"])
def test_freezing_a_layer(optimizer, regs, path, how):
    model, ours, cycle = made(optimizer, regs, path, 7)
    layer = model[3]
    if how == "module":
        layer.requires_grad_(False)
    for p in layer.parameters():
        if how == "method":
            p.requires_grad_(False)
        elif how == "attribute":
            p.requires_grad = False
    before = [p.detach().clone() for p in layer.parameters()]
    train(model, ours, 9, start=7)
    cycle.finish()
    assert same([p.detach() for p in layer.parameters()], before)
    assert not any(p.requires_grad for p in layer.parameters())
    # the others go on as without those two
    until = {i: 7 for i, p in enumerate(parameters(ours)) if not p.requires_grad}
    thetas, _ = textbook(*build(optimizer, regs), 4, 16, until=until)
    assert_close([p.detach() for p in parameters(ours)], thetas)


def test_a_layer_that_was_frozen_for_some_steps_is_caught_up_for_those_that_it_took():
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0]]))
    optimizer = LinBreg(model.parameters(), lr=0.01, reg=L1(10.0))
    cycle = Multilevel(model, optimizer, 4)
    for k in range(6):
        model.weight.requires_grad_(k not in (2, 3))
        optimizer.zero_grad()
        x = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
        model(x).sum().backward()
        optimizer.step()
    cycle.finish()
    # a full step, then one for it and for two of the four frozen ones
    v = optimizer.state[model.weight]["subgrad"]
    assert v[0, 1].item() == pytest.approx(-0.01 * (1 + 3))


@pytest.mark.filterwarnings("ignore:a parameter of shape:UserWarning")
@every_optimizer
@every_kind
def test_an_edit_ends_the_cycle(optimizer, regs, path):
    model, ours, cycle = made(optimizer, regs, path, 7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    expected = copy.deepcopy(model)(X[:5])
    assert torch.equal(model(X[:5]), expected)
    assert not cycle.frozen
    train(model, ours, 3, start=7)
    cycle.finish()
    assert_in_subdifferential(ours)


def test_an_edit_through_data_is_seen_in_the_next_product():
    model, _ours, _cycle = made("LinBreg", "l1", "csr", 7)
    for p in model.parameters():
        p.data.clamp_(-0.01, 0.01)
    expected = copy.deepcopy(model)(X[:5])
    torch.testing.assert_close(model(X[:5]), expected)


@every_kind
def test_resync_and_a_new_regularizer_in_the_middle_of_a_cycle(regs, path):
    model, ours, cycle = made("LinBreg", regs, path, 7)
    ours.resync()
    for p in parameters(ours):
        group = next(group for group in ours.param_groups if p in set(group["params"]))
        expected = group["reg"].subgrad(p.detach()) + p.detach() / group["delta"]
        torch.testing.assert_close(ours.state[p]["subgrad"], expected)
    for lam in (0.001, 0.2):
        for group in ours.param_groups[:1]:
            group["reg"] = group["reg"].with_lam(lam)
        train(model, ours, 1, start=7)
        cycle.finish()
        assert_in_subdifferential(ours)
        train(model, ours, 2, start=8)


@every_kind
@pytest.mark.parametrize("dtype", ["half", "bfloat16", "float", "double"])
def test_moving_the_model_ends_the_cycle(regs, path, dtype):
    model, _ours, cycle = made("LinBreg", regs, path, 7)
    with torch.no_grad():
        expected = [getattr(p, dtype)() for p in model.parameters()]
    getattr(model, dtype)()
    assert not cycle.frozen or dtype == "double"
    assert same([p.detach() for p in model.parameters()], expected)
    assert {type(p) for p in model.parameters()} == {nn.Parameter} or dtype == "double"


@pytest.mark.parametrize(
    ("regs", "path"), [("l1", "csr"), ("rows", "gathered"), ("rows", "masked")]
)
def test_parameters_in_bfloat16(regs, path):
    def run(path):
        model, _ = build("LinBreg", regs)
        model.bfloat16()
        reg = L1(0.05) if regs == "l1" else GroupL12(0.03, 1)
        ours = LinBreg(param_groups(model, linear=reg), lr=0.1)
        cycle = Multilevel(model, ours, 4, path=path)
        train(model, ours, 12)
        cycle.finish()
        for group in ours.param_groups:
            for p in group["params"]:
                v = ours.state[p]["subgrad"]
                assert v.dtype == torch.float32
                assert torch.equal(group["reg"].prox(v).bfloat16(), p.detach())
        return [p.detach().float() for p in parameters(ours)]

    assert_close(run(path), run("masked"), 0.05)


# ---------------------------------------------------------------------------------------------
# Around it
# ---------------------------------------------------------------------------------------------


@every_optimizer
@every_kind
def test_clipping_with_a_list_from_before(optimizer, regs, path):
    def run(path, listed, clipped):
        model, ours, cycle = made(optimizer, regs, path)
        before = list(model.parameters())
        for k in range(12):
            ours.zero_grad()
            minibatch_loss(model, k).backward()
            if clipped:
                nn.utils.clip_grad_norm_(before if listed else model.parameters(), 0.1)
            ours.step()
        cycle.finish()
        return values(ours)

    clipped = run(path, True, True)
    assert same(clipped, run(path, False, True))
    assert not same(clipped, run(path, False, False))
    assert_close(clipped, run("masked", True, True))


@every_kind
@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_of_several_batches_add_up(regs, path, set_to_none):
    """Two halves of a batch are the batch, also if somebody looks at the gradients in between."""

    def run(halves, who):
        model, ours, cycle = made("LinBreg", regs, path)
        for k in range(12):
            who(model, ours).zero_grad(set_to_none=set_to_none)
            rows = torch.randperm(400, generator=torch.Generator().manual_seed(k))[:16]
            for part in rows.chunk(halves):
                (F.cross_entropy(model(X[part]), Y[part]) / halves).backward()
                if who(model, ours) is model:
                    assert all(p.grad is not None for p in model.parameters())
            ours.step()
        cycle.finish()
        return values(ours)

    expected = run(1, lambda model, ours: ours)
    assert_close(run(2, lambda model, ours: ours), expected)
    assert_close(run(2, lambda model, ours: model), expected)


@every_kind
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("segments", [1, 2])
def test_activation_checkpoints(regs, path, reentrant, segments):
    def run(path, forward):
        model, ours, cycle = made("momentum", regs, path)
        for k in range(12):
            ours.zero_grad()
            rows = torch.randperm(400, generator=torch.Generator().manual_seed(k))[:16]
            F.cross_entropy(forward(model, X[rows]), Y[rows]).backward()
            ours.step()
        cycle.finish()
        return values(ours)

    def recomputed(model, x):
        x = x.clone().requires_grad_()
        if segments == 1:
            return checkpoint(model, x, use_reentrant=reentrant)
        return checkpoint_sequential(model, segments, x, use_reentrant=reentrant)

    expected = run(path, lambda model, x: model(x))
    assert_close(run(path, recomputed), expected)


class Inside(nn.Module):
    """A chain of which a part is computed again in the backward pass."""

    def __init__(self, chain, again):
        super().__init__()
        self.chain, self.again = chain, again

    def forward(self, x):
        return checkpoint(self.chain, x, use_reentrant=False) if self.again else self.chain(x)


@every_kind
def test_an_activation_checkpoint_inside_of_the_model(regs, path):
    def run(again):
        chain, ours = build("LinBreg", regs)
        model = Inside(chain, again)
        cycle = Multilevel(model, ours, 4, path=path)
        train(model, ours, 12)
        cycle.finish()
        return values(ours)

    assert_close(run(True), run(False))


@every_kind
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model(regs, path, backend):
    def run(compiled):
        model, ours, cycle = made("LinBreg", regs, path)
        train(torch.compile(model, backend=backend) if compiled else model, ours, 12)
        cycle.finish()
        return values(ours)

    torch._dynamo.reset()
    assert_close(run(True), run(False))


def test_a_parameter_in_use_elsewhere_too():
    """A weight that is part of the loss, and of a second product outside of its layer."""

    def run(m):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = MLP((64, 20, 64)).double()
        ours = LinBreg(param_groups(model, linear=L1(1e-9)), lr=0.01)
        cycle = Multilevel(model, ours, m)
        for k in range(8):
            ours.zero_grad()
            first = model[1].weight
            again = F.linear(model(X[k : k + 9]), first) @ first
            (again.square().mean() + 0.1 * first.square().sum()).backward()
            ours.step()
        cycle.finish()
        return values(ours)

    # with so small a lambda all weights are in the support
    assert_close(run(3), run(0))


def replica(rank, path, unused, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank,
                                         world_size=2)  # fmt: skip
    try:
        for regs, way in (("l1", "csr"), ("rows", "gathered"), ("filters", "gathered")):
            model, ours = build("momentum", regs)
            cycle = Multilevel(model, ours, 4, path=way)
            wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=unused)
            for k in range(12):
                ours.zero_grad()
                rows = torch.randperm(400, generator=torch.Generator().manual_seed(k))[:16]
                half = rows.chunk(2)[rank]
                F.cross_entropy(wrapped(X[half]), Y[half]).backward()
                ours.step()
            cycle.finish()
            results[rank, regs] = [t.tolist() for t in values(ours)]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("unused", [False, True])
def test_two_processes_train_like_one(unused, tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.Manager().dict()
    workers = [
        context.Process(target=replica, args=(rank, tmp_path / "store", unused, results))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    for regs, path in (("l1", "csr"), ("rows", "gathered"), ("filters", "gathered")):
        assert results[0, regs] == results[1, regs]
        expected = [t.tolist() for t in undisturbed("momentum", regs, path, 12)]
        for a, b in zip(results[0, regs], expected, strict=True):
            torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-5, atol=1e-7)


def test_one_cycle_per_optimizer_and_detach():
    model, ours, cycle = made("AdaBreg", "filters", "gathered", 7)
    with pytest.raises(ValueError, match=r"one that has a Multilevel already: call the detach\(\)"):
        Multilevel(model, ours, 3)
    assert cycle.frozen, "nothing was changed by that"
    plain_model, plain = build("AdaBreg", "filters")
    hooks = [name for name in vars(plain) if "hooks" in name]
    cycle.detach()
    for name in hooks:
        assert len(vars(ours)[name]) == len(vars(plain)[name])
    assert "zero_grad" not in vars(ours)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert vars(module).keys() == vars(next(
            m for m in plain_model.modules() if type(m) is type(module)
        )).keys()  # fmt: skip
    assert {type(p) for p in model.parameters()} == {nn.Parameter}
    assert {type(t) for s in ours.state.values() for t in s.values()} == {torch.Tensor}
    # from here on it is the optimizer alone
    plain_model.load_state_dict(model.state_dict())
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    train(model, ours, 5, start=7)
    train(plain_model, plain, 5, start=7)
    assert same(values(ours), values(plain))
    cycle.detach()
    Multilevel(model, ours, 3).detach()


def test_two_optimizers_of_one_model():
    def run(m):
        model, _ = build("LinBreg", "l1")
        halves = [list(model[1].parameters()), [*model[3].parameters(), *model[5].parameters()]]
        optimizers, cycles = [], []
        for half in halves:
            weights = [p for p in half if p.dim() == 2]
            rest = [p for p in half if p.dim() == 1]
            groups = [{"params": weights, "reg": L1(0.05)}, {"params": rest}]
            optimizers.append(LinBreg(groups, lr=0.1))
            cycles.append(Multilevel(model, optimizers[-1], 3) if m else None)
        if not m:
            merged = [group for o in optimizers for group in o.param_groups]
            optimizers = [LinBreg(merged, lr=0.1)]
            cycles = [Multilevel(model, optimizers[0], 3)]
        for k in range(10):
            for optimizer in optimizers:
                optimizer.zero_grad()
            minibatch_loss(model, k).backward()
            for optimizer in optimizers:
                optimizer.step()
        for cycle in cycles:
            cycle.finish()
        return [p.detach().clone() for p in model.parameters()]

    assert_close(run(2), run(0))


# ---------------------------------------------------------------------------------------------
# Gradients of gradients, averages, states, copies, other places
# ---------------------------------------------------------------------------------------------


def slopes(model, x):
    """The gradients of the outputs in the inputs, to be differentiated again."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).tanh().sum(), x, create_graph=True)[0]


SECOND_ORDER = {
    "penalty": lambda model, moves: slopes(model, X[:5]).square().sum(),
    "curvature in x": lambda model, moves: torch.autograd.functional.hvp(
        lambda x: model(x).tanh().sum(), X[:5], X[5:10], create_graph=True
    )[1].square().sum(),
    # of what moves
    "gradient norm": lambda model, moves: sum(
        (g * moving).square().sum() for g, moving in zip(
            torch.autograd.grad(minibatch_loss(model, 3), [*model.parameters()], create_graph=True),
            moves, strict=True,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SECOND_ORDER)
@every_kind
def test_gradients_of_gradients_are_those_of_a_plain_model(regs, path, what):
    model, optimizer, cycle = made("LinBreg", regs, path)
    frozen, resting = [], {}
    for k in range(7):
        plain = copy.deepcopy(model)
        optimizer.zero_grad()
        loss = minibatch_loss(model, 3)
        moves = [g != 0 for g in torch.autograd.grad(loss, list(model.parameters()))]
        if not cycle.frozen:
            moves = [torch.ones_like(moving) for moving in moves]
        for each in (model, plain):
            SECOND_ORDER[what](each, moves).backward()
        frozen.append(cycle.frozen)
        if not cycle.missed:
            resting = rests(model, optimizer)
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            moving = p.grad != 0
            assert_close([p.grad], [q.grad * moving if cycle.frozen else q.grad], 1e-10)
            still = resting.get(p, torch.zeros(())).bool()
            assert (moving | still | (q == 0) | (q.grad == 0)).all()
        optimizer.zero_grad()
        minibatch_loss(model, k).backward()
        optimizer.step()
    assert set(frozen) == {True, False}


@every_kind
def test_an_average_swapped_in_for_an_evaluation_is_no_edit(regs, path):
    model, ours, cycle = made("AdaBreg", regs, path)
    for k in range(14):
        train(model, ours, 1, start=k)
        kept = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.data.mul_(0.9)
        with torch.no_grad():
            seen = model(X[:4])
        weights = {
            name: 0.9 * x for (name, _), x in zip(model.named_parameters(), kept, strict=True)
        }
        assert_close([seen], [functional_call(copy.deepcopy(model), weights, (X[:4],))])
        for p, x in zip(model.parameters(), kept, strict=True):
            p.data.copy_(x)
    cycle.finish()
    assert same(values(ours), undisturbed("AdaBreg", regs, path))


@every_optimizer
@every_kind
@pytest.mark.parametrize("at", [3, 5, 6])
def test_states_taken_away_begin_anew(optimizer, regs, path, at):
    """After ``state.clear()``, at whichever step, as an optimizer made there."""
    model, ours, cycle = made(optimizer, regs, path, at)
    ours.state.clear()
    other = copy.deepcopy(model)
    places = dict(zip(model.parameters(), other.parameters(), strict=True))
    groups = [{**g, "params": [places[p] for p in g["params"]]} for g in ours.param_groups]
    fresh = type(ours)(groups)
    again = Multilevel(other, fresh, 4, path=path)
    train(model, ours, 12, start=at)
    train(other, fresh, 12, start=at)
    assert (cycle.frozen, cycle.missed) == (again.frozen, again.missed)
    for one in (cycle, again):
        one.finish()
    assert_close(values(ours), values(fresh))


def test_weight_decay_within_a_cycle_reaches_what_rested():
    """It decays, and v stays a subgradient: the cycle ends."""
    results = []
    for told, path in ((False, "masked"), (False, "gathered"), (True, "gathered")):
        model, ours, cycle = made("LinBreg", "rows", path, 3, m=8)
        for group in ours.param_groups:
            group["weight_decay"] = 0.3
        if told:
            cycle.finish()
        for k in range(9):
            train(model, ours, 1, start=3 + k)
            assert_in_subdifferential(ours)
        cycle.finish()
        results.append(values(ours))
    assert same(results[1], results[2])
    assert_close(results[0], results[1])


@pytest.mark.parametrize("steps", [0, 3])
def test_a_cycle_is_not_copied(steps):
    model, ours, cycle = made("LinBreg", "rows", "gathered", steps)
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"can't be copied or pickled, .* attach another one"):
            copied((model, ours, cycle))
    train(model, ours, 14 - steps, start=steps)
    cycle.finish()
    assert same(values(ours), undisturbed("LinBreg", "rows", "gathered"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@every_kind
def test_tracing_and_exporting_take_the_whole_model(regs, path):
    model, ours, cycle = made("LinBreg", regs, path, 3)
    expected = copy.deepcopy(model)(X[:4])
    assert_close([torch.jit.trace(model, X[:4])(X[:4])], [expected])
    assert_close([torch.export.export(model, (X[:4],)).module()(X[:4])], [expected])
    train(model, ours, 11, start=3)
    cycle.finish()
    assert same(values(ours), undisturbed("LinBreg", regs, path))
