"""What hangs together in a chain of layers, for compact and for frozen steps alike."""

import pytest
import torch
from torch import nn

from bregman.chains import ELEMENTWISE, chain, feeds, links
from bregman.compact import compact


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 1


def attached(index, register):
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Tanh()), nn.Linear(4, 2))
    place = model if index is None else model[index]
    getattr(place, register)(lambda module, x, *y: None)
    return model


def test_nested_sequentials_are_one_chain_and_others_are_one_module():
    class Twice(nn.Sequential):
        def forward(self, x):
            return super().forward(super().forward(x))

    a, b, c = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)
    twice = Twice(nn.Linear(3, 3))
    assert list(chain(nn.Sequential(a, nn.Sequential(b, nn.Sequential(c)), twice))) == [
        a,
        b,
        c,
        twice,
    ]
    assert list(chain(twice)) == [twice]
    assert links(nn.Sequential(a, nn.Sequential(b), c)) == {c: (a, [b])}
    assert links(nn.Sequential(a, twice, c)) == {}


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(Doubled(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Doubled(4, 2)),
        nn.Sequential(nn.Linear(3, 4), Shifted(), nn.Linear(4, 2)),
        *(attached(index, "register_forward_hook") for index in range(3)),
        *(attached(index, "register_forward_pre_hook") for index in range(3)),
    ],
)
def test_no_link_and_no_compact_network_past_what_may_compute_something_else(model):
    assert links(model) == {}
    with pytest.raises((TypeError, ValueError), match=r"no chain of layers|forward hook"):
        compact(model)


@pytest.mark.parametrize("index", range(3))
def test_no_link_past_a_forward_that_was_replaced(index):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    forward = model[index].forward
    model[index].forward = lambda x: forward(x) + torch.rand(x.shape[0], 1)
    assert links(model) == {}


def test_a_hook_of_the_whole_network_breaks_no_link():
    model = attached(None, "register_forward_hook")
    assert list(links(model)) == [model[2]]


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_activations_take_constants_to_constants_entry_by_entry(kind):
    module = kind(*{nn.Threshold: (0.1, 0.3)}.get(kind, ())).eval()
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    together = module(x.expand(4, 13).clone())
    for i, value in enumerate(x):
        torch.testing.assert_close(together[:, i], module(value.clone()).expand(4))
    assert feeds(nn.Linear(2, 3), [module], nn.Linear(3, 2))
    assert not list(module.parameters())
