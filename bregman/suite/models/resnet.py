"""The residual network of section 4.5."""

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization, and a shortcut around them.

    Args:
        n_in: input channels.
        n_out: output channels.
        stride: of the first convolution; where it or the channels change the shape, the shortcut
            is a 1x1 convolution with batch normalization.

    Shape:
        Input: (batch, n_in, height, width). Output: (batch, n_out, height / stride, width / stride)
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        return F.relu(y, inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 for images of 32 x 32 pixels: a 3x3 stem, no max-pooling, section 4.5.

    Parts are named as in torchvision's ``resnet18``, which has the same network for larger images.

    Args:
        width: channels of the first stage; the other three have 2, 4 and 8 times as many. With the
            paper's 64 the network has 11.17 million parameters, and about (width / 64)^2 of that
            with another width.
        classes: outputs.

    Raises:
        ValueError: width is not positive.

    Shape:
        Input: (batch, 3, height, width). Output: (batch, classes)
    """

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        if width < 1:
            raise ValueError(f"width must be a positive integer, got {width}")
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _stage(n_in: int, n_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(n_in, n_out, stride), BasicBlock(n_out, n_out, 1))
