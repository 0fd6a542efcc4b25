"""What can be frozen: checks of a model and its optimizer."""

from torch import Tensor, nn

from bregman.layers import CONV
from bregman.multilevel.chains import Layer
from bregman.multilevel.choice import PATHS, blocks
from bregman.optim import BregmanOptimizer
from bregman.regularizers import Zero

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def obstacle(layer: Layer, model: nn.Module, optimizer: BregmanOptimizer) -> str | None:
    """Why the weight of a layer can't be frozen, None if it can."""
    if type(layer) not in _PLAIN:
        return f"{type(layer).__name__} may have a forward of its own"
    if type(layer.weight) is not nn.Parameter:
        return f"its weight is a {type(layer.weight).__name__}"
    if _shared(layer.weight, model):
        return "its weight is shared"
    if "subgrad" not in optimizer.state.get(layer.weight, {}):
        return "its weight had no step of the optimizer"
    return None


def may_rest(layer: Layer, model: nn.Module, optimizer: BregmanOptimizer) -> bool:
    """Whether the biases of dead rows can rest."""
    bias = layer.bias
    if bias is None:
        return True
    groups = optimizer.param_groups
    free = any(isinstance(g["reg"], Zero) and bias in set(g["params"]) for g in groups)
    had_step = "subgrad" in optimizer.state.get(bias, {})
    return free and had_step and not _shared(bias, model)


def _shared(parameter: Tensor, model: nn.Module) -> bool:
    held = [p for m in model.modules() for p in m._parameters.values()]
    return sum(p is parameter for p in held) > 1


def plain_layers(model: nn.Module) -> list[tuple[str, Layer]]:
    """Linear and convolution layers by name."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | CONV)]


def outside(model: nn.Module, optimizer: BregmanOptimizer) -> dict[str, str]:
    """Regularized parameters outside of linear and convolution layers, and what becomes of them."""
    inside = {p for _, layer in plain_layers(model) for p in layer.parameters(recurse=False)}
    groups = (g for g in optimizer.param_groups if not isinstance(g["reg"], Zero))
    regularized = {p for group in groups for p in group["params"]}
    reason = "dense: outside of linear and convolution layers"
    return {name: reason for name, p in model.named_parameters() if p in regularized - inside}


def check(model: nn.Module, optimizer: BregmanOptimizer, frozen_steps: int, path: str) -> None:
    """Raise TypeError or ValueError where these arguments of ``Multilevel`` don't fit."""
    wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    if wrapped or hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise TypeError(
            "model must be a plain module, neither compiled nor wrapped for parallel training, "
            f"got {type(model).__name__}"
        )
    if not isinstance(optimizer, BregmanOptimizer):
        raise TypeError(f"optimizer must be LinBreg or AdaBreg, got {type(optimizer).__name__}")
    if not isinstance(frozen_steps, int) or frozen_steps < 0:
        raise ValueError(f"frozen_steps must be an integer of at least 0, got {frozen_steps}")
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}")
    weights = {layer.weight for _, layer in plain_layers(model)}
    devices = {weight.device.type for weight in weights}
    if path == "csr" and devices != {"cpu"}:
        raise ValueError(f"path 'csr' needs a model on the cpu, got one on {', '.join(devices)}")
    found = [
        blocks(group["reg"], p.dim())
        for group in optimizer.param_groups
        for p in group["params"]
        if p in weights
    ]
    if all(dims is None for dims in found):
        raise ValueError(
            "optimizer must regularize the weight of a linear or convolution layer of model, "
            "got none of that kind"
        )
