"""What rests, what is trained, and which way a layer computes while its support is frozen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bregman.multilevel.chains import Constants, Layer
from bregman.multilevel.gathered import Gathered
from bregman.multilevel.supports import (
    Entries,
    Grid,
    RestingGrid,
    Support,
    missing,
    nonzero_blocks,
    nonzero_entries,
)
from bregman.multilevel.ways import Csr, Masked, Timed, Way
from bregman.regularizers import Regularizer, Zero

PATHS = ("auto", "timed", "masked", "csr", "gathered")
# "auto" takes sparse products for weights of that many entries, up to that density: there they are
# faster in benchmarks/paths_1.csv, whatever the batch
CSR_ENTRIES, CSR_DENSITY = 500_000, 0.2


@dataclass(frozen=True)
class Front:
    """The layer in front of another one, where the two are linked and its biases may rest.

    Attributes:
        layer: the layer.
        way: its way.
        between: the modules between the two.
    """

    layer: Layer
    way: Way
    between: Sequence[nn.Module]


class Choice:
    """Chooses a way for each layer, and remembers which and why.

    What is trained does not depend on it: that follows from weights and regularizers alone.

    Args:
        path: as of ``Multilevel``.

    Attributes:
        reasons: by the layer's name, the way and why it is this one.
        timed: by the layer's name, the density at which csr and masked were timed and the winner.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        self.timed: dict[str, tuple[float, str]] = {}

    def __call__(
        self,
        name: str,
        layer: Layer,
        group: dict[str, Any],
        v: Tensor,
        front: Front | None = None,
        given: Support | None = None,
    ) -> Way | None:
        """The way of a layer, None if all of its weight is to be trained in every step.

        Args:
            name: of the layer.
            layer: has its whole weight.
            group: the optimizer's, of this weight.
            v: of this weight.
            front: the layer in front, if any.
            given: what was trained in the cycle so far, to go on with it.
        """
        weight, reg = layer.weight.detach(), group["reg"]
        decays = bool(group.get("weight_decay"))
        dims = blocks(reg, weight.dim())
        beside = None if dims is None else set(range(weight.dim())) - set(dims)
        if beside in ({0}, {1}) and getattr(layer, "groups", 1) == 1:
            assert dims is not None
            if beside == {1}:
                columns = given.columns if isinstance(given, Grid) else _left(weight, dims)
                return self._of_grid(name, layer, reg, Grid(_all_rows(weight), columns))
            rows = given.rows if isinstance(given, Grid | RestingGrid) else _left(weight, dims)
            # what rests would decay
            met = None if decays else self._constants(layer, reg, front)
            trained = given if isinstance(given, RestingGrid) else None
            if met is not None and trained is None:
                trained = RestingGrid.of(v, rows, met.live, met.met)
            return self._of_grid(name, layer, reg, Grid(rows), met, trained, front)
        if dims is None:
            met = self._constants(layer, reg, front)
            if met is not None:
                rows = _all_rows(weight)
                moving = Grid(rows, met.live)
                return self._of_grid(name, layer, reg, Grid(rows), met, moving, front)
            self.reasons[name] = "dense: no regularizer"
            return None
        support = given if isinstance(given, Entries) else nonzero_entries(weight, dims)
        return self._of_entries(name, layer, reg, support, front, single=not dims)

    def _constants(self, layer: Layer, reg: Regularizer, front: Front | None) -> Constants | None:
        """What comes of dead rows in front, if those weights can rest."""
        if front is None or front.way.dead is None or not len(front.way.dead):
            return None
        if not isinstance(reg, Zero) and reg.norm_weight(1) is None:
            return None
        front.way.steady = True
        n_in = layer.weight.shape[1]
        return Constants.behind(front.layer, front.way.dead, front.between, n_in)

    def _of_grid(
        self,
        name: str,
        layer: Layer,
        reg: Regularizer,
        support: Grid,
        met: Constants | None = None,
        trained: Grid | RestingGrid | None = None,
        front: Front | None = None,
    ) -> Way:
        inputs = ": its inputs" if isinstance(reg, Zero) else ""
        if self.path in ("auto", "timed", "gathered"):
            self.reasons[name] = f"gathered{inputs}"
            way: Way = Gathered(layer.weight, support, met, trained)
            if met is not None and front is not None and isinstance(front.way, Gathered):
                front.way.modules = (front.layer, *front.between, layer)
            return way
        self._masked(name, layer, reg)
        self.reasons[name] += inputs
        way = Masked(layer.weight, support, trained)
        if support.columns is None:
            way.dead = missing(support.rows, len(layer.weight))
        return way

    def _of_entries(
        self,
        name: str,
        layer: Layer,
        reg: Regularizer,
        support: Entries,
        front: Front | None,
        single: bool,
    ) -> Way:
        weight = layer.weight
        fits = isinstance(layer, nn.Linear) and single and weight.is_cpu
        if self.path in ("masked", "gathered") or not (
            fits and weight.dtype in (torch.float32, torch.float64)
        ):
            self._masked(name, layer, reg)
            return Masked(weight, support)
        density = support.index.numel() / max(weight.numel(), 1)
        if self.path == "timed":
            known, fastest = self.timed.get(name, (math.inf, ""))
            if not known / 2 <= density <= 2 * known:
                ways = {"csr": Csr(weight, support), "masked": Masked(weight, support)}
                return Timed(ways, partial(self._remember, name, density))
            self.reasons.setdefault(name, fastest)
            sparse = fastest == "csr"
        else:
            pays = density <= CSR_DENSITY and weight.numel() >= CSR_ENTRIES
            sparse = self.path == "csr" or pays
            why = f"csr pays from {CSR_ENTRIES:,} entries on, up to a density of {CSR_DENSITY:g}"
            self.reasons[name] = "csr" if sparse else f"masked: {why}"
        if sparse:
            return Csr(weight, support, None if front is None else front.way)
        return Masked(weight, support)

    def _masked(self, name: str, layer: Layer, reg: Regularizer) -> None:
        self.reasons[name] = "masked"
        if self.path != "masked":
            self.reasons[name] += f": {self.path} has nothing for {type(layer).__name__} and {reg}"

    def _remember(self, name: str, density: float, fastest: str, seconds: dict[str, float]) -> None:
        times = " and ".join(f"{way} {1e3 * t:.2g} ms" for way, t in seconds.items())
        self.reasons[name] = f"{fastest}: at density {density:.2g} {times}"
        self.timed[name] = (density, fastest)


def blocks(reg: Regularizer, ndim: int) -> tuple[int, ...] | None:
    """The dimensions that make up one block of a regularizer, None if J = 0.

    Raises:
        ValueError: J is no sum over blocks.
    """
    dims = reg.blocks(ndim)
    if dims is None and not isinstance(reg, Zero):
        raise ValueError(
            "reg must be a sum over blocks of the weight, so that a support can be frozen (one "
            f"whose method blocks tells them, such as L1 and GroupL12), or Zero, got {reg}"
        )
    return dims


def _left(weight: Tensor, dims: tuple[int, ...]) -> Tensor:
    return nonzero_blocks(weight, dims).flatten().nonzero().flatten()


def _all_rows(weight: Tensor) -> Tensor:
    return torch.arange(len(weight), device=weight.device)
