"""The optimizers that the experiments compare, by their names in a config."""

from typing import Any

from torch.optim import SGD, Adam, Optimizer

from bregman.optim import AdaBreg, LinBreg, ProxGD
from bregman.suite.baselines import add_subgradients


def make_optimizer(
    name: str, groups: list[dict[str, Any]], lr: float, momentum: float = 0.0
) -> Optimizer:
    """The fused optimizer of a name.

    Args:
        name: "SGD", "Adam", "ProxGD", "LinBreg" or "AdaBreg".
        groups: parameter groups with their regularizers as "reg". SGD and Adam minimize the
            penalized loss (1.4) by subgradients where there is one.
        lr: the learning rate tau.
        momentum: beta, of SGD and LinBreg.

    Raises:
        ValueError: an unknown name.
    """
    match name:
        case "SGD" | "Adam":
            optimizer = (
                SGD(groups, lr, momentum=momentum, fused=True)
                if name == "SGD"
                else Adam(groups, lr, fused=True)
            )
            if any(group["reg"] is not None for group in groups):
                optimizer.register_step_pre_hook(add_subgradients)
            return optimizer
        case "ProxGD":
            return ProxGD(groups, lr, fused=True)
        case "LinBreg":
            return LinBreg(groups, lr, momentum=momentum, fused=True)
        case "AdaBreg":
            return AdaBreg(groups, lr, fused=True)
    raise ValueError(f"optimizer must be SGD, Adam, ProxGD, LinBreg or AdaBreg, got {name!r}")
