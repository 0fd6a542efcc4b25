"""The networks, and their parameters sorted into groups."""

import pytest
import torch
from torch import nn

from bregman import L1, GroupL12, LinBreg, param_groups
from bregman.suite.models import MLP, Autoencoder, ConvNet, ResNet18, SkipMLP


def test_the_mlp_of_section_4_2():
    model = MLP()
    assert [tuple(p.shape) for p in model.parameters()] == [
        (200, 784), (200,), (80, 200), (80,), (10, 80), (10,),
    ]  # fmt: skip
    images = torch.randn(5, 1, 28, 28)
    assert model(images).shape == (5, 10)
    # a linear output: it takes both signs
    outputs = model(torch.randn(500, 1, 28, 28))
    assert outputs.min() < 0 < outputs.max()


def test_the_mlp_computes_what_its_formula_says():
    model = MLP((6, 4, 3))
    w1, b1, w2, b2 = model.parameters()
    x = torch.randn(7, 6)
    torch.testing.assert_close(model(x), (x @ w1.T + b1).clamp(min=0) @ w2.T + b2)


def test_an_mlp_needs_two_sizes():
    with pytest.raises(ValueError, match=r"at least inputs and outputs, got \(784,\)"):
        MLP((784,))


def test_the_convolutional_network_of_section_4_4():
    model = ConvNet()
    assert [tuple(p.shape) for p in model.parameters()] == [
        (64, 1, 5, 5), (64,), (64, 64, 5, 5), (64,), (128, 1024), (128,), (10, 128), (10,),
    ]  # fmt: skip
    x = torch.randn(3, 1, 28, 28)
    weights = dict(model.named_parameters())

    def conv(x, name):
        # by its definition: every 5 x 5 window of the input times every kernel
        windows = x.unfold(2, 5, 1).unfold(3, 5, 1)
        y = torch.einsum("nchwij,ocij->nohw", windows, weights[f"{name}.weight"])
        y = (y + weights[f"{name}.bias"].view(-1, 1, 1)).clamp(min=0)
        return y.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1))

    x1 = conv(conv(x, "conv1"), "conv2").flatten(1)
    x2 = (x1 @ weights["fc1.weight"].T + weights["fc1.bias"]).clamp(min=0)
    expected = x2 @ weights["fc2.weight"].T + weights["fc2.bias"]
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_the_residual_network_of_section_4_5_is_torchvisions_with_another_stem():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    reference = resnet18(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    model = ResNet18()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    model.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 32, 32)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(images), reference.train(mode)(images))


def test_the_width_scales_every_stage():
    model = ResNet18(width=4, classes=7)
    assert [stage[1].conv2.weight.shape[0] for stage in
            (model.layer1, model.layer2, model.layer3, model.layer4)] == [4, 8, 16, 32]  # fmt: skip
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
        ResNet18(width=0)


def test_without_skips_the_skip_network_is_a_plain_mlp():
    model = SkipMLP(width=6, depth=3, classes=4)
    plain = MLP((6, 6, 6, 6, 4))
    for ours, theirs in zip([*model.layers, model.head], list(plain)[1::2], strict=True):
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 1, 2, 3)
    torch.testing.assert_close(model(x), plain(x), rtol=0, atol=0)


def test_the_autoencoder_of_section_4_6():
    model = Autoencoder()
    weights = [tuple(p.shape) for p in model.parameters() if p.dim() == 2]
    assert weights == [(784, 784)] * 6
    images = torch.randn(300, 1, 28, 28)
    outputs = model(images)
    assert outputs.shape == images.shape
    # no pixel is darker than black, and some are black exactly
    assert outputs.min() == 0 < outputs.max()


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.head.weight
        self.scale = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize("model", [MLP(), ConvNet(), Autoencoder()])
def test_a_slice_of_a_chain_shares_its_layers(model):
    part = model[1:-1]
    assert type(part) is nn.Sequential
    assert list(part) == list(model)[1:-1]
    assert model[1] is part[0]
    assert set(part.state_dict()) <= set(model.state_dict())


def test_groups_hold_every_parameter_once_and_regularize_weights_only():
    model = Mixed()
    linear, conv = L1(1e-3), GroupL12(0.1, dim=(2, 3))
    groups = param_groups(model, linear=linear, conv=conv)
    regs = {id(p): group["reg"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert regs.pop(id(model.head.weight)) == linear
    assert regs.pop(id(model.conv.weight)) == conv
    assert set(regs.values()) == {None}
    LinBreg(groups)


def test_groups_without_parameters_are_left_out():
    groups = param_groups(nn.Linear(3, 2, bias=False), linear=L1(0.1), conv=L1(0.1))
    assert [group["reg"] for group in groups] == [L1(0.1)]
