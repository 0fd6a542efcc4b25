"""The sparsity measures against counts by hand."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bregman import sparse_init_, sparsity_summary
from bregman.suite.models import MLP


def test_counts_of_a_small_mlp():
    model = MLP((3, 2, 2))
    first, second = model[1], model[3]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, -2.0, 0.0], [0.0, 0.0, 0.0]]))
        second.weight.copy_(torch.tensor([[0.0, 1.0], [0.5, -0.0]]))
    summary = sparsity_summary(model)
    assert summary == {
        "n_total": 3 / 10,
        "n_linear": 3 / 10,
        "n_conv": None,
        "l1_norm": 3.5,
        "active_neurons": [1, 1, 2],
    }


def test_convolutions_are_counted_by_kernels():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model[0].bias.fill_(1)  # biases do not count
        model[0].weight[0, 1, 2, 2] = -1e-30  # small is not zero
        model[0].weight[2, 1] = 1
        model[3].weight[4, 3] = 7
    summary = sparsity_summary(model)
    assert summary["n_total"] == pytest.approx((1 + 9 + 1) / (54 + 20))
    assert summary["n_linear"] == pytest.approx(1 / 20)
    assert summary["n_conv"] == pytest.approx(2 / 6)
    assert summary["active_neurons"] == [1, 2, 1]


def test_a_module_without_weights_is_refused():
    with pytest.raises(
        ValueError, match="one with a linear or convolution layer, got 'BatchNorm1d'"
    ):
        sparsity_summary(nn.BatchNorm1d(3))


def thinned(model: nn.Module) -> nn.Module:
    """About a third of the entries of all parameters stay."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(torch.rand(p.shape, generator=generator) < 0.3)
    return model


@pytest.mark.parametrize(
    "model",
    [
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32), 2, enable_nested_tensor=False),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 6, 3), nn.ConvTranspose2d(6, 1, 3)),
        nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 8, 2, bidirectional=True), nn.Linear(16, 3)),
        nn.Sequential(nn.GRU(4, 8), nn.Bilinear(3, 4, 5)),
    ],
)
def test_all_weights_of_two_or_more_dimensions_count(model):
    thinned(model)
    every = [p for p in model.parameters() if p.dim() > 1]
    summary = sparsity_summary(model)
    nonzero, total = sum(int((p != 0).sum()) for p in every), sum(p.numel() for p in every)
    assert summary["n_total"] == nonzero / total
    assert summary["l1_norm"] == pytest.approx(float(sum(p.double().abs().sum() for p in every)))
    assert all(summary[name] is None or 0 <= summary[name] <= 1 for name in ("n_linear", "n_conv"))


def test_kernels_and_neurons_of_transposed_and_grouped_convolutions():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 3, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model[0].weight[1, 1, 0, 0] = 1  # from the second input of the first group
        model[0].weight[5, 0, 2, 1] = 1  # from the first of the second group
        model[1].weight[1, 2] = 1  # (in, out): into the third filter
        model[1].weight[2, 2, 0, 1] = 1
    summary = sparsity_summary(model)
    assert summary["active_neurons"] == [2, 2, 1]
    assert summary["n_conv"] == 4 / (12 + 18)


def test_a_shared_weight_counts_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.fill_(0)
        model[0].weight[0] = 2.0
        model[2].weight.fill_(1)
    summary = sparsity_summary(model)
    assert summary["n_total"] == (4 + 8) / (16 + 8)
    assert summary["l1_norm"] == 8 + 8
    assert summary["active_neurons"] == [4, 1, 2]


def test_embeddings_count_in_the_total_alone():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[1].weight.zero_()[0, 0] = 1
    summary = sparsity_summary(model)
    assert summary["n_total"] == (12 + 1) / 20
    assert summary["n_linear"] == 1 / 8
    assert summary["active_neurons"] == [1, 1]
    assert sparsity_summary(model[0])["active_neurons"] == []


def test_what_layers_compute_with_is_counted():
    pruned = prune.random_unstructured(nn.Linear(10, 10), "weight", 0.7)
    assert sparsity_summary(pruned)["n_total"] == pytest.approx(0.3)
    normed = parametrizations.weight_norm(nn.Linear(50, 40))
    plain = nn.Linear(50, 40)
    for model in (normed, plain):
        sparse_init_(model, 0.05, generator=torch.Generator().manual_seed(0))
    counted, expected = sparsity_summary(normed), sparsity_summary(plain)
    assert counted.pop("l1_norm") == pytest.approx(expected.pop("l1_norm"))
    assert counted == expected


def test_a_convolution_whose_weight_is_a_matrix_counts_as_linear():
    class Unfold(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel_size, self.weight = 3, nn.Parameter(torch.ones(4, 18))

    model = nn.Sequential(Unfold(), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        model[0].weight[1:, :9] = 0
        model[1].weight.fill_(1.0)
        model[1].weight[0, 0] = 0
    summary = sparsity_summary(model)
    assert summary["n_linear"] == 45 / 72
    assert summary["n_conv"] == 7 / 8
    assert summary["active_neurons"] == [18, 4, 2]
