"""The theoretical cost of training: against torch's own counter, and against counting by hand."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bregman.flops import (
    forward_flops,
    layer_densities,
    sparse_share,
    step_share,
    training_share,
)
from bregman.suite.analysis.cost import recorded_shares
from bregman.suite.models import MLP, ConvNet
from bregman.suite.training import Record


def torch_total(model, inputs, backward=False):
    with FlopCounterMode(display=False) as counter:
        output = model(inputs)
        if backward:
            output.sum().backward()
    return counter.get_total_flops()


class Grouped(nn.Module):
    """Groups, strides, padding, no bias, a layer that is used twice, weights in one dimension."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.line = nn.Conv1d(8, 6, 2)
        self.head = nn.Linear(6, 6)

    def forward(self, x):
        x = self.depthwise(self.depthwise(self.stem(x).relu()))
        x = self.line(x.flatten(2)).mean(2)
        return self.head(self.head(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [(MLP((20, 7, 3)), (20,)), (ConvNet(), (1, 28, 28)), (Grouped(), (4, 9, 9))],
)
@pytest.mark.parametrize("samples", [1, 5])
def test_forward_flops_are_those_that_torch_counts(model, shape, samples):
    inputs = torch.randn(samples, *shape)
    flops = forward_flops(model, inputs)
    assert sum(flops.values()) == torch_total(model, inputs) / samples


def test_the_layers_of_the_convnet():
    flops = forward_flops(ConvNet(), torch.zeros(1, 1, 28, 28))
    assert flops == {
        "conv1": 2 * 24 * 24 * 64 * 25,
        "conv2": 2 * 8 * 8 * 64 * 64 * 25,
        "fc1": 2 * 1024 * 128,
        "fc2": 2 * 128 * 10,
    }


def test_counting_leaves_no_trace():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = forward_flops(model, torch.randn(6, 3))
    assert model.training
    assert not model[0]._forward_hooks
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert forward_flops(model, torch.randn(6, 3)) == first, "not added up"


def test_a_dense_step_is_three_forward_passes():
    # the first layer needs no gradient with respect to its input: torch leaves it out, the rule of
    # thumb does not; with an input that needs one, both count the same
    model, inputs = MLP((20, 7, 3)), torch.randn(4, 20, requires_grad=True)
    forward = 4 * sum(forward_flops(model, inputs).values())
    assert torch_total(model, inputs, backward=True) == 3 * forward


def test_densities_and_their_share_by_hand():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0]]))
    densities = layer_densities(model)
    assert densities == {"0": 0.25, "1": 1.0}
    # 16 FLOPs of which a quarter is left, and 4 dense ones
    assert sparse_share(forward_flops(model, torch.zeros(3, 4)), densities) == 8 / 20
    with pytest.raises(ValueError, match="densities must have the layers 0, 1, got 0"):
        sparse_share({"0": 1.0, "1": 1.0}, {"0": 1.0})


def products(s, full, frozen):
    """Count the three products of each step: forward, input gradient, weight gradient."""
    return full * (s + s + 1) + frozen * (s + s + s)


@pytest.mark.parametrize("s", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("m", [0, 1, 9, 99])
def test_a_cycle_of_steps_is_the_sum_of_its_products(s, m):
    assert step_share(s, m) == pytest.approx(products(s, 1, m) / products(1, 1, m))


@pytest.mark.parametrize("s", [0.0, 0.02, 1.0])
def test_a_fixed_support_is_the_limit_of_many_frozen_steps(s):
    assert step_share(s, float("inf")) == s
    assert step_share(s, 1e9) == pytest.approx(s, abs=1e-8)


def test_a_training_is_the_mean_over_its_epochs():
    history = [
        Record(epoch, "weights", f"density_{name}", density)
        for epoch, densities in enumerate(
            [{"a": 0.1, "b": 0.5}, {"a": 0.3, "b": 0.3}, {"a": 1, "b": 0}]
        )
        for name, density in densities.items()
    ]
    history.append(Record(0, "weights", "density", 0.9))
    shares = recorded_shares({"a": 300.0, "b": 100.0}, history, "density_")
    assert shares == pytest.approx([0.2, 0.3, 0.75])
    # an epoch of 2 s + 1 products of 3, its s the mean of both ends: 1.5 and 2.05
    assert training_share(shares) == pytest.approx((1.5 + 2.05) / 2 / 3)
    assert training_share(shares, math.inf) == pytest.approx((0.25 + 0.525) / 2)
    assert training_share([1, 1, 1], 9) == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1,), r"sparse must be in \[0, 1\], got -0.1"),
        ((1.5,), r"sparse must be in \[0, 1\], got 1.5"),
        ((float("nan"),), r"sparse must be in \[0, 1\], got nan"),
        ((0.5, -1), "frozen_steps must be non-negative, got -1"),
        ((0.5, float("nan")), "frozen_steps must be non-negative, got nan"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        step_share(*arguments)
