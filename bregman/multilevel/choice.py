"""Which way a layer computes while its support is frozen."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from bregman.multilevel.chains import Constants, constants
from bregman.multilevel.gathered import Gathered
from bregman.multilevel.layers import Csr, Fastest, Layer, Masked, Way
from bregman.multilevel.supports import (
    Entries,
    Grid,
    RestingGrid,
    block_dims,
    missing,
    nonzero_blocks,
    nonzero_entries,
)
from bregman.regularizers import GroupL12, Regularizer, Zero

PATHS = ("auto", "masked", "csr", "gathered")


class Choice:
    """Chooses a way for each layer, and remembers which and why.

    Args:
        path: as of ``Multilevel``.

    Attributes:
        reasons: by the layer's name, the way and why it is this one.
        fastest: by the layer's name, the density at which csr and masked were timed and the winner.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        self.fastest: dict[str, tuple[float, str]] = {}

    def __call__(
        self,
        name: str,
        layer: Layer,
        reg: Regularizer,
        before: Way | None = None,
        between: Sequence[nn.Module] = (),
    ) -> Way | None:
        """The way of a layer, None if all of its weight is to be trained in every step.

        Args:
            name: of the layer.
            layer: has its whole weight.
            reg: the regularizer of this weight.
            before: the way of the layer in front, where the two are linked.
            between: the modules between these.
        """
        weight = layer.weight
        dims = block_dims(reg, weight.dim())
        if dims is None:
            return self._of_living_inputs(name, layer, before, between)

        beside = set(range(weight.dim())) - set(dims)
        if beside in ({0}, {1}) and getattr(layer, "groups", 1) == 1:
            left = nonzero_blocks(weight, dims).flatten().nonzero().flatten()
            if self.path in ("auto", "gathered") and len(left):
                self.reasons[name] = "gathered"
                if beside == {1}:
                    return Gathered(layer, Grid(_all_rows(weight), left))
                met = _constants(layer, reg, before, between, Gathered)
                return Gathered(layer, Grid(left), met, _trained(left, met))
            if beside == {0}:
                met = _constants(layer, reg, before, between, Masked)
                self._masked(name, layer, reg)
                dead = missing(left, len(weight))
                return Masked(layer, Grid(left), _trained(left, met), dead)

        support = nonzero_entries(weight, dims)
        csr_fits = isinstance(layer, nn.Linear) and not dims and weight.is_cpu
        if csr_fits and weight.dtype in (torch.float32, torch.float64):
            if self.path == "csr":
                self.reasons[name] = "csr"
                return Csr(layer, support, before)
            if self.path == "auto":
                return self._fastest(name, layer, support, before)
        self._masked(name, layer, reg)
        return Masked(layer, support)

    def _masked(self, name: str, layer: Layer, reg: Regularizer) -> None:
        self.reasons[name] = "masked"
        if self.path != "masked":
            self.reasons[name] += f": {self.path} has nothing for {type(layer).__name__} and {reg}"

    def _of_living_inputs(
        self, name: str, layer: Layer, before: Way | None, between: Sequence[nn.Module]
    ) -> Way | None:
        """The way of a layer without a regularizer: weights that meet constants rest."""
        self.reasons[name] = "dense: no regularizer"
        rows = Grid(_all_rows(layer.weight))
        for kind, path in ((Gathered, "gathered"), (Masked, "masked")):
            met = _constants(layer, Zero(), before, between, kind)
            if met is not None:
                self.reasons[name] = f"{path}: its inputs"
                trained = Grid(rows.rows, met.live)
                if kind is Gathered:
                    return Gathered(layer, rows, met, trained)
                return Masked(layer, rows, trained)
        return None

    def _fastest(self, name: str, layer: Layer, support: Entries, before: Way | None) -> Way:
        density = support.index.numel() / layer.weight.numel()
        timed_at, fastest = self.fastest.get(name, (math.inf, ""))
        if not timed_at / 2 <= density <= 2 * timed_at:
            ways = {"csr": Csr(layer, support), "masked": Masked(layer, support)}
            return Fastest(ways, partial(self._remember, name, density))
        return Csr(layer, support, before) if fastest == "csr" else Masked(layer, support)

    def _remember(self, name: str, density: float, fastest: str, seconds: dict[str, float]) -> None:
        times = " and ".join(f"{way} {1e3 * t:.2g} ms" for way, t in seconds.items())
        self.reasons[name] = f"{fastest}: at density {density:.2g} {times}"
        self.fastest[name] = (density, fastest)


def _constants(
    layer: Layer,
    reg: Regularizer,
    before: Way | None,
    between: Sequence[nn.Module],
    kind: type[Way],
) -> Constants | None:
    """What comes of dead rows in front, if both ways are of one kind and those weights can rest.

    Not with a regularizer of more than the norms of rows: what rests has to tell all that it needs.
    """
    if type(before) is not kind or before.dead is None or not len(before.dead):
        return None
    if not isinstance(reg, GroupL12 | Zero):
        return None
    before.steady = True
    return constants(layer, before.layer, before.dead, between)


def _trained(rows: Tensor, met: Constants | None) -> RestingGrid | None:
    return None if met is None else RestingGrid(rows, met.live, met.met)


def _all_rows(weight: Tensor) -> Tensor:
    return torch.arange(len(weight), device=weight.device)
