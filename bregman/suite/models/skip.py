"""A fully connected network whose skip connections are learnable scalars, arXiv 2106.02479."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bregman.layers import param_groups
from bregman.regularizers import Regularizer


class SkipMLP(nn.Module):
    r"""Layers of equal width, each of which may get the signals of all layers before it.

    With the input x_0, layer l = 1, ..., depth computes

        x_l = relu(W_l x_{l-1} + b_l) + sum_{j < l} s_{l,j} x_j

    and the output is x_depth, or a linear map of it. Every s_{l,j} is one number, zero at first:
    then this is the plain multilayer perceptron.

    Args:
        width: the entries of an input and of every layer.
        depth: the number of layers.
        classes: the outputs of a last linear layer without skips; None for none.

    Attributes:
        layers: the linear maps (W_l, b_l).
        skips: (depth, depth), lower triangular; row l - 1 holds s_{l,0}, ..., s_{l,l-1}.
        head: the last linear layer; the identity without classes.

    Raises:
        ValueError: width, depth or classes is not positive.

    Shape:
        Input: (batch, ...) with width entries per sample.
        Output: (batch, width), or (batch, classes).
    """

    def __init__(self, width: int = 784, depth: int = 6, classes: int | None = None) -> None:
        for name, value in (("width", width), ("depth", depth), ("classes", classes)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.skips = nn.Parameter(torch.zeros(depth, depth))
        self.head = nn.Identity() if classes is None else nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        signals = [x.flatten(1)]
        for layer, weights in zip(self.layers, self.skips.unbind(), strict=True):
            out = F.relu(layer(signals[-1]))
            for weight, signal in zip(weights.unbind(), signals, strict=False):
                out = torch.addcmul(out, weight, signal)
            signals.append(out)
        return self.head(signals[-1])

    def param_groups(
        self, linear: Regularizer | None = None, skips: Regularizer | None = None
    ) -> list[dict]:
        """Sort the parameters into groups: the layers' weights, the skips, all the rest.

        Args:
            linear: the regularizer of the layers' weights, None for none.
            skips: the regularizer of the skips, None for none.

        Returns:
            Parameter groups for LinBreg, AdaBreg or ProxGD. Biases and the head are not
            regularized; skips that do not require a gradient are left out.
        """
        groups = param_groups(self.layers, linear=linear)
        groups.append({"params": list(self.head.parameters()), "reg": None})
        if self.skips.requires_grad:
            groups.append({"params": [self.skips], "reg": skips})
        return [group for group in groups if group["params"]]
