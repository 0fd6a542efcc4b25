"""The theoretical cost of training, against counting by hand."""

import math

import pytest
import torch
from torch import nn

from bregman.flops import forward_flops, layer_densities
from bregman.suite.analysis.cost import recorded_shares, sparse_share, step_share, training_share
from bregman.suite.training import Record


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


def test_arguments_that_mean_nothing_are_named():
    with pytest.raises(ValueError, match=r"densities must be in \[0, 1\], got 2.0 for 'a'"):
        sparse_share({"a": 1.0}, {"a": 2.0})
    with pytest.raises(ValueError, match="flops must be non-negative and not all zero"):
        sparse_share({"a": 0.0}, {"a": 0.5})
    for shares in ([], [0.5]):
        with pytest.raises(ValueError, match="shares must be at least two numbers, got"):
            training_share(shares)
    with pytest.raises(ValueError, match=r"sparse must be in \[0, 1\], got 2.0"):
        training_share([0.5, 2.0])
