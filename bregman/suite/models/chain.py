"""Layers one after the other."""

from collections import OrderedDict
from typing import Any

from torch import nn


class Chain(nn.Sequential):
    """An ``nn.Sequential`` with a constructor of its own; a slice of it is a plain one."""

    def __getitem__(self, index: slice | int) -> Any:
        return nn.Sequential(OrderedDict(self._modules))[index]
