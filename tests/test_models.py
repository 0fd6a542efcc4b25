"""The networks, and their parameters sorted into groups."""

import pytest
import torch
from torch import nn

from bregman import L1, GroupL12, LinBreg, param_groups
from bregman.models import MLP


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


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 8)
        self.tied = nn.Linear(8, 8)
        self.tied.weight = self.head.weight
        self.scale = nn.Parameter(torch.ones(()))


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
