"""Masks that keep their budget, RigL, SET and gradual pruning step by step, and their resume."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.optim import SGD, Adam, AdamW

from bregman import L1, LinBreg
from bregman.layers import weights as all_weights
from bregman.suite.baselines import (
    SET,
    GradualPruning,
    MagnitudePruning,
    Masked,
    RigL,
    StaticSupport,
    add_subgradients,
    layer_budgets,
)
from bregman.suite.models import MLP, ResNet18
from bregman.suite.training import fit

OPTIMIZERS = {
    "SGD": lambda params: SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda params: SGD(params, lr=0.05, momentum=0.9, nesterov=True, fused=True),
    "Adam": lambda params: Adam(params, lr=1e-2),
    "AdamW": lambda params: AdamW(params, lr=1e-2, fused=True),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
METHODS = {
    "static": lambda *args, **kw: StaticSupport(*args[:3], generator=kw["generator"]),
    "SET": lambda *args, **kw: SET(*args, every=5, **kw),
    "RigL": lambda *args, **kw: RigL(*args, every=5, **kw),
    "gradual": lambda *args, generator: GradualPruning(*args, every=5),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 36, 20), nn.ReLU(), nn.Linear(20, 4),
    )  # fmt: skip


def weights(model):
    return [weight.parameter for weight in all_weights(model)]


def backward(model, seed=0):
    inputs = torch.randn(16, 1, 8, 8, generator=generator(seed))
    model.zero_grad()
    F.mse_loss(model(inputs), inputs.flatten(1)[:, :4]).backward()


def train(model, optimizer, steps, each=lambda step: None):
    for step in range(1, steps + 1):
        backward(model, step)
        optimizer.step()
        each(step)


# ---- how many weights each layer gets


@pytest.mark.parametrize("density", [0.013, 0.1, 0.5, 1.0])
def test_budgets_add_up_and_fit_into_the_layers(density):
    shapes = [w.shape for w in weights(ResNet18(width=8))]
    budgets = layer_budgets(shapes, density)
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(budgets) == round(density * sum(sizes))
    assert all(0 < budget <= size for budget, size in zip(budgets, sizes, strict=True))


def test_erk_densities_are_proportional_to_dimensions_over_size():
    shapes = [w.shape for w in weights(ResNet18(width=16))]
    budgets = layer_budgets(shapes, 0.1)
    densities = [b / math.prod(s) for b, s in zip(budgets, shapes, strict=True)]
    # the stem, the shortcuts and the linear layer have more dimensions per weight than the rest
    ratios = [d * math.prod(s) / sum(s) for d, s in zip(densities, shapes, strict=True) if d < 1]
    assert 1.0 in densities
    assert max(ratios) - min(ratios) < 0.02 * max(ratios)
    # and no dense layer would have got less than all of its weights
    for density, shape in zip(densities, shapes, strict=True):
        assert density < 1 or max(ratios) * sum(shape) >= math.prod(shape) - 1


# ---- what masks do


@every_optimizer
def test_masked_training_is_training_of_the_masked_model(optimizer):
    ours, reference = small_net(), small_net()
    opt, plain = optimizer(ours.parameters()), optimizer(reference.parameters())
    masked = StaticSupport(ours, opt, 0.2, generator=generator())
    masks = [mask.clone() for mask in masked.masks.values()]

    def apply():
        with torch.no_grad():
            for w, mask in zip(weights(reference), masks, strict=True):
                w.mul_(mask)

    apply()
    for step in range(20):
        backward(ours, step)
        backward(reference, step)
        opt.step()
        plain.step()
        apply()
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@every_optimizer
@every_method
def test_the_budget_is_kept_at_all_times(optimizer, method):
    model = small_net()
    opt = optimizer(model.parameters())
    masked = method(model, opt, 0.1, 60, generator=generator())
    total = sum(w.numel() for w in weights(model))
    seen = []

    def check(step):
        for w, mask in masked.masks.items():
            assert not w[~mask].any()
            assert not opt.state[w]["momentum_buffer" if "momentum_buffer" in opt.state[w]
                                    else "exp_avg"][~mask].any()  # fmt: skip
        seen.append([int(mask.sum()) for mask in masked.masks.values()])

    train(model, opt, 60, check)
    assert sum(seen[-1]) == round(0.1 * total)
    if isinstance(masked, GradualPruning):
        assert all(sum(a) >= sum(b) for a, b in pairwise(seen))
    else:
        assert all(counts == seen[0] for counts in seen), "in every layer"


class Noisy(torch.optim.Optimizer):
    """Moves every weight at random, and its state too: Langevin dynamics with momentum."""

    def __init__(self, parameters, step):
        super().__init__(parameters, {"step": step})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                kept = self.state[p].setdefault("velocity", torch.zeros_like(p))
                p.sub_(kept.mul_(0.5).add_(torch.randn_like(p)), alpha=group["step"])


MOVING = {
    "Muon": lambda model: torch.optim.Muon(weights(model), lr=0.02),
    "Noisy": lambda model: Noisy(weights(model), 0.02),
    # the same without a gradient of the loss: what has gone moves back to an old average
    "averaging": lambda model: Averaging(weights(model)),
}


class Averaging(SGD):
    """The slow weights of Lookahead, made before there was a mask."""

    def __init__(self, params):
        super().__init__(params, lr=0.1)
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
            p.lerp_(slow, 0.5)


@pytest.mark.parametrize("optimizer", MOVING.values(), ids=MOVING.keys())
@every_method
def test_masks_hold_where_an_optimizer_moves_weights_without_a_gradient(optimizer, method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6))
    masked = method(model, optimizer(model), 0.3, 20, generator=generator())
    for step in range(1, 21):
        model.zero_grad()
        model(torch.randn(9, 8, generator=generator(step))).square().mean().backward()
        masked.optimizer.step()
        assert not any(w[~mask].any() for w, mask in masked.masks.items())
    assert sum(int(mask.sum()) for mask in masked.masks.values()) == round(0.3 * 112)


def test_pruned_weights_stay_pruned_where_an_optimizer_moves_them():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6))
    optimizer = Noisy(weights(model), 0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(SGD(model.parameters(), lr=0.1))
    pruning = MagnitudePruning(model, optimizer, scheduler, 0.25, 10, groups=False)
    gone = {w: torch.zeros_like(w, dtype=torch.bool) for w in weights(model)}
    for epoch in range(1, 11):
        pruning(epoch)
        optimizer.step()
        for w, before in gone.items():
            assert not w[before].any()
            before |= w == 0
    assert sum(int(w.count_nonzero()) for w in weights(model)) == 28


@every_method
def test_dense_weights_that_are_loaded_are_masked_at_the_next_step(method):
    model = small_net()
    dense = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = SGD(model.parameters(), lr=0.05)
    masked = method(model, optimizer, 0.2, 40, generator=generator())
    train(model, optimizer, 25)
    free = {w: mask.clone() for w, mask in masked.masks.items()}
    assert any(not mask.all() for mask in free.values())
    model.load_state_dict(dense)
    train(model, optimizer, 1)
    for w, mask in masked.masks.items():
        assert torch.equal(w != 0, mask)
        if method is METHODS["gradual"]:
            assert not (mask & ~free[w]).any(), "what was pruned stays so"


def test_a_closure_sees_the_masked_weights():
    model = nn.Linear(6, 4)
    dense = {name: x.clone() for name, x in model.state_dict().items()}
    optimizer = SGD(model.parameters(), lr=0.1)
    static = StaticSupport(model, optimizer, 0.5, generator=generator())
    model.load_state_dict(dense)
    seen = []

    def closure():
        seen.append(int(model.weight.count_nonzero()))
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert seen == [int(static.masks[model.weight].sum())] == [12]


NEW = {
    "Adagrad": lambda params: torch.optim.Adagrad(params, lr=0.05, initial_accumulator_value=1.0),
    "Rprop": lambda params: torch.optim.Rprop(params, lr=0.05),
    "RMSprop": lambda params: torch.optim.RMSprop(params, lr=0.05, momentum=0.5, centered=True),
    "Adadelta": lambda params: torch.optim.Adadelta(params, lr=0.5),
    "SGD": lambda params: SGD(params, lr=0.05, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", NEW.values(), ids=NEW.keys())
def test_a_weight_that_grows_again_starts_like_a_new_one(optimizer):
    layer, new = nn.Linear(3, 2, bias=False), nn.Parameter(torch.zeros(1))
    ours, theirs = optimizer(layer.parameters()), optimizer([new])
    masked = Masked(layer, ours)
    gradients = torch.randn(12, generator=generator())
    at, mask = (1, 2), torch.ones(2, 3)
    mask[at] = 0
    others = torch.randn(12, 2, 3, generator=generator(1))
    for step in range(12):
        if step == 3:
            masked.set_mask(layer.weight, mask)
        if step == 7:
            masked.set_mask(layer.weight, torch.ones(2, 3))
        layer.weight.grad = others[step].clone()
        layer.weight.grad[at] = gradients[step]
        ours.step()
        if step >= 7:
            new.grad = gradients[step : step + 1].clone()
            theirs.step()
            assert layer.weight[at].item() == pytest.approx(new.item(), rel=1e-6)
    assert new.item() != 0


def test_what_an_optimizer_knows_of_a_masked_weight_is_new_when_it_grows():
    # while masked, its velocity moved at random
    layer = nn.Linear(5, 4, bias=False)
    noisy = Noisy(layer.parameters(), 0.1)
    static = StaticSupport(layer, noisy, 0.5, generator=generator())
    grown = ~static.masks[layer.weight]
    noisy.step()
    velocity = noisy.state[layer.weight]["velocity"]
    before = velocity.clone()
    assert before[grown].all()
    static.set_mask(layer.weight, torch.ones(4, 5))
    assert not layer.weight[grown].any()
    assert torch.equal(velocity[~grown], before[~grown])
    assert not (velocity[grown] == before[grown]).any()


def test_an_optimizer_that_can_not_be_made_again_starts_at_zero():
    class Wrapped(SGD):
        def __init__(self, params, inner):
            super().__init__(params, lr=inner["lr"], momentum=0.9)

    layer = nn.Linear(3, 2, bias=False)
    optimizer = Wrapped(layer.parameters(), {"lr": 0.1})
    masked = Masked(layer, optimizer)
    layer.weight.grad = torch.ones(2, 3)
    optimizer.step()
    masked.set_mask(layer.weight, torch.eye(2, 3))
    assert torch.equal(optimizer.state[layer.weight]["momentum_buffer"], torch.eye(2, 3))


def test_a_static_support_never_changes():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    static = StaticSupport(model, optimizer, 0.1, generator=generator())
    before = [mask.clone() for mask in static.masks.values()]
    train(model, optimizer, 30)
    assert all(torch.equal(a, b) for a, b in zip(before, static.masks.values(), strict=True))
    assert all(torch.equal(w != 0, mask) for w, mask in static.masks.items())


def test_biases_and_norm_layers_train_on():
    model = small_net()
    # but for the bias before the normalization, which has no effect
    names = [name for name, p in model.named_parameters() if p.dim() == 1 and name != "0.bias"]
    before = [model.get_parameter(name).detach().clone() for name in names]
    optimizer = SGD(model.parameters(), lr=0.1)
    RigL(model, optimizer, 0.1, 100, generator=generator())
    train(model, optimizer, 5)
    assert len(names) == 4
    for name, old in zip(names, before, strict=True):
        assert not torch.equal(model.get_parameter(name), old)


# ---- RigL and SET


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("method", [RigL, SET])
def test_the_smallest_go_and_the_largest_gradients_come(method, memory_format):
    model = small_net().to(memory_format=memory_format)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    rewiring = method(model, optimizer, 0.2, 40, generator=generator(), every=10, fraction=0.5)
    train(model, optimizer, 9)
    backward(model, 10)
    before = {
        w: (w.detach().clone(), w.grad.clone(), mask.clone()) for w, mask in rewiring.masks.items()
    }
    others = [p.detach().clone() for p in model.parameters() if p.dim() == 1]
    optimizer.step()
    share = 0.5 / 2 * (1 + math.cos(math.pi * 10 / 30))
    for w, (old, gradient, mask) in before.items():
        n = int(share * int(mask.sum()))
        assert n > 0
        new = rewiring.masks[w]
        # by hand, on lists of indices
        free = mask.flatten().nonzero().flatten().tolist()
        by_size = sorted(free, key=old.abs().flatten().tolist().__getitem__)
        kept = set(by_size[n:])
        closed = [i for i in range(w.numel()) if i not in kept]
        if method is RigL:
            closed.sort(key=gradient.abs().flatten().tolist().__getitem__)
            assert set(new.flatten().nonzero().flatten().tolist()) == kept | set(closed[-n:])
        grown = set(new.flatten().nonzero().flatten().tolist()) - kept
        assert len(grown) == n
        assert kept <= set(new.flatten().nonzero().flatten().tolist())
        values = w.detach().flatten()
        assert all(values[i] == 0 for i in grown), "grown weights start at zero"
        assert all(values[i] == old.flatten()[i] for i in kept), "in place of a step"
        momentum = optimizer.state[w]["momentum_buffer"].flatten()
        assert all(momentum[i] == 0 for i in closed)
    after = [p for p in model.parameters() if p.dim() == 1]
    assert all(torch.equal(a, b) for a, b in zip(others, after, strict=True))


def test_grown_weights_train_and_the_support_settles_after_three_quarters():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.05)
    rewiring = RigL(model, optimizer, 0.2, 40, generator=generator(), every=10)
    supports = []
    train(
        model,
        optimizer,
        40,
        lambda step: supports.append(torch.cat([m.flatten() for m in rewiring.masks.values()])),
    )
    changed = [s for s in range(1, 40) if not torch.equal(supports[s - 1], supports[s])]
    assert changed == [9, 19], "steps 10 and 20; at 30 the share is zero"
    assert all(torch.equal(w != 0, mask) for w, mask in rewiring.masks.items())


def test_set_grows_at_random():
    supports = []
    for seed in (0, 1):
        model = small_net()
        optimizer = SGD(model.parameters(), lr=0.05)
        rewiring = SET(model, optimizer, 0.2, 40, generator=generator(), every=10)
        rewiring.generator = generator(seed)
        train(model, optimizer, 10)
        supports.append(torch.cat([m.flatten() for m in rewiring.masks.values()]))
    assert not torch.equal(*supports)


# ---- gradual pruning


def test_gradual_pruning_follows_the_cubic_schedule():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.05)
    pruning = GradualPruning(model, optimizer, 0.1, 50, every=10)
    total = sum(w.numel() for w in weights(model))
    zeros = [0.0]

    def count(step):
        free = sum(int(mask.sum()) for mask in pruning.masks.values())
        assert free == sum(int(w.count_nonzero()) for w in weights(model))
        zeros.append(1 - free / total)

    train(model, optimizer, 50, count)
    changes = [t for t in range(1, 51) if zeros[t] != zeros[t - 1]]
    assert changes == [22, 32, 38], "every ten steps from the twelfth, and at the end"
    for t in changes:
        expected = 0.9 * (1 - (1 - (t - 12) / 26) ** 3)
        assert zeros[t] == pytest.approx(expected, abs=3 / total)


def test_gradual_pruning_removes_the_smallest_of_all():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.0)
    before = torch.cat([w.detach().abs().flatten() for w in weights(model)])
    GradualPruning(model, optimizer, 0.25, 10, every=1)
    train(model, optimizer, 10)
    after = torch.cat([w.detach().abs().flatten() for w in weights(model)])
    smallest_kept = before.sort(descending=True).values[round(0.25 * len(before)) - 1]
    assert torch.equal(after, torch.where(before >= smallest_kept, before, 0))


# ---- resume, and what is refused


@every_method
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, method, optimizer):
    def run(seed, epochs, checkpoint=None):
        model = small_net(seed)
        opt = OPTIMIZERS[optimizer](model.parameters())
        drawn = generator(seed)
        masked = method(model, opt, 0.1, 42, generator=drawn)
        images = torch.randn(100, 1, 8, 8, generator=generator(5))
        samples = (images, images.flatten(1)[:, :4])
        result = fit(
            model, opt, samples, samples, epochs=epochs, batch_size=16, generator=drawn,
            loss=F.mse_loss, metric=F.mse_loss, stateful={"masks": masked},
            checkpoint=checkpoint, checkpoint_seconds=0.0,
        )  # fmt: skip
        return model, masked, result

    # seven steps an epoch, changes every five
    whole, masks, expected = run(0, 6)
    run(0, 2, tmp_path / "run.ckpt")
    resumed, resumed_masks, result = run(99, 6, tmp_path / "run.ckpt")
    assert result.history == expected.history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(masks.masks.values(), resumed_masks.masks.values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 1.1}, r"density must be in \(0, 1\], got 1.1"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"fraction": 1.0}, r"fraction must be in \[0, 1\), got 1.0"),
    ],
)
@pytest.mark.parametrize("method", [RigL, SET])
def test_arguments_out_of_range_are_named(method, options, message):
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        method(
            model, optimizer, **{"density": 0.1, "steps": 10, "generator": generator(), **options}
        )


@pytest.mark.parametrize(
    ("density", "message"),
    [(0.0, r"density must be in \(0, 1\], got 0.0"), (1e-9, "density 1e-09 leaves none of")],
)
def test_a_density_that_nothing_can_be_pruned_to_is_named(density, message):
    model = small_net()
    with pytest.raises(ValueError, match=message):
        GradualPruning(model, SGD(model.parameters(), lr=0.1), density, 10)


def test_a_layer_without_a_weight_is_named():
    with pytest.raises(ValueError, match=r"leaves no weight to the layer of shape \(1, 1\)"):
        layer_budgets([torch.Size((100, 100)), torch.Size((1, 1))], 0.001)


def test_what_masks_can_not_work_on_is_named():
    model = MLP((4, 3, 2))
    with pytest.raises(ValueError, match="must be one of torch's, got LinBreg"):
        Masked(model, LinBreg(model.parameters(), reg=L1(0.1)))
    with pytest.raises(ValueError, match="the weight of layer '3' is not among the optimizer's"):
        Masked(model, SGD(model[1].parameters(), lr=0.1))
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="BatchNorm1d has no linear or convolution layer"):
        Masked(norm, SGD(norm.parameters(), lr=0.1))


# ---- gradients that are made by a closure, scaled, missing, or no numbers


def stepped(model, optimizer, seed, how):
    """One step on the same batch, in one of the ways in which training loops take it."""
    if how == "plain":
        backward(model, seed)
        optimizer.step()
        return

    def closure():
        backward(model, seed)
        return torch.tensor(1.0)

    loss = optimizer.step(closure) if how == "closure" else optimizer.step(closure=closure)
    assert loss == 1.0


@every_optimizer
@pytest.mark.parametrize("method", [*METHODS, "lasso"])
@pytest.mark.parametrize("how", ["closure", "closure by name"])
def test_with_a_closure_training_is_the_same(optimizer, method, how):
    models = small_net(), small_net()
    for model, way in zip(models, ("plain", how), strict=True):
        opt = optimizer(model.parameters())
        if method == "lasso":
            opt.param_groups[0]["reg"] = L1(1e-2)
            opt.register_step_pre_hook(add_subgradients)
        else:
            METHODS[method](model, opt, 0.1, 30, generator=generator())
        for step in range(1, 31):
            stepped(model, opt, step, way)
        if method != "lasso":
            kept, total = (sum(int(w.count_nonzero()) for w in weights(model)),
                           sum(w.numel() for w in weights(model)))  # fmt: skip
            assert kept <= round(0.1 * total)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("unscaled", [True, False])
@pytest.mark.parametrize("algorithm", [SGD, Adam])
@pytest.mark.parametrize("method", [*METHODS, "lasso"])
def test_under_a_gradient_scaler_training_is_the_same(method, algorithm, unscaled, fused):
    models = small_net(), small_net()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=10**6)
    masks = []
    for model, scaled in zip(models, (False, True), strict=True):
        opt = algorithm(model.parameters(), lr=1e-2, fused=fused)
        if method == "lasso":
            opt.param_groups[0]["reg"] = L1(1e-2)
            opt.register_step_pre_hook(add_subgradients)
        else:
            masks.append(METHODS[method](model, opt, 0.1, 30, generator=generator()))
        for step in range(1, 31):
            if not scaled:
                backward(model, step)
                opt.step()
                continue
            for infinite in (True, False) if step == 7 else (False,):
                backward(model, step)
                for p in model.parameters():
                    p.grad.mul_(scaler.scale(torch.tensor(1.0)))
                if infinite:  # this step is left out, and counts for nothing
                    model[-1].bias.grad.fill_(math.inf)
                if unscaled:
                    scaler.unscale_(opt)
                scaler.step(opt)
                scaler.update(1024.0)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b)
    if method in ("SET", "RigL", "gradual"):
        assert masks[0].steps == masks[1].steps == 30


@pytest.mark.parametrize("maximize", [True, False])
def test_lasso_is_gradient_descent_on_the_penalized_loss(maximize):
    torch.manual_seed(0)
    model, unused = nn.Linear(4, 3), nn.Parameter(torch.ones(2, 2))
    reference = nn.Linear(4, 3)
    reference.load_state_dict(model.state_dict())
    x = torch.randn(8, 4)
    groups = [{"params": [model.weight, unused], "reg": L1(0.1)}, {"params": [model.bias]}]
    ours = SGD(groups, lr=0.05, maximize=maximize)
    ours.register_step_pre_hook(add_subgradients)
    theirs = SGD(reference.parameters(), lr=0.05)
    for _ in range(20):
        ours.zero_grad()
        ((-1 if maximize else 1) * model(x).square().mean()).backward()
        ours.step()
        theirs.zero_grad()
        (reference(x).square().mean() + 0.1 * reference.weight.abs().sum()).backward()
        theirs.step()
    torch.testing.assert_close(model.weight, reference.weight)
    assert (unused == 1).all()


def test_what_evaluates_several_times_per_step_is_named():
    model = small_net()
    optimizer = torch.optim.LBFGS(model.parameters())
    optimizer.register_step_pre_hook(add_subgradients)
    with pytest.raises(ValueError, match="must evaluate once per step, got LBFGS"):
        stepped(model, optimizer, 0, "closure")


@every_optimizer
@every_method
def test_masked_weights_stay_zero_where_gradients_are_no_numbers(optimizer, method):
    model = small_net()
    opt = optimizer(model.parameters())
    masked = method(model, opt, 0.1, 20, generator=generator())
    for step in range(1, 21):
        backward(model, step)
        for w, mask in masked.masks.items():
            w.grad[~mask] = math.nan if step % 2 else math.inf
        opt.step()
    for w, mask in masked.masks.items():
        assert not w[~mask].any()
        assert w.isfinite().all()


def test_a_weight_without_a_gradient_is_left_alone():
    model = small_net()
    optimizer = SGD(model.parameters(), lr=0.1)
    rigl = RigL(model, optimizer, 0.2, 20, generator=generator(), every=2)
    before, mask = model[4].weight.detach().clone(), rigl.masks[model[4].weight].clone()
    for step in range(1, 5):
        backward(model, step)
        model[4].weight.grad = None
        optimizer.step()
    assert torch.equal(model[4].weight, before)
    assert torch.equal(rigl.masks[model[4].weight], mask)


def test_frozen_weights_and_embeddings_are_not_masked():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"table": nn.Embedding(9, 4), "rnn": nn.GRU(4, 5), "head": nn.Linear(5, 9)}
    )
    model["head"].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    static = StaticSupport(model, SGD(trained, lr=0.1), 0.3, generator=generator())
    assert set(static.masks) == {model["rnn"].weight_ih_l0, model["rnn"].weight_hh_l0}
    assert sum(int(w.count_nonzero()) for w in static.masks) == round(0.3 * (15 * 4 + 15 * 5))
    assert model["head"].weight.all()
    assert model["table"].weight.all()


# ---- pruning by kernels of any dimension


def kernels_by_hand(w, kept):
    norms = [
        (w[i, j].double().norm().item(), i, j) for i in range(len(w)) for j in range(w.shape[1])
    ]
    return {(i, j) for _, i, j in sorted(norms, reverse=True)[:kept]}


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(3, 8, 5),
        nn.Conv2d(3, 8, (3, 2)),
        nn.Conv3d(3, 8, 2),
        nn.ConvTranspose2d(8, 3, 3),
        nn.Conv1d(6, 8, 3, groups=2),
    ],
    ids=str,
)
def test_pruning_by_kernels_in_one_to_three_dimensions(conv):
    model = nn.ModuleList([conv, nn.Linear(10, 6), nn.Bilinear(3, 4, 5)])
    before = {w: w.detach().clone() for w in weights(model)}
    optimizer = SGD(model.parameters(), lr=0.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    pruning = MagnitudePruning(model, optimizer, scheduler, 0.25, 10, groups=True)
    for epoch in range(1, 11):
        pruning(epoch)
    kernels = conv.weight.flatten(2).any(2)
    expected = kernels_by_hand(before[conv.weight], round(0.25 * kernels.numel()))
    assert {tuple(at) for at in kernels.nonzero().tolist()} == expected
    whole = kernels.reshape(*kernels.shape, *[1] * (conv.weight.dim() - 2))
    assert torch.equal(conv.weight, before[conv.weight] * whole)
    # linear weights one by one, those of a bilinear layer too
    entries = torch.cat([before[m.weight].flatten().abs() for m in model[1:]])
    smallest = entries.sort(descending=True).values[round(0.25 * len(entries)) - 1]
    for layer in model[1:]:
        old = before[layer.weight]
        assert torch.equal(layer.weight, torch.where(old.abs() >= smallest, old, 0))


# ---- masks that are none


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(1, 3), r"mask must have shape \(2, 3\), got \(1, 3\)"),
        (torch.tensor(True), r"mask must have shape \(2, 3\), got \(\)"),
        (torch.full((2, 3), 0.5), "mask must hold True and False"),
        (torch.full((2, 3), 2), "mask must hold True and False"),
        (torch.full((2, 3), math.nan), "mask must hold True and False"),
    ],
)
@pytest.mark.parametrize("loaded", [True, False])
def test_a_mask_that_is_none_is_named_and_changes_nothing(mask, message, loaded):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    masked = Masked(model, SGD(model.parameters(), lr=0.1))
    before = [p.detach().clone() for p in model.parameters()]
    state = {"masks": [torch.zeros(3, 4, dtype=torch.bool), mask]}
    act = partial(masked.load_state_dict, state) if loaded else partial(
        masked.set_mask, model[1].weight, mask)  # fmt: skip
    with pytest.raises(ValueError, match=message):
        act()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(mask.all() for mask in masked.masks.values())


def test_masks_of_another_model_and_parametrized_weights_are_named():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    masked = Masked(model, SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="state has 1 masks, not 2"):
        masked.load_state_dict({"masks": [torch.ones(3, 4)]})
    with pytest.raises(ValueError, match=r"weight of shape \(5, 5\) is none that is masked"):
        masked.set_mask(torch.ones(5, 5), torch.ones(5, 5))
    masked.set_mask(model[0].weight, torch.eye(3, 4))
    assert int(model[0].weight.count_nonzero()) == 3
    for change in (
        lambda layer: nn.utils.parametrizations.weight_norm(layer),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ):
        model = nn.Sequential(nn.Linear(4, 3))
        change(model[0])
        with pytest.raises(ValueError, match="weight of layer '0' must not be parametrized"):
            Masked(model, SGD(model.parameters(), lr=0.1))


def test_rigl_grows_no_weight_whose_gradient_is_no_number():
    model = nn.Sequential(nn.Linear(8, 8))
    optimizer = SGD(model.parameters(), lr=0.1)
    rigl = RigL(model, optimizer, 0.25, 20, generator=generator(), every=2, fraction=0.5)
    w = model[0].weight
    for _ in range(2):
        w.grad = torch.ones_like(w)
        w.grad[:6] = math.nan
        before = rigl.masks[w].clone()
        optimizer.step()
    grown = rigl.masks[w] & ~before
    assert grown.any()
    assert not grown[:6].any()
