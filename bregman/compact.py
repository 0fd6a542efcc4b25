"""A trained sparse network as a smaller dense one: what neuron-wise sparsity is worth."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

# acts on each entry alone
_ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Identity)
_Weighted = nn.Linear | nn.Conv2d


@torch.no_grad()
def compact(model: nn.Module) -> nn.Sequential:
    """Remove the neurons and filters that do nothing; the outputs stay the same.

    A neuron (or filter) goes if nothing leads into it or nothing leads out of it. Without inputs it
    is not silent, but a constant, its bias after the activation: that is folded into the biases of
    the next layer. A filter that is not zero stays if the next convolution pads, since at the rim
    it is not constant. Only what lies between the first and the last layer with weights shrinks, so
    inputs and outputs keep their shapes.

    Args:
        model: an ``nn.Sequential``, nested or not, such as MLP, Autoencoder or ConvNet. Between its
            layers with weights it may have element-wise activations, max-pooling and flattening;
            before and after them anything.

    Returns:
        A plain ``nn.Sequential`` with parameters and modules of its own, no sparsity needed.

    Raises:
        TypeError: a module is none of these; it is named.
        ValueError: there is no layer with weights, a convolution has groups, or a linear layer does
            not take what the layer before it gives, flattened from dimension 1 on.
    """
    layers = list(_flat(model))
    weighted = [i for i, layer in enumerate(layers) if isinstance(layer, _Weighted)]
    if not weighted:
        raise ValueError(f"{type(model).__name__} has no linear or convolution layer")
    _check(layers, weighted)

    weights, biases = _fold_constants(layers, weighted)
    made: dict[int, nn.Module] = {}
    kept = torch.arange(len(biases[weighted[-1]]))
    for before, i in reversed([(None, weighted[0]), *pairwise(weighted)]):
        weight, bias = weights[i][kept], biases[i][kept]
        if before is not None:
            by_neuron = weight.reshape(len(weight), len(biases[before]), -1)
            # a layer of no neurons is none: one without effect stays
            kept = by_neuron.any(2).any(0).nonzero().flatten()
            kept = kept if len(kept) else torch.zeros(1, dtype=torch.long)
            weight = by_neuron[:, kept].reshape(len(weight), -1, *weight.shape[2:])
        made[i] = _like(layers[i], weight, bias)
    return nn.Sequential(
        *(made.get(i) or copy.deepcopy(layer) for i, layer in enumerate(layers))
    ).train(model.training)


def _flat(model: nn.Module) -> Iterator[nn.Module]:
    if not isinstance(model, nn.Sequential):
        yield model
        return
    if type(model).forward is not nn.Sequential.forward:
        raise TypeError(f"compact can't see into {type(model).__name__}: its forward is its own")
    for child in model:
        yield from _flat(child)


def _check(layers: list[nn.Module], weighted: list[int]) -> None:
    for before, i in pairwise(weighted):
        between = layers[before + 1 : i]
        for layer in between:
            if not isinstance(layer, (*_ELEMENTWISE, nn.MaxPool2d, nn.Flatten)):
                raise TypeError(
                    f"compact can't handle {layer} between layers with weights, only ReLU, "
                    "LeakyReLU, Tanh, Sigmoid, Identity, MaxPool2d and Flatten"
                )
