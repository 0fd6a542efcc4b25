"""The experiment of section 4.4: its baselines, its optimizers, and that a stop leaves no trace."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bregman import L1, AdaBreg, GroupL12, LinBreg, ProxGD, param_groups, sparsity_summary
from bregman.regularizers import Zero
from bregman.suite.baselines import MagnitudePruning, add_subgradients
from bregman.suite.experiments import Scale, get, paper_reference
from bregman.suite.experiments.fashion_mnist_cnn import config
from bregman.suite.experiments.recipe import train
from bregman.suite.runs import RunStore

EXPERIMENT = get("fashion_mnist_cnn")
TINY = Scale(epochs=2, mini=True)


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 5)
    )


def step(model, optimizer):
    inputs = torch.randn(16, 1, 8, 8)
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


def pruning(model, optimizer, prune_to=0.1, epochs=20, groups=False):
    scheduler = ReduceLROnPlateau(optimizer, mode="max", patience=0)
    return MagnitudePruning(model, optimizer, scheduler, prune_to, epochs, groups)


def weights(model):
    return [layer.weight for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]


def test_sgd_with_subgradients_is_sgd_on_the_penalized_loss():
    torch.manual_seed(0)
    by_hook, by_loss = small_model(), small_model()
    regs = {"linear": L1(0.01), "conv": GroupL12(0.02, dim=(2, 3))}
    optimizer = SGD(param_groups(by_hook, **regs), lr=0.1, momentum=0.9)
    optimizer.register_step_pre_hook(add_subgradients)
    reference = SGD(by_loss.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        inputs = torch.randn(16, 1, 8, 8)
        optimizer.zero_grad()
        by_hook(inputs).square().mean().backward()
        optimizer.step()
        reference.zero_grad()
        *convs, last = weights(by_loss)
        # (1.1) and (1.2) written out: n_g = 9
        penalty = 0.01 * last.abs().sum() + sum(
            0.02 * 3 * w.flatten(2).norm(dim=2).sum() for w in convs
        )
        (by_loss(inputs).square().mean() + penalty).backward()
        reference.step()
    for ours, theirs in zip(by_hook.parameters(), by_loss.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pruning_removes_the_smallest_weights_of_the_whole_network():
    model = small_model()
    prune = pruning(model, SGD(model.parameters(), lr=0.1), prune_to=0.1, epochs=10)
    before = [w.detach().clone() for w in weights(model)]
    for epoch in range(1, 6):
        prune(epoch)
    every = torch.cat([w.abs().flatten() for w in before])
    limit = every.sort(descending=True).values[round(0.1 * len(every)) - 1]
    for w, old in zip(weights(model), before, strict=True):
        assert torch.equal(w, torch.where(old.abs() >= limit, old, 0))


@pytest.mark.parametrize("channels_last", [False, True])
def test_kernels_are_pruned_as_a_whole_and_linear_weights_one_by_one(channels_last):
    model = small_model()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    before = [w.detach().clone() for w in weights(model)]
    prune = pruning(model, SGD(model.parameters(), lr=0.1), 0.25, epochs=10, groups=True)
    for epoch in range(1, 6):
        prune(epoch)
    *convs, linear = weights(model)
    kernels = torch.cat([w.flatten(2).flatten(0, 1) for w in convs])
    old = torch.cat([w.flatten(2).flatten(0, 1) for w in before[:-1]])
    kept = old.norm(dim=1).argsort(descending=True)[: round(0.25 * len(old))]
    expected = torch.zeros_like(old).index_copy(0, kept, old[kept])
    assert torch.equal(kernels, expected)
    assert linear.count_nonzero() == round(0.25 * linear.numel())
    assert all(w.stride() == b.stride() for w, b in zip(weights(model), before, strict=True))


def test_pruning_goes_by_equal_factors_over_the_first_half():
    model = small_model()
    prune = pruning(model, SGD(model.parameters(), lr=0.1), prune_to=1 / 32, epochs=100)
    seen = []
    for epoch in range(1, 101):
        prune(epoch)
        seen.append(sparsity_summary(model)["n_total"])
    n = sum(w.numel() for w in weights(model))
    expected = [max(1 / 32, 0.5 ** (epoch // 10)) for epoch in range(1, 101)]
    np.testing.assert_allclose(seen, expected, atol=1 / n)


def test_momentum_does_not_bring_pruned_weights_back_and_the_rest_is_trained():
    model = small_model()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    prune = pruning(model, optimizer, prune_to=0.2, epochs=4)
    for _ in range(3):
        step(model, optimizer)
    prune(1), prune(2)
    before = [w.detach().clone() for w in weights(model)]
    for _ in range(3):
        step(model, optimizer)
    for w, old in zip(weights(model), before, strict=True):
        assert torch.equal(w == 0, old == 0)
        assert not torch.equal(w, old)
    assert sparsity_summary(model)["n_total"] == pytest.approx(0.2, abs=0.005)


def test_after_pruning_the_schedule_starts_to_count_anew():
    model = small_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    prune = pruning(model, optimizer, epochs=10)
    prune.scheduler.step(0.9)
    prune(1)
    prune.scheduler.step(0.5)
    assert optimizer.param_groups[0]["lr"] == 0.1, "0.5 is the best so far of this network"
    prune.scheduler.step(0.4)
    assert optimizer.param_groups[0]["lr"] < 0.1


def test_pruning_refuses_what_it_cannot_do():
    model = small_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"prune_to must be in \(0, 1\), got 5"):
        pruning(model, optimizer, prune_to=5)
    with pytest.raises(ValueError, match="at least 2 epochs to retrain in, got 1"):
        pruning(model, optimizer, epochs=1)


def test_every_row_of_both_tables_is_run_at_paper_scale():
    known = paper_reference().query("artifact in ('Table 1', 'Table 2')")
    keys = ["artifact", "strategy", "optimizer"]
    rows = {(row.artifact, row.strategy, row.optimizer) for row in EXPERIMENT.rows_at("paper")}
    assert rows == set(known[keys].itertuples(index=False, name=None))
    labels = [row.label for row in EXPERIMENT.rows]
    assert len(labels) == len(set(labels))


KINDS = {"Adam": Adam, "SGD": SGD, "ProxGD": ProxGD, "LinBreg": LinBreg, "AdaBreg": AdaBreg}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("groups", [False, True])
def test_configs_make_the_optimizers_that_they_name(name, groups):
    run = config(Scale(1), 0, optimizer=name, lr=0.5, lam=0.25, lam_conv=0.5, groups=groups)
    model = run.make_model(torch.Generator().manual_seed(0))
    optimizer = run.make_optimizer(model)
    assert type(optimizer) is KINDS[name]
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    regs = [group["reg"] for group in optimizer.param_groups]
    conv = GroupL12(0.5, dim=(2, 3)) if groups else L1(0.5)
    assert regs == [L1(0.25), conv, None if name in ("SGD", "Adam") else Zero()]


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match=r"optimizer must be SGD, .* got 'Sgd'"):
        config(TINY, 0, optimizer="Sgd", lr=0.1).make_optimizer(small_model())


def test_bregman_runs_start_sparse_and_the_others_dense():
    for name in KINDS:
        run = config(TINY, 0, optimizer=name, lr=0.5, groups=True)
        model = run.make_model(torch.Generator().manual_seed(0))
        shares = sparsity_summary(model)
        if name in ("LinBreg", "AdaBreg"):
            # five standard deviations of the Bernoulli mask
            assert shares["n_linear"] == pytest.approx(0.01, abs=0.0014)
            assert shares["n_conv"] == pytest.approx(0.01, abs=0.0078)
            kernels = model.conv2.weight.flatten(2)
            assert torch.equal((kernels != 0).any(2), (kernels != 0).all(2)), "whole kernels"
        else:
            assert shares["n_total"] == 1


class StoppedError(Exception):
    """What ends a run half-way."""


def run_with_a_stop(settings, folder, scale):
    """Train with a checkpoint after each epoch, killed after the first, then on to the end."""
    store = RunStore(folder)
    run = config(scale, 0, **settings)

    def stop(epoch):
        if epoch == scale.epochs - 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        store.make(run, train, on_epoch=stop)
    return store.make(run, train), store.arrays(run)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "SGD", "lr": 0.05, "momentum": 0.9, "prune_to": 0.07, "groups": True},
        {"optimizer": "LinBreg", "lr": 0.1, "lam": 0.1, "groups": True, "keep_kernels": True},
    ],
)
def test_a_stopped_run_ends_with_the_same_numbers(settings, tmp_path, monkeypatch):
    import bregman.suite.training

    monkeypatch.setattr(
        bregman.suite.training, "batches", few_batches(bregman.suite.training.batches)
    )
    monkeypatch.setattr("bregman.suite.experiments.recipe.fit", eager_fit)
    scale = Scale(epochs=4, mini=True)
    stopped, stopped_arrays = run_with_a_stop(settings, tmp_path / "stopped", scale)
    store = RunStore(tmp_path / "whole")
    run = config(scale, 0, **settings)
    whole = store.make(run, train)
    assert stopped.history == whole.history
    assert stopped.result == whole.result
    arrays = store.arrays(run)
    assert arrays.keys() == stopped_arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, stopped_arrays[name])


def eager_fit(*arguments, **options):
    from bregman.suite.training import fit

    return fit(*arguments, **options, checkpoint_seconds=0)


def few_batches(batches):
    def first(*tensors, batch_size, generator=None):
        order = batches(*tensors, batch_size=batch_size, generator=generator)
        return order if generator is None else (next(order) for _ in range(3))

    return first


def test_a_thresholded_row_tells_both_and_its_drop_is_bounded(tmp_path):
    settings = {"optimizer": "SGD", "lr": 0.1, "lam": 1e-4, "max_drop": 0.05}
    run = RunStore(tmp_path).make(config(Scale(1, mini=True), 0, **settings), train)
    result = run.result
    assert result["n_total_pct"] > 99 > result["thresh.n_total_pct"]
    assert result["thresh.val_acc_pct"] >= result["val_acc_pct"] - 5 - 1e-6
    assert result["thresh.threshold"] > 0
    assert result["thresh.before_n_total_pct"] == result["n_total_pct"]
    assert result["flops_pct"] == result["thresh.flops_pct"] == 100


def test_on_a_subset_weights_come_and_go_sooner():
    for optimizer, factor in (("LinBreg", 0.1), ("AdaBreg", 0.1), ("ProxGD", 10), ("SGD", 10)):
        settings = {"optimizer": optimizer, "lr": 0.1, "lam": 0.25, "lam_conv": 0.5}
        whole = config(Scale(1), 0, **settings)
        assert (whole.lam, whole.lam_conv) == (0.25, 0.5)
        for scale in (Scale(1, mini=True), Scale(1, train_size=10)):
            subset = config(scale, 0, **settings)
            assert (subset.lam, subset.lam_conv) == pytest.approx((0.25 * factor, 0.5 * factor))
    assert config(Scale(1), 0, optimizer="ProxGD", lr=0.1, lam=0.25).lam_conv == 0.25


def test_float32_and_the_memory_format_are_settings():
    run = config(TINY, 0, optimizer="LinBreg", lr=0.1, autocast=None)
    assert run.autocast is None
    plain = dataclasses.replace(run, channels_last=False)
    for settings, contiguous in ((run, False), (plain, True)):
        model = settings.make_model(torch.Generator().manual_seed(0))
        assert model.conv2.weight.is_contiguous() is contiguous


def test_maps_of_the_second_layer_are_what_the_network_computes():
    settings = {"optimizer": "LinBreg", "lr": 0.1, "lam": 0.1, "groups": True}
    run = config(Scale(1, mini=True), 0, **settings, keep_kernels=True)
    parts = run.make_parts("cpu")
    inside = []
    parts.model.conv2.register_forward_hook(lambda layer, inputs, output: inside.append(output))
    image = run.arrays(parts)["image"]
    assert image.shape == (1, 28, 28)
    parts.model(parts.data.normalize(image[None]))
    kept = run.snapshot(0, parts)
    torch.testing.assert_close(kept["conv2_maps_000"], inside[0][0].detach())
    assert kept["kernels_000"] is parts.model.conv1.weight
    assert list(run.snapshot(4, parts)) == ["kernels_004"]
    assert config(Scale(1, mini=True), 0, **settings).snapshot(0, parts) == {}
