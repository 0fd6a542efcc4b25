"""Networks that runs kept, and what the neurons of an autoencoder look for."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jacrev

from bregman.compact import compact
from bregman.suite.models import MLP, Autoencoder

# how the arrays of a run begin their names: the weights, and the digits after each epoch
WEIGHTS, PROGRESS = "weights.", "digits_after_epoch_"


def kept_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network, named as arrays of its run; in half precision, for half the size."""
    return {WEIGHTS + name: value.half() for name, value in model.state_dict().items()}


def trained_model(arrays: Mapping[str, np.ndarray]) -> MLP:
    """The fully connected network or the autoencoder whose weights a run kept.

    Args:
        arrays: of a run with ``keep``.
    """
    state = {
        name.removeprefix(WEIGHTS): torch.from_numpy(array).float()
        for name, array in arrays.items()
        if name.startswith(WEIGHTS)
    }
    shapes = [value.shape for value in state.values() if value.dim() == 2]
    sizes = [shapes[0][1], *(n_out for n_out, _ in shapes)]
    # what has as many outputs as inputs restores images
    model = Autoencoder() if sizes[0] == sizes[-1] else MLP(sizes)
    model.load_state_dict(state)
    return model


def bottleneck_features(model: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the neurons of the narrowest layer respond to, and what they draw.

    Args:
        model: a trained autoencoder.
        images: as the network takes them, N x C x H x W, over which the derivatives are averaged.

    Returns:
        Two tensors n x H x W, for the n active neurons of the narrowest hidden layer: the
        derivative of their values by the pixels, and of the output's pixels by their values.
    """
    small = nn.Sequential(*compact(model))
    *hidden, _ = (i for i, layer in enumerate(small) if isinstance(layer, nn.Linear))
    after = 2 + min(hidden, key=lambda i: len(small[i].weight))  # type: ignore[arg-type]
    encoder, decoder = small[:after], small[after:]
    codes = encoder(images).detach()
    # the derivative by a shift of all inputs is the mean of theirs
    into = jacrev(lambda shift: encoder(images + shift).mean(0))(torch.zeros_like(images[0]))
    out_of = jacrev(lambda shift: decoder(codes + shift).mean(0), chunk_size=49)(
        torch.zeros_like(codes[0])
    )
    return into.detach().squeeze(1), out_of.detach().movedim(-1, 0).squeeze(1)
