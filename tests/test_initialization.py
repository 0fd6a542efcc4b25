"""Sparse initialization against the formulas of section 4.1."""

import math

import pytest
import torch
from torch import nn

from bregman import sparse_init_
from bregman.suite.models import MLP


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("nonlinearity", "layer", "alpha"),
    [
        ("relu", nn.Linear(600, 900), 2 / 600),
        ("tanh", nn.Linear(600, 900), 2 / 1500),
        ("relu", nn.Conv2d(64, 128, 3), 2 / (64 * 9)),
        ("tanh", nn.Conv2d(64, 128, 3), 2 / ((64 + 128) * 9)),
        ("relu", nn.Conv1d(300, 400, 5), 2 / (300 * 5)),
    ],
)
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_the_variance_is_that_of_a_dense_network(nonlinearity, layer, alpha, density):
    sparse_init_(layer, density, gain=1.5, nonlinearity=nonlinearity, generator=seeded())
    # eq. (4.3): Var W = alpha; the sampling error is a few per cent at these sizes
    assert layer.weight.var().item() == pytest.approx(1.5**2 * alpha, rel=0.05)
    assert abs(layer.weight.mean().item()) < 0.03 * math.sqrt(alpha / density)


def test_variance_is_kept_through_depth_and_lost_without_rescaling():
    model = MLP([512] * 9)
    inputs = torch.randn(256, 512, generator=seeded(1))
    sparse_init_(model, 0.05, bias="zero", generator=seeded(2))
    with torch.no_grad():
        kept = model(inputs).var() / inputs.var()
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight *= math.sqrt(0.05)  # a mask on a dense initialization
        lost = model(inputs).var() / inputs.var()
    assert 0.2 < kept < 5
    assert lost < 1e-8


@pytest.mark.parametrize("density", [0.01, 0.2])
@pytest.mark.parametrize(
    ("layer", "group", "dims"),
    [
        (nn.Linear(400, 500), "entry", ()),
        (nn.Linear(40, 5000), "row", (1,)),
        (nn.Conv2d(100, 200, 3), "kernel", (2, 3)),
        (nn.Conv2d(3, 20000, 3), "row", (1, 2, 3)),
    ],
)
def test_masks_keep_or_drop_whole_groups_with_probability_density(density, layer, group, dims):
    sparse_init_(layer, density, group=group, generator=seeded())
    nonzero = layer.weight != 0
    some = nonzero.amax(dims) if dims else nonzero
    every = nonzero.all(-1) if group == "row" and layer.weight.dim() == 2 else None
    if dims:
        assert torch.equal(some, nonzero.float().mean(dims) == 1)
    assert every is None or torch.equal(every, some)
    n = some.numel()
    deviation = math.sqrt(density * (1 - density) / n)
    assert abs(some.float().mean().item() - density) < 4 * deviation


@pytest.mark.parametrize(
    ("bias", "low", "high"), [("positive", 0, 1), ("symmetric", -1, 1), ("zero", 0, 0)]
)
def test_biases_fill_their_range(bias, low, high):
    layer = nn.Linear(25, 4000)
    sparse_init_(layer, 0.5, bias=bias, generator=seeded())
    bound = 1 / 5
    assert layer.bias.min().item() == pytest.approx(low * bound, abs=0.01 * bound)
    assert layer.bias.max().item() == pytest.approx(high * bound, abs=0.01 * bound)
    if bias == "positive":
        assert (layer.bias >= 0).all()


def test_the_generator_decides_all():
    models = [MLP(), MLP(), MLP()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        sparse_init_(model, 0.1, generator=seeded(seed))
    first, again, other = (nn.utils.parameters_to_vector(m.parameters()) for m in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_other_layers_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    sparse_init_(model, 0.5)
    assert torch.equal(model[1].weight, torch.ones(8))


def test_a_layer_that_starts_at_zero_is_named():
    model = MLP((4, 3, 2))
    with pytest.warns(UserWarning, match=r"layer '1' of shape \(3, 4\) starts entirely at zero"):
        sparse_init_(model, 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"density": math.nan}, r"density must be in \(0, 1\], got nan"),
        ({"density": 0.1, "gain": -1}, "gain must be positive and finite, got -1"),
        ({"density": 0.1, "bias": "none"}, "bias must be one of .*'zero'.*, got 'none'"),
        ({"density": 0.1, "group": "column"}, "group must be one of .*, got 'column'"),
        ({"density": 0.1, "nonlinearity": "gelu"}, "nonlinearity must be one of .*, got 'gelu'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sparse_init_(nn.Linear(3, 2), **arguments)


def test_a_module_without_weights_is_refused():
    with pytest.raises(ValueError, match="ReLU has no linear or convolution layer"):
        sparse_init_(nn.ReLU(), 0.1)
