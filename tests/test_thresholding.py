"""Thresholding against hand-made weights and a plain search, and fresh batch norm statistics."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bregman.layers import weights as weights_of
from bregman.suite.models import MLP
from bregman.thresholding import largest_threshold, refresh_batch_norm_, threshold_


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 4)
    )


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1])


def test_entries_up_to_the_threshold_become_zero():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, -0.25, 0.75, -1.0]]))
        model.bias.fill_(0.1)
    threshold_(model, 0.5)
    assert model.weight.tolist() == [[0.0, 0.0, 0.75, -1.0]]
    assert model.bias.item() == pytest.approx(0.1)


def test_biases_and_norm_layers_stay():
    model = small_net()
    before = state(model)
    threshold_(model, 100.0)
    assert weights(model).count_nonzero() == 0
    for name, tensor in state(model).items():
        if name not in ("0.weight", "4.weight"):
            assert torch.equal(tensor, before[name])


def test_kernels_go_as_a_whole_by_their_root_mean_square():
    model = nn.Sequential(nn.Conv2d(2, 1, 2), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        # root mean squares 1 and 1.5
        model[0].weight.copy_(torch.tensor([[[[2.0, 0], [0, 0]], [[0.1, 0], [0, 3]]]]))
        model[0].weight[0, 1] *= 1.5 / model[0].weight[0, 1].square().mean().sqrt()
        model[2].weight.copy_(torch.tensor([[1.0, 1.25]]))
    threshold_(model, 1.0, conv="kernel")
    assert model[0].weight[0, 0].count_nonzero() == 0
    assert model[0].weight[0, 1].count_nonzero() == 2
    assert model[2].weight.tolist() == [[0.0, 1.25]], "linear weights one by one"


def test_a_threshold_of_zero_changes_nothing():
    model = small_net()
    before = state(model)
    threshold_(model, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())


@pytest.mark.parametrize("max_drop", [0.0, 0.1, 0.37])
def test_the_largest_threshold_is_that_of_a_plain_search(max_drop):
    model = MLP((6, 5, 3))
    total = weights(model).abs().sum()

    def score(m: nn.Module) -> float:
        return float(weights(m).abs().sum() / total)

    before = state(model)
    found = largest_threshold(model, score, max_drop, resolution=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    allowed = [0.0]
    for candidate in weights(model).abs().tolist():
        threshold_(model, candidate)
        if score(model) >= 1 - max_drop:
            allowed.append(candidate)
        model.load_state_dict(before)
    assert found == max(allowed)


def test_everything_may_go_when_the_score_does_not_care():
    model = small_net()
    found = largest_threshold(model, lambda m: 1.0, 0.0)
    assert found == weights(model).abs().max()


@pytest.mark.parametrize("conv", ["entry", "kernel"])
def test_the_resolution_bounds_what_is_kept_too_many(conv):
    torch.manual_seed(0)
    model = nn.Conv2d(30, 40, 3, bias=False)

    def kept(m: nn.Module) -> int:
        return int(m.weight.flatten(2).abs().amax(2).count_nonzero())

    def score(m: nn.Module) -> float:
        return float(m.weight.detach().square().sum())

    max_drop = 0.3 * score(model)
    exact, rough = (
        largest_threshold(model, score, max_drop, conv=conv, resolution=resolution)
        for resolution in (1e-6, 0.05)
    )
    assert rough <= exact
    counts = []
    for threshold in (exact, rough):
        again = nn.Conv2d(30, 40, 3, bias=False)
        again.load_state_dict(model.state_dict())
        threshold_(again, threshold, conv=conv)
        counts.append(int(again.weight.count_nonzero()))
    assert counts[0] <= counts[1] <= 1.06 * counts[0]
    if conv == "kernel":
        assert kept(again) == counts[1] / 9


def test_a_score_that_refreshes_batch_norm_leaves_the_statistics_as_they_were():
    model = small_net()
    before = state(model)
    images = torch.randn(20, 2, 6, 6)

    def score(m: nn.Module) -> float:
        refresh_batch_norm_(m, [images])
        return 1.0

    largest_threshold(model, score, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())


def test_fresh_statistics_are_those_of_the_inputs():
    model = small_net()
    model[1].momentum = 0.3
    model.eval()
    images = 3 + 2 * torch.randn(40, 2, 6, 6)
    with torch.no_grad():
        before = {name: p.clone() for name, p in model.named_parameters()}
        threshold_(model[0], 0.1)
        features = model[0](images)
    refresh_batch_norm_(model, images.split(10))
    mean, var = features.mean((0, 2, 3)), features.view(4, 10, 3, 4, 4).var((1, 3, 4)).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    assert model[1].momentum == 0.3
    assert not model.training
    assert not model[1].training
    assert all(
        torch.equal(p, before[name]) for name, p in model.named_parameters() if name != "0.weight"
    )


def test_bad_input_is_named():
    model = small_net()
    with pytest.raises(ValueError, match="threshold must be non-negative and finite, got -1"):
        threshold_(model, -1)
    with pytest.raises(ValueError, match=r"conv must be one of \('entry', 'kernel'\), got 'row'"):
        threshold_(model, 0.1, conv="row")
    with pytest.raises(ValueError, match=r"max_drop must be non-negative and finite, got -0\.1"):
        largest_threshold(model, lambda m: 1.0, -0.1)
    with pytest.raises(ValueError, match=r"resolution must be in \(0, 1\), got 1"):
        largest_threshold(model, lambda m: 1.0, 0.1, resolution=1)


@pytest.mark.parametrize("conv", ["entry", "kernel"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: layer,
        parametrizations.weight_norm,
        nn.utils.weight_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.3),
    ],
)
def test_the_weights_that_a_layer_computes_with_are_thresholded(wrap, conv):
    torch.manual_seed(0)
    layer = wrap(nn.ConvTranspose2d(5, 4, 3))
    before = layer.weight.detach().clone()
    sizes = before.abs()
    if conv == "kernel":
        sizes = before.square().mean((2, 3), keepdim=True).sqrt().expand_as(before)
    threshold = float(sizes.median())
    threshold_(layer, threshold, conv=conv)
    expected = torch.where(sizes > threshold, before, 0)
    torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.weight == 0, expected == 0)
    layer(torch.randn(1, 5, 4, 4))
    torch.testing.assert_close(layer.weight.detach(), expected)
    threshold_(layer, 1000.0)
    assert int(layer(torch.randn(1, 5, 4, 4)).ne(layer.bias.view(-1, 1, 1)).sum()) == 0


def test_a_spectral_norm_keeps_the_zeros_and_scales_the_rest():
    torch.manual_seed(0)
    layer = parametrizations.spectral_norm(nn.Linear(9, 7))
    before = layer.eval().weight.detach().clone()
    threshold_(layer, 0.2)
    kept = before * (before.abs() > 0.2)
    assert torch.equal(layer.weight == 0, kept == 0)
    expected = kept / torch.linalg.matrix_norm(kept, 2)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=0.02, atol=1e-3)


def test_attention_and_recurrent_layers_are_thresholded_and_embeddings_stay():
    model = nn.Sequential(nn.Embedding(9, 8), nn.TransformerEncoderLayer(8, 2, 16), nn.LSTM(8, 4))
    model[1].linear1.weight.requires_grad_(False)
    before = state(model)
    threshold_(model, 100.0)
    kept = {name for name, p in model.named_parameters() if p.dim() > 1 and p.any()}
    assert kept == {"0.weight", "1.linear1.weight"}
    assert all(torch.equal(state(model)[name], before[name]) for name in kept)


def test_the_search_leaves_parametrized_shared_and_frozen_weights_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 6)), nn.utils.weight_norm(nn.Linear(6, 6)),
        nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6),
    )  # fmt: skip
    model[3].weight = model[2].weight
    model[4].requires_grad_(False)
    before = state(model)

    def size(m: nn.Module) -> float:
        return float(sum(w.value.square().sum() for w in weights_of(m)))

    whole = size(model)
    found = largest_threshold(model, size, 0.3 * whole, resolution=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    assert size(model) == whole
    trained = [model[0].weight, model[1].weight, model[2].weight]
    entries = torch.cat([w.detach().flatten() for w in trained])
    lost = [float(entries[entries.abs() <= t].square().sum()) for t in entries.abs()]
    best = max(float(t) for t, gone in zip(entries.abs(), lost, strict=True) if gone <= 0.3 * whole)
    assert found == pytest.approx(best)


@pytest.mark.parametrize("call", [1, 3])
def test_a_score_that_fails_leaves_the_model_as_it_was(call):
    model = small_net().train()
    model[1].eval()
    before = state(model)
    calls = []

    def score(m: nn.Module) -> float:
        m.eval()
        calls.append(m)
        if len(calls) == call:
            raise RuntimeError("no data")
        return 1.0

    with pytest.raises(RuntimeError, match="no data"):
        largest_threshold(model, score, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    assert model.training
    assert not model[1].training


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(1), nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))]
)
def test_every_sample_counts_the_same(norm):
    torch.manual_seed(0)
    samples = torch.randn(1001, 1)
    samples[-1] = 100
    with torch.no_grad():
        features = norm[0](samples) if isinstance(norm, nn.Sequential) else samples
    last = norm[1] if isinstance(norm, nn.Sequential) else norm
    for batches in (samples.split(1000), [samples], iter(samples.split(143)), samples.split(1)):
        refresh_batch_norm_(norm, batches)
        torch.testing.assert_close(last.running_mean, features.mean(0))
    refresh_batch_norm_(norm, samples.split(1000))
    torch.testing.assert_close(last.running_var, features.var(0))


def test_batches_count_by_their_sizes():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
    model[0].eval()
    images = torch.randn(70, 3, 4, 4)
    loader = [(part, torch.zeros(len(part))) for part in images.split([40, 20, 10])]
    refresh_batch_norm_(model, loader)
    torch.testing.assert_close(model[0].running_mean, images.mean((0, 2, 3)))
    parts = images.split([40, 20, 10])
    torch.testing.assert_close(
        model[0].running_var, sum(len(part) / 70 * part.var((0, 2, 3)) for part in parts)
    )
    assert model[1].training
    assert not model[0].training


def test_equal_batches_give_the_numbers_of_torch():
    from torch.optim.swa_utils import update_bn

    images = torch.randn(50, 2, 6, 6)
    models = [small_net(), small_net()]
    update_bn(images.split(10), models[0])
    refresh_batch_norm_(models[1], images.split(10))
    for a, b in zip(*(state(model).values() for model in models), strict=True):
        assert torch.equal(a, b)


def test_without_a_batch_nothing_changes():
    model = small_net()
    refresh_batch_norm_(model, [torch.randn(20, 2, 6, 6)])
    before = state(model)
    with pytest.raises(ValueError, match="batches must hold at least one batch, got none"):
        refresh_batch_norm_(model, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(model).items())
    assert model[1].momentum == 0.1
    with pytest.raises(TypeError, match=r"got one tensor of shape \(20, 2, 6, 6\)"):
        refresh_batch_norm_(model, torch.randn(20, 2, 6, 6))


def test_a_model_without_weights_is_named():
    with pytest.raises(ValueError, match="one with a linear or convolution layer, got 'ReLU'"):
        largest_threshold(nn.ReLU(), lambda m: 1.0, 0.1)


def test_statistics_of_layers_that_are_called_twice_or_never():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never = nn.BatchNorm1d(1), nn.BatchNorm1d(1)

        def forward(self, x):
            return self.twice(x) + self.twice(3 * x - 1)

    model, x = Net(), 5 + torch.randn(70, 1)
    model.never.running_mean.fill_(3)
    model.twice.running_mean.fill_(torch.nan)
    refresh_batch_norm_(model, x.split([40, 20, 10]))
    torch.testing.assert_close(model.twice.running_mean, ((x + 3 * x - 1) / 2).mean(0))
    assert model.never.running_mean == 3
    assert not model.twice._forward_pre_hooks


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 1e-4), (torch.float16, 300), (torch.bfloat16, 1e-30), (torch.float32, 1e30)],
)
def test_kernels_whose_squares_are_zero_or_infinite(dtype, size):
    layer = nn.Conv2d(2, 3, 3).to(dtype)
    with torch.no_grad():
        layer.weight.fill_(size)
        layer.weight[0, 0] *= 2
    for threshold, kept in ((0, 6), (1.5 * size, 1), (3 * size, 0)):
        threshold_(layer, threshold, conv="kernel")
        assert layer.weight.flatten(2).any(2).sum() == kept


def test_matrices_of_convolutions_are_thresholded_by_entries():
    class Unfold(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel_size = (1, 2)
            self.weight = nn.Parameter(torch.tensor([[0.1, -2.0, 0.3, 0.4]]))

    model = nn.Sequential(Unfold(), nn.Conv1d(1, 1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[[0.1, 0.9]]]))
    threshold_(model, 0.3, conv="kernel")
    assert model[0].weight.tolist() == [[0, -2, 0, pytest.approx(0.4)]]
    assert model[1].weight.all()


class Frozen(nn.Sequential):
    """Keeps its first normalization in eval mode, as for fine-tuning."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


class FrozenWhenCalled(nn.Module):
    """The same within its forward."""

    def __init__(self, *modules):
        super().__init__()
        self.body = nn.Sequential(*modules)

    def __getitem__(self, i):
        return self.body[i]

    def forward(self, x):
        self.body[1].eval()
        return self.body(x)


@pytest.mark.parametrize("kind", [Frozen, FrozenWhenCalled])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_normalizations_keep_their_statistics(kind, momentum):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4, momentum=momentum)
    model = kind(nn.Linear(3, 4), norm, nn.Linear(4, 4), nn.BatchNorm1d(4))
    norm.running_mean.fill_(5.0)
    norm.running_var.fill_(9.0)
    norm.num_batches_tracked.fill_(7)
    x = torch.randn(24, 3)
    refresh_batch_norm_(model, x.split(8))
    assert norm.running_mean.tolist() == [5] * 4
    assert norm.running_var.tolist() == [9] * 4
    assert norm.num_batches_tracked == 7
    assert norm.momentum == momentum
    # the one behind it sees what it makes of its own statistics
    h = model[2]((model[0](x) - 5) / (9 + norm.eps) ** 0.5 * norm.weight + norm.bias)
    torch.testing.assert_close(model[3].running_mean, h.mean(0))
    torch.testing.assert_close(
        model[3].running_var, torch.stack([part.var(0) for part in h.split(8)]).mean(0)
    )


def test_a_layer_that_is_frozen_in_its_first_call_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self, x):
            self.norm.eval()
            self.norm(100 + x)
            self.norm.train()
            return self.norm(x)

    model, x = Net(), 5 + torch.randn(30, 1)
    model.norm.running_mean.fill_(3)
    refresh_batch_norm_(model, x.split(10))
    torch.testing.assert_close(model.norm.running_mean, x.mean(0))
