"""Supports, and the layers that compute with them alone, against dense products and masks."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bregman import L1, ElasticNet, GroupL12, NonNegative, Nuclear, SparseGroup, Zero
from bregman.chains import Call, links
from bregman.multilevel.restriction import Restriction
from bregman.multilevel.supports import Entries, Grid, RestingGrid, missing, nonzero_entries
from bregman.multilevel.trained import blocks, support_of
from bregman.multilevel.ways import Csr, Gathered, Masked, way_of
from bregman.suite.models import MLP, ConvNet, ResNet18

# ---------------------------------------------------------------------------------------------
# Supports
# ---------------------------------------------------------------------------------------------


def sparse_weight(shape, dims, seed=0, share=0.4):
    """Standard normal blocks, most of them zero."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [1 if d in dims else n for d, n in enumerate(shape)]
    mask = torch.rand(sizes, generator=generator) < share
    return torch.randn(shape, generator=generator, dtype=torch.float64) * mask


BLOCKS = [
    ((5, 7), ()), ((5, 7), (1,)), ((5, 7), (0,)), ((6,), ()), ((4, 3, 2, 2), (2, 3)),
    ((4, 3, 2, 2), (1, 2, 3)), ((4, 3, 2, 2), (0, 2, 3)), ((4, 3, 2, 2), (1,)), ((4, 3, 5), (0, 2)),
    ((4, 3, 5), ()),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dims"), BLOCKS)
def test_entries_are_those_of_the_nonzero_blocks(shape, dims):
    weight = sparse_weight(shape, dims)
    support = nonzero_entries(weight, dims)
    inside = torch.zeros(shape, dtype=torch.bool)
    free = [range(1) if d in dims else range(n) for d, n in enumerate(shape)]
    for block in product(*free):
        index = tuple(slice(None) if d in dims else i for d, i in enumerate(block))
        inside[index] = weight[index].any()
    assert 0 < inside.sum() < inside.numel()
    assert sorted(support.index.flatten().tolist()) == inside.flatten().nonzero().flatten().tolist()
    # a block lies along the same dimensions as before
    assert all(support.index.shape[d] == shape[d] for d in dims)


@pytest.mark.parametrize(("shape", "dims"), [case for case in BLOCKS if case[1]])
def test_a_regularizer_of_groups_is_that_of_the_restriction(shape, dims):
    weight = sparse_weight(shape, dims)
    support = nonzero_entries(weight, dims)
    reg = GroupL12(0.3, dims)
    part = support.restrict(weight)
    torch.testing.assert_close(reg(part), reg(weight))
    torch.testing.assert_close(reg.prox(part), support.restrict(reg.prox(weight)))


GRIDS = [
    Grid(torch.tensor([1, 4])),
    Grid(torch.tensor([0, 2, 3]), torch.tensor([0, 2])),
    Grid(torch.tensor([0, 1, 2, 3, 4]), torch.tensor([0, 2])),
    Grid(torch.tensor([], dtype=torch.int64)),
    Entries(torch.tensor([3, 4, 17, 58])),
    Entries(torch.tensor([], dtype=torch.int64)),
]


@pytest.mark.parametrize("support", GRIDS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_prolong_writes_what_restrict_reads_and_nothing_else(support, memory_format):
    full = torch.arange(60.0).view(5, 3, 2, 2).to(memory_format=memory_format)
    part = support.restrict(full)
    if isinstance(support, Grid):  # convolutions are fast in one of the formats, and must keep it
        assert part.is_contiguous(memory_format=memory_format)
    places = set(part.flatten().tolist())
    assert len(places) == part.numel()
    before, strides = full.clone(), full.stride()
    support.prolong(-1 - part, full)
    expected = [-1 - x if x in places else x for x in before.flatten().tolist()]
    assert full.flatten().tolist() == expected
    assert full.stride() == strides
    torch.testing.assert_close(support.restrict(full), -1 - part)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("support", GRIDS)
def test_spread_puts_the_entries_in_their_places(support, memory_format):
    weight = torch.rand(5, 3, 2, 2).double().add_(1).to(memory_format=memory_format)
    part = support.restrict(weight).requires_grad_()
    expected = weight.clone()
    support.prolong(2 * part.detach(), expected)
    assert torch.equal(support.spread(2 * part, weight), expected)
    assert support.spread(part, weight).stride() == weight.stride()
    assert torch.autograd.gradcheck(lambda part: support.spread(part, weight), part)


ROWS, MOVING, REST = torch.tensor([0, 3, 4]), torch.tensor([1]), torch.tensor([0, 2])


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2, 2)])
def test_what_rests_of_a_row_takes_part_in_its_norm_and_is_scaled_with_it(shape):
    v = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    v[3] *= 0.1
    resting = RestingGrid.of(v, ROWS, MOVING, REST)
    part = resting.restrict(v)
    assert not resting.norms(part).any()
    resting.measure(part, v)
    n_whole, n_part = v[0].numel(), part[0].numel()
    dims = tuple(range(1, len(shape)))
    expected = GroupL12(0.4, dims).prox(v)
    assert (expected[[0, 3, 4]] == 0).flatten(1).all(1).tolist() == [False, True, False]
    theta = GroupL12(0.4 * (n_whole / n_part) ** 0.5, dims).prox(part)
    expected[[1, 2]] = v[[1, 2]]
    torch.testing.assert_close(resting.spread(theta, v), expected)
    written = v.clone()
    resting.prolong(theta, written)
    resting.stretch(theta, written)
    torch.testing.assert_close(written, expected)
    last = part[:, -1:].clone()
    assert torch.autograd.gradcheck(lambda moving: resting.spread(torch.cat([moving, last], 1), v),
                                    part[:, :-1].clone().requires_grad_())  # fmt: skip
    expected = v.clone()
    expected[[0, 3, 4], 1] *= -1
    resting.prolong(-part, v)
    assert torch.equal(v, expected)


def test_a_row_that_was_zero_in_between_comes_back():
    v = torch.ones(5, 3).double()
    resting = RestingGrid.of(v, ROWS, MOVING, REST)
    part = resting.restrict(v)
    resting.measure(part, v)
    theta = v.clone()
    for lengths in (0 * part, part):
        resting.prolong(lengths, theta)
        resting.stretch(lengths, theta)
        assert theta[ROWS].any() == lengths.any()
    torch.testing.assert_close(theta, v)


def test_a_row_in_which_nothing_rests_but_zeros():
    full = torch.zeros(5, 3)
    full[:, 1] = 1.0
    resting = RestingGrid.of(full, ROWS, MOVING, REST)
    part = resting.restrict(full)
    resting.measure(part, full)
    expected = full.clone()
    expected[[0, 3, 4], 1] = 2.0
    assert torch.equal(resting.spread(2 * part, full), expected)


def test_feature_maps_of_one_channel_images_keep_their_format():
    # with one input channel both formats have the same order in memory, and only strides tell
    full = torch.randn(6, 1, 3, 3).to(memory_format=torch.channels_last)
    image = torch.randn(2, 1, 8, 8)
    part = Grid(torch.tensor([0, 2, 3])).restrict(full)
    spread = [s.spread(s.restrict(full), full) for s in (Entries(torch.arange(9)), GRIDS[0])]
    for weight in (full, part, *spread):
        maps = torch.nn.functional.conv2d(image, weight)
        assert maps.is_contiguous(memory_format=torch.channels_last)


def test_tiny_numbers_are_part_of_the_support():
    weight = torch.zeros(3, 4)
    weight[1, 2] = -1e-44
    assert nonzero_entries(weight, (1,)).index.tolist() == [[4, 5, 6, 7]]
    assert nonzero_entries(weight, ()).index.tolist() == [6]


@pytest.mark.parametrize(
    ("reg", "dims"),
    [
        (Zero(), None), (L1(1.0), ()), (NonNegative(), ()), (ElasticNet(1.0, 2.0), ()),
        (GroupL12(1.0, -1), (3,)), (GroupL12(1.0, (2, -1)), (2, 3)), (SparseGroup(1, 1, 1), (1,)),
    ],
)  # fmt: skip
def test_the_blocks_of_a_regularizer(reg, dims):
    assert blocks(reg, 4) == dims


def test_a_regularizer_without_blocks():
    with pytest.raises(
        ValueError, match=r"reg must be a sum over blocks .* got Nuclear\(lam=0.1\)"
    ):
        blocks(Nuclear(0.1), 2)


# ---------------------------------------------------------------------------------------------
# Layers: the same outputs and gradients as the dense layer has
# ---------------------------------------------------------------------------------------------


def linear(n_out=6, n_in=8, dims=(), bias=True, share=0.4):
    layer = nn.Linear(n_in, n_out, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_(sparse_weight((n_out, n_in), dims, share=share))
    return layer


def conv(dims=(1, 2, 3), bias=True, **options):
    layer = nn.Conv2d(4, 6, 3, bias=bias, **options).double()
    with torch.no_grad():
        layer.weight.copy_(sparse_weight(layer.weight.shape, dims))
    return layer


def grid(layer, dim):
    """The support by rows (dim = 0) or columns (dim = 1)."""
    n = layer.weight.shape[dim]
    left = layer.weight.transpose(0, dim).flatten(1).any(1).nonzero().flatten()
    assert 0 < len(left) < n
    return Grid(left) if dim == 0 else Grid(torch.arange(len(layer.weight)), left)


def x_for(layer, *batch):
    generator = torch.Generator().manual_seed(1)
    linear = isinstance(layer, nn.Linear)
    shape = (*batch, layer.in_features) if linear else (*batch, layer.in_channels, 7, 7)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def gradients(forward, tensors):
    """The output and, of a fixed function of it, the gradients."""
    y = forward()
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((weights * y).sum(), tensors)]


def dense(layer):
    """(x, weight, bias) to what the layer makes of x with these."""
    if isinstance(layer, nn.Linear):
        return F.linear
    return layer._conv_forward


def assert_computes_like(layer, way, x):
    """Like the dense layer: the output, and the gradients of x, bias and of what is trained."""
    full, x = layer.weight, x.clone().requires_grad_()
    bias = [] if layer.bias is None else [layer.bias]
    expected = gradients(lambda: layer(x), [full, x, *bias])
    part = way.trained.restrict(full.detach()).requires_grad_()
    found = gradients(lambda: way(dense(layer), x, part, layer.bias), [part, x, *bias])
    expected[1] = way.trained.restrict(expected[1])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(5,), (1,), (), (2, 3)])
@pytest.mark.parametrize("share", [0.3, 1.0, 0.0])
def test_csr(bias, batch, share):
    layer = linear(bias=bias, share=share)
    support = nonzero_entries(layer.weight, ())
    assert_computes_like(layer, Csr(layer.weight, support), x_for(layer, *batch))
    between_two = Csr(layer.weight, support)
    between_two.by_features = True
    assert_computes_like(layer, between_two, x_for(layer, *batch))


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_csr_between_activations_that_work_in_place(bias, inplace):
    first, second = linear(bias=bias), linear(5, 6, bias=bias)
    ways = [Csr(first.weight, nonzero_entries(first.weight, ()))]
    ways.append(Csr(second.weight, nonzero_entries(second.weight, ())))
    ways[0].by_features = True
    x, relu = x_for(first, 5), nn.ReLU(inplace)
    weights = [first.weight, second.weight]
    expected = gradients(lambda: relu(second(relu(first(x)))), weights)
    parts = [
        way.trained.restrict(w.detach()).requires_grad_()
        for way, w in zip(ways, weights, strict=False)
    ]

    def forward():
        y = relu(ways[0](F.linear, x, parts[0], first.bias))
        return relu(ways[1](F.linear, y, parts[1], second.bias))

    found = gradients(forward, parts)
    for a, b, way in zip(found[1:], expected[1:], ways, strict=True):
        torch.testing.assert_close(a, way.trained.restrict(b))
    torch.testing.assert_close(found[0], expected[0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [(), (1,), (0,)])
def test_masked_linear(dims, bias):
    layer = linear(dims=dims, bias=bias)
    way = Masked(layer.weight, nonzero_entries(layer.weight, dims))
    assert_computes_like(layer, way, x_for(layer, 5))


CONVOLUTIONS = [{}, {"padding": 1, "stride": 2}, {"padding": 1, "padding_mode": "circular"}]


@pytest.mark.parametrize("options", [*CONVOLUTIONS, {"groups": 2}])
@pytest.mark.parametrize("dims", [(), (2, 3), (1, 2, 3)])
def test_masked_convolution(dims, options):
    layer = conv(dims, **options)
    way = Masked(layer.weight, nonzero_entries(layer.weight, dims))
    assert_computes_like(layer, way, x_for(layer, 3))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(5,), (2, 3)])
@pytest.mark.parametrize("dim", [0, 1])
def test_gathered_linear(dim, batch, bias):
    layer = linear(dims=(1 - dim,), bias=bias)
    assert_computes_like(layer, Gathered(layer, grid(layer, dim)), x_for(layer, *batch))


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dim", [0, 1])
def test_gathered_convolution(dim, bias, options):
    layer = conv((1 - dim, 2, 3), bias=bias, **options)
    assert_computes_like(layer, Gathered(layer, grid(layer, dim)), x_for(layer, 3))


CHAINS = {
    "linear": lambda bias: [linear(7, 8, (1,), bias), nn.ReLU(), linear(6, 7, (1,), bias)],
    "tanh": lambda bias: [
        linear(7, 8, (1,), bias), nn.LeakyReLU(inplace=True), nn.Tanh(), linear(6, 7, (1,), bias)
    ],
    "conv": lambda bias: [
        nn.Conv2d(4, 6, 3, bias=bias), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 5, 2, bias=bias)
    ],
    "flatten": lambda bias: [
        nn.Conv2d(4, 6, 3, bias=bias), nn.ReLU(True), nn.Flatten(), linear(6, 6 * 25, (1,), bias)
    ],
}  # fmt: skip


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("path", ["gathered", "masked"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("last_is_sparse", [True, False])
def test_layers_behind_dead_neurons(chain, bias, last_is_sparse, path, inside):
    # dead neurons are constants: they rest, and what meets them
    model = nn.Sequential(*CHAINS[chain](bias)).double()
    first, *between, last = model
    with torch.no_grad():
        for layer in (first, last) if last_is_sparse else (first,):
            dims = tuple(range(1, layer.weight.dim()))
            layer.weight.copy_(sparse_weight(layer.weight.shape, dims))
        if not last_is_sparse:
            last.weight.normal_(generator=torch.Generator().manual_seed(3))
    assert links(model) == {last: (first, between)}
    x = x_for(first, 3)
    biases = [first.bias, last.bias] if bias else []
    expected = gradients(lambda: model(x), [first.weight, last.weight, *biases])

    rows, every = (GroupL12(1.0, tuple(range(1, w.weight.dim()))) for w in (first, last))
    alive = support_of(first, {"reg": rows}, first.weight.detach())
    dead = missing(alive.rows, len(first.weight))
    assert len(dead)
    each = torch.arange(last.weight.shape[1] // len(first.weight))
    met = (dead[:, None] * len(each) + each).flatten()
    group = {"reg": every if last_is_sparse else Zero()}
    trained = [alive, support_of(last, group, last.weight.detach(), met)]
    assert isinstance(trained[1], RestingGrid if last_is_sparse else Grid)
    assert trained[1].rest.tolist() == met.tolist()
    (a, _), (b, _) = (way_of(*pair, path) for pair in zip((first, last), trained, strict=True))
    parts = []
    for i, (way, layer) in enumerate(((a, first), (b, last)), start=1):
        full = layer.weight.detach()
        part = way.trained.restrict(full)
        if isinstance(way.trained, RestingGrid):
            way.trained.measure(part, full)
        parts.append(part.requires_grad_())
        expected[i] = way.trained.restrict(expected[i])
    if path == "gathered":
        call = Call()
        call.inside = inside
        b.follow(a, between, call)
    if bias:
        Restriction(first.bias, Grid(alive.rows), None, lambda: None)
        expected[3][dead] = 0  # these rest
    widths = []

    def forward():
        y = a(dense(first), x, parts[0], first.bias)
        widths.append(y.shape[1])
        for module in between:
            y = module(y)
        return b(dense(last), y, parts[1], last.bias)

    found = gradients(forward, [*parts, *biases])
    assert 0 < len(parts[0]) < len(first.weight)
    narrow = path == "gathered" and inside
    assert widths == [len(parts[0]) if narrow else len(first.weight)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------
# What hangs together
# ---------------------------------------------------------------------------------------------


def test_links_of_the_papers_networks():
    net = ConvNet()
    found = {layer: before for layer, (before, _) in links(net).items()}
    assert found == {net.conv2: net.conv1, net.fc1: net.conv2, net.fc2: net.fc1}
    mlp = MLP((4, 5, 6, 3))
    assert {layer: before for layer, (before, _) in links(mlp).items()} == {
        mlp[3]: mlp[1],
        mlp[5]: mlp[3],
    }
    assert links(ResNet18(width=2)) == {}


def shared():
    layer = nn.Linear(4, 4)
    return [layer, nn.ReLU(), layer]


@pytest.mark.parametrize(
    "modules",
    [
        [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3, padding=1)],  # no constant at the rim
        [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3, padding="same")],
        [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)],
        [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2)],
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 3)],  # along the width
        [nn.Conv2d(1, 4, 3), nn.Flatten(2), nn.Linear(4, 3)],
        [nn.Linear(4, 5), nn.Dropout(), nn.Linear(5, 3)],
        [nn.Linear(4, 5), nn.Softmax(1), nn.Linear(5, 3)],
        [nn.Linear(4, 6), nn.MaxPool1d(2), nn.Linear(3, 3)],
        [nn.Linear(4, 5), nn.Flatten(), nn.Linear(10, 3)],
        shared(),
    ],
)
def test_no_link_where_a_constant_feature_would_not_stay_one(modules):
    assert links(nn.Sequential(*modules)) == {}


# ---------------------------------------------------------------------------------------------
# The choice
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "layer", "reg", "kind", "reason"),
    [
        ("auto", linear(dims=(1,)), GroupL12(1.0, 1), Gathered, "gathered"),
        ("auto", linear(dims=(0,)), GroupL12(1.0, 0), Gathered, "gathered"),
        ("auto", linear(dims=(1,)), SparseGroup(1.0, 1.0, 1), Gathered, "gathered"),
        ("auto", conv(), GroupL12(1.0, (1, 2, 3)), Gathered, "gathered"),
        ("gathered", conv((0, 2, 3)), GroupL12(1.0, (0, 2, 3)), Gathered, "gathered"),
        (
            "auto",
            conv((2, 3)),
            GroupL12(1.0, (2, 3)),
            Masked,
            "masked: auto has nothing for Conv2d",
        ),
        ("auto", conv(groups=2), GroupL12(1.0, (1, 2, 3)), Masked, "masked: auto has nothing"),
        ("auto", conv(()), L1(1.0), Masked, "masked: auto has nothing for Conv2d"),
        ("csr", linear(), L1(1.0), Csr, "csr"),
        (
            "csr",
            linear(dims=(1,)),
            GroupL12(1.0, 1),
            Masked,
            "masked: csr has nothing for Linear",
        ),
        ("gathered", linear(), L1(1.0), Masked, "masked: gathered has nothing for Linear"),
        ("masked", linear(dims=(1,)), GroupL12(1.0, 1), Masked, "masked"),
        ("csr", linear().bfloat16(), L1(1.0), Masked, "masked: csr has nothing for Linear"),
        ("auto", linear(share=0.0), GroupL12(1.0, 1), Gathered, "gathered"),
        ("auto", linear(), L1(1.0), Masked, "masked: csr pays from 500,000 entries on"),
        ("auto", linear(700, 800, share=0.1), L1(1.0), Csr, "csr"),
        ("auto", linear(700, 800, share=0.3), L1(1.0), Masked, "masked: csr pays"),
        ("auto", linear(), Zero(), None, ""),
    ],
)
def test_choice(path, layer, reg, kind, reason):
    support = support_of(layer, {"reg": reg}, layer.weight.detach())
    if kind is None:
        assert support is None
        return
    way, why = way_of(layer, support, path)
    assert type(way) is kind
    assert why.startswith(reason)
