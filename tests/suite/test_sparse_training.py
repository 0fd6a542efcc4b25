"""Sparse training: the parts that a config makes, their cost, and that a stop leaves no trace."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from bregman import L1, GroupL12, LinBreg, Zero, param_groups
from bregman.flops import layer_densities
from bregman.multilevel import Multilevel
from bregman.steering import SparsityTarget
from bregman.suite.analysis.cost import product_densities
from bregman.suite.data import load
from bregman.suite.experiments import recipe
from bregman.suite.experiments.recipe import train
from bregman.suite.experiments.sparse_training import NOISE, SparseTraining, every
from bregman.suite.experiments.turnover import Turnover
from bregman.suite.experiments.what_sparsity_buys import SparsityScale, config
from bregman.suite.models import MLP
from bregman.suite.training import Record, accuracy, evaluate

TINY = SparsityScale(epochs=2, mini=True, train_size=640, width=32, channels=4)
BREGMAN = {"optimizer": "LinBreg", "lam": 0.05}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def parts(network="MLP", steps=40, **settings):
    """A config, its model, optimizer, and what is attached."""
    made = config(TINY, 0, network, **settings)
    model = made.make_model(generator())
    optimizer = made.make_optimizer(model)
    return made, model, optimizer, made.attach_to(model, optimizer, steps, generator())


def steps_on(model, optimizer, n, shape=(1, 28, 28)):
    """Some training steps on noise."""
    draw = generator()
    for _ in range(n):
        inputs = torch.randn(16, *shape, generator=draw)
        labels = torch.randint(10, (16,), generator=draw)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def run(folder, network="MLP", on_epoch=lambda epoch: None, scale=TINY, **settings):
    return train(config(scale, 0, network, **settings), "cpu", folder / "run.ckpt", on_epoch)


# the task


def test_classifiers_take_normalized_images_and_hold_some_out():
    data = load("mnist", mini=True)
    task = config(TINY, 0, "MLP").make_task(data, generator())
    assert len(task.train[0]) == 640
    assert len(task.val[0]) == 2000 // 12
    assert len(task.test[0]) == 500
    assert task.transform is None
    images = data.normalize(data.train_images).flatten(1)
    seen, held_out = ({tuple(x) for x in s[0].flatten(1).tolist()} for s in (task.train, task.val))
    assert not seen & held_out
    assert seen | held_out <= {tuple(x) for x in images.tolist()}


def test_the_autoencoder_gets_fresh_noise_to_train_and_the_same_to_be_tested():
    data = load("mnist", mini=True)
    task, again = (config(TINY, 0, "autoencoder").make_task(data, generator(i)) for i in range(2))
    clean = data.test_images / 255
    assert torch.equal(task.test[1], clean)
    assert torch.equal(task.test[0], again.test[0])
    pixels = data.mean[0] + data.std[0] * task.test[0]
    assert (pixels - clean).std().item() == pytest.approx(NOISE, rel=0.01)
    draw = generator()
    one, two = (task.transform(clean[:50], draw) for _ in range(2))
    assert not torch.equal(one, two)
    noise = data.mean[0] + data.std[0] * one - clean[:50]
    assert noise.std().item() == pytest.approx(NOISE, rel=0.02)


def test_crops_of_cifar_are_black_at_the_rim():
    data = load("cifar10", mini=True)
    task = config(TINY, 0, "ResNet-18").make_task(data, generator())
    black, white = (data.normalize(torch.full((3, 1, 1), v, dtype=torch.uint8)) for v in (0, 255))
    cropped = task.transform(white.expand(64, 3, 32, 32).clone(), generator())
    is_black = (cropped - black).abs() < 1e-5
    assert (is_black | ((cropped - white).abs() < 1e-5)).all()
    assert is_black.any()


# model and optimizer


def weight_layers(model):
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def where_neurons_go(model):
    """The weights of the convolutions, or where there are none of all layers, but for the last."""
    weights = [layer.weight for _, layer in weight_layers(model)]
    return ([w for w in weights if w.dim() == 4] or weights)[:-1]


@pytest.mark.parametrize("network", ["MLP", "wide MLP", "CNN", "ResNet-18", "autoencoder"])
@pytest.mark.parametrize("neurons", [False, True])
def test_a_model_starts_with_the_density_asked_for(network, neurons):
    made = config(TINY, 0, network, **BREGMAN, neurons=neurons, density=0.3)
    model = made.make_model(generator())
    weights = [layer.weight for _, layer in weight_layers(model)]
    if neurons:
        sparse = where_neurons_go(model)
        assert all((w != 0).all() for w in weights[len(sparse) :]), "what comes after stays"
        entries = [(w != 0).flatten(1) for w in sparse]
        assert all(torch.equal(e.any(1), e.all(1)) for e in entries), "whole rows and filters"
        blocks = torch.cat([e.any(1) for e in entries])
    else:
        blocks = torch.cat([(w != 0).flatten() for w in weights])
    spread = math.sqrt(0.3 * 0.7 / len(blocks))
    assert blocks.float().mean().item() == pytest.approx(0.3, abs=4 * spread)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"network must be MLP, .* or autoencoder, got 'VGG'"):
        dataclasses.replace(config(TINY, 0, "MLP"), network="VGG").make_model(generator())
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'RMSprop'"):
        config(TINY, 0, "MLP", optimizer="RMSprop").make_optimizer(MLP())
    with pytest.raises(ValueError, match=r"must be static, SET, RigL or pruning, got 'SNIP'"):
        parts(optimizer="SGD", baseline="SNIP", target=0.1)
    with pytest.raises(ValueError, match=r"target must be a density .* for RigL, got None"):
        parts(optimizer="SGD", baseline="RigL")
    with pytest.raises(ValueError, match=r"target must be above 0, up to 1 or None, got 1\.5"):
        parts(**BREGMAN, target=1.5)
    with pytest.raises(ValueError, match="frozen_steps must be at least 0, got -1"):
        parts(**BREGMAN, frozen_steps=-1)
    with pytest.raises(ValueError, match=r"path must be one of auto, .* got 'coo'"):
        parts(**BREGMAN, frozen_steps=1, path="coo")


@pytest.mark.parametrize("network", ["CNN", "autoencoder"])
@pytest.mark.parametrize("neurons", [False, True])
def test_weights_are_regularized_and_nothing_else(network, neurons):
    _, model, optimizer, _ = parts(network, **BREGMAN, neurons=neurons)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters())), "each parameter once"
    regs = {p: group["reg"] for group in optimizer.param_groups for p in group["params"]}
    weights = [layer.weight for _, layer in weight_layers(model)]
    for w in where_neurons_go(model) if neurons else weights:
        group = GroupL12(0.05, dim=1 if w.dim() == 2 else (1, 2, 3))
        assert regs.pop(w) == (group if neurons else L1(0.05))
    assert set(regs.values()) == {Zero()}


@pytest.mark.parametrize("network", ["MLP", "CNN"])
def test_neurons_come_and_go_as_a_whole(network):
    _, model, optimizer, _ = parts(
        network, optimizer="LinBreg", lam=0.02, lr=0.5, neurons=True, density=0.3
    )
    hidden = where_neurons_go(model)
    before = [(w != 0).flatten(1).any(1) for w in hidden]
    steps_on(model, optimizer, 5)
    after = [(w != 0).flatten(1).any(1) for w in hidden]
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    for w, alive in zip(hidden, after, strict=True):
        # a neuron before that was dead until then has given no gradient yet
        inputs = (w != 0).flatten(1)[alive].any(0)
        assert (w != 0).flatten(1)[alive][:, inputs].float().mean() > 0.8


# what is attached


@pytest.mark.parametrize("method", ["static", "SET", "RigL"])
def test_a_random_support_has_the_target_density_and_the_variance_of_a_dense_layer(method):
    _, model, _, attached = parts("wide MLP", optimizer="SGD", baseline=method, target=0.2)
    dense = config(TINY, 0, "wide MLP", optimizer="SGD").make_model(generator())
    masks = attached["baseline"].masks
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == round(0.2 * sum(mask.numel() for mask in masks.values()))
    for (_, sparse), (_, full) in zip(weight_layers(model), weight_layers(dense), strict=True):
        mask = masks[sparse.weight]
        assert torch.equal(sparse.weight != 0, mask)
        scale = (mask.numel() / int(mask.sum())) ** 0.5
        torch.testing.assert_close(sparse.weight, scale * full.weight * mask)


def test_pruning_starts_dense_and_ends_at_its_target():
    _, model, optimizer, _ = parts("wide MLP", 40, optimizer="SGD", baseline="pruning", target=0.1)
    assert all(density == 1 for density in layer_densities(model).values())
    steps_on(model, optimizer, 40)
    weights = [layer.weight for _, layer in weight_layers(model)]
    n = sum(w.numel() for w in weights)
    assert sum(int(w.count_nonzero()) for w in weights) == round(0.1 * n)


@pytest.mark.parametrize(("m", "expected"), [(0, [10, 20]), (4, [10, 20]), (6, [14]), (19, [20])])
def test_lambda_is_steered_between_cycles_about_every_ten_steps(m, expected, monkeypatch):
    _, model, optimizer, attached = parts(**BREGMAN, frozen_steps=m, target=0.1)
    changed = []
    done = 0
    full_size = {name: layer.weight.shape for name, layer in weight_layers(model)}
    change = SparsityTarget._change

    def watch(self, group, factor):
        assert full_size == {name: layer.weight.shape for name, layer in weight_layers(model)}
        changed.append(done)
        change(self, group, factor)

    monkeypatch.setattr(SparsityTarget, "_change", watch)
    for _ in range(20):
        done += 1
        steps_on(model, optimizer, 1)
    assert changed == expected
    assert set(attached) == {"multilevel", "target"}


def test_sparse_products_are_for_the_cpu_only():
    made = config(TINY, 0, "MLP", **BREGMAN, frozen_steps=2, path="csr")
    model = made.make_model(generator())
    optimizer = made.make_optimizer(model)
    for p in model.parameters():  # in place of a GPU
        torch.utils.swap_tensors(p, nn.Parameter(p.detach().to("meta")))
    with pytest.raises(ValueError, match="path 'csr' needs a model on the cpu, got one on meta"):
        Multilevel(model, optimizer, 2, path="csr")
    assert "multilevel" in made.attach_to(model, optimizer, 10, generator())


def test_torch_optimizers_without_a_baseline_have_nothing_attached():
    assert parts(optimizer="SGD")[-1] == parts(optimizer="Adam")[-1] == {}


def test_momentum_and_the_share_that_is_dropped_are_settings():
    _, _, optimizer, attached = parts(
        optimizer="SGD", baseline="RigL", target=0.1, momentum=0.9, drop_fraction=0.5
    )
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    assert attached["baseline"].fraction == 0.5
    _, _, optimizer, attached = parts(optimizer="SGD", baseline="RigL", target=0.1)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.0}
    assert attached["baseline"].fraction == 0.3


# what it costs

FLOPS = {"a": 300.0, "b": 100.0}


def densities(*epochs):
    return [
        Record(epoch, "weights", f"products_{name}", value)
        for epoch, values in enumerate(epochs)
        for name, value in zip(FLOPS, values, strict=True)
    ]


def test_training_flops_against_a_count_by_hand():
    # s = f_S / f_D is 0.1, 0.2 and 0.4 after 0, 1 and 2 epochs
    history = densities((0.1, 0.1), (0.2, 0.2), (0.5, 0.1))

    def share(steps=10, **settings):
        return config(TINY, 0, "MLP", **settings).training_flops(FLOPS, history, steps)

    def cost(full, frozen):
        """Of one epoch in units of a dense one: a full step is 2 s + 1, a frozen one 3 s."""
        of = [
            (full * (2 * s + 1) + frozen * 3 * s) / (3 * (full + frozen)) for s in (0.1, 0.2, 0.4)
        ]
        return ((of[0] + of[1]) / 2 + (of[1] + of[2]) / 2) / 2

    assert share(optimizer="SGD") == share(optimizer="Adam") == 1
    assert share(optimizer="LinBreg") == pytest.approx(cost(10, 0))
    # ten steps are cycles of 4, 4 and 2
    assert share(optimizer="LinBreg", frozen_steps=3) == pytest.approx(cost(3, 7))
    assert share(optimizer="AdaBreg", frozen_steps=19) == pytest.approx(cost(1, 9))
    for method in ("static", "SET", "pruning"):
        fixed = share(optimizer="SGD", baseline=method, target=0.1)
        assert fixed == pytest.approx(cost(0, 10))


@pytest.mark.parametrize("neurons", [False, True])
def test_products_leave_out_what_a_dead_neuron_or_filter_gives(neurons):
    model = config(TINY, 0, "CNN", optimizer="SGD").make_model(generator())
    left = {"conv1": 0.5, "conv2": 0.25, "fc1": 0.125, "fc2": 1.0}
    for name, layer in weight_layers(model):
        layer.weight.data[int(left[name] * len(layer.weight)) :] = 0
    products = {"conv1": 0.5, "conv2": 0.5 * 0.25, "fc1": 0.25 * 0.125, "fc2": 0.125}
    assert product_densities(model, neurons) == (products if neurons else left)


@pytest.mark.parametrize("steps", [1, 2, 10, 300])
def test_rigl_pays_for_the_steps_that_look_at_all_gradients(steps, monkeypatch):
    made, model, optimizer, attached = parts(
        "wide MLP", 2 * steps, optimizer="SGD", baseline="RigL", target=0.3
    )
    looks = []
    growth = type(attached["baseline"])._growth
    monkeypatch.setattr(
        type(attached["baseline"]), "_growth", lambda self, w: looks.append(w) or growth(self, w)
    )
    steps_on(model, optimizer, 2 * steps)
    full = len(looks) / 3
    # per step of 2 * steps, at s = 0.3
    expected = (full * (2 * 0.3 + 1) + (2 * steps - full) * 3 * 0.3) / (3 * 2 * steps)
    history = densities((0.3, 0.3), (0.3, 0.3), (0.3, 0.3))
    assert made.training_flops(FLOPS, history, steps) == pytest.approx(expected)


def test_supports_change_every_hundred_steps_or_fifty_times():
    assert [every(n) for n in (1, 49, 500, 5000, 50_000)] == [1, 1, 10, 100, 100]


def test_the_end_of_an_epoch_ends_a_cycle(tmp_path, monkeypatch):
    """What ``training_flops`` takes for granted, counted in a run."""
    full = []

    attach_to = SparseTraining.attach_to

    def watched(config, model, optimizer, *rest):
        attached = attach_to(config, model, optimizer, *rest)
        optimizer.register_step_pre_hook(lambda *_: full.append(not attached["multilevel"].frozen))
        return attached

    monkeypatch.setattr(SparseTraining, "attach_to", watched)
    run(tmp_path, **BREGMAN, frozen_steps=8)
    epoch = [i % 9 == 0 for i in range(20)]
    assert full == 2 * epoch


# whole runs


def test_a_run_reports_what_its_weights_are(tmp_path):
    settings = {**BREGMAN, "lam": 0.01}
    outcome = run(tmp_path, "wide MLP", **settings, frozen_steps=4, keep=True)
    state = {name.removeprefix("weights."): value for name, value in outcome.arrays.items()}
    model = MLP((784, 32, 32, 10))
    model.load_state_dict(state)
    weights = [w for w in state.values() if w.dim() == 2]
    nonzero = sum(int(w.count_nonzero()) for w in weights)
    total = sum(w.numel() for w in weights)
    assert outcome.result["n_total_pct"] == pytest.approx(100 * nonzero / total, abs=0.01)
    data = load("mnist", mini=True)
    test = (data.normalize(data.test_images), data.test_labels)
    tested = evaluate(model, test, accuracy)[0]
    assert outcome.result["test_acc_pct"] == pytest.approx(100 * tested, abs=0.5)
    last = {r.metric: r.value for r in outcome.training.history if r.epoch == 2}
    assert last["products_1"] == pytest.approx(
        int(state["1.weight"].count_nonzero()) / state["1.weight"].numel(), abs=1e-4
    )
    assert outcome.result["val_acc_pct"] > 15, "better than chance"


def test_an_autoencoder_is_measured_by_its_ssim(tmp_path):
    scale = dataclasses.replace(TINY, epochs=1, train_size=64)
    outcome = run(tmp_path, "autoencoder", scale=scale, optimizer="Adam")
    assert -1 < outcome.result["ssim"] < 1
    assert not {"val_acc_pct", "test_acc_pct"} & set(outcome.result)
    assert outcome.result["flops_pct"] == 100
    assert outcome.arrays == {}


@pytest.mark.parametrize("network", ["CNN", "ResNet-18"])
def test_convolutions_train_with_frozen_filters(network, tmp_path):
    scale = dataclasses.replace(TINY, epochs=1, train_size=400)
    outcome = run(
        tmp_path, network, scale=scale, optimizer="LinBreg", lam=0.05, density=0.5, neurons=True,
        frozen_steps=3, path="gathered",
    )  # fmt: skip
    assert math.isfinite(outcome.training.history[-1].value)
    assert 1 < outcome.result["n_total_pct"] < 100
    assert outcome.result["flops_pct"] < 95


def test_ways_to_compute_differ_by_rounding_only(tmp_path):
    curves = []
    for path in ("masked", "csr"):
        outcome = run(tmp_path, "wide MLP", **BREGMAN, frozen_steps=4, path=path)
        curves.append(
            [r.value for r in outcome.training.history if r.metric in ("loss", "n_total")]
        )
    assert curves[0] == pytest.approx(curves[1], rel=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {**BREGMAN, "frozen_steps": 6, "path": "csr", "turnover": True},
        {**BREGMAN, "frozen_steps": 2, "target": 0.05},
        {"optimizer": "AdaBreg", "lam": 0.05, "neurons": True, "frozen_steps": 3,
         "path": "gathered", "turnover": True},
        {"optimizer": "SGD", "baseline": "SET", "target": 0.1},
        {"optimizer": "SGD", "baseline": "pruning", "target": 0.1},
    ],
)  # fmt: skip
def test_an_interrupted_run_ends_with_the_same_numbers(settings, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(epoch):
        raise KilledError

    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = run(tmp_path / "whole", **settings)
    fit = recipe.fit
    monkeypatch.setattr(recipe, "fit", lambda *a, **k: fit(*a, **k, checkpoint_seconds=0))
    with pytest.raises(KilledError):
        run(tmp_path / "killed", on_epoch=kill, **settings)
    resumed = run(tmp_path / "killed", **settings)
    assert resumed.training.history == whole.training.history
    assert resumed.result == whole.result


# turnover


def by_hand(reg, shape, frozen_steps=0):
    """One weight that starts at zero, and a function to give v any value by one step."""
    layer = nn.Linear(shape[1], shape[0], bias=False)
    nn.init.zeros_(layer.weight)
    optimizer = LinBreg(param_groups(layer, linear=reg), lr=1.0)
    cycle = Multilevel(layer, optimizer, frozen_steps)
    turnover = Turnover(optimizer, cycle)
    v = torch.zeros(shape)

    def step(*target):
        nonlocal v
        wanted = torch.tensor(target).view(shape)
        layer.weight.grad = v - wanted
        optimizer.step()
        v = wanted

    return layer, step, turnover


def test_turnover_counts_what_enters_and_leaves_between_full_steps():
    _, step, turnover = by_hand(L1(1.0), (1, 4))
    assert turnover.collect() == {}
    step(2.0, 0.5, 0.0, -2.0)  # 0 and 3 enter
    step(0.5, 0.9, 1.5, -2.0)  # 2 enters, 0 leaves
    step(0.5, 0.9, 1.5, -2.0)  # noted before a step: the two changes above
    assert turnover.collect() == {"entered": 3 / 4, "left": 1 / 4}
    step(0.0, 0.0, 1.5, -3.0)  # nothing in the step before
    assert turnover.collect() == {"entered": 0, "left": 0}
    assert turnover.collect() == {}


def test_turnover_counts_groups_as_one():
    _, step, turnover = by_hand(GroupL12(1.0, dim=1), (3, 4))
    big, small = [2.0] * 4, [0.1] * 4
    step(*big, *big, *small)
    step(*small, *big, *big)
    step(*small, *big, *big)
    assert turnover.collect() == {"entered": 3 / 4, "left": 1 / 4}


def test_turnover_looks_at_full_steps_only():
    layer, step, turnover = by_hand(L1(1.0), (1, 4), frozen_steps=2)
    step(2.0, 3.0, 0.0, 0.0)  # 0 and 1 enter
    for _ in range(2):  # on their own they go on, and 0 leaves again
        layer.weight.grad = torch.tensor([[0.75, 0.0, 0.0, 0.0]])
        turnover.cycle.optimizer.step()
    assert turnover.collect() == {}
    layer.weight.grad = torch.zeros(1, 4)
    turnover.cycle.optimizer.step()
    assert turnover.collect() == {"entered": 1, "left": 0}


def test_turnover_goes_on_from_a_stored_state():
    _, step, turnover = by_hand(L1(1.0), (1, 4))
    step(2.0, 0.0, 0.0, 0.0)
    step(2.0, 2.0, 0.0, 0.0)
    turnover.collect()
    layer, _, again = by_hand(L1(1.0), (1, 4))
    again.load_state_dict(turnover.state_dict())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0, 0.0, 1.0]]))
    layer.weight.grad = torch.zeros(1, 4)
    again.cycle.optimizer.step()
    assert again.collect() == {"entered": 2 / 3, "left": 0}


def test_turnover_needs_blocks():
    from bregman.regularizers import Nuclear

    layer = nn.Linear(3, 2)
    optimizer = LinBreg([{"params": [layer.weight], "reg": L1(1.0)}])
    cycle = Multilevel(layer, optimizer, 0)
    optimizer.param_groups[0]["reg"] = Nuclear(1.0)
    with pytest.raises(ValueError, match="reg must be a sum over blocks"):
        Turnover(optimizer, cycle)


def test_a_baseline_needs_an_optimizer_of_torch():
    with pytest.raises(ValueError, match="optimizer must be one of torch's, got LinBreg"):
        parts(**BREGMAN, baseline="RigL", target=0.1)
    assert isinstance(parts(optimizer="SGD", baseline="RigL", target=0.1)[2], SGD)
