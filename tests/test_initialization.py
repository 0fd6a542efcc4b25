"""Sparse initialization against the formulas of section 4.1."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bregman import sparse_init_
from bregman.layers import weights
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
        # fans by hand: a depthwise kernel meets one channel, and one channel meets its kernel
        ("relu", nn.Conv2d(9000, 9000, 3, groups=9000), 2 / 9),
        ("tanh", nn.Conv2d(9000, 9000, 3, groups=9000), 2 / 18),
        ("tanh", nn.Conv2d(128, 256, 3, groups=4), 2 / ((32 + 64) * 9)),
        ("relu", nn.ConvTranspose2d(128, 64, 3), 2 / (128 * 9)),
        ("tanh", nn.ConvTranspose2d(128, 64, 3, groups=2), 2 / ((64 + 32) * 9)),
        ("relu", nn.ConvTranspose2d(128, 64, 4, stride=2), 2 / (128 * 4)),
        ("tanh", nn.Bilinear(40, 50, 60), 2 / (40 * 50 + 60)),
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
    with pytest.raises(ValueError, match="one with a linear or convolution layer, got 'ReLU'"):
        sparse_init_(nn.ReLU(), 0.1)


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (nn.MultiheadAttention(150, 3),
         {"in_proj_weight": (150, 150), "out_proj": (150, 150)}),
        (nn.MultiheadAttention(150, 3, kdim=200, vdim=250),
         {"q_proj_weight": (150, 150), "k_proj_weight": (200, 150), "v_proj_weight": (250, 150),
          "out_proj": (150, 150)}),
        (nn.LSTM(200, 150), {"weight_ih_l0": (200, 150), "weight_hh_l0": (150, 150)}),
        (nn.GRU(200, 150), {"weight_ih_l0": (200, 150), "weight_hh_l0": (150, 150)}),
        (nn.RNNCell(200, 150), {"weight_ih": (200, 150), "weight_hh": (150, 150)}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_attention_and_recurrent_layers_are_drawn_matrix_by_matrix(layer, fans, nonlinearity):
    kept = {name: p.clone() for name, p in layer.named_parameters() if "bias" in name}
    sparse_init_(layer, 0.2, nonlinearity=nonlinearity, generator=seeded())
    found = {weight.name: weight.value for weight in weights(layer)}
    assert found.keys() == fans.keys()
    for name, (n_in, n_out) in fans.items():
        alpha = 2 / n_in if nonlinearity == "relu" else 2 / (n_in + n_out)
        assert (found[name] != 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
        assert found[name].var().item() == pytest.approx(alpha, rel=0.06)
    for name, p in layer.named_parameters():
        if name in kept and name != "out_proj.bias":
            assert torch.equal(p, kept[name]), "no rule of section 4.1 for these biases"


def test_the_matrices_of_a_stack_are_drawn_each_by_itself():
    model = nn.Module()
    model.experts = nn.Parameter(torch.zeros(5, 60, 100))  # five of 100 inputs and 60 outputs
    sparse_init_(model, 0.3, nonlinearity="tanh", generator=seeded())
    assert model.experts.var().item() == pytest.approx(2 / 160, rel=0.05)
    assert (model.experts != 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    sparse_init_(model, 0.3, group="row", generator=seeded())
    rows = (model.experts != 0).flatten(0, 1)
    assert torch.equal(rows.any(1), rows.all(1))
    assert 0 < int(rows.any(1).sum()) < 300


def test_variance_is_kept_through_transposed_and_depthwise_convolutions():
    layers = []
    for _ in range(3):
        layers += [nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1), nn.ReLU(),
                   nn.Conv2d(64, 128, 3, padding=1, stride=2, groups=64), nn.ReLU(),
                   nn.Conv2d(128, 64, 1), nn.ReLU()]  # fmt: skip
    model = nn.Sequential(*layers)
    sparse_init_(model, 0.3, bias="zero", generator=seeded(3))
    inputs = torch.randn(8, 64, 16, 16, generator=seeded(1))
    with torch.no_grad():
        kept = model(inputs).square().mean() / inputs.square().mean()
    assert 0.2 < kept < 5  # without the stride in n_in it would be a 64th of that


@pytest.mark.parametrize("group", ["row", "kernel"])
def test_groups_of_a_transposed_convolution(group):
    layer = nn.ConvTranspose2d(40, 60, 3, groups=2)
    sparse_init_(layer, 0.3, group=group, generator=seeded())
    # stored as (in, out per group, ...): the filters of each group are its second dimension
    by_filter = layer.weight.detach().view(2, 20, 30, 9).transpose(1, 2).reshape(60, 20, 9)
    nonzero = by_filter != 0
    kernels = nonzero.any(2)
    assert torch.equal(kernels, nonzero.all(2))
    if group == "row":
        assert torch.equal(kernels.any(1), kernels.all(1))
    assert kernels.float().mean().item() == pytest.approx(0.3, abs=0.15 if group == "row" else 0.05)


PARAMETRIZED = {
    "weight norm": parametrizations.weight_norm,
    "old weight norm": nn.utils.weight_norm,
    "over inputs": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "over all": lambda layer: nn.utils.weight_norm(layer, dim=None),
}


@pytest.mark.parametrize("wrap", PARAMETRIZED.values(), ids=PARAMETRIZED.keys())
@pytest.mark.parametrize("group", ["entry", "row"])
def test_weight_norms_compute_with_the_weights_that_were_drawn(wrap, group):
    plain, layer = nn.Linear(60, 200), wrap(nn.Linear(60, 200))
    for model in (plain, layer):
        sparse_init_(model, 0.02, group=group, generator=seeded())
    assert not plain.weight.any(1).all(), "some neurons have no weight"
    torch.testing.assert_close(layer.weight.detach(), plain.weight.detach())
    assert torch.equal(layer.weight == 0, plain.weight == 0)
    assert torch.equal(layer.bias, plain.bias)
    outputs = layer(torch.randn(5, 60))
    assert outputs.isfinite().all()
    outputs.sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    # v itself is sparse: the weights, and one entry for what has none
    (weight,) = weights(layer)
    assert int(weight.parameter.count_nonzero()) <= int(plain.weight.count_nonzero()) + 200


def test_a_spectral_norm_scales_what_was_drawn():
    layer = parametrizations.spectral_norm(nn.Linear(60, 40))
    plain = nn.Linear(60, 40)
    for model in (plain, layer):
        sparse_init_(model, 0.1, generator=seeded())
    norm = torch.linalg.matrix_norm(plain.weight.detach(), 2)
    for _ in range(300):  # each forward pass in train mode improves the estimate of the norm
        layer(torch.eye(60))
    torch.testing.assert_close(
        layer.eval().weight.detach(), plain.weight / norm, rtol=1e-3, atol=1e-6
    )
    assert torch.equal(layer.weight == 0, plain.weight == 0)


def test_pruned_weights_stay_pruned():
    layer = prune.random_unstructured(nn.Linear(60, 40), "weight", 0.5)
    mask = layer.weight_mask.clone()
    plain = nn.Linear(60, 40)
    for model in (plain, layer):
        sparse_init_(model, 0.1, generator=seeded())
    assert torch.equal(layer.weight.detach(), plain.weight * mask)
    assert torch.equal(layer(torch.eye(60)).detach(), (plain.weight * mask).t() + plain.bias)


def test_what_can_not_be_sparse_is_refused_and_nothing_changes():
    layer = parametrizations.orthogonal(nn.Linear(8, 8))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(ValueError, match="layer 'only' can't take these zeros"):
        sparse_init_(nn.ModuleDict({"only": layer}), 0.3, generator=seeded())
    assert all(torch.equal(t, before[name]) for name, t in layer.state_dict().items())


def test_frozen_layers_and_embeddings_stay_as_they_are():
    model = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 5), nn.Linear(5, 5))
    model[1].weight.requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    sparse_init_(model, 0.4, generator=seeded())
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert changed == [False, False, False, True, True]
    with pytest.raises(
        ValueError, match="one with a linear or convolution layer, got 'Sequential'"
    ):
        sparse_init_(model.requires_grad_(False), 0.4)


def test_shared_weights_are_named():
    tied = nn.ModuleDict(
        {"tokens": nn.Embedding(7, 6), "head": nn.Linear(6, 7), "x": nn.Linear(6, 6)}
    )
    tied["head"].weight = tied["tokens"].weight
    before = tied["tokens"].weight.clone(), tied["head"].bias.clone()
    with pytest.warns(UserWarning, match="layers 'tokens', 'head' share one weight: an embedding"):
        sparse_init_(tied, 0.3, generator=seeded())
    assert torch.equal(tied["tokens"].weight, before[0])
    assert torch.equal(tied["head"].bias, before[1])
    assert 0 < int(tied["x"].weight.count_nonzero()) < 36

    twice = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    twice[1].weight = twice[0].weight
    with pytest.warns(UserWarning, match="layers '0', '1' share one weight: drawn once"):
        sparse_init_(twice, 0.3, generator=seeded())
    alone = nn.Linear(40, 40)
    sparse_init_(alone, 0.3, generator=seeded())
    assert torch.equal(twice[0].weight, alone.weight)
    assert all(0 <= layer.bias.min() <= layer.bias.max() <= 1 / 40**0.5 for layer in twice)


def test_a_weight_without_entries_is_refused_before_anything_changes():
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(0, 4))
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"layer '1' must be of at least one weight.*\(4, 0\)"):
        sparse_init_(model, 0.5)
    assert torch.equal(model[0].weight, before)


def test_complex_weights_are_refused():
    layer = nn.Linear(4, 4, dtype=torch.complex64)
    before = layer.weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"layer '' must be real, and drawn .* got torch\.complex64"
    ):
        sparse_init_(layer, 0.5)
    assert torch.equal(layer.weight, before)


class Gain(nn.Module):
    """The response normalization of ConvNeXt V2, or a LayerNorm2d, written by hand."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.full(shape, 3.0))


@pytest.mark.parametrize("shape", [(1, 1, 1, 6), (1, 6, 1, 1), (6, 1, 1), (5, 6)])
def test_gains_named_weight_stay_as_they_are(shape):
    model = nn.Sequential(nn.Linear(6, 6), Gain(*shape))
    sparse_init_(model, 0.5, generator=seeded())
    assert not model[1].weight.any()
    assert (model[1].bias == 3).all()
    alone = nn.Linear(6, 6)
    sparse_init_(alone, 0.5, generator=seeded())
    assert torch.equal(model[0].weight, alone.weight)
    assert torch.equal(model[0].bias, alone.bias)


def test_a_bias_of_more_dimensions_is_never_drawn():
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.zeros(3, 8, 6))
    layer.bias = nn.Parameter(torch.full((3, 8), 2.0))
    sparse_init_(layer, 0.5, generator=seeded())
    assert layer.weight.any()
    assert (layer.bias == 2).all()


@pytest.mark.parametrize("shape", [(4, 1), (1, 4)])
def test_matrices_of_one_row_or_column_are_drawn(shape):
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.zeros(shape))
    layer.bias = nn.Parameter(torch.full(shape[:1], 2.0))
    sparse_init_(layer, 1.0, generator=seeded())
    assert layer.weight.all()
    assert ((layer.bias > 0) & (layer.bias < 1 / shape[1] ** 0.5)).all()
