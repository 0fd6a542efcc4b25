"""The weights of a model: one notion of them for groups, initialization, measures, thresholding.

A weight is what a layer multiplies with (or looks up, or adds), of two or more dimensions; the
parameter behind it is what is trained. Mostly the two are the same tensor, but not under
``weight_norm``, ``torch.nn.utils.prune`` or any other parametrization.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bregman.checks import check
from bregman.regularizers import Regularizer, Zero

CONV = nn.Conv1d | nn.Conv2d | nn.Conv3d
TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
RECURRENT = nn.RNNBase | nn.RNNCellBase
Kind = Literal["linear", "conv", "embedding"]

# as many as torch takes for the first estimate of a spectral norm
_POWER_ITERATIONS = 15

_TYPES: dict[Kind, Any] = {
    "linear": nn.Linear | nn.Bilinear | nn.MultiheadAttention | RECURRENT,
    "conv": CONV | TRANSPOSED,
    "embedding": nn.Embedding | nn.EmbeddingBag,
}


@dataclass(eq=False)
class Weight:
    """A weight: where it is, what it is, and the parameter behind it.

    Attributes:
        name: the layer's name, followed by the weight's own where that is not "weight":
            "fc1", "encoder.self_attn.in_proj_weight", "lstm.weight_ih_l0".
        layer: the module that has it.
        attribute: its name there.
        parameter: what is trained, of the weight's shape: v of a weight norm, the tensor before the
            mask of a pruning, else the weight itself.
        kind: "linear" (attention, recurrent and foreign layers too), "conv" (transposed ones too),
            or "embedding": what is looked up or added, such as tables of tokens and positions.
        magnitude: g of a weight norm, None without one.
        shared: the other places of the same parameter, as (name, layer).
    """

    name: str
    layer: nn.Module
    attribute: str
    parameter: nn.Parameter
    kind: Kind
    magnitude: nn.Parameter | None = None
    shared: list[tuple[str, nn.Module]] = field(default_factory=list)

    @property
    def trained(self) -> bool:
        """Whether the parameter requires a gradient; what does not is left as it is."""
        return self.parameter.requires_grad

    @property
    @torch.no_grad()
    def value(self) -> Tensor:
        """What the layer computes with at present, without a gradient."""
        if (made := _parametrizations(self.layer).get(self.attribute)) is not None:
            # a spectral norm that is read in train mode goes on with its power iteration
            with modes_kept(made):
                return made.eval()()
        if (hook := _hooks(self.layer).get(self.attribute)) is not None:
            hook(self.layer, ())
        return getattr(self.layer, self.attribute).detach()

    @property
    @torch.no_grad()
    def keeps_zeros(self) -> bool:
        """Whether zeros of the parameter are zeros of the weight."""
        made, shape = _parametrizations(self.layer).get(self.attribute), self.parameter.shape
        if made is None or self.magnitude is not None:
            return True
        random, found = torch.Generator().manual_seed(0), []
        with modes_kept(made):
            for _ in range(8):
                some = nn.functional.hardshrink(torch.randn(shape, generator=random), 0.7).to(
                    self.parameter
                )
                found.append(functional_call(made.eval(), {"original": some}, ())[some == 0])
        # NaN says nothing: it is 0/0 where a norm is that of zeros alone
        known = torch.cat([x[~x.isnan()] for x in found])
        return len(known) > 0 and not known.any()

    @torch.no_grad()
    def assign(self, value: Tensor) -> None:
        """Give the weight another value, through the parameter behind it.

        Args:
            value: of the weight's shape. Zeros become zeros. A spectral norm scales the rest, and
                what was pruned stays zero. Where all that one magnitude of a weight norm scales is
                zero, v keeps its largest entry, since 0/0 is no direction, and g is zero.

        Raises:
            ValueError: the layer's parametrization makes something else of zeros; nothing changes.
        """
        before = self.parameter.clone()
        self.parameter.copy_(value)
        if self.magnitude is not None:
            # of the dimensions that share one magnitude, as torch.norm_except_dim has them
            sizes, single = self.magnitude.shape, self.magnitude.dim() == 0
            dims = [d for d in range(value.dim()) if single or sizes[d] == 1]
            norms = torch.linalg.vector_norm(value, dim=dims, keepdim=True)
            self.magnitude.copy_(norms.view_as(self.magnitude))
            largest = before.abs() == before.abs().amax(dims, keepdim=True)
            kept = before.masked_fill(before == 0, 1).where((norms == 0) & largest, value)
            self.parameter.copy_(kept)
        if getattr(self.layer, self.attribute) is self.parameter:
            return
        if (made := _parametrizations(self.layer).get(self.attribute)) is not None:
            with modes_kept(made):  # a spectral norm estimates itself
                made.train()
                for _ in range(_POWER_ITERATIONS):
                    made()
        new = self.value
        lost = made is not None and new.any() != value.any()
        if lost or new[value == 0].any() or not new[value.isfinite()].isfinite().all():
            self.parameter.copy_(before)
            raise ValueError(f"layer {self.name!r} can't take these zeros in its parametrization")

    def zero_(self, where: Tensor) -> None:
        """Set entries to zero; the others stay, but for a spectral norm's factor.

        Args:
            where: of the weight's shape, True for zero.

        Raises:
            ValueError: as in ``assign``.
        """
        before = self.parameter if self.magnitude is None else self.value
        self.assign(before.detach().masked_fill(where, 0))

    @property
    def matrices(self) -> int:
        """How many lie below one another: groups, gates, query with key and value."""
        layer, shape = self._known, self.parameter.shape
        if isinstance(layer, CONV | TRANSPOSED):
            return layer.groups
        if isinstance(self.layer, nn.MultiheadAttention) and self.attribute == "in_proj_weight":
            return 3
        if isinstance(layer, RECURRENT) and "_hr_" not in self.attribute:
            return shape[0] // layer.hidden_size
        return math.prod(shape[:-2]) if self._stacked else 1

    @property
    def inputs_first(self) -> bool:
        """Whether the weight is stored as (in, out, ...) instead of torch's (out, in, ...)."""
        layer, shape = self.layer, self.parameter.shape
        if isinstance(self._known, TRANSPOSED):
            return True
        if self.attribute != "weight" or self._known is not None or len(shape) != 2:
            return False
        # Hugging Face's linear layer is found by name: the library need not be there
        named = any(base.__name__ == "Conv1D" for base in type(layer).__mro__)
        bias = getattr(getattr(layer, "bias", None), "shape", None)
        return named or shape[:1] != bias == shape[1:]

    def rows(self, value: Tensor) -> Tensor:
        """A tensor of the weight's shape as (out, in per group, ...): a row per neuron or filter.

        Args:
            value: of the weight's shape.
        """
        if self._stacked:
            return value.flatten(0, -2)
        return self._swap_channels(value) if self.inputs_first else value

    def from_rows(self, rows: Tensor) -> Tensor:
        """The inverse of ``rows``."""
        return (self._swap_channels(rows) if self.inputs_first else rows).reshape_as(self.parameter)

    def inputs(self, value: Tensor) -> Tensor:
        """The same as (in, out per group, ...): a row per input of the layer."""
        return self._swap_channels(self.rows(value))

    @property
    def fans(self) -> tuple[float, float]:
        """n_in, n_out: the weights that lead into one output entry, and out of one input entry.

        On the average over the entries where a transposed convolution has a stride. That of a
        convolution does not count in n_out, as is usual.
        """
        rows = self.rows(self.parameter)
        n_in: float = rows[0].numel()
        n_out = rows.shape[0] // self.matrices
        if self.kind == "conv":
            n_out *= rows[0, 0].numel()
        if isinstance(self._known, TRANSPOSED):
            n_in /= math.prod(self._known.stride)
        return n_in, n_out

    def _swap_channels(self, x: Tensor) -> Tensor:
        """(out, in per group, ...) to (in, out per group, ...), and back."""
        groups = self.matrices if self.kind == "conv" else 1
        return x.unflatten(0, (groups, x.shape[0] // groups)).transpose(1, 2).flatten(0, 1)

    @property
    def _known(self) -> nn.Module | None:
        """The layer, where the weight is what torch's layers have; a subclass may have more."""
        named = self.attribute.startswith("weight")
        known = named and isinstance(self.layer, tuple(_TYPES.values()))
        return self.layer if known else None

    @property
    def _stacked(self) -> bool:
        # such as the matrices of several experts
        return self.kind == "linear" and self._known is None and self.parameter.dim() > 2


def whole(x: Tensor) -> Tensor:
    """A tensor with all its numbers, where processes have shards of it (all of them ask)."""
    gathered: Tensor = getattr(x, "full_tensor", lambda: x)()
    return gathered


def weights(model: nn.Module) -> list[Weight]:
    """Every weight of a model, shared ones once, in the order of definition.

    That is every parameter of two or more dimensions but those of normalization layers, in any
    module. What a module of an unknown type has counts as "embedding" if it, or the list that it is
    in, is named so (or token, position, bias) or if it is broadcast (one dimension that is not 1,
    or a first one that is). What is called "weight" is broadcast only in a module without a
    ``kernel_size``, if it has three or more dimensions of which one is not 1, or the shape of the
    bias: a gain. "conv" is what has three or more dimensions and a module with a ``kernel_size``,
    or four or more. All else is "linear", in rows (out, in), or (in, out) for a module whose bias
    or whose name, Conv1D, says so. A parameter that is an embedding in one place is one.

    Like a ``state_dict``, this asks for whole weights: a cycle of ``Multilevel`` ends.

    Args:
        model: any module.

    Raises:
        ValueError: a layer is lazy and has no shape yet, has the old ``spectral_norm``, or is
            parametrized and no parameter behind it has the weight's shape; it is named.
    """
    model.state_dict()
    found: dict[Tensor, Weight] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, parametrize.ParametrizationList | nn.LayerNorm | nn.RMSNorm):
            continue
        for attribute, parameter, magnitude in _parameters(path, layer):
            name = f"{path}.{attribute}".removesuffix(".weight").removeprefix(".")
            check(not is_lazy(parameter), f"layer {name!r}", "run on a batch first", type(layer))
            if parameter.dim() < 2:
                continue
            kind = _kind(path, layer, attribute, parameter.shape)
            weight = Weight(name, layer, attribute, parameter, kind, magnitude)
            if (first := found.setdefault(parameter, weight)) is not weight:
                first.shared.append((name, layer))
            if kind == "embedding":
                first.kind = kind
    return list(found.values())


def param_groups(
    model: nn.Module,
    linear: Regularizer | None = None,
    conv: Regularizer | None = None,
    embedding: Regularizer | None = None,
    *,
    named: bool = False,
) -> list[dict[str, Any]]:
    """Sort a model's parameters into groups: linear weights, conv weights, all the rest.

    The rest (biases, normalization layers, ...) is never regularized (section 1.1), nor is what is
    frozen at present (``requires_grad`` is False). ``weights`` says what counts as what.

    Args:
        model: any module.
        linear: the regularizer of the linear weights, None for none.
        conv: the regularizer of the convolution weights, None for none.
        embedding: the regularizer of embeddings and of what is added or broadcast. None for none
            with a warning if there are any, ``Zero()`` for none without.
        named: give parameters as (name, parameter), as torch's optimizers take them; their groups
            then say under "param_names" which parameter is where.

    Returns:
        Parameter groups for LinBreg, AdaBreg or ProxGD; groups without parameters are left out.
        The ``dim`` of a GroupL12 means (out, in, ...): where a layer stores (in, out, ...), such as
        a transposed convolution, its weight gets a group with the dimensions swapped.

    Raises:
        ValueError: a GroupL12 means the filters of a grouped transposed convolution, which are no
            slices of its weight; a parametrization such as ``orthogonal`` makes no zeros of zeros;
            or as in ``weights``.

    Warns:
        UserWarning: weights are left out though a regularizer is given, or no weight takes one
            (where ``linear`` and ``conv`` are the same, one kind is enough); they are named.
    """
    given: dict[Kind, Any] = {"linear": linear, "conv": conv, "embedding": embedding}
    found = [weight for weight in weights(model) if weight.trained]
    left_out = [w.name or w.attribute for w in found if w.kind == "embedding" and embedding is None]
    groups: dict[tuple[Kind, Regularizer | None], list[Any]] = {}
    for kind, reg in given.items():
        groups[kind, reg] = []
        for weight in (w for w in found if w.kind == kind and (reg or kind != "embedding")):
            fits = isinstance(reg, Zero | None) or weight.keeps_zeros
            check(fits, f"layer {weight.name!r}", f"one whose zeros stay, for {kind}={reg}",
                  type(weight.layer))  # fmt: skip
            groups.setdefault((kind, _in_layout(reg, weight)), []).append(weight.parameter)
    if left_out and not all(isinstance(reg, Zero | None) for reg in (linear, conv)):
        _warn(
            f"no regularizer for {', '.join(left_out)}: embeddings, and what is added or "
            "broadcast, take the one called embedding; embedding=Zero() says that none is meant"
        )
    taken, name = [given[weight.kind] for weight in found], type(model).__name__
    for kind, reg in given.items():
        if not isinstance(reg, Zero | None) and reg not in taken:
            _warn(f"{name} has no trained {kind} weight that could take {kind}={reg}")
    names = {p: name for name, p in model.named_parameters()}
    sorted_in = {p for params in groups.values() for p in params}
    made: list[Any] = [{"params": params, "reg": reg} for (_, reg), params in groups.items()]
    made.append({"params": [p for p in names if p not in sorted_in], "reg": None})
    if named:
        for group in made:
            group["params"] = [(names[p], p) for p in group["params"]]
    return [group for group in made if group["params"]]


def _warn(words: str) -> None:
    warnings.warn(f"param_groups: {words}", stacklevel=3)  # the caller's line


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Whatever is done inside, afterwards every module is in train or eval mode as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _parameters(
    path: str, layer: nn.Module
) -> Iterator[tuple[str, nn.Parameter, nn.Parameter | None]]:
    """The weights of one layer by attribute, whatever their dimensions: parameter, magnitude."""
    own = dict(layer.named_parameters(recurse=False))
    for attribute, hook in _hooks(layer).items():
        new = "with the spectral_norm of torch.nn.utils.parametrizations, not the old one"
        check(not isinstance(hook, SpectralNorm), f"layer {path!r}", new, hook)
        magnitude = own.pop(f"{attribute}_g", None)
        yield attribute, own.pop(f"{attribute}_{'orig' if magnitude is None else 'v'}"), magnitude
    for attribute, parametrizations in _parametrizations(layer).items():
        originals = dict(parametrizations.named_parameters(recurse=False))
        if len(parametrizations) == 1 and isinstance(parametrizations[0], _WeightNorm):
            yield attribute, originals["original1"], originals["original0"]
        elif "original" in originals:
            yield attribute, originals["original"], None
        else:
            one = f"with one parameter of the shape of its {attribute}"
            check(not originals, f"layer {path!r}", one, type(parametrizations[0]))
    for attribute, parameter in own.items():
        yield attribute, parameter, None


def _hooks(layer: nn.Module) -> dict[str, Any]:
    """What computes a weight before every forward pass, by the weight's attribute."""
    hooks = layer._forward_pre_hooks.values()
    pruned = {h._tensor_name: h for h in hooks if isinstance(h, prune.BasePruningMethod)}
    return pruned | {h.name: h for h in hooks if isinstance(h, WeightNorm | SpectralNorm)}


def _parametrizations(layer: Any) -> dict[str, parametrize.ParametrizationList]:
    """What computes a weight whenever it is read, by the weight's attribute."""
    return dict(layer.parametrizations.items()) if parametrize.is_parametrized(layer) else {}


def _kind(path: str, layer: nn.Module, attribute: str, shape: torch.Size) -> Kind:
    kernels = hasattr(layer, "kernel_size") and len(shape) > 2
    for kind, types in _TYPES.items():
        if isinstance(layer, types) and "weight" in attribute and (kernels or kind != "conv"):
            return kind
    # what a list is called says what its parameters are
    name = path.rpartition(".")[2] if isinstance(layer, nn.ParameterList | nn.ParameterDict) else ""
    words = f"{attribute} {name} {'embed' * ('embed' in type(layer).__name__.lower())}".lower()
    # a matrix may have one row or column, and a kernel one entry
    single, bias = sum(n > 1 for n in shape) < 2, getattr(layer, "bias", None)
    gain = not kernels and ((single and len(shape) > 2) or getattr(bias, "shape", None) == shape)
    broadcast = gain if attribute == "weight" else single or shape[0] == 1
    if broadcast or any(word in words for word in ("embed", "token", "position", "bias")):
        return "embedding"
    return "conv" if kernels or len(shape) > 3 else "linear"


def _in_layout(reg: Regularizer | None, weight: Weight) -> Regularizer | None:
    """A regularizer of (out, in, ...) for a weight in its own layout."""
    if reg is None or not hasattr(reg, "dim") or not weight.inputs_first:
        return reg
    dims = reg.blocks(weight.parameter.dim()) or ()
    if (0 in dims) == (1 in dims):
        return reg
    if weight.matrices > 1:
        raise ValueError(
            f"{reg} means filters, and those of the grouped transposed convolution "
            f"{weight.name!r} are no slices of its weight; allowed are kernels and single entries"
        )
    return replace(reg, dim=tuple(1 - d if d < 2 else d for d in dims))  # type: ignore[type-var]
