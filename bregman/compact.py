"""A trained sparse network as a smaller dense one: what sparsity by neurons is worth."""

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bregman.chains import ELEMENTWISE, LAYERS, altered, pads, pairs
from bregman.layers import modes_kept

_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_FEEDFORWARD = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
# what functions and methods in a forward do, as modules
_FUNCTIONS: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, "relu"), nn.ReLU),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), nn.Tanh),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), nn.Sigmoid),
    **{F.gelu: nn.GELU, F.silu: nn.SiLU, F.elu: nn.ELU, F.leaky_relu: nn.LeakyReLU},
    F.dropout: lambda p=0.5, training=True, inplace=False: (
        nn.Module if training else nn.Identity
    )(),
    **{F.max_pool2d: nn.MaxPool2d, F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d},
    **dict.fromkeys(
        (torch.flatten, "flatten"), lambda start_dim=0, end_dim=-1: nn.Flatten(start_dim, end_dim)
    ),
}
Model = TypeVar("Model", bound=nn.Module)
_Path = list[nn.Module]


@torch.no_grad()
def compact(model: Model) -> Model:
    """Remove the neurons and filters that do nothing; the outputs in eval mode stay the same.

    A neuron or filter goes if nothing leads into it or nothing leads out of it. One that nothing
    leads into is not silent: it is a constant, its bias after normalization and activation, which
    moves into the biases of the next layer. (If that is a convolution with padding, where a
    constant filter is no longer constant at the rim, the filter stays unless the constant is zero.)
    Inputs and outputs keep their shapes.

    Args:
        model: its forward takes one input and can be traced by ``torch.fx``, such as MLP, ConvNet
            or ResNet18. Chains in it become smaller inside: linear and convolution layers without
            groups, with element-wise activations, pooling, Dropout, batch normalization (after a
            linear layer, of inputs (batch, features)) and Flatten between them. What is added to
            something else keeps its size, and so does what has another type, a subclass of a layer
            included. In any network the feed-forward parts of nn.TransformerEncoderLayer and its
            decoder become smaller.

    Returns:
        A copy with smaller layers in it, with parameters of its own.

    Raises:
        TypeError: there is no chain of two layers.
        ValueError: a module has forward hooks, a parametrization or a ``forward`` that was put in
            the place of its own; it is named. Or the model's forward reads sizes of its layers.
    """
    model.state_dict()  # a cycle of Multilevel ends
    for name, module in model.named_modules():
        if found := altered(module):
            raise ValueError(f"module {name!r}, {type(module).__name__}, has {found}; remove it")
    made = copy.deepcopy(model)
    graph = _graph(made)
    linked = [
        (first, between, second)
        for path in _paths(made, graph)
        for first, between, second in pairs(path, (*_DROPOUT, *_NORMS))
        if getattr(first, "groups", 1) == 1
        # behind a linear layer it may be one of tokens, (batch, tokens, features)
        and {n.num_features for n in between if type(n) in _NORMS}
        <= {first.weight.shape[0], second.weight.shape[1]}
    ]
    if not linked:
        raise TypeError(
            f"{type(model).__name__} has no chain of layers that can be seen: allowed are linear "
            "and convolution layers without groups, between them element-wise activations, "
            "pooling, Dropout, batch normalization with running statistics and Flatten, in a "
            "forward of one input that torch.fx can trace"
        )
    _shrink(linked)
    if str(_graph(made)) != str(graph):
        raise ValueError(f"the forward of {type(model).__name__} reads the sizes of its layers")
    return made


def _graph(model: nn.Module) -> fx.Graph | None:
    """What the model does in eval mode, None if that can't be traced."""
    if len(inspect.signature(model.forward).parameters) > 1:
        return None  # which of them are given may change how modules hang together
    try:
        with modes_kept(model):
            return fx.Tracer().trace(model.eval())
    except Exception:  # whatever a forward does with what is no tensor
        return None


def _paths(model: nn.Module, graph: fx.Graph | None) -> Iterator[_Path]:
    """What is called on the output of the one before, which nothing else gets."""
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    layer: Any
    for layer in model.modules():
        if type(layer) in _FEEDFORWARD:
            own = isinstance(layer.activation, nn.Module)
            act = layer.activation if own else _FUNCTIONS.get(layer.activation, nn.Module)()
            if places[layer.linear1] == places[layer.linear2] == places[layer]:
                yield [layer.linear1, act, layer.linear2]
    nodes = () if graph is None else graph.nodes
    # modules that are used twice, or whose weights are used elsewhere
    often = Counter(n.target for n in nodes if n.op == "call_module")
    read = {attrgetter(n.target)(model) for n in nodes if n.op == "get_attr"}
    seen: set[fx.Node] = set()
    for node in nodes:
        path: _Path = []
        while node not in seen and (module := _entry(node, model)) is not None:
            # activations may be used more than once
            once = node.op != "call_module" or often[node.target] == 1
            once &= read.isdisjoint([*module.parameters(), *module.buffers()])
            # without statistics a normalization is another function of each batch
            once &= getattr(module, "running_mean", module) is not None
            if type(module) in (*LAYERS, *_NORMS) and not once:
                break
            seen.add(node)
            path.append(module)
            if len(node.users) != 1:
                break
            node = next(iter(node.users))
        yield path


def _entry(node: fx.Node, model: nn.Module) -> nn.Module | None:
    if len(node.args) == 0 or node.all_input_nodes != [node.args[0]]:
        return None
    if node.op == "call_module":
        alone = len(node.args) == 1 and not node.kwargs
        return model.get_submodule(str(node.target)) if alone else None
    try:
        return _FUNCTIONS[node.target](*node.args[1:], **node.kwargs)
    except (KeyError, TypeError):
        return None


def _shrink(linked: Sequence[tuple[Any, list[Any], Any]]) -> None:
    """Remove what does nothing between two layers of which one feeds the other.

    Args:
        linked: first layer, what lies between, second layer; in the order in which they are called.
    """
    layers = [layer for first, _, second in linked for layer in (first, second)]
    # in double precision
    weights = {layer: layer.weight.double() for layer in layers}
    biases = {
        layer: weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
        for layer, weight in weights.items()
    }
    for first, between, second in linked:
        constants = biases[first].masked_fill(weights[first].flatten(1).any(1), torch.nan)
        weight, values = weights[second], _passed_on(constants, between)
        values = values.repeat_interleave(weight.shape[1] // len(values))
        folded = values == 0 if pads(second) else ~values.isnan()
        per_input = weight.reshape(*weight.shape[:2], -1).sum(2)
        biases[second] = biases[second] + per_input[:, folded] @ values[folded]
        weights[second] = weight.index_fill(1, folded.nonzero().flatten(), 0)
    for first, between, second in reversed(linked):
        # a neuron is one column, or after flattening a filter is several
        weight, n = weights[second], len(biases[first])
        columns = weight.reshape(len(weight), n, -1)
        kept = columns.any(2).any(0).nonzero().flatten()
        if len(kept) == 0:  # a layer needs a neuron, be it one that nothing leads out of
            kept = torch.tensor([0])
        weights[second] = columns[:, kept].reshape(len(weight), -1, *weight.shape[2:])
        weights[first], biases[first] = weights[first][kept], biases[first][kept]
        for norm in (module for module in between if type(module) in _NORMS):
            _keep_features(norm, kept, n)
    for layer, weight in weights.items():
        _replace_weights(layer, weight, biases[layer])


def _passed_on(constants: Tensor, between: Sequence[Any]) -> Tensor:
    """What modules make of the constants among their features; NaN stands for all others."""
    for module in between:
        if type(module) in ELEMENTWISE:
            constants = module(constants.clone()).masked_fill(constants.isnan(), torch.nan)
        elif type(module) in _NORMS:
            values = constants.repeat_interleave(module.num_features // len(constants))
            scale = (module.running_var.double() + module.eps).rsqrt()
            shift = torch.zeros_like(scale)
            if module.affine:
                scale, shift = scale * module.weight, module.bias.double()
            # without a gain a feature is constant, whatever comes
            normed = (values - module.running_mean) * scale + shift
            constants = torch.where(scale == 0, shift, normed)
    return constants


def _replace_weights(layer: Any, weight: Tensor, bias: Tensor) -> None:
    """Give a layer, in its own precision, other weights."""
    of = "features" if type(layer) is nn.Linear else "channels"
    vars(layer).update({f"out_{of}": weight.shape[0], f"in_{of}": weight.shape[1]})
    if layer.bias is not None or bias.any():
        layer.bias = _parameter(bias, layer.weight if layer.bias is None else layer.bias)
    layer.weight = _parameter(weight, layer.weight)


def _keep_features(norm: Any, kept: Tensor, n: int) -> None:
    """Leave a batch normalization some of n neurons or filters, each of one or more features."""
    index = torch.arange(norm.num_features, device=kept.device).view(n, -1)[kept].flatten()
    norm.num_features = len(index)
    norm.running_mean, norm.running_var = norm.running_mean[index], norm.running_var[index]
    if norm.affine:
        norm.weight, norm.bias = (_parameter(p[index], p) for p in (norm.weight, norm.bias))


def _parameter(values: Tensor, like: nn.Parameter) -> nn.Parameter:
    # contiguous in the way of the layer, such as channels last
    return nn.Parameter(values.to(like.dtype).contiguous(), like.requires_grad)
