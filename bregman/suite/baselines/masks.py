"""Masks on the weights of a model, and how many weights each layer gets."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim import Optimizer

from bregman.layers import Kind, weights
from bregman.optim import BregmanOptimizer
from bregman.suite.baselines.gradients import with_gradients


class Masked:
    """Keeps masked weights of a model at zero, by hooks before and after each step of an optimizer.

    Gradients of masked weights are set to zero before, and the weights themselves before and after,
    as some optimizers move a weight without a gradient (Muon), and a ``load_state_dict`` may bring
    dense weights. A weight that is masked or unmasked starts like a new one, at zero, and so does
    what the optimizer knows of it entry by entry (momentum, moments, step sizes). What its
    parameter has as a whole goes on, such as Adam's number of steps.

    Args:
        model: its linear and convolution weights are masked, and no biases or embeddings; what is
            frozen is left alone.
        optimizer: one of torch's, over these weights; or another, whose states start at zero if its
            class can't be called with parameters and the options of a group.

    Attributes:
        masks: per weight, True where it is free; all True to begin with.

    Raises:
        ValueError: the model has no such weight, one of them is not the optimizer's or is
            parametrized (of a norm nothing is left when all is masked, and a mask of
            ``torch.nn.utils.prune`` counts otherwise), or the optimizer keeps weights as a
            function of v, which a mask does not reach.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        if isinstance(optimizer, BregmanOptimizer):
            raise ValueError(
                f"optimizer must be one of torch's, got {type(optimizer).__name__}: it computes "
                "the weights from v, and masked ones would come back"
            )
        found = [w for w in weights(model) if w.trained and w.kind != "embedding"]
        if not found:
            raise ValueError(f"{type(model).__name__} has no linear or convolution layer to train")
        known = {p for group in optimizer.param_groups for p in group["params"]}
        for weight in found:
            if getattr(weight.layer, weight.attribute) is not weight.parameter:
                raise ValueError(f"the weight of layer {weight.name!r} must not be parametrized")
            if weight.parameter not in known:
                raise ValueError(
                    f"the weight of layer {weight.name!r} is not among the optimizer's"
                )
        self.kinds: dict[Tensor, Kind] = {weight.parameter: weight.kind for weight in found}
        self.optimizer = optimizer
        self.masks = {
            w: torch.ones_like(w, dtype=torch.bool, requires_grad=False) for w in self.kinds
        }
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._hold)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        self._hold()
        return with_gradients(optimizer, args, kwargs, self._change_gradients)

    @torch.no_grad()
    def _hold(self, *_: Any) -> None:
        for w, mask in self.masks.items():
            w.masked_fill_(~mask, 0)

    def _change_gradients(self) -> None:
        for w, mask in self.masks.items():
            if w.grad is not None:
                w.grad.masked_fill_(~mask, 0)

    @torch.no_grad()
    def set_mask(self, weight: Tensor, mask: Tensor) -> None:
        """Give a weight a new mask.

        Args:
            weight: one of the model's.
            mask: of its shape, True (or 1) where it is free, False (or 0) elsewhere.

        Raises:
            ValueError: the weight is none of the model's, or the mask is not like that.
        """
        if weight not in self.masks:
            raise ValueError(f"weight of shape {tuple(weight.shape)} is none that is masked")
        _check_mask(mask, weight)
        mask = mask.to(weight.device).bool()
        stay = self.masks[weight] & mask
        self.masks[weight].copy_(mask)
        weight.masked_fill_(~stay, 0)
        state = self.optimizer.state.get(weight, {})
        entries = {k: x for k, x in state.items() if getattr(x, "shape", None) == weight.shape}
        new = self._new_state(weight) if entries else {}
        for key, value in entries.items():
            value.copy_(torch.where(stay, value, new.get(key, 0)))

    def _new_state(self, weight: Tensor) -> dict[str, Any]:
        """What the optimizer knows of a single weight, zero, after a step without a gradient."""
        (group,) = (g for g in self.optimizer.param_groups if any(p is weight for p in g["params"]))
        kind, zero = type(self.optimizer), nn.Parameter(weight.new_zeros([1] * weight.dim()))
        taken = inspect.signature(kind).parameters.keys() - {"params"}
        zero.grad = torch.zeros_like(zero)
        try:
            optimizer = kind([zero], **{key: group[key] for key in taken & group.keys()})
        except TypeError:
            return {}
        optimizer.step()
        return dict(optimizer.state[zero])

    def draw(self, density: float, generator: torch.Generator) -> None:
        """Give each layer a random mask with as many free weights as ``layer_budgets`` says."""
        budgets = layer_budgets([w.shape for w in self.masks], density)
        for w, budget in zip(self.masks, budgets, strict=True):
            order = torch.randperm(w.numel(), generator=generator, device=generator.device)
            self.set_mask(w, (order < budget).view(w.shape).to(w.device))

    def state_dict(self) -> dict[str, Any]:
        """The masks, in the order of the layers."""
        return {"masks": list(self.masks.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over masks, from any device.

        Raises:
            ValueError: they are not those of such a model; nothing changes.
        """
        if len(state["masks"]) != len(self.masks):
            raise ValueError(f"state has {len(state['masks'])} masks, not {len(self.masks)}")
        for w, stored in zip(self.masks, state["masks"], strict=True):
            _check_mask(stored, w)
        for w, stored in zip(self.masks, state["masks"], strict=True):
            self.masks[w].fill_(True)  # what is free there has its own state
            self.set_mask(w, stored)


class ScheduledMasks(Masked):
    """Masks that change at certain steps of an optimizer.

    Args:
        model: as in ``Masked``.
        optimizer: as in ``Masked``.
        steps: optimizer steps of the whole training.
        every: steps between two changes.

    Raises:
        ValueError: steps or every is not a positive integer.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, steps: int, every: int) -> None:
        for name, value in (("steps", steps), ("every", every)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value}")
        super().__init__(model, optimizer)
        self.all_steps, self.every = steps, every
        self.steps = 0

    def _change_gradients(self) -> None:
        self.steps += 1
        self._change_masks()
        super()._change_gradients()

    def _change_masks(self) -> None:
        """Change the masks, if it is time to at step ``self.steps``, counted from 1."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The masks, and the number of steps so far."""
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a stored state."""
        super().load_state_dict(state)
        self.steps = state["steps"]


def _check_mask(mask: Tensor, weight: Tensor) -> None:
    if mask.shape != weight.shape:
        raise ValueError(f"mask must have shape {tuple(weight.shape)}, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool and not ((mask == 0) | (mask == 1)).all():
        raise ValueError("mask must hold True and False, or 1 and 0, and no other numbers")


def largest(sizes: Sequence[Tensor], kept: int) -> list[Tensor]:
    """Mark the largest entries of some tensors taken together.

    Args:
        sizes: tensors of any shapes, with entries >= 0.
        kept: how many, between 0 and the number of all entries.

    Returns:
        A mask per tensor, of its shape.
    """
    every = torch.cat([size.flatten() for size in sizes])
    criterion = prune.L1Unstructured(amount=len(every) - kept)
    mask = criterion.compute_mask(every, torch.ones_like(every)).bool()
    parts = mask.split([size.numel() for size in sizes])
    return [part.view(size.shape) for part, size in zip(parts, sizes, strict=True)]


def layer_budgets(shapes: Sequence[torch.Size], density: float) -> list[int]:
    """Share out a number of weights among layers: Erdos-Renyi-Kernel (Evci et al. 2020).

    The density of a layer is proportional to the sum of the weight's dimensions over their product,
    so that small layers are denser; layers that would get more weights than they have are dense.

    Args:
        shapes: of the layers' weights.
        density: the share of all weights that are not zero, in (0, 1].

    Returns:
        The number of non-zero weights per layer; together round(density * all weights).

    Raises:
        ValueError: density is out of range, or a layer is left without a weight.
    """
    check_density(density)
    sizes = [math.prod(shape) for shape in shapes]
    total = round(density * sum(sizes))
    exact = _erdos_renyi_kernel([sum(shape) for shape in shapes], sizes, density * sum(sizes))
    budgets = [math.floor(share) for share in exact]
    # what rounding down left over goes to those that lost most
    by_loss = sorted(range(len(sizes)), key=lambda i: budgets[i] - exact[i])
    for i in by_loss[: total - sum(budgets)]:
        budgets[i] += 1
    for shape, budget in zip(shapes, budgets, strict=True):
        if budget == 0:
            raise ValueError(
                f"density {density} leaves no weight to the layer of shape {tuple(shape)}"
            )
    return budgets


def check_density(density: float) -> None:
    """Raise ValueError if a share of non-zero weights is not in (0, 1]."""
    if not 0 < density <= 1:
        raise ValueError(f"density must be in (0, 1], got {density}")


def _erdos_renyi_kernel(dims: list[int], sizes: list[int], total: float) -> list[float]:
    dense: set[int] = set()
    while True:
        sparse = [i for i in range(len(sizes)) if i not in dense]
        left = total - sum(sizes[i] for i in dense)
        # the density of a layer is epsilon dims / size
        epsilon = left / max(sum(dims[i] for i in sparse), 1)
        full = {i for i in sparse if epsilon * dims[i] >= sizes[i]}
        if not full:
            return [sizes[i] if i in dense else epsilon * dims[i] for i in range(len(sizes))]
        dense |= full
