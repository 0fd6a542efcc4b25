"""The convolutional network of section 4.4."""

from collections import OrderedDict

from torch import nn

from bregman.suite.models.chain import Chain


class ConvNet(Chain):
    """Two 5x5 convolutions and two linear layers with ReLU and a linear output, section 4.4.

    No padding, so that each convolution takes four pixels of a side, and the second max-pooling
    leaves 64 x 4 x 4 = 1024 features.

    Shape:
        Input: (batch, 1, 28, 28). Output: (batch, 10).
    """

    def __init__(self) -> None:
        # ReLU and max-pooling commute: pooled first, a quarter of the entries is left for ReLU
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 64, 5),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(64, 64, 5),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(1024, 128),
                relu3=nn.ReLU(),
                fc2=nn.Linear(128, 10),
            )
        )
