"""Sparse products against the dense model: outputs, files, copies, and what stays dense."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bregman import L1, LinBreg, param_groups
from bregman.compact import compact
from bregman.inference import CsrLinear, DenseLinear, load_csr, to_csr
from bregman.multilevel import Multilevel
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


def test_gradients_with_respect_to_the_inputs_and_theirs():
    dense = sparse_net(dtype=torch.float64)
    x = torch.randn(4, 300, dtype=torch.float64, requires_grad=True)
    for model in (dense, to_csr(dense)):
        (first,) = torch.autograd.grad(model(x).pow(2).sum(), x, create_graph=True)
        # as a gradient penalty has it
        (second,) = torch.autograd.grad(first.pow(2).sum(), x)
        if model is dense:
            expected = first.detach(), second
        else:
            torch.testing.assert_close((first.detach(), second), expected)


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
    with pytest.raises(ValueError, match=r"1\.values must be .* shape \(500, 300\).*another layer"):
        load_csr(MLP((300, 500, 300, 10)), state)
    with pytest.raises(ValueError, match=r"3\.values must be .* shape \(10, 400\).*another layer"):
        load_csr(MLP((300, 400, 10)), state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_csr(MLP((300, 400)), state)


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


# ---- where torch reads a weight, casts it, or makes a graph


def sparse_encoder(**options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 600, batch_first=True, **options)
    model = nn.TransformerEncoder(layer, 2).eval()
    with torch.no_grad():
        for block in model.layers:
            for linear in (block.linear1, block.linear2):
                linear.weight.mul_(torch.rand(linear.weight.shape) < 0.05)
    return model


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_a_transformer_encoder_in_eval_mode(activation, norm_first):
    model = sparse_encoder(activation=activation, norm_first=norm_first)
    fast = to_csr(model)
    assert isinstance(fast.layers[0].linear1, CsrLinear)
    assert isinstance(fast.layers[1].linear2, CsrLinear)
    x = torch.randn(3, 5, 32)
    padded = torch.arange(5).expand(3, 5) > 3
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with mode():
            torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
            masked = [m(x, src_key_padding_mask=padded)[:, :4] for m in (fast, model)]
            torch.testing.assert_close(*masked, rtol=1e-4, atol=1e-5)
            alone = [m.layers[0](x) for m in (fast, model)]
            torch.testing.assert_close(*alone, rtol=1e-4, atol=1e-5)
    assert model.layers[0].activation_relu_or_gelu, "the model keeps its fast path"
    restored = load_csr(sparse_encoder(activation=activation, norm_first=norm_first),
                        fast.state_dict())  # fmt: skip
    with torch.no_grad():
        assert torch.equal(restored(x), fast(x))


def test_what_reads_the_weight_gets_it():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(200, 100)

        def forward(self, x):
            return nn.functional.linear(self.fc(x), self.fc.weight.t())

    model = Tied()
    with torch.no_grad():
        model.fc.weight.mul_(torch.rand(100, 200) < 0.05)
    fast = to_csr(model)
    assert torch.equal(fast.fc.weight, model.fc.weight)
    x = torch.randn(4, 200)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_in_autocast_the_output_has_its_precision(batch, dtype):
    model = sparse_net()
    fast = to_csr(model)
    x = torch.randn(batch, 300)
    expected = model(x)
    with torch.autocast("cpu", dtype), torch.no_grad():
        y = fast(x)
        assert y.dtype == model(x).dtype == dtype
        # from one layer to the next in autocast's precision too
        assert fast[1](x.to(dtype)).dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(y.float(), expected, rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("strict", [True, False])
def test_an_export_is_refused(strict):
    fast = to_csr(sparse_net())
    with pytest.raises(Exception, match="CsrLinear can't be exported"):
        torch.export.export(fast, (torch.randn(2, 300),), strict=strict)


# ---- what is attached to a layer


def bound(model):
    model[1].forward = lambda x: 2 * nn.functional.linear(x, model[1].weight)


@pytest.mark.parametrize(
    ("attach", "message"),
    [
        (
            lambda m: m[1].register_forward_hook(lambda module, x, y: 2 * y),
            "'1' has a forward hook",
        ),
        (lambda m: prune.l1_unstructured(m[1], "weight", 9), "'1' has a forward hook, L1Unstr"),
        (bound, "'1' has a forward of its own"),
    ],
)
def test_what_is_attached_to_a_sparse_layer_is_named(attach, message):
    model = sparse_net()
    attach(model)
    with pytest.raises(ValueError, match=f"layer {message}"):
        to_csr(model)


def test_hooks_of_what_is_not_replaced_are_kept():
    model = sparse_net()
    model[2].register_forward_hook(lambda module, x, y: y + 1)
    model[5].register_forward_hook(lambda module, x, y: 2 * y)
    parametrizations.weight_norm(model[5])
    fast = to_csr(model)
    assert isinstance(fast[1], CsrLinear)
    x = torch.randn(4, 300)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def test_dense_layers_keep_their_parameters_apart_from_the_model():
    model = sparse_net()
    fast = to_csr(model)
    assert type(fast[5]) is DenseLinear
    assert torch.equal(fast[5].weight, model[5].weight)
    assert fast[5].weight is not model[5].weight
    assert not fast[5].training


def test_within_a_cycle_of_multilevel_the_whole_weights_are_taken():
    model = sparse_net().train()
    optimizer = LinBreg(param_groups(model, linear=L1(1e-3)), lr=0.1)
    cycle = Multilevel(model, optimizer, frozen_steps=5)
    x = torch.randn(20, 300)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert cycle.frozen
    fast = to_csr(model, max_density=0.9)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


# ---- damaged files


def changed(key, change):
    def act(state):
        state[key] = change(state[key].clone())

    return act


def at(index, value):
    def act(tensor):
        tensor[index] = value
        return tensor

    return act


def swapped(columns):
    # within a row that has two weights or more; the first has
    columns[:2] = columns[:2].flip(0)
    return columns


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed("1.columns", at(5, 2**30)), "0 <= col_indices < ncols"),
        (changed("1.columns", at(0, -1)), "0 <= col_indices < ncols"),
        (changed("1.columns", at(-1, 300)), "0 <= col_indices < ncols"),
        (changed("1.columns", swapped), "col_indices.* are sorted and distinct"),
        (changed("1.columns", lambda c: at(1, int(c[0]))(c)), "are sorted and distinct"),
        (changed("1.columns", lambda c: c[:-1]), "1.row_starts, .*row_starts must be in 0 to"),
        (changed("1.columns", lambda c: c.long()), "must have the same dtype"),
        (changed("1.columns", lambda c: c[None]), "1.row_starts, 1.columns, 1.values must be a"),
        (changed("1.row_starts", at(7, 2**30)), "row_starts must be in 0 to"),
        (changed("1.row_starts", at(slice(7, 9), 2**30)), "row_starts must be in 0 to"),
        (changed("1.row_starts", at(7, -(2**31))), "row_starts must be in 0 to"),
        (changed("1.row_starts", at(0, 1)), r"crow_indices\[..., 0\] == 0"),
        (changed("1.row_starts", at(-1, 0)), r"crow_indices\[..., -1\] == nnz"),
        (changed("1.row_starts", lambda s: s.flip(0)), "crow_indices"),
        (changed("1.row_starts", lambda s: s[:-1]), "number of rows .* got 400"),
        (changed("1.row_starts", lambda s: s.float()), "must have the same dtype"),
        (changed("1.row_starts", lambda s: 3), "the state is damaged"),
        (changed("1.values", lambda v: v[:-1]), "must be equal to nnz"),
        (changed("1.values", lambda v: v[:, None]), "tensor dimensionality"),
        (changed("1.values", lambda v: 3), "values must have dimensionality"),
        (changed("3.bias", lambda b: b[0]), "size mismatch for 3.bias"),
    ],
)
@pytest.mark.parametrize("loaded", ["load_csr", "load_state_dict"])
def test_a_damaged_file_is_named_and_nothing_is_computed_with_it(damage, message, loaded):
    fast = to_csr(sparse_net())
    state = fast.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    damage(state)
    act = (lambda: load_csr(sparse_net(), state)) if loaded == "load_csr" else (
        lambda: fast.load_state_dict(state))  # fmt: skip
    with pytest.raises((ValueError, RuntimeError), match=message):
        act()
    for name, value in fast.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_a_file_of_another_precision_is_cast_as_torch_does(dtype):
    fast = to_csr(sparse_net())
    state = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in fast.state_dict().items()
    }
    restored = load_csr(sparse_net(), state)
    assert {value.dtype for value in restored.state_dict().values()} == {torch.float32, torch.int32}
    x = torch.randn(3, 300)
    torch.testing.assert_close(restored(x), fast(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_refused_or_harmless(seed):
    # single flipped bits: what is let through is a matrix in CSR, by torch's own check
    drawn = torch.Generator().manual_seed(seed)
    state = to_csr(sparse_net()).state_dict()
    key = ("1.columns", "1.row_starts")[seed % 2]
    index = int(torch.randint(len(state[key]), (), generator=drawn))
    bit = int(torch.randint(31, (), generator=drawn))
    state[key][index] ^= 1 << bit
    starts, columns, values = (state[f"1.{n}"] for n in ("row_starts", "columns", "values"))
    try:
        torch.sparse_csr_tensor(starts, columns, values, (400, 300), check_invariants=True)
    except RuntimeError:
        with pytest.raises(ValueError, match=f"{key}.* the state is damaged"):
            load_csr(sparse_net(), state)
    else:
        assert load_csr(sparse_net(), state)(torch.randn(2, 300)).isfinite().all()


@pytest.mark.parametrize("key", ["1.columns", "1.row_starts", "1.bias"])
def test_a_state_without_a_part_of_a_matrix_is_refused(key):
    state = to_csr(sparse_net()).state_dict()
    del state[key]
    with pytest.raises((ValueError, RuntimeError), match=f"{key}"):
        load_csr(sparse_net(), state)
    with pytest.raises(RuntimeError, match="Missing key"):
        to_csr(sparse_net()).load_state_dict(sparse_net().state_dict())
