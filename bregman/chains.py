"""Layers that follow one another, so that a neuron or filter of one is a feature of the next."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

# exact types, here and below: a subclass may have a forward of its own
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# through these a constant feature stays a constant
ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.GELU, nn.SiLU, nn.ELU, nn.SELU,
    nn.CELU, nn.ReLU6, nn.Mish, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardtanh,
    nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
POOLING = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
)  # fmt: skip


def chain(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of an ``nn.Sequential``, nested or not, in their order; of another, itself."""
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        for child in model:
            yield from (child,) if altered(child) else chain(child)
    else:
        yield model


def feeds(first: Any, between: Sequence[nn.Module], second: Any, others: Any = ()) -> bool:
    """Whether a neuron or filter of one layer is a feature of another, or several in a row.

    Args:
        first: of an exact type of ``LAYERS``.
        between: what lies between the two, each called on the output of the one before.
        second: likewise.
        others: types of modules that may be there beside activations, pooling and Flatten.
    """
    flat = False
    for module in between:
        if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            flat = True
        elif type(module) in POOLING:
            if flat or type(first) is nn.Linear:
                return False
        elif type(module) not in (*ELEMENTWISE, *others):
            return False
    given, taken = first.weight.shape[0], second.weight.shape[1]
    if type(second) is nn.Linear and type(first) is not nn.Linear:
        return flat and taken % given == 0
    # weights of grouped convolutions have fewer inputs
    both = type(first) is type(second) and not (flat and type(first) is not nn.Linear)
    return both and taken == given and getattr(second, "groups", 1) == 1


def pairs(modules: Sequence[nn.Module], others: Any = ()) -> Iterator[tuple[Any, list[Any], Any]]:
    """Two layers of which one feeds the other, and between them what lies there.

    Args:
        modules: each called on the output of the one before.
        others: as in ``feeds``.
    """
    weighted = [i for i, module in enumerate(modules) if type(module) in LAYERS]
    for a, b in pairwise(weighted):
        first, *between, second = modules[a : b + 1]
        if feeds(first, between, second, others):
            yield first, between, second


def links(model: nn.Module) -> dict[Any, tuple[Any, list[nn.Module]]]:
    """For a layer of a chain the one in front of it, and the modules between the two.

    Only where a neuron or filter of the one is a feature of the other, or several in a row, and
    stays a constant if it is one.
    """
    modules = list(chain(model))
    often = Counter(modules)
    return {
        second: (first, between)
        for first, between, second in pairs(modules)
        if often[first] == often[second] == 1
        and not pads(second)
        and not any(map(altered, (first, *between, second)))
    }


def pads(layer: Any) -> bool:
    """Whether a layer pads its input: at the rim a constant feature is none."""
    padding = getattr(layer, "padding", "valid")
    return padding != "valid" and any(padding)


def traced() -> bool:
    """Whether models are being written down, for other places, and not trained."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


class Call:
    """Whether a model is being called, by the hooks of it that these methods are.

    They change nothing, so for ``altered`` they are not there.

    Args:
        begin: is called first.
    """

    def __init__(self, begin: Callable[[], object] = bool) -> None:
        self.begin, self.inside = begin, False

    # a compiler traces neither: what they do is not to be replayed
    @torch._disable_dynamo
    def enter(self, *_: object) -> None:
        # who only looks may look at other numbers, such as an average
        if torch.is_grad_enabled() and not traced():
            self.begin()
        self.inside = True

    @torch._disable_dynamo
    def leave(self, *_: object) -> None:
        self.inside = False

    def __reduce__(self) -> tuple[type["Call"], tuple[()]]:
        # a copy of the model is in no cycle
        return Call, ()


def altered(module: nn.Module) -> str | None:
    """What makes a module compute something else than its type says; None if nothing does."""
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        if isinstance(getattr(hook, "__self__", None), Call):
            continue
        return f"a forward hook, {getattr(hook, '__qualname__', type(hook).__name__)}"
    if parametrize.is_parametrized(module):
        return "a parametrization"
    return "a forward of its own" if "forward" in vars(module) else None
