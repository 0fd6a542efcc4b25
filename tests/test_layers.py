"""One notion of a model's weights: what is found, what it is, and who gets which regularizer."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from bregman import (
    L1,
    GroupL12,
    LinBreg,
    Multilevel,
    Zero,
    param_groups,
    sparse_init_,
    sparsity_summary,
)
from bregman.flops import layer_densities
from bregman.layers import modes_kept, weights


class Conv1D(nn.Module):
    """Hugging Face's linear layer, which stores (n_in, n_out)."""

    def __init__(self, n_out, n_in):
        super().__init__()
        self.nf = n_out
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return x @ self.weight + self.bias


class Tagger(nn.Module):
    """Tokens, positions, attention and a head that is the table of tokens."""

    def __init__(self, tokens=11, width=8):
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.zeros(1, 5, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True, add_bias_kv=True)
        self.gate = nn.Parameter(torch.randn(width, width))
        self.norm = nn.LayerNorm((5, width))
        self.head = nn.Linear(width, tokens)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        x = self.tokens(x) + self.positions
        x = self.norm(self.attention(x, x, x, need_weights=False)[0] @ self.gate)
        return self.head(x)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 6, 3))
        self.kernels = nn.Parameter(torch.randn(5, 2, 3, 3))
        self.scale = nn.Parameter(torch.ones(7, 1, 1))


def found(model):
    return {weight.name: weight.kind for weight in weights(model)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Linear(3, 2), {"": "linear"}),
        (nn.Sequential(nn.Conv1d(3, 2, 2), nn.BatchNorm1d(2)), {"0": "conv"}),
        (nn.Sequential(nn.ConvTranspose2d(3, 2, 2)), {"0": "conv"}),
        (nn.Sequential(nn.Bilinear(3, 4, 2)), {"0": "linear"}),
        (nn.Sequential(nn.EmbeddingBag(3, 4)), {"0": "embedding"}),
        (nn.Sequential(Conv1D(3, 4)), {"0": "linear"}),
        (nn.GRUCell(3, 4), {"weight_ih": "linear", "weight_hh": "linear"}),
        (nn.Sequential(nn.LSTM(3, 4, proj_size=2)),
         {"0.weight_ih_l0": "linear", "0.weight_hh_l0": "linear", "0.weight_hr_l0": "linear"}),
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
         {"q_proj_weight": "linear", "k_proj_weight": "linear", "v_proj_weight": "linear",
          "out_proj": "linear"}),
        (Tagger(),
         {"tokens": "embedding", "positions": "embedding", "gate": "linear",
          "attention.in_proj_weight": "linear", "attention.out_proj": "linear",
          "attention.bias_k": "embedding", "attention.bias_v": "embedding"}),
        (Experts(), {"up": "linear", "kernels": "conv", "scale": "embedding"}),
        (nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2))), {"0": "linear"}),
        (nn.Sequential(nn.utils.weight_norm(nn.ConvTranspose1d(3, 2, 2), dim=1)), {"0": "conv"}),
        (nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 2, 2))), {"0": "conv"}),
        (nn.Sequential(prune.random_unstructured(nn.Linear(3, 2), "weight", 0.5)),
         {"0": "linear"}),
    ],
)  # fmt: skip
def test_every_parameter_of_two_or_more_dimensions_is_found_once(model, expected):
    assert found(model) == expected
    parameters = [weight.parameter for weight in weights(model)]
    assert len(parameters) == len(set(parameters))
    # what is left are gains of normalizations and magnitudes of weight norms
    left = {p for p in model.parameters() if p.dim() > 1} - set(parameters)
    magnitudes = {weight.magnitude for weight in weights(model)} - {None}
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert left == magnitudes | {p for norm in norms for p in norm.parameters()}


def holding(**parameters):
    """A module of no known type with parameters of given shapes; other values become attributes."""
    module = nn.Module()
    for name, value in parameters.items():
        shape = isinstance(value, tuple) and name != "kernel_size"
        setattr(module, name, nn.Parameter(torch.ones(value)) if shape else value)
    return module


class LoraConv(nn.Conv2d):
    def __init__(self):
        super().__init__(4, 8, 3, groups=4)
        self.lora_A, self.lora_B = (nn.Parameter(torch.randn(n)) for n in ((2, 9), (8, 2)))


class LoraTransposed(nn.ConvTranspose2d):
    def __init__(self):
        super().__init__(4, 6, 3)
        self.lora_A, self.lora_B = (nn.Parameter(torch.randn(n)) for n in ((2, 54), (4, 2)))


class LoraLSTM(nn.LSTM):
    def __init__(self):
        super().__init__(3, 4)
        self.lora_weight = nn.Parameter(torch.randn(2, 3))


class Unfolding(nn.Conv2d):
    """A convolution whose weight is a matrix."""

    def __init__(self):
        super().__init__(2, 5, 3)
        self.weight = nn.Parameter(self.weight.detach().flatten(1))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        # gains: of one channel each, or of the shape of their bias
        (holding(weight=(1, 1, 1, 4), bias=(1, 1, 1, 4)), "embedding"),
        (holding(weight=(1, 4, 1, 1)), "embedding"),
        (holding(weight=(4, 1, 1), bias=(4, 1, 1)), "embedding"),
        (holding(weight=(1, 1, 4)), "embedding"),
        (holding(weight=(5, 4), bias=(5, 4)), "embedding"),
        (holding(weight=(1, 4, 6, 6), bias=(1, 4, 6, 6)), "embedding"),
        # weights: of one input or output, of one expert, kernels of one entry
        (holding(weight=(4, 1), bias=(4,)), "linear"),
        (holding(weight=(1, 4), bias=(1,)), "linear"),
        (holding(weight=(1, 4)), "linear"),
        (holding(weight=(1, 1)), "linear"),
        (holding(weight=(1, 6, 3), bias=(1, 6)), "linear"),
        (holding(weight=(1, 4, 3, 3), bias=(1,)), "conv"),
        (holding(weight=(1, 4, 3, 3), kernel_size=(3, 3)), "conv"),
        (holding(weight=(1, 4, 1, 1), kernel_size=1), "conv"),
        (holding(weight=(4, 1, 1, 1), bias=(4,), kernel_size=1), "conv"),
        (holding(weight=(4, 1, 1), kernel_size=1), "conv"),
        (holding(weight=(1, 1, 1, 1), kernel_size=1), "conv"),
        # matrices of convolutions
        (holding(weight=(4, 18), bias=(4,), kernel_size=3), "linear"),
        (Unfolding(), "linear"),
        # what belongs together under one name
        (holding(pos_embed=nn.ParameterList([torch.ones(5, 4)])), "embedding"),
        (holding(lora_embedding_A=nn.ParameterDict({"default": torch.ones(5, 4)})), "embedding"),
        (holding(relative_bias=nn.ParameterList([torch.ones(5, 4)])), "embedding"),
        (holding(experts=nn.ParameterList([torch.ones(5, 4)])), "linear"),
        (nn.ParameterDict({"w": torch.ones(5, 4)}), "linear"),
        (holding(tokens=holding(proj=(5, 4))), "linear"),
    ],
)  # fmt: skip
def test_kinds_by_names_and_shapes(module, expected):
    first = weights(nn.ModuleDict({"body": module}))[0]
    assert first.kind == expected


@pytest.mark.parametrize("layer", [LoraConv(), LoraTransposed(), LoraLSTM(), Unfolding()])
def test_what_a_subclass_adds_is_a_matrix_of_its_own(layer):
    added = [weight for weight in weights(layer) if weight.parameter.dim() == 2]
    if isinstance(layer, LoraLSTM):
        added = [weight for weight in added if weight.name == "lora_weight"]
    assert added
    for weight in added:
        value = weight.value
        assert (weight.kind, weight.matrices, weight.inputs_first) == ("linear", 1, False)
        assert torch.equal(weight.rows(value), value)
        assert torch.equal(weight.inputs(value), value.t())
        assert weight.fans == (value.shape[1], value.shape[0])
    numbers = sparsity_summary(layer)
    assert numbers["n_total"] == numbers["n_linear" if numbers["n_conv"] is None else "n_conv"] == 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda layer: layer,
        parametrizations.weight_norm,
        nn.utils.weight_norm,
        parametrizations.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    ],
)
def test_a_value_is_what_the_layer_multiplies_with_at_present(wrap):
    layer = wrap(nn.Linear(6, 4, bias=False))
    (weight,) = weights(layer)
    with torch.no_grad():
        weight.parameter.mul_(torch.rand(4, 6) + 0.5)  # as a step of an optimizer would
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    value = weight.value
    for name, tensor in layer.state_dict().items():
        assert torch.equal(tensor, before[name]), "reading changes nothing"
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(torch.eye(6)).t(), value)


def leads(layer, shape):
    """By autograd: the weights that lead into each output, and out of each input."""
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(1.0 if p.dim() > 1 else 0.0)
    x = torch.ones(1, *shape, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    inside = (slice(None), slice(None), *(slice(8, 24) for _ in shape[1:]))
    return y[inside].mean().item(), x.grad[inside].mean().item()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (5,)),
        (Conv1D(3, 5), (5,)),
        (nn.Conv2d(4, 6, 3), (4, 32, 32)),
        (nn.Conv2d(4, 8, 3, groups=4), (4, 32, 32)),
        (nn.Conv2d(6, 6, 5, groups=6), (6, 32, 32)),
        (nn.Conv1d(4, 6, 3, dilation=2, groups=2), (4, 32)),
        (nn.ConvTranspose1d(4, 6, 3), (4, 32)),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), (4, 32, 32)),
        (nn.ConvTranspose2d(3, 8, 4, stride=2), (3, 32, 32)),
        (nn.Conv3d(2, 3, 2), (2, 26, 26, 26)),
        (nn.ConvTranspose3d(2, 3, 2), (2, 26, 26, 26)),
    ],
)
def test_fans_count_the_weights_that_lead_in_and_out(layer, shape):
    (weight,) = weights(layer)
    assert weight.fans == leads(layer, shape)


def test_packed_matrices_have_fans_of_their_own():
    fans = {w.name: w.fans for m in (nn.LSTM(3, 4), Tagger()) for w in weights(m)}
    assert fans["weight_ih_l0"] == (3, 4)
    assert fans["weight_hh_l0"] == (4, 4)
    assert fans["attention.in_proj_weight"] == (8, 8)
    (bilinear,) = weights(nn.Bilinear(3, 4, 5))
    assert bilinear.fans == (12, 5)
    assert weights(Experts())[0].fans == (3, 6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv1D(6, 6), (6,)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5)),
        (nn.Conv2d(4, 6, 3, groups=2), (4, 5, 5)),
    ],
)
def test_rows_are_neurons_and_inputs_are_inputs(layer, shape):
    (weight,) = weights(layer)
    with torch.no_grad():
        layer.bias.zero_()
        rows = weight.rows(weight.value).clone()
        assert torch.equal(weight.from_rows(rows), weight.value)
        rows[1] = 0
        weight.assign(weight.from_rows(rows))
        x = torch.randn(2, *shape)
        silent = layer(x).abs().transpose(0, 1).flatten(1).amax(1) == 0
        assert silent.tolist() == [i == 1 for i in range(6)], "one neuron is silent, the second"
        # an input that nothing leads out of changes nothing
        inputs = weight.inputs(weight.value)
        assert len(inputs) == shape[0]
        changed = x.clone()
        changed[:, 2] += 1
        keep = torch.ones(shape[0], *(1 for _ in inputs.shape[1:]))
        keep[2] = 0
        groups = getattr(layer, "groups", 1)
        back = (inputs * keep).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        weight.assign(weight.from_rows(back))
        torch.testing.assert_close(layer(changed), layer(x))


@pytest.mark.parametrize("mode", [True, False])
def test_modes_come_back_one_by_one_even_after_an_error(mode):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)))
    model.train(mode)
    model[1][1].eval()
    before = [module.training for module in model.modules()]

    def fail():
        with modes_kept(model):
            model.train(not mode)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in model.modules()] == before


class TwoFactors(nn.Module):
    def forward(self, a, b):
        return a @ b

    def right_inverse(self, w):
        return torch.ones(len(w), 1), torch.ones(1, w.shape[1])


def test_what_can_not_be_handled_is_refused_by_name():
    old = nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 2)))
    with pytest.raises(
        ValueError, match=r"layer '0' must be with the spectral_norm of .* not the old one"
    ):
        param_groups(old, linear=L1(0.1))
    with pytest.raises(ValueError, match="layer '1' must be run on a batch first"):
        weights(nn.Sequential(nn.ReLU(), nn.LazyLinear(3)))
    product = nn.Sequential(nn.Linear(3, 2))
    parametrize.register_parametrization(product[0], "weight", TwoFactors(), unsafe=True)
    with pytest.raises(
        ValueError,
        match=r"layer '0' must be with one parameter of the shape of its weight.*TwoFactors",
    ):
        weights(product)


def test_within_a_cycle_of_frozen_steps_the_whole_weights_are_measured():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    sparse_init_(model, 0.6, generator=torch.Generator().manual_seed(0))
    optimizer = LinBreg(param_groups(model, linear=L1(0.3)), lr=0.1)
    cycle = Multilevel(model, optimizer, frozen_steps=9, path="masked")
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(model(torch.randn(8, 6)), torch.zeros(8, 2)).backward()
        optimizer.step()
    assert cycle.frozen
    densities, summary = layer_densities(model), sparsity_summary(model)
    cycle.finish()
    whole = {str(i): model[i].weight for i in (0, 2)}
    assert [w.shape for w in whole.values()] == [(5, 6), (2, 5)]
    assert densities == {name: int((w != 0).sum()) / w.numel() for name, w in whole.items()}
    assert summary == sparsity_summary(model)
    assert densities["0"] < 1


# param_groups


ENCODER = nn.TransformerEncoderLayer(8, 2, 16)
ZOO = [
    nn.Sequential(nn.Embedding(5, 8), ENCODER),
    nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2)),
    nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 3), nn.Linear(3, 2)),
    Tagger(),
    nn.Sequential(Experts(), nn.Linear(3, 2)),
    nn.Sequential(nn.Bilinear(3, 4, 5), Conv1D(5, 5)),
]


@pytest.mark.parametrize("model", ZOO)
def test_every_weight_is_regularized_or_named(model):
    conv = L1(2.0) if "conv" in found(model).values() else None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        groups = param_groups(model, linear=L1(1.0), conv=conv, named=True)
    params = [pair for group in groups for pair in group["params"]]
    assert sorted(name for name, _ in params) == sorted(
        name for name, _ in model.named_parameters()
    )
    regs = {p: group["reg"] for group in groups for _, p in group["params"]}
    words = " ".join(str(warning.message) for warning in said)
    for weight in weights(model):
        wanted = {"linear": L1(1.0), "conv": L1(2.0), "embedding": None}[weight.kind]
        assert regs[weight.parameter] == wanted
        assert wanted is not None or weight.name in words
    vectors = [p for p in model.parameters() if p.dim() < 2]
    assert all(regs[p] is None for p in vectors)


def test_an_optimizer_can_be_asked_which_parameter_is_where():
    model = ZOO[1]
    optimizer = LinBreg(param_groups(model, linear=L1(1.0), named=True), lr=0.1)
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["0.weight_ih_l0", "0.weight_hh_l0", "1.weight"],
        ["0.bias_ih_l0", "0.bias_hh_l0", "1.bias"],
    ]


def test_embeddings_take_a_regularizer_of_their_own():
    model = Tagger()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = param_groups(model, linear=L1(0.1), embedding=GroupL12(0.2, dim=-1))
        quiet = param_groups(model, linear=L1(0.1), embedding=Zero())
        param_groups(model)  # no regularizer at all, none is missed
    assert {model.tokens.weight, model.positions} <= set(groups[1]["params"])
    assert groups[1]["reg"] == GroupL12(0.2, dim=-1)
    assert sum(p is model.tokens.weight for g in groups for p in g["params"]) == 1
    assert model.tokens.weight in set(quiet[1]["params"])


def test_a_regularizer_that_nothing_takes_is_said():
    with pytest.warns(UserWarning, match=r"Linear has no trained conv weight .* conv=L1"):
        param_groups(nn.Linear(3, 2), linear=L1(0.1), conv=L1(0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        param_groups(nn.Linear(3, 2), linear=L1(0.1), conv=L1(0.1))  # whatever the layers are
    frozen = nn.LSTM(3, 2).requires_grad_(False)
    with pytest.warns(UserWarning, match=r"LSTM has no trained linear weight"):
        param_groups(frozen, linear=L1(0.1))


def test_frozen_weights_get_no_regularizer():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    regularized, rest = param_groups(model, linear=L1(0.1))
    assert regularized["params"] == [model[1].weight]
    assert model[0].weight in set(rest["params"])
    assert rest["reg"] is None


def trained(layer, groups, inputs, targets, lr=0.5, steps=30):
    optimizer = LinBreg(groups, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(layer(inputs), targets).backward()
        optimizer.step()
    return layer


def test_rows_are_rows_in_any_layout():
    torch.manual_seed(0)
    inputs, targets = torch.randn(40, 6), torch.randn(40, 5)
    targets[:, 2:] *= 0.01
    plain, foreign = nn.Linear(6, 5), Conv1D(5, 6)
    with torch.no_grad():
        plain.weight.zero_()
        foreign.weight.zero_()
        plain.bias.zero_()
    for layer in (plain, foreign):
        trained(layer, param_groups(layer, linear=GroupL12(0.05, dim=1)), inputs, targets)
    rows = plain.weight.any(1)
    assert 0 < int(rows.sum()) < 5
    torch.testing.assert_close(foreign.weight.t(), plain.weight)


def test_filters_of_a_transposed_convolution():
    layer = nn.ConvTranspose2d(4, 6, 3)
    (group, _) = param_groups(layer, conv=GroupL12(0.1, dim=(1, 2, 3)))
    shrunk = group["reg"].prox(layer.weight.detach(), 1.0)
    norms = layer.weight.detach().pow(2).sum((0, 2, 3)).sqrt()
    by_hand = (1 - 0.1 * 36**0.5 / norms).clamp(min=0)
    torch.testing.assert_close(shrunk, layer.weight * by_hand.view(1, 6, 1, 1))
    kernels = GroupL12(0.1, dim=(2, 3))
    assert param_groups(layer, conv=kernels)[0]["reg"] == kernels
    several = nn.Sequential(nn.ConvTranspose1d(4, 6, 3), layer, nn.Conv2d(6, 4, 3))
    regs = {p: g["reg"] for g in param_groups(several, conv=GroupL12(0.1, -3)) for p in g["params"]}
    dims = [regs[layer.weight].dim[0] % layer.weight.dim() for layer in several]
    assert dims == [1, 0, 1], "the first of three dimensions is out, the second of four is in"
    grouped = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2))
    with pytest.raises(ValueError, match=r"filters, and those of the grouped .* '0' are no slices"):
        param_groups(grouped, conv=GroupL12(0.1, dim=(1, 2, 3)))


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_weight_norm_is_trained_to_exact_zeros(wrap):
    torch.manual_seed(0)
    layer = wrap(nn.Linear(12, 3))
    inputs = torch.randn(200, 12)
    targets = inputs[:, :3] * torch.tensor([1.0, -2.0, 1.5])
    with torch.no_grad():
        weights(layer)[0].assign(0.1 * torch.randn(3, 12))
    groups = param_groups(layer, linear=L1(0.3))
    trained(layer, groups, inputs, targets)
    value = weights(layer)[0].value
    assert (value != 0).float().mean() < 0.6
    assert bool((value.diagonal() != 0).all())
    assert F.mse_loss(layer(inputs), targets) < 0.1


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def doubled(layer):
    return parametrize.register_parametrization(layer, "weight", Doubled())


@pytest.mark.parametrize(
    "norm", [parametrizations.weight_norm, parametrizations.spectral_norm, doubled]
)
def test_parametrizations_that_keep_zeros_take_a_regularizer(norm):
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)))
    before = {name: x.clone() for name, x in model.state_dict().items()}
    (weight,) = weights(model)
    assert weight.keeps_zeros
    groups = param_groups(model, conv=L1(0.1))
    assert [p is weight.parameter for p in groups[0]["params"]] == [True]
    assert model.training
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# each with whether its zeros are zeros of the parameter, known from the formula
FUNCTIONS = {
    "flipped rows": (lambda x: x.flip(0), False),
    "flipped columns": (lambda x: x.flip(1), False),
    "rolled": (lambda x: x.roll(1, -1), False),
    "transposed": (lambda x: x.T, False),
    "symmetric": (lambda x: x.triu() + x.triu(1).T, False),
    "skew": (lambda x: x.triu(1) - x.triu(1).T, False),
    "sorted": (lambda x: x.sort(0).values, False),
    "centered": (lambda x: x - x.mean(1, keepdim=True), False),
    "exponential": (torch.exp, False),
    "signs": (lambda x: x / x.abs(), False),
    "triangular": (torch.tril, True),
    "squared": (lambda x: x * x.abs(), True),
    "root": (torch.sqrt, True),
    "unit rows": (lambda x: x / x.norm(dim=1, keepdim=True), True),
    "unit columns": (lambda x: x / x.norm(dim=0, keepdim=True), True),
}


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize(("function", "keeps"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_zeros_that_move_are_seen_at_any_size(function, keeps, n):
    layer = nn.Linear(n, n)
    parametrize.register_parametrization(layer, "weight", Function(function), unsafe=True)
    before = torch.get_rng_state()
    (weight,) = weights(layer)
    assert weight.keeps_zeros == keeps
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (3, 1), (1, 3), (4, 1), (1, 64)])
def test_zeros_that_move_within_a_row_or_column_are_seen(shape):
    layer = nn.Linear(shape[1], shape[0])
    turned = Function(lambda x: x.flip(0, 1))
    parametrize.register_parametrization(layer, "weight", turned)
    assert not weights(layer)[0].keeps_zeros


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (nn.Linear(1, 4), {}),
        (nn.Linear(1, 1), {}),
        (nn.Linear(4, 3), {"dim": 1}),
        (nn.Linear(4, 1), {"dim": 1}),
        (nn.Linear(4, 3), {"dim": None}),
        (nn.Conv1d(8, 8, 4, groups=2), {"dim": 2}),
        (nn.Conv2d(4, 4, 1, groups=4), {}),
        (nn.ConvTranspose1d(4, 6, 1), {"dim": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_weight_norms_take_a_regularizer_whatever_shares_a_magnitude(wrap, layer, options):
    layer = wrap(copy.deepcopy(layer), **options)
    (weight,) = weights(layer)
    groups = param_groups(layer, linear=L1(0.1), conv=L1(0.1))
    assert [p is weight.parameter for p in groups[0]["params"]] == [True]
    assert groups[0]["reg"] == L1(0.1)


def test_a_parametrization_that_makes_no_zeros_of_zeros_takes_none():
    model = nn.Sequential(nn.Linear(6, 6), parametrizations.orthogonal(nn.Linear(6, 6)))
    with pytest.raises(ValueError, match=r"layer '1' must be one whose zeros stay, for linear=L1"):
        param_groups(model, linear=L1(0.1))
    # without a regularizer it is trained as it is
    (group,) = param_groups(model, linear=Zero())[:1]
    assert len(group["params"]) == 2


def test_bregman_steps_keep_the_directions_of_a_weight_norm_long():
    # the gradient is orthogonal to v, so ||prox(subgradient)|| stays: no row comes near 0/0
    torch.manual_seed(0)
    layer = parametrizations.weight_norm(nn.Linear(12, 3))
    inputs = torch.randn(200, 12)
    (weight,) = weights(layer)
    before = weight.parameter.detach().norm(dim=1)
    groups = param_groups(layer, linear=L1(0.3))
    trained(layer, groups, inputs, inputs[:, :3], lr=0.05, steps=300)
    torch.testing.assert_close(weight.parameter.detach().norm(dim=1), before, rtol=0.1, atol=0)


def test_pruned_nets_keep_their_mask():
    torch.manual_seed(0)
    layer = prune.random_unstructured(nn.Linear(12, 3), "weight", 0.5)
    mask = layer.weight_mask.clone()
    inputs = torch.randn(50, 12)
    trained(layer, param_groups(layer, linear=L1(0.01)), inputs, inputs[:, :3])
    value = weights(layer)[0].value
    assert not value[mask == 0].any()
    assert 0 < int(value.count_nonzero()) <= int(mask.sum())


def test_layers_of_other_libraries():
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=19, n_positions=8, n_embd=12, n_layer=1, n_head=2,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = GPT2LMHeadModel(config)
    assert {p for p in model.parameters() if p.dim() > 1} == {w.parameter for w in weights(model)}
    by_name = {weight.name: weight for weight in weights(model)}
    block = "transformer.h.0"
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        assert by_name[f"{block}.{name}"].inputs_first
        assert by_name[f"{block}.{name}"].kind == "linear"
    tied = by_name["transformer.wte"]
    assert tied.kind == "embedding"
    assert [name for name, _ in tied.shared] == ["lm_head"]
    with pytest.warns(UserWarning, match="no regularizer for transformer.wte, transformer.wpe"):
        groups = param_groups(model, linear=GroupL12(0.1, dim=1))
    assert [group["reg"] for group in groups] == [GroupL12(0.1, dim=0), None]


def test_adapters_leave_the_frozen_base_alone():
    pytest.importorskip("peft")
    from peft import LoraConfig, get_peft_model

    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    model = get_peft_model(net, LoraConfig(r=2, target_modules=["0", "2"]))
    trained_weights = [weight.name for weight in weights(model) if weight.trained]
    assert len(trained_weights) == 4
    assert all("lora_" in name for name in trained_weights)
    regularized, rest = param_groups(model, linear=L1(0.1))
    assert all(p.requires_grad for p in regularized["params"])
    assert not any(p.requires_grad for p in rest["params"])


@pytest.mark.parametrize("build", ["vit", "swin", "convnext"])
def test_networks_of_torchvision(build):
    models = pytest.importorskip("torchvision.models")
    model = {
        "vit": lambda: models.VisionTransformer(16, 4, 1, 2, 12, 16),
        "swin": lambda: models.swin_transformer.SwinTransformer([4, 4], 12, [2], [2], [2, 2]),
        "convnext": lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)]),
    }[build]()
    assert {p for p in model.parameters() if p.dim() > 1} == {w.parameter for w in weights(model)}
    kinds = found(model)
    expected = {
        "vit": {"class_token": "embedding", "encoder.pos_embedding": "embedding",
                "conv_proj": "conv",
                "encoder.layers.encoder_layer_0.self_attention.in_proj_weight": "linear"},
        "swin": {"features.1.0.attn.relative_position_bias_table": "embedding",
                 "features.1.0.attn.qkv": "linear", "features.0.0": "conv"},
        "convnext": {"features.1.0.layer_scale": "embedding", "features.1.0.block.0": "conv",
                     "features.1.0.block.3": "linear"},
    }[build]  # fmt: skip
    assert {name: kinds[name] for name in expected} == expected
