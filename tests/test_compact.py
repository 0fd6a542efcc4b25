"""A sparse network as a smaller dense one with the same outputs."""

import copy
import io

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from bregman import AdaBreg, GroupL12, LinBreg, param_groups, sparse_init_, sparsity_summary
from bregman.compact import compact
from bregman.multilevel import Multilevel
from bregman.suite.models import MLP, ConvNet, ResNet18, SkipMLP


@torch.no_grad()
def remove_rows(model, share, seed=0):
    """Set that share of the rows of each layer but the last to zero, biases of both signs."""
    generator = torch.Generator().manual_seed(seed)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    for layer in layers[:-1]:
        n = len(layer.weight)
        layer.weight[torch.randperm(n, generator=generator)[: int(share * n)]] = 0
    return model


def sizes(model):
    return [tuple(p.shape) for p in model.parameters() if p.dim() > 1]


def assert_same_outputs(model, small, inputs):
    # one sample's outputs to float precision, relative to their size
    model, small, inputs = model.double(), small.double(), inputs.double()
    torch.testing.assert_close(small(inputs), model(inputs), rtol=1e-5, atol=1e-5)


def test_a_network_small_enough_to_do_by_hand():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    first, _, second = model
    with torch.no_grad():
        # neuron 0 lives, neuron 1 is the constant relu(2) = 2, neuron 2 the constant relu(-1) = 0
        first.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5, 2.0, -1.0]))
        second.weight.copy_(torch.tensor([[3.0, 5.0, 7.0]]))
        second.bias.fill_(1.0)
    small = compact(model)
    assert [p.tolist() for p in small.parameters()] == [[[1.0, -1.0]], [0.5], [[3.0]], [11.0]]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid])
def test_constants_pass_through_the_activation(activation):
    model = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 7), activation(),
                          nn.Linear(7, 3))  # fmt: skip
    remove_rows(model, 0.5)
    small = compact(model)
    assert sizes(small) == [(4, 6), (4, 4), (3, 4)]
    assert_same_outputs(model, small, torch.randn(20, 6))


def test_a_constant_that_feeds_only_on_constants_goes_too():
    model = remove_rows(MLP((5, 4, 4, 2)), 0.5)
    first, second = model[1], model[3]
    with torch.no_grad():
        # this neuron sees the dead ones of the layer before, and no other
        second.weight[3] = torch.where(first.weight.any(1), 0.0, 1.0)
    alive = int(second.weight[:3].any(1).sum())
    small = compact(model)
    assert len(small[3].weight) == alive
    assert_same_outputs(model, small, torch.randn(9, 5))


def test_neurons_that_nothing_leads_out_of_go_all_the_way_back():
    model = MLP((5, 6, 6, 2))
    with torch.no_grad():
        model[5].weight[:, :4] = 0  # four neurons of the second hidden layer lead nowhere
        model[3].weight[4:, :3] = 0  # and only they saw these three of the first
    small = compact(model)
    assert sizes(small) == [(3, 5), (2, 3), (2, 2)]
    assert_same_outputs(model, small, torch.randn(9, 5))


def autoencoder(side, hidden):
    """As in section 4.6, for smaller images."""
    layers = [nn.Flatten()]
    for _ in range(hidden + 1):
        layers += [nn.Linear(side**2, side**2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Unflatten(1, (1, side, side)))


def test_the_trained_autoencoder_has_the_sizes_that_the_summary_counts():
    torch.manual_seed(0)
    model = autoencoder(6, hidden=3)
    sparse_init_(model, 0.4, group="row")
    images = torch.rand(200, 1, 6, 6)
    optimizer = AdaBreg(param_groups(model, linear=GroupL12(0.02, dim=1)), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        (model(images) - images).square().mean().backward()
        optimizer.step()
    active = sparsity_summary(model)["active_neurons"]
    assert 0 < min(active) < 36
    small = compact(model)
    hidden = active[1:-1]
    assert [len(w) for w in small.parameters() if w.dim() == 2] == [*hidden, 36]
    assert small(images).shape == images.shape
    assert_same_outputs(model, small, images)


def test_a_network_that_is_all_constant():
    model = MLP((5, 4, 3))
    with torch.no_grad():
        model[1].weight.zero_()
    small = compact(model)
    assert sizes(small) == [(1, 5), (3, 1)]
    assert_same_outputs(model, small, torch.randn(4, 5))


def test_the_convolutional_network_of_section_4_4():
    model = remove_rows(ConvNet(), 0.75)
    small = compact(model)
    assert sizes(small) == [(16, 1, 5, 5), (16, 16, 5, 5), (32, 256), (10, 32)]
    assert_same_outputs(model, small, torch.randn(8, 1, 28, 28))


@pytest.mark.parametrize(("bias", "filters"), [(0.4, 4), (-0.4, 2)])
def test_a_constant_filter_before_padding_stays_unless_it_is_zero(bias, filters):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    with torch.no_grad():
        model[0].weight[:2] = 0
        model[0].bias[:2] = bias
    small = compact(model)
    assert len(small[0].weight) == filters
    assert_same_outputs(model, small, torch.randn(3, 1, 8, 8))


def test_strides_nesting_and_what_lies_outside_are_kept():
    model = nn.Sequential(
        nn.BatchNorm2d(2),
        nn.Sequential(nn.Conv2d(2, 6, 3, stride=2, dilation=2, bias=False), nn.Tanh()),
        nn.Flatten(),
        nn.Linear(6 * 9, 5),
        nn.Softmax(1),
    ).eval()
    with torch.no_grad():
        model[1][0].weight[1:4] = 0
    small = compact(model)
    assert sizes(small) == [(3, 2, 3, 3), (5, 27)]
    assert not any(module.training for module in small)
    assert_same_outputs(model, small, torch.randn(4, 2, 9, 9))


def test_the_sparse_network_stays_as_it_was_and_shares_nothing():
    model = remove_rows(MLP((5, 6, 2)), 0.5)
    before = [p.clone() for p in model.parameters()]
    random_state = torch.get_rng_state()
    small = compact(model)
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        for p in small.parameters():
            p.fill_(7.0)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in small.parameters())


@pytest.mark.parametrize(
    "model",
    [
        SkipMLP(4, 3),
        nn.Sequential(nn.ReLU()),
        nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(4, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 3)),
        nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.ReLU(), nn.Conv2d(2, 3, 3)),
        nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)
        ),
    ],
    ids=str,
)
def test_where_no_layer_feeds_another_nothing_is_promised(model):
    with pytest.raises(TypeError, match=f"{type(model).__name__} has no chain of layers that can"):
        compact(model)


def test_what_is_around_an_unknown_module_becomes_smaller_all_the_same():
    model = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 8), nn.Tanh(),
        nn.Linear(8, 3), Doubled(3, 4), nn.ReLU(), nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight[2:] = 0
        model[4].weight[5:] = 0
        model[7].weight[1:] = 0
    small = compact(model)
    assert sizes(small) == [(2, 5), (6, 2), (5, 6), (3, 5), (4, 3), (2, 4)]
    assert_same_outputs(model, small, torch.randn(9, 5))


@pytest.mark.more
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("model", [autoencoder(8, hidden=2), ConvNet()])
def test_the_compact_network_as_onnx(model):
    small = compact(remove_rows(model, 0.6)).eval()
    shape = (1, 28, 28) if isinstance(model, ConvNet) else (1, 8, 8)
    buffer = io.BytesIO()
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        small, (torch.randn(2, *shape),), buffer, dynamic_shapes=({0: batch},), verbose=False
    )
    session = pytest.importorskip("onnxruntime").InferenceSession(buffer.getvalue())
    images = torch.randn(7, *shape)
    (given,) = session.get_inputs()
    (output,) = session.run(None, {given.name: images.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(images), rtol=1e-4, atol=1e-5)


# ---- exact types, and what is attached to a module


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class DoubledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class LeakingReLU(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 0.1


def hooked(attach):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    attach(model)
    return model


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(Doubled(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Doubled(6, 3)),
        nn.Sequential(DoubledConv(1, 6, 3), nn.Conv2d(6, 3, 3)),
        nn.Sequential(nn.Linear(4, 6), LeakingReLU(), nn.Linear(6, 3)),
    ],
)
def test_a_type_that_is_not_known_exactly_is_no_part_of_a_chain(model):
    with pytest.raises(TypeError, match="Sequential has no chain of layers"):
        compact(model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            hooked(lambda m: m[1].register_forward_hook(lambda module, x, y: y + 1)),
            "module '1', ReLU, has a forward hook, .*lambda",
        ),
        (
            hooked(lambda m: m.register_forward_pre_hook(lambda module, x: (2 * x[0],))),
            "module '', Sequential, has a forward hook",
        ),
        (
            hooked(lambda m: prune.l1_unstructured(m[0], "weight", 3)),
            "module '0', Linear, has a forward hook, L1Unstructured",
        ),
        (
            hooked(lambda m: nn.utils.parametrizations.weight_norm(m[2])),
            "module '2', ParametrizedLinear, has a parametrization",
        ),
        (
            hooked(lambda m: setattr(m[0], "forward", lambda x: m[1](x))),
            "module '0', Linear, has a forward of its own",
        ),
    ],
)
def test_what_is_attached_to_a_module_is_named(model, message):
    with pytest.raises(ValueError, match=message):
        compact(model)


def test_a_subclass_within_a_traced_network_stays_as_it_is():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), Doubled(6, 6)
            self.c, self.d = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.d(F.relu(self.c(self.b(F.relu(self.a(x))))))

    model = remove_rows(Net(), 0.5)
    small = compact(model)
    assert sizes(small) == [(6, 4), (6, 6), (3, 6), (3, 3)]
    assert_same_outputs(model, small, torch.randn(7, 4))


# ---- random networks against the originals


ACTIVATIONS = [
    nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.ELU(), nn.SELU(), nn.CELU(), nn.ReLU6(), nn.Mish(), nn.Softplus(), nn.Softsign(),
    nn.LogSigmoid(), nn.Hardtanh(), nn.Hardsigmoid(), nn.Hardswish(), nn.Hardshrink(0.1),
    nn.Softshrink(0.1), nn.Tanhshrink(), nn.Threshold(0.1, 0.3), nn.Identity(),
]  # fmt: skip


@torch.no_grad()
def randomize_norms(model, seed=0):
    """Statistics, gains and biases as after some training, one gain in five zero."""
    drawn = torch.Generator().manual_seed(seed)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            norm.running_mean.normal_(generator=drawn)
            norm.running_var.uniform_(0.5, 2, generator=drawn)
            if norm.affine:
                norm.weight.normal_(generator=drawn)
                norm.weight[torch.rand(norm.weight.shape, generator=drawn) < 0.2] = 0
                norm.bias.normal_(generator=drawn)
    return model.eval()


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_activations_dropout_and_batch_normalization(activation, affine):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm1d(12, affine=affine), activation, nn.Dropout(0.5),
        nn.Linear(12, 10), activation, nn.BatchNorm1d(10, affine=affine), nn.Linear(10, 3),
    )  # fmt: skip
    model = randomize_norms(remove_rows(model, 0.5))
    small = compact(model)
    if affine:  # of those that are left some have no gain, and go as well
        assert len(small[0].weight) <= 6
        assert small[1].num_features == len(small[0].weight) == small[4].in_features
    else:
        assert sizes(small) == [(6, 6), (5, 6), (3, 5)]
    assert_same_outputs(model, small, torch.randn(20, 6))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_random_convolutional_networks(dimensions, seed):
    torch.manual_seed(seed)
    conv, norm, maximum, mean = (
        getattr(nn, f"{kind}{dimensions}d")
        for kind in ("Conv", "BatchNorm", "MaxPool", "AdaptiveAvgPool")
    )
    model = nn.Sequential(
        conv(2, 8, 3, padding=seed % 2), norm(8), nn.ReLU(), nn.Dropout(),
        conv(8, 6, 2, padding="same", bias=False), norm(6), nn.SiLU(), maximum(2),
        conv(6, 7, 1, padding=seed % 3), nn.GELU(), mean(2), nn.Flatten(),
        nn.BatchNorm1d(7 * 2**dimensions), nn.Linear(7 * 2**dimensions, 5), nn.ELU(),
        nn.Linear(5, 3),
    )  # fmt: skip
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p[torch.rand(len(p)) < 0.5] = 0
    randomize_norms(model, seed)
    small = compact(model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert_same_outputs(model, small, torch.randn(3, 2, *[8] * dimensions))


@pytest.mark.parametrize("seed", range(4))
def test_the_residual_network_of_section_4_5(seed):
    torch.manual_seed(seed)
    model = ResNet18(width=6)
    with torch.no_grad():
        for conv in model.modules():
            if isinstance(conv, nn.Conv2d):
                conv.weight[torch.rand(len(conv.weight)) < 0.6] = 0
    randomize_norms(model, seed)
    small = compact(model)
    assert type(small) is ResNet18
    fewer = 0
    for name, block in small.named_modules():
        if not hasattr(block, "conv2"):
            continue
        old = model.get_submodule(name)
        # what is added keeps its size, what is within a block has lost its silent channels
        assert block.conv2.weight.shape[0] == old.conv2.weight.shape[0]
        assert block.conv1.weight.shape[1] == old.conv1.weight.shape[1]
        dead = ~old.conv1.weight.flatten(1).any(1)
        of_zero = (
            -old.bn1.running_mean * old.bn1.weight / (old.bn1.running_var + old.bn1.eps).sqrt()
        )
        normed = old.bn1.bias + torch.where(dead, of_zero, 0)
        silent = (dead | (old.bn1.weight == 0)) & (normed <= 0)
        assert len(block.conv1.weight) == block.bn1.num_features == int((~silent).sum())
        fewer += int(silent.sum())
    assert fewer > 0
    assert all(p.requires_grad for p in small.parameters())
    assert_same_outputs(model, small, torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_networks_of_torchvision(name):
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight[torch.rand(len(layer.weight)) < 0.5] = 0
    randomize_norms(model)
    small = compact(model)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert_same_outputs(model, small, torch.randn(1, 3, 64, 64))


class Written(nn.Module):
    """A network as people write them: with functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3)
        self.fc1, self.fc2, self.head = nn.Linear(24, 10), nn.Linear(10, 10), nn.Linear(10, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.flatten(F.max_pool2d(self.conv2(x).relu(), 2), 1)
        x = F.dropout(F.gelu(self.fc1(x), approximate="tanh"), training=self.training)
        h = F.leaky_relu(self.fc2(x), 0.2)
        return self.scale * self.head(h)


class Tied(Written):
    """The same, but that two weights are read elsewhere, or used twice."""

    def forward(self, x):
        x = torch.flatten(F.max_pool2d(self.conv1(x), 6), 1)[:, :8].repeat(1, 3)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(F.relu(self.fc2(x))))
        return self.head(x) + self.fc1.weight.sum()


def test_functions_in_a_forward_are_seen():
    model = remove_rows(Written(), 0.5).eval()
    small = compact(model)
    assert sizes(small) == [(4, 1, 3, 3), (3, 4, 3, 3), (5, 12), (5, 5), (3, 5)]
    assert_same_outputs(model, small, torch.randn(4, 1, 14, 14))


def test_a_layer_that_is_used_twice_or_read_elsewhere_stays():
    model = remove_rows(Tied(), 0.5).eval()
    with pytest.raises(TypeError, match="Tied has no chain of layers"):
        compact(nn.ModuleDict({"net": model})["net"])
    x = torch.randn(4, 1, 18, 18)
    both = nn.Sequential(model, nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    remove_rows(both, 0.5)
    small = compact(both)
    assert len(small[1].weight) == 2
    assert_same_outputs(both, small, x)


def test_a_network_with_two_inputs_or_branches_is_left_alone():
    class Branching(Written):
        def forward(self, x, skip=None):
            return self.fc2(F.relu(self.fc1(x)))

    class Deciding(Written):
        def forward(self, x):
            return self.fc2(F.relu(self.fc1(x))) if x.sum() > 0 else self.fc1(x)

    for model in (Branching(), Deciding()):
        with pytest.raises(TypeError, match="has no chain of layers that can be seen"):
            compact(model)


@pytest.mark.parametrize("activation", ["relu", "gelu", nn.SiLU(), torch.tanh])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_feed_forward_part_of_transformers(activation, norm_first, bias):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 20, activation=activation, norm_first=norm_first, bias=bias, batch_first=True
    )
    model = nn.TransformerEncoder(layer, 2)
    with torch.no_grad():
        for block in model.layers:
            block.linear1.weight[torch.randperm(20)[:11]] = 0
            block.linear2.weight[:, torch.randperm(20)[:4]] = 0
    small = compact(model.eval())
    for block, old in zip(small.layers, model.layers, strict=True):
        alive = old.linear1.weight.any(1) & old.linear2.weight.any(0)
        assert block.linear1.out_features == block.linear2.in_features == int(alive.sum()) <= 9
    x = torch.randn(5, 7, 8)
    # with torch's fast path, and without
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
        padded = torch.arange(7).expand(5, 7) > 4
        torch.testing.assert_close(
            *(m(x, src_key_padding_mask=padded)[:, :4] for m in (small, model)),
            rtol=1e-5,
            atol=1e-5,
        )
    assert_same_outputs(model, small, x)
    alone = compact(nn.TransformerDecoderLayer(8, 2, 20))
    assert alone.linear1.out_features == 20


def test_what_is_frozen_stays_so_and_biases_come_only_where_needed():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        model[0].weight[1] = 0
    small = compact(model)
    assert not small[0].weight.requires_grad
    assert small[2].weight.requires_grad
    assert small[0].bias is None
    assert small[2].bias is None
    model[1] = nn.Sigmoid()  # a constant of one half
    small = compact(model)
    assert small[0].bias is None
    torch.testing.assert_close(small[2].bias, model[2].weight[:, 1] / 2)


@pytest.mark.parametrize("dead", [0, 3])
def test_within_a_cycle_of_multilevel_the_whole_network_is_made_smaller(dead):
    torch.manual_seed(0)
    model = MLP((6, 8, 8, 3))
    with torch.no_grad():
        model[1].weight[:dead] = 0
    optimizer = LinBreg(param_groups(model, linear=GroupL12(0.05, dim=1)), lr=0.1)
    cycle = Multilevel(model, optimizer, frozen_steps=5)
    x = torch.randn(20, 6)
    for _ in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert cycle.frozen
    for network in (model, copy.deepcopy(model)):
        small = compact(network)
        assert small[1].out_features == 8 - dead
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_layer_whose_weight_the_forward_reads_stays():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 6)
            self.c, self.d = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))) + self.a.weight.sum()

    model = remove_rows(Reading(), 0.5)
    with torch.no_grad():
        model.b.bias.fill_(0.5)
    small = compact(model)
    assert sizes(small) == [(6, 4), (3, 6), (3, 3), (3, 3)]
    assert_same_outputs(model, small, torch.randn(7, 4))


class Registered(nn.Module):
    """Two layers, each under one or two names; the second name is the one that is called."""

    def __init__(self, both):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.again = nn.ModuleList([self.a, self.b] if both else [self.a])

    def forward(self, x):
        return [*self.again, self.b][1](F.relu(self.again[0](x)))


@pytest.mark.parametrize("both", [False, True])
def test_layers_that_are_registered_twice(both):
    model = remove_rows(Registered(both), 0.5).eval()
    small = compact(model)
    assert small.again[0] is small.a
    assert len(small.a.weight) == 4
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    assert_same_outputs(model, small, torch.randn(5, 6))


def test_a_layer_whose_shared_weight_the_forward_reads_stays():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
            self.b.weight = self.a.weight

        def forward(self, x):
            return F.linear(self.c(F.relu(self.b(x))), self.b.weight)

    with pytest.raises(TypeError, match="Reading has no chain"):
        compact(remove_rows(Reading(), 0.5))


def test_a_feed_forward_part_that_is_called_elsewhere_too_stays():
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.peek = self.encoder.linear1

        def forward(self, x):
            return self.encoder(x) + self.peek(x)[..., :8]

    with pytest.raises(TypeError, match="Peeking has no chain"):
        compact(remove_rows(Peeking(), 0.5))
    layer = remove_rows(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 0.5).eval()
    twice = nn.Sequential(layer, layer).eval()
    assert len(compact(twice)[1].linear1.weight) < 16
    assert_same_outputs(twice, compact(twice), torch.randn(2, 3, 8))


def test_a_forward_that_reads_the_sizes_of_its_layers_is_named():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.b(F.relu(self.a(x))).view(-1, self.a.out_features // 4, 4)

    with pytest.raises(ValueError, match="forward of Sized reads the sizes of its layers"):
        compact(remove_rows(Sized(), 0.5))


@pytest.mark.parametrize(("tokens", "width"), [(3, 8), (8, 4), (4, 8), (16, 8)])
def test_a_normalization_of_tokens_ends_a_chain(tokens, width):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, width), nn.BatchNorm1d(tokens), nn.ReLU(),
        nn.Linear(width, 5),
    )  # fmt: skip
    model = randomize_norms(remove_rows(model, 0.5))
    small = compact(model)
    assert sizes(small) == [(5, 6), (width, 5), (5, width)]
    assert_same_outputs(model, small, torch.randn(7, tokens, 6))


def test_with_no_other_chain_a_normalization_of_tokens_is_refused():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(TypeError, match="has no chain of layers that can be seen"):
        compact(model)


def test_normalizations_before_and_after_flattening_stay_in_the_chain():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(24),
        nn.Linear(24, 5),
    )  # fmt: skip
    model = randomize_norms(remove_rows(model, 0.5))
    small = compact(model)
    assert len(small[0].weight) < 6
    assert_same_outputs(model, small, torch.randn(7, 2, 4, 4))
