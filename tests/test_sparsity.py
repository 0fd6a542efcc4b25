"""The sparsity measures against counts by hand."""

import pytest
import torch
from torch import nn

from bregman import sparsity_summary
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
    with pytest.raises(ValueError, match="BatchNorm1d has no linear or convolution layer"):
        sparsity_summary(nn.BatchNorm1d(3))
