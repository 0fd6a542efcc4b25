"""A sparse network as a smaller dense one with the same outputs."""

import io

import pytest
import torch
from torch import nn

from bregman import AdaBreg, GroupL12, param_groups, sparse_init_, sparsity_summary
from bregman.compact import compact
from bregman.suite.models import MLP, ConvNet, ResNet18


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
    ("model", "error", "message"),
    [
        (ResNet18(), TypeError, "ResNet18 is no nn.Sequential"),
        (nn.Sequential(nn.ReLU()), ValueError, "Sequential has no linear or Conv2d layer"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)),
            TypeError,
            r"LayerNorm\(.*can't be handled between layers with weights, only ReLU",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Linear(4, 3)),
            TypeError,
            r"Flatten\(start_dim=2",
        ),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Linear(2, 3)),
            ValueError,
            r"Linear\(in_features=2.* does not take what Conv2d",
        ),
        (
            nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.ReLU(), nn.Conv2d(2, 3, 3)),
            ValueError,
            "is grouped, allowed are convolutions with groups=1",
        ),
    ],
)
def test_what_it_cannot_handle_is_named(model, error, message):
    with pytest.raises(error, match=message):
        compact(model)


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
