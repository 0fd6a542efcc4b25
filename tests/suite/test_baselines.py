"""Masks that keep their budget, RigL, SET and gradual pruning step by step, and their resume."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW

from bregman import L1, LinBreg
from bregman.layers import weight_layers
from bregman.suite.baselines import SET, GradualPruning, Masked, RigL, StaticSupport, layer_budgets
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
    return [layer.weight for _, layer in weight_layers(model)]


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
    pruning = GradualPruning(model, optimizer, 0.1, 44, every=10)
    total = sum(w.numel() for w in weights(model))
    zeros = [0.0]

    def count(step):
        free = sum(int(mask.sum()) for mask in pruning.masks.values())
        assert free == sum(int(w.count_nonzero()) for w in weights(model))
        zeros.append(1 - free / total)

    train(model, optimizer, 44, count)
    changes = [t for t in range(1, 45) if zeros[t] != zeros[t - 1]]
    assert changes == [21, 31, 33], "every ten steps from the eleventh, and at the end"
    for t in changes:
        expected = 0.9 * (1 - (1 - (t - 11) / 22) ** 3)
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


def test_a_layer_without_a_weight_is_named():
    with pytest.raises(ValueError, match=r"leaves no weight to the layer of shape \(4, 5\)"):
        layer_budgets([torch.Size((100, 100)), torch.Size((4, 5))], 1e-4)


def test_what_masks_can_not_work_on_is_named():
    model = MLP((4, 3, 2))
    with pytest.raises(ValueError, match="must be one of torch's, got LinBreg"):
        Masked(model, LinBreg(model.parameters(), reg=L1(0.1)))
    with pytest.raises(ValueError, match="the weight of layer '3' is not among the optimizer's"):
        Masked(model, SGD(model[1].parameters(), lr=0.1))
    norm = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="BatchNorm1d has no linear or convolution layer"):
        Masked(norm, SGD(norm.parameters(), lr=0.1))
