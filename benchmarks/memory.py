"""Optimizer state, and the memory that one step allocates, per parameter of ResNet-18."""

import torch
from common import Row, allocations, resnet18_shapes
from optimizer_step import optimizers
from torch.optim import Optimizer

STATE_TENSORS = {
    "SGD fused": 0,
    "SGD momentum fused": 1,
    "Adam fused": 2,
    "LinBreg l1 fused": 1,
    "LinBreg l1 momentum fused": 2,
    "LinBreg kernel groups fused": 1,
    "LinBreg kernel groups, channels_last": 1,
    "AdaBreg l1 fused": 3,
    "LinBreg l1": 1,
    "LinBreg l1 momentum": 2,
    "LinBreg kernel groups": 1,
    "AdaBreg l1": 3,
}


def state_bytes(optimizer: Optimizer) -> int:
    """The bytes of all tensors of a parameter's size in an optimizer's state."""
    return sum(
        value.nbytes
        for parameter, state in optimizer.state.items()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.numel() == parameter.numel()
    )


def measure() -> list[Row]:
    """State, peak and what stays of one step, in bytes per parameter, on one thread."""
    torch.set_num_threads(1)
    shapes = resnet18_shapes()
    n = sum(torch.Size(shape).numel() for shape in shapes)
    made = optimizers(shapes)
    rows = []
    for name, tensors in STATE_TENSORS.items():
        optimizer = made[name]()
        optimizer.step()
        peak, left = allocations(optimizer.step)
        values = {
            "state_bytes": (state_bytes(optimizer) / n, f"<= {4 * tensors}"),
            "step_peak_bytes": (peak / n, ""),
            "step_left_bytes": (left / n, "<= 0"),
        }
        rows += [
            Row("memory per parameter", "ResNet-18", name, 1, metric, value, target=target)
            for metric, (value, target) in values.items()
        ]
    return rows
