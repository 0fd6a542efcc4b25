"""A trained sparse network as a smaller dense one: what sparsity by neurons is worth."""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)


@torch.no_grad()
def compact(model: nn.Module) -> nn.Sequential:
    """Remove the neurons and filters that do nothing; the outputs stay the same.

    A neuron or filter goes if nothing leads into it or nothing leads out of it. One that nothing
    leads into is not silent: it is a constant, its bias after the activation, which moves into the
    biases of the next layer. (If that is a convolution with padding, where a constant filter is no
    longer constant at the rim, the filter stays unless the constant is zero.) Inputs and outputs
    keep their shapes.

    Args:
        model: an ``nn.Sequential``, nested or not, such as MLP, Autoencoder or ConvNet. Between its
            linear and Conv2d layers it may have element-wise activations, MaxPool2d and Flatten;
            before the first and after the last of them anything.

    Returns:
        A plain ``nn.Sequential`` with parameters of its own.

    Raises:
        TypeError: a module is none of these; it is named.
        ValueError: there is no linear or Conv2d layer, or one of them is grouped or does not take
            what the layer before it gives, flattened from dimension 1 on.
    """
    layers: list[Any] = list(_flat(model))
    weighted = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not weighted:
        raise ValueError(f"{type(model).__name__} has no linear or Conv2d layer")
    _check(layers, weighted)

    weights, biases = _fold_constants(layers, weighted)
    made: dict[int, nn.Module] = {}
    kept = torch.arange(len(biases[weighted[-1]]))
    for before, i in reversed([(None, weighted[0]), *pairwise(weighted)]):
        weight, bias = weights[i][kept], biases[i][kept]
        if before is not None:
            # a neuron is one column, or after flattening a filter is several
            columns = weight.reshape(len(weight), len(biases[before]), -1)
            kept = columns.any(2).any(0).nonzero().flatten()
            if len(kept) == 0:  # a layer needs a neuron, be it one that nothing leads out of
                kept = torch.tensor([0])
            weight = columns[:, kept].reshape(len(weight), -1, *weight.shape[2:])
        made[i] = _with_weights(layers[i], weight, bias)
    return nn.Sequential(*(made.get(i, copy.deepcopy(layer)) for i, layer in enumerate(layers)))


def _flat(model: nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        for child in model:
            yield from _flat(child)
    elif any(model.children()):
        raise TypeError(
            f"{type(model).__name__} is no nn.Sequential with the forward of one, "
            "and how its modules hang together can't be seen"
        )
    else:
        yield model


def _check(layers: list[Any], weighted: list[int]) -> None:
    for i in weighted:
        if isinstance(layers[i], nn.Conv2d) and layers[i].groups != 1:
            raise ValueError(f"{layers[i]} is grouped, allowed are convolutions with groups=1")
    for before, i in pairwise(weighted):
        between = layers[before + 1 : i]
        for layer in between:
            whole = not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1)
            if not (isinstance(layer, (*_ELEMENTWISE, nn.MaxPool2d, nn.Flatten)) and whole):
                raise TypeError(
                    f"{layer} can't be handled between layers with weights, only "
                    f"{', '.join(kind.__name__ for kind in _ELEMENTWISE)}, MaxPool2d and Flatten()"
                )
        given, taken = layers[before].weight.shape[0], layers[i].weight.shape[1]
        if isinstance(layers[before], nn.Conv2d) and isinstance(layers[i], nn.Linear):
            fits = taken % given == 0 and any(isinstance(layer, nn.Flatten) for layer in between)
        else:
            fits = taken == given
        if not fits:
            raise ValueError(
                f"{layers[i]} does not take what {layers[before]} gives, one feature per neuron "
                "or a filter's whole map flattened"
            )


def _fold_constants(
    layers: list[Any], weighted: list[int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Weights and biases in double precision, with no weight on a constant where that can be."""
    weights: dict[int, Tensor] = {}
    biases: dict[int, Tensor] = {}
    # of each neuron or filter, NaN where it is not constant
    constants: Tensor | None = None
    for i in range(weighted[0], weighted[-1] + 1):
        layer = layers[i]
        if isinstance(layer, nn.Linear | nn.Conv2d):
            weight = layer.weight.double()
            bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
            if constants is not None:
                values = constants.repeat_interleave(weight.shape[1] // len(constants))
                folded = values == 0 if _pads(layer) else ~values.isnan()
                per_input = weight.reshape(*weight.shape[:2], -1).sum(2)
                bias = bias + per_input[:, folded] @ values[folded]
                weight = weight.index_fill(1, folded.nonzero().flatten(), 0)
            weights[i], biases[i] = weight, bias
            constants = bias.masked_fill(weight.flatten(1).any(1), torch.nan)
        elif constants is not None and isinstance(layer, _ELEMENTWISE):
            constants = layer(constants.clone())
    return weights, biases


def _pads(layer: nn.Linear | nn.Conv2d) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.padding not in ((0, 0), "valid")


def _with_weights(layer: nn.Linear | nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Module:
    """A layer like a given one, in its own precision, with other weights."""
    n_out, n_in = weight.shape[:2]
    made: nn.Linear | nn.Conv2d
    if isinstance(layer, nn.Conv2d):
        names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        shape = {name: getattr(layer, name) for name in names}
        made = nn.Conv2d(n_in, n_out, **shape, device="meta")
    else:
        made = nn.Linear(n_in, n_out, device="meta")
    made.weight, made.bias = (
        nn.Parameter(tensor.to(layer.weight.dtype).contiguous()) for tensor in (weight, bias)
    )
    return made.train(layer.training)
