"""FLOPs and densities: against torch's own counter, and against counting by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from bregman.flops import forward_flops, layer_densities
from bregman.suite.models import MLP, ConvNet

# products of activations alone have no weight, and no part in what sparse weights save
WEIGHTLESS = {torch.ops.aten.bmm, torch.ops.aten.baddbmm}


def torch_products_with_weights(model, inputs):
    with FlopCounterMode(display=False) as counter:
        model.train()(inputs)
    by_kind = counter.get_flop_counts()["Global"]
    return sum(flops for kind, flops in by_kind.items() if kind not in WEIGHTLESS)


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


def test_densities_by_hand():
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0]]))
    assert layer_densities(model) == {"0": 0.25, "1": 1.0}


class Attention(nn.Module):
    def __init__(self, need_weights, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)
        self.need_weights = need_weights

    def forward(self, x):
        memory = x[..., : self.attention.kdim]
        return self.attention(x, memory, memory, need_weights=self.need_weights)[0]


class Foreign(nn.Module):
    """Weights of its own, (n_in, n_out) and a stack, one of them used twice and cast."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 5))
        self.tied = nn.Linear(5, 6)
        self.scale = nn.Parameter(torch.ones(3, 6))
        self.register_buffer("mask", torch.ones(6, 5))

    def forward(self, x):
        h = x * self.scale @ (self.first * self.mask)
        h = F.linear(self.tied(h), self.tied.weight.t().double().float())
        return torch.einsum("nti,io->nto", F.linear(h, self.first), self.first)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Attention(True), (7, 16)),
        (Attention(False), (7, 16)),
        (Attention(True, kdim=5, vdim=5), (7, 16)),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (7, 16)),
        (nn.GRU(6, 4, 2, batch_first=True, bidirectional=True), (7, 6)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5)),
        (nn.Sequential(nn.ConvTranspose1d(4, 6, 3), nn.Conv1d(6, 6, 3, groups=6)), (4, 5)),
        (parametrizations.weight_norm(nn.Conv1d(3, 4, 2)), (3, 9)),
        (nn.utils.weight_norm(nn.Linear(3, 4)), (3,)),
        (parametrizations.spectral_norm(nn.Linear(3, 4)), (3,)),
        (prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5), (3,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("samples", [1, 4])
def test_products_with_weights_are_those_that_torch_counts(model, shape, samples):
    inputs = torch.randn(samples, *shape)
    flops = forward_flops(model, inputs)
    assert sum(flops.values()) * samples == torch_products_with_weights(model, inputs)
    assert flops.keys() == layer_densities(model).keys()
    with torch.inference_mode():
        assert forward_flops(model, inputs) == flops


@pytest.mark.parametrize("samples", [1, 4])
def test_weights_outside_of_torchs_layers_by_hand(samples):
    flops = forward_flops(Foreign(), torch.randn(samples, 3, 6))
    product = 2 * 3 * 6 * 5
    assert flops == {"first": 3 * product, "scale": 0, "tied": 2 * product}


def test_an_encoder_by_hand():
    d, wide, tokens = 64, 128, 7
    layer = nn.TransformerEncoderLayer(d, 4, wide, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    for trained in (True, False):
        flops = forward_flops(model.requires_grad_(trained), torch.randn(3, tokens, d))
        assert sum(flops.values()) == 917_504
        assert flops["layers.1.self_attn.in_proj_weight"] == 2 * tokens * d * 3 * d
        assert flops["layers.1.self_attn.out_proj"] == 2 * tokens * d * d
        assert flops["layers.0.linear1"] == flops["layers.0.linear2"] == 2 * tokens * d * wide
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"num_layers": 2}, {"proj_size": 7}]
)
def test_an_lstm_by_hand(options):
    n_in, hidden, steps = 24, 16, 5
    model = nn.LSTM(n_in, hidden, batch_first=True, **options)
    flops = forward_flops(model, torch.randn(3, steps, n_in))
    for name, p in model.named_parameters():
        if p.dim() > 1:
            assert flops[name] == 2 * steps * p.numel()
    assert flops["weight_ih_l0"] == 2 * steps * 4 * hidden * n_in
    cell = nn.LSTMCell(n_in, hidden)
    assert forward_flops(cell, torch.randn(3, n_in)) == {
        "weight_ih": 2 * 4 * hidden * n_in, "weight_hh": 2 * 4 * hidden * hidden
    }  # fmt: skip


def test_a_stack_of_experts_by_hand():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(4, 6, 3))

        def forward(self, x):
            first = F.linear(x, self.up[2])
            return first + torch.bmm(x.expand(4, -1, -1), self.up.mT).sum(0)

    flops = forward_flops(Experts(), torch.randn(5, 3))
    assert flops == {"up": 2 * 6 * 3 * (1 + 4)}


def test_a_bilinear_layer_and_a_tied_head_by_hand():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(9, 4)
            self.pair = nn.Bilinear(4, 4, 4)
            self.head = nn.Linear(4, 9)
            self.head.weight = self.table.weight

        def forward(self, x):
            h = self.table(x)
            return self.head(self.pair(h, h))

    flops = forward_flops(Model(), torch.randint(0, 9, (5, 3)))
    assert flops == {"table": 3 * 2 * 4 * 9, "pair": 3 * 2 * 4 * 4 * 4}


def test_every_module_has_its_own_mode_back_after_an_error_too():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    forward_flops(model, torch.randn(2, 3))
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(RuntimeError):
        forward_flops(model, torch.randn(2, 5))
    assert [module.training for module in model.modules()] == modes


def test_a_batch_without_samples_is_named():
    with pytest.raises(ValueError, match=r"inputs must be of at least one sample.*\(0, 3\)"):
        forward_flops(nn.Linear(3, 2), torch.randn(0, 3))


class Joined(nn.Module):
    """Query, key and value in one product; a convolution from two banks of filters."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 4), nn.Linear(6, 2)
        self.wide, self.narrow = nn.Conv1d(3, 5, 3), nn.Conv1d(3, 2, 3)

    def forward(self, x):
        filters = torch.cat([self.wide.weight, self.narrow.weight])
        x = F.conv1d(x, filters, padding="same")[:, :6].transpose(1, 2)
        return x @ torch.cat([self.q.weight.t(), self.k.weight.t(), self.v.weight.t()], 1)


def test_weights_that_are_joined_for_one_product_count_each():
    inputs = torch.randn(4, 3, 6)
    flops = forward_flops(Joined(), inputs)
    by_hand = {"q": 36, "k": 24, "v": 12, "wide": 45, "narrow": 18}
    assert flops == {name: 2 * 6 * n for name, n in by_hand.items()}
    assert sum(flops.values()) * 4 == torch_products_with_weights(Joined(), inputs)


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x[:, :3], x[:, :3], need_weights=False)[0]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x):
        return self.layer(x, x[:, :3])


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.positions = nn.Embedding(9, 16), nn.Parameter(torch.zeros(1, 5, 16))

    def forward(self, x):
        h = self.table(x.argmax(-1) % 9) + self.positions
        return F.linear(h, self.table.weight)


@pytest.mark.parametrize(
    ("model", "by_hand"),
    [
        # queries of five tokens, keys and values of three
        (Cross(), {"attention.in_proj_weight": 2 * 256 * (5 + 2 * 3),
                   "attention.out_proj": 2 * 256 * 5}),
        (Decoder(), {"layer.self_attn.in_proj_weight": 2 * 5 * 768,
                     "layer.self_attn.out_proj": 2 * 5 * 256,
                     "layer.multihead_attn.in_proj_weight": 2 * 256 * (5 + 2 * 3),
                     "layer.multihead_attn.out_proj": 2 * 5 * 256,
                     "layer.linear1": 2 * 5 * 512, "layer.linear2": 2 * 5 * 512}),
        (TiedHead(), {"positions": 0, "table": 2 * 5 * 16 * 9}),
    ],
)  # fmt: skip
def test_under_autocast_as_many_as_without(model, by_hand):
    inputs = torch.randn(2, 5, 16)
    assert forward_flops(model, inputs) == by_hand
    with torch.autocast("cpu", torch.bfloat16):
        assert forward_flops(model, inputs) == by_hand


class InParts(nn.Module):
    """Weights of which parts are cast, copied, looked up or gathered, and then multiplied."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.q, self.kv = nn.Linear(8, 4), nn.Linear(8, 12)
        self.experts = nn.Parameter(torch.randn(4, 8, 5))
        self.slim = nn.Conv1d(8, 6, 1)

    def forward(self, x):
        parts = [part.bfloat16() for part in self.qkv.weight.chunk(3)]
        out = [F.linear(x.bfloat16(), part).float() for part in parts]
        # a joined weight in parts
        joined = torch.cat([self.q.weight, self.kv.weight])
        out += [F.linear(x, part.contiguous()) for part in joined.split(8)]
        chosen = self.experts[torch.arange(len(x)) % 4]
        out.append(torch.bmm(x.unsqueeze(1), chosen).squeeze(1))
        out.append(x @ self.experts.index_select(0, torch.tensor([2])).clone().squeeze(0))
        out.append(F.conv1d(x.unsqueeze(2), self.slim.weight[:3].double().float()).squeeze(2))
        return torch.cat(out, 1)


@pytest.mark.parametrize("samples", [1, 6])
def test_parts_of_weights_count_as_their_products_do(samples):
    flops = forward_flops(InParts(), torch.randn(samples, 8))
    assert flops == {"qkv": 2 * 8 * 24, "q": 2 * 8 * 4, "kv": 2 * 8 * 12,
                     "experts": 2 * 2 * 8 * 5, "slim": 2 * 8 * 3}  # fmt: skip


def test_products_with_vectors_and_of_groups_by_hand():
    class Vectors(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.zeros(4))
            self.norm = parametrizations.spectral_norm(nn.Linear(6, 6))

        def forward(self, x):
            out = [self.w @ v + torch.addmv(self.bias, self.w, v) + self.w[1] @ v for v in x]
            return torch.stack(out) + (x @ self.w[0] + self.norm(x).sum(1)).unsqueeze(1)

    # the norm's own products are none with a sample
    flops = forward_flops(Vectors(), torch.randn(3, 6))
    assert flops == {"w": 2 * 24 + 2 * 24 + 2 * 6 + 2 * 6, "norm": 2 * 36}
    if not hasattr(F, "grouped_mm"):
        return

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.randn(3, 16, 24))

        def forward(self, x):
            ends = torch.tensor([2, 2, len(x)], dtype=torch.int32)
            return F.grouped_mm(x.bfloat16(), self.up.bfloat16(), offs=ends)

    assert forward_flops(Grouped(), torch.randn(8, 16)) == {"up": 2 * 16 * 24}


def test_what_is_looked_up_or_scaled_is_no_weight():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.gain = nn.Embedding(6, 4), nn.Parameter(torch.ones(1, 1, 4))

        def forward(self, x):
            # as many numbers as the table has
            h = self.table(x).bfloat16().float() * self.gain.bfloat16()
            return h @ h.mT

    assert forward_flops(Model(), torch.randint(0, 6, (2, 3))) == {"table": 0, "gain": 0}


@pytest.mark.parametrize("how", ["eager", "grouped_mm", "batched_mm"])
def test_experts_of_transformers_by_hand(how):
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    if not hasattr(model, "set_experts_implementation"):
        pytest.skip("an older version")
    model.set_experts_implementation(how)
    flops = forward_flops(model, torch.randint(50, (2, 7)))
    experts = "model.layers.0.mlp.experts"
    # seven tokens meet two experts each
    assert flops[f"{experts}.gate_up_proj"] == 2 * 7 * 2 * 16 * 48
    assert flops[f"{experts}.down_proj"] == 2 * 7 * 2 * 24 * 16
