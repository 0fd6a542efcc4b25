"""Sparse products against the dense model: outputs, files, copies, and what stays dense."""

import copy

import pytest
import torch
from torch import nn

from bregman.compact import compact
from bregman.inference import CsrLinear, DenseLinear, load_csr, to_csr
from bregman.suite.models import MLP, ConvNet


def sparse_net(density=0.03, sizes=(300, 400, 300, 10), dtype=torch.float32):
    torch.manual_seed(0)
    model = MLP(sizes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_((torch.rand(p.shape, generator=generator) < density) / density**0.5)
    return model.to(dtype).eval()


def kinds(model):
    return [type(layer) for layer in model if hasattr(layer, "bias")]


@pytest.mark.parametrize("batch", [(), (1,), (2,), (64,), (1, 5), (3, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_layer_is_the_same_function(batch, bias, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(30, 20, bias=bias, dtype=dtype)
    with torch.no_grad():
        layer.weight[torch.rand(20, 30) > 0.1] = 0
        layer.weight[3] = 0
    sparse = CsrLinear.like(layer)
    x = torch.randn(*batch, 30, dtype=dtype)
    y = sparse(x)
    assert y.shape == (*batch, 20)
    assert y.dtype == dtype
    torch.testing.assert_close(y, layer(x))


def test_a_layer_without_a_single_weight_gives_its_bias():
    layer = nn.Linear(5, 4)
    nn.init.zeros_(layer.weight)
    sparse = CsrLinear.like(layer)
    assert torch.equal(sparse(torch.randn(5)), layer.bias)
    assert torch.equal(sparse(torch.randn(3, 5)), layer.bias.expand(3, 4))


@pytest.mark.parametrize("batch", [1, 16, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_network_has_the_same_outputs(batch, dtype):
    model = sparse_net(dtype=dtype)
    fast = to_csr(model)
    x = torch.randn(batch, 1, 15, 20, dtype=dtype)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model(x))


def test_layers_that_are_dense_small_or_convolutions_stay():
    model = sparse_net()
    assert kinds(to_csr(model)) == [CsrLinear, CsrLinear, DenseLinear], "the last one is small"
    with torch.no_grad():
        model[1].weight.normal_()
    assert kinds(to_csr(model)) == [DenseLinear, CsrLinear, DenseLinear]
    assert kinds(to_csr(model, max_density=1.0)) == [CsrLinear, CsrLinear, DenseLinear]

    torch.manual_seed(0)
    cnn = ConvNet()
    with torch.no_grad():
        for p in cnn.parameters():
            p.mul_(torch.rand(p.shape) < 0.1)
    fast = to_csr(cnn, max_density=0.2)
    assert isinstance(fast.fc1, CsrLinear)
    assert isinstance(fast.conv2, nn.Conv2d)
    assert isinstance(fast.fc2, nn.Linear)
    images = torch.randn(4, 1, 28, 28)
    torch.testing.assert_close(fast(images), cnn(images))


def test_a_layer_alone_and_a_layer_used_twice():
    model = sparse_net()
    assert isinstance(to_csr(model[1]), CsrLinear)
    twice = nn.Sequential(model[1], nn.Linear(400, 300, bias=False), model[1])
    fast = to_csr(twice)
    assert isinstance(fast[0], CsrLinear)
    assert isinstance(fast[2], CsrLinear)
    x = torch.randn(6, 300)
    torch.testing.assert_close(fast(x), twice(x))


def test_the_copy_shares_nothing_with_the_model():
    model = sparse_net()
    fast = to_csr(model)
    x = torch.randn(4, 300)
    before = fast(x)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(fast(x), before)
    assert kinds(model) == [nn.Linear] * 3
    assert torch.equal(copy.deepcopy(fast)(x), before)


def test_a_file_is_as_small_as_the_weights_are_few(tmp_path):
    model = sparse_net(density=0.05)
    fast = to_csr(model)
    torch.save(model.state_dict(), tmp_path / "dense.pt")
    torch.save(fast.state_dict(), tmp_path / "csr.pt")
    sizes = {name: (tmp_path / f"{name}.pt").stat().st_size for name in ("dense", "csr")}
    # twice the bytes per weight that is left, and the small layers
    assert sizes["csr"] < 0.13 * sizes["dense"]

    # torch's default, weights_only=True
    restored = load_csr(MLP((300, 400, 300, 10)), torch.load(tmp_path / "csr.pt"))
    x = torch.randn(7, 300)
    assert torch.equal(restored(x), fast(x))
    layer = load_csr(nn.Linear(300, 400), fast[1].state_dict())
    assert torch.equal(layer(x), fast[1](x))


def test_a_file_of_another_architecture_is_refused():
    state = to_csr(sparse_net()).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_csr(MLP((300, 500, 300, 10)), state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_csr(MLP((300, 400, 10)), state)


def test_after_compact_what_is_left_can_still_be_sparse():
    model = sparse_net(density=0.05, sizes=(300, 600, 600, 10))
    with torch.no_grad():
        model[1].weight[::2] = 0
    small = compact(model)
    both = to_csr(small, max_density=0.1)
    assert any(isinstance(layer, CsrLinear) for layer in both)
    x = torch.randn(9, 300)
    torch.testing.assert_close(both(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("max_density", [0.0, 1.5, float("nan")])
def test_a_density_out_of_range_is_named(max_density):
    with pytest.raises(ValueError, match=r"max_density must be in \(0, 1\], got"):
        to_csr(sparse_net(), max_density)


def test_models_that_gain_nothing_are_named():
    with pytest.raises(ValueError, match="no linear layer of MLP has 16384 weights or more"):
        to_csr(MLP((300, 400, 10)))
    with pytest.raises(ValueError, match="layer '1' must be on the CPU, in float32 or float64"):
        to_csr(sparse_net(dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"a density of at most 0\.01"):
        to_csr(sparse_net(), max_density=0.01)
