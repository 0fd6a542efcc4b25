"""Steering: what a change of lambda does exactly, and that training ends at the wanted density."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from bregman import (
    L1,
    AdaBreg,
    ElasticNet,
    GroupL12,
    LinBreg,
    NonNegativeL1,
    Nuclear,
    Regularizer,
    SparseGroup,
    SparsityTarget,
    Zero,
    param_groups,
    sparse_init_,
)
from bregman.suite.data import batches, load
from bregman.suite.models import MLP
from bregman.suite.training import fit

OPTIMIZERS = {
    "LinBreg": lambda groups: LinBreg(groups, lr=0.1),
    "momentum": lambda groups: LinBreg(groups, lr=0.1, momentum=0.9),
    "AdaBreg": lambda groups: AdaBreg(groups, lr=1e-3),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
every_reg = pytest.mark.parametrize(
    "reg",
    [L1(0.3), GroupL12(0.3, dim=1), GroupL12(0.2, dim=0), ElasticNet(0.3, 0.5), NonNegativeL1(0.3)],
    ids=["l1", "rows", "columns", "elastic net", "non-negative"],
)


def one_layer(reg, delta=1.0, shape=(40, 30)):
    """A weight of double precision with a v of its own, of which lambda leaves about 40 percent."""
    generator = torch.Generator().manual_seed(0)
    sizes = (
        0.5
        + torch.rand(shape[0], 1, generator=generator)
        + torch.rand(shape[1], generator=generator)
    )
    v = sizes.double() * torch.randn(shape, generator=generator, dtype=torch.float64)
    v = v.abs() if isinstance(reg, NonNegativeL1) else v
    p = nn.Parameter(torch.zeros_like(v))
    optimizer = LinBreg([p], lr=1.0, reg=reg, delta=delta)
    p.grad = -v * (reg.lam / reg.levels(v).quantile(0.6))
    optimizer.step()
    return p, optimizer


def change(optimizer, density):
    """One change of lambda; theta, v and lambda before and after."""
    group = optimizer.param_groups[0]
    (p,) = group["params"]
    v = optimizer.state[p]["subgrad"]
    before = p.detach().clone(), v.clone(), group["reg"].lam
    SparsityTarget(optimizer, density, every=1).step()
    return before, (p.detach().clone(), v.clone(), group["reg"].lam)


@every_reg
@pytest.mark.parametrize("density", [0.35, 0.4, 0.45])
def test_a_change_reaches_the_density_at_once_and_keeps_v_valid(reg, density):
    p, optimizer = one_layer(reg, delta=2.0)
    (old, old_v, old_lam), (new, v, lam) = change(optimizer, density)
    block = math.prod(p.shape[d] for d in reg.blocks(2))
    assert 0.8 < lam / old_lam < 1.25, "not held back"
    assert abs(int(new.count_nonzero()) - density * p.numel()) <= block / 2
    # the blocks above the new lambda, and no others
    assert torch.equal(new != 0, reg.levels(old_v) > lam)
    reg = optimizer.param_groups[0]["reg"]
    torch.testing.assert_close(new, reg.prox(2.0 * v, 2.0))
    assert float(reg.subdiff_distance(v - new / 2.0, new)) < 1e-12
    # no block moves further than delta |change of lambda| sqrt(n_g)
    assert float(reg.levels(new - old).max()) <= 2.0 * abs(lam - old_lam) * (1 + 1e-9)


@pytest.mark.parametrize("density", [0.35, 0.4, 0.45])
@pytest.mark.parametrize("dim", [0, 1])
def test_sparse_groups_keep_the_ratio_of_their_weights(density, dim):
    p, optimizer = one_layer(SparseGroup(0.1, 0.2, dim), delta=2.0)
    _, (new, v, lam) = change(optimizer, density)
    reg = optimizer.param_groups[0]["reg"]
    assert reg.lam_group == pytest.approx(2 * reg.lam_l1)
    assert lam == pytest.approx(3 * reg.lam_l1)
    assert float(reg.subdiff_distance(v - new / 2.0, new)) < 1e-12
    # a group enters or leaves with many entries at once
    assert abs(int(new.count_nonzero()) - density * p.numel()) <= p.shape[dim] / 2


@every_reg
@pytest.mark.parametrize("density", [0.35, 0.45])
def test_what_stays_pays_half_and_all_else_keeps_v(reg, density):
    _, optimizer = one_layer(reg)
    (old, old_v, old_lam), (new, v, lam) = change(optimizer, density)
    stays = (old != 0) & (new != 0)
    paid = reg.levels(v)[stays] - reg.levels(old_v)[stays]
    torch.testing.assert_close(paid, torch.full_like(paid, (lam - old_lam) / 2))
    assert torch.equal(v[~stays], old_v[~stays])


@pytest.mark.parametrize(("density", "factor"), [(1e-3, 1.25), (1.0, 0.8)])
def test_far_from_the_target_lambda_changes_by_a_limited_factor(density, factor):
    _, optimizer = one_layer(L1(0.05))
    (_, _, old), (_, _, new) = change(optimizer, density)
    assert new == pytest.approx(factor * old)


def two_groups(optimizer=OPTIMIZERS["LinBreg"]):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 4))
    sparse_init_(model, 0.4, generator=torch.Generator().manual_seed(0))
    first, second = model[0], model[2]
    groups = [
        {"params": [first.weight], "reg": L1(0.02)},
        {"params": [second.weight], "reg": L1(0.05)},
        {"params": [first.bias, second.bias], "reg": None},
    ]
    return model, optimizer(groups)


def train(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(32, 20, generator=generator)
        optimizer.zero_grad()
        F.mse_loss(model(inputs), inputs[:, :4].abs()).backward()
        optimizer.step()


def share(*weights):
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def test_one_factor_for_all_groups():
    model, optimizer = two_groups()
    train(model, optimizer, 30)
    biases = [model[0].bias.clone(), model[2].bias.clone()]
    target = SparsityTarget(optimizer, 0.2, every=1)
    for _ in range(40):
        target.step()
    first, second, rest = (group["reg"] for group in optimizer.param_groups)
    assert share(model[0].weight, model[2].weight) == pytest.approx(0.2, abs=0.002)
    assert second.lam / first.lam == pytest.approx(2.5)
    assert share(model[0].weight) != pytest.approx(share(model[2].weight), abs=0.02)
    assert rest == Zero()
    assert torch.equal(model[0].bias, biases[0])
    assert torch.equal(model[2].bias, biases[1])


@every_optimizer
def test_as_a_hook_or_called_by_hand(optimizer):
    weights = []
    for by_hook in (True, False):
        model, opt = two_groups(optimizer)
        target = SparsityTarget(opt, 0.1, every=7)
        if by_hook:
            opt.register_step_post_hook(target.step)
            train(model, opt, 30)
        else:
            generator = torch.Generator().manual_seed(1)
            for _ in range(30):
                inputs = torch.randn(32, 20, generator=generator)
                opt.zero_grad()
                F.mse_loss(model(inputs), inputs[:, :4].abs()).backward()
                opt.step()
                target.step()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)


def test_lambda_stays_between_two_changes():
    model, optimizer = two_groups()
    optimizer.register_step_post_hook(SparsityTarget(optimizer, 0.1, every=10).step)
    train(model, optimizer, 9)
    assert optimizer.param_groups[0]["reg"] == L1(0.02)
    train(model, optimizer, 1)
    assert optimizer.param_groups[0]["reg"] != L1(0.02)


@pytest.fixture(scope="module")
def digits():
    data = load("mnist", mini=True)
    return data.normalize(data.train_images), data.train_labels


def steered(digits, model, optimizer, density, steps=400, batch_size=20):
    target = SparsityTarget(optimizer, density)
    generator = torch.Generator().manual_seed(0)
    done = 0
    while done < steps:
        for inputs, labels in batches(*digits, batch_size=batch_size, generator=generator):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            target.step()
            done += 1
    return [p for g in optimizer.param_groups if g["reg"] != Zero() for p in g["params"]]


# from one percent of the weights and the same lambda, whatever the target and the optimizer;
# 405 steps end in the middle between two changes
@every_optimizer
@pytest.mark.parametrize("density", [0.25, 0.1, 0.05, 0.01])
def test_training_ends_within_half_a_percentage_point_of_the_target(digits, optimizer, density):
    torch.manual_seed(0)
    model = MLP((784, 50, 10))
    sparse_init_(model, 0.01, generator=torch.Generator().manual_seed(0))
    weights = steered(digits, model, optimizer(param_groups(model, linear=L1(0.1))), density)
    assert share(*weights) == pytest.approx(density, abs=0.005)


@every_optimizer
@pytest.mark.parametrize("density", [0.25, 0.05])
def test_kernels_end_within_half_a_percentage_point(digits, optimizer, density):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 5, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 16, 10),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    sparse_init_(model, 0.15, group="kernel", generator=generator)
    groups = param_groups(model, linear=L1(0.1), conv=GroupL12(0.1, dim=(2, 3)))
    weights = steered(digits, model, optimizer(groups), density, steps=200)
    assert share(*weights) == pytest.approx(density, abs=0.005)


@every_optimizer
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, optimizer):
    def run(seed, epochs, checkpoint=None):
        model, opt = two_groups(optimizer)
        target = SparsityTarget(opt, 0.1, every=4)  # seven steps an epoch
        opt.register_step_post_hook(target.step)
        samples = torch.randn(200, 20, generator=torch.Generator().manual_seed(5))
        result = fit(
            model, opt, (samples, samples[:, :4].abs()), (samples[:20], samples[:20, :4].abs()),
            epochs=epochs, batch_size=32, generator=torch.Generator().manual_seed(seed),
            loss=F.mse_loss, metric=F.mse_loss, stateful={"target": target},
            checkpoint=checkpoint, checkpoint_seconds=0.0,
        )  # fmt: skip
        return model, opt, result

    whole, optimizer_whole, expected = run(0, 6)
    run(0, 3, tmp_path / "run.ckpt")
    resumed, optimizer_resumed, result = run(99, 6, tmp_path / "run.ckpt")
    assert result.history == expected.history
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert optimizer_resumed.param_groups[0]["reg"] == optimizer_whole.param_groups[0]["reg"]
    assert optimizer_resumed.param_groups[0]["reg"] != L1(0.02)


def test_weights_that_no_lambda_lets_in_leave_lambda_finite():
    p = nn.Parameter(torch.zeros(10))
    optimizer = LinBreg([p], reg=L1(0.1))
    p.grad = torch.zeros(10)
    optimizer.step()
    target = SparsityTarget(optimizer, 0.5, every=1)
    for _ in range(3):
        target.step()
    assert optimizer.param_groups[0]["reg"] == L1(0.1)


def test_before_the_first_step_and_after_divergence_nothing_changes():
    p = nn.Parameter(torch.ones(10))
    optimizer = LinBreg([p], reg=L1(0.1))
    target = SparsityTarget(optimizer, 0.5, every=1)
    target.step()
    p.grad = torch.full((10,), math.nan)
    optimizer.step()
    target.step()
    assert optimizer.param_groups[0]["reg"] == L1(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"density": math.nan}, r"density must be in \(0, 1\], got nan"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"every": 2.5}, "every must be an integer of at least 1, got 2.5"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    optimizer = LinBreg([nn.Parameter(torch.ones(3, 3))], reg=L1(0.1))
    with pytest.raises(ValueError, match=message):
        SparsityTarget(optimizer, **{"density": 0.1, **options})


@pytest.mark.parametrize(
    ("reg", "message"),
    [
        (Nuclear(0.1), "Nuclear has no blocks that a larger lam sets to zero"),
        (SparseGroup(0.0, 0.0, dim=1), "a weight must be positive"),
        (L1(0.0), r"lam must be positive to be steered, got L1\(lam=0.0\)"),
        (None, "optimizer must be one with a regularizer to be steered, got 'LinBreg'"),
    ],
)
def test_regularizers_that_can_not_be_steered_are_named(reg, message):
    optimizer = LinBreg([nn.Parameter(torch.ones(3, 3))], reg=reg)
    with pytest.raises(ValueError, match=message):
        SparsityTarget(optimizer, 0.1)


class Named(Regularizer):
    """One with all that steering needs but the name."""

    def __init__(self, alpha):
        self.alpha = alpha

    def __repr__(self):
        return f"Named(alpha={self.alpha})"

    def __call__(self, x):
        return L1(self.alpha)(x)

    def prox(self, x, step=1.0, *, out=None):
        return L1(self.alpha).prox(x, step, out=out)

    def subgrad(self, x):
        return L1(self.alpha).subgrad(x)

    def subdiff_distance(self, p, x):
        return L1(self.alpha).subdiff_distance(p, x)

    def blocks(self, ndim):
        return ()

    def levels(self, v):
        return v.abs()

    def with_lam(self, lam):
        return type(self)(lam)


class WithLam(Named):
    @property
    def lam(self):
        return self.alpha


def test_a_regularizer_whose_weight_has_another_name_is_named():
    optimizer = LinBreg([nn.Parameter(torch.ones(3, 3))], reg=Named(0.1))
    message = r"with_lam sets, reg\.lam must be positive to be steered, got Named\(alpha=0.1\)"
    with pytest.raises(ValueError, match=message):
        SparsityTarget(optimizer, 0.5)


def test_with_the_name_it_is_steered_as_the_packages_own():
    lams = []
    for reg in (WithLam(0.1), L1(0.1)):
        torch.manual_seed(0)
        model = MLP((8, 20, 4))
        optimizer = LinBreg(param_groups(model, linear=reg), lr=0.1)
        target = SparsityTarget(optimizer, 0.3, every=2)
        for _ in range(10):
            optimizer.zero_grad()
            model(torch.randn(9, 8)).square().mean().backward()
            optimizer.step()
            target.step()
        lams.append(optimizer.param_groups[0]["reg"].lam)
    assert lams[0] == lams[1] != 0.1


def test_another_optimizer_is_named():
    with pytest.raises(ValueError, match="optimizer must be LinBreg or AdaBreg, got 'SGD'"):
        SparsityTarget(SGD([nn.Parameter(torch.ones(3))], lr=0.1), 0.1)


def freezing():
    """Two layers under one L1; the first is trained for a while and then frozen."""
    model, optimizer = two_groups()
    train(model, optimizer, 30)
    model[0].weight.requires_grad_(False)
    return model, optimizer


def test_frozen_weights_count_and_stay():
    model, optimizer = freezing()
    frozen = model[0].weight.clone()
    fixed = int(frozen.count_nonzero())
    wanted = (fixed + 60) / 1200  # 60 of the other layer's 200
    target = SparsityTarget(optimizer, wanted, every=1)
    lam = optimizer.param_groups[0]["reg"].lam
    for _ in range(30):
        train(model, optimizer, 1)
        target.step()
    assert torch.equal(model[0].weight, frozen), "bit for bit"
    assert share(model[0].weight, model[2].weight) == pytest.approx(wanted, abs=0.002)
    # v is still a subgradient, so that the layer goes on from here when it is trained again
    reg = optimizer.param_groups[0]["reg"]
    assert reg.lam != pytest.approx(lam, rel=1e-3)
    v = optimizer.state[model[0].weight]["subgrad"]
    assert float(reg.subdiff_distance(v - frozen, frozen)) < 1e-4


def test_weights_without_a_gradient_count_too():
    used, unused = nn.Parameter(torch.randn(10, 10)), nn.Parameter(torch.ones(10, 5))
    optimizer = LinBreg([used, unused], lr=0.1, reg=L1(0.5))
    used.grad = torch.zeros(10, 10)
    optimizer.step()
    target = SparsityTarget(optimizer, 80 / 150, every=1)
    for _ in range(30):
        target.step()
    assert int(used.count_nonzero()) == 30
    assert bool((unused == 1).all())


def test_a_share_that_frozen_weights_exceed_is_refused_or_said():
    model, optimizer = freezing()
    fixed = int(model[0].weight.count_nonzero())
    with pytest.raises(ValueError, match=r"density must be above 0\.\d+, the share of the frozen"):
        SparsityTarget(optimizer, fixed / 1200)
    model[0].weight.requires_grad_(True)
    target = SparsityTarget(optimizer, 0.5 * fixed / 1200, every=1)
    model[0].weight.requires_grad_(False)
    lam = optimizer.param_groups[1]["reg"]
    with pytest.warns(UserWarning, match="lambda stays"):
        target.step()
    assert optimizer.param_groups[1]["reg"] == lam
