"""An inequality term by term: whether it holds, where that says something, how tight it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

# a step counts as evidence where its largest term is this many times the tolerance
_COUNTED = 1e3


@dataclass(frozen=True, eq=False)
class Bound:
    """An inequality between two sums of terms, step by step.

    Args:
        left: by name, (K,), the terms of the side that the theorem bounds.
        right: by name, (K,), the terms of its bound.
        constants: the constants that enter, by name.
    """

    left: Mapping[str, Tensor]
    right: Mapping[str, Tensor]
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def lhs(self) -> Tensor:
        """(K,), the sum of the left terms."""
        return torch.stack([*self.left.values()]).sum(0)

    @property
    def rhs(self) -> Tensor:
        """(K,), the sum of the right terms."""
        return torch.stack([*self.right.values()]).sum(0)

    @property
    def slack(self) -> Tensor:
        """(K,), rhs - lhs: negative where the inequality fails."""
        return self.rhs - self.lhs

    def counts(self, tol: float = 1e-12) -> Tensor:
        """(K,), whether the terms of a step are far enough above rounding to say something."""
        sizes = self._sizes()
        return sizes > _COUNTED * tol * sizes.max()

    def violated(self, tol: float = 1e-12) -> Tensor:
        """(K,), whether lhs > rhs, beyond rounding relative to the largest term of all steps."""
        # so that NaN is a violation
        return ~(self.slack >= -tol * self._sizes().max())

    def holds(self, tol: float = 1e-12) -> bool:
        """Whether lhs <= rhs at every step, and at least one step counts."""
        return not bool(self.violated(tol).any()) and bool(self.counts(tol).any())

    def room(self, term: str) -> float:
        """By what factor a term may be wrong before the inequality fails at a step that counts.

        A positive left term may be up to that many times larger (a factor >= 1), a positive right
        term may shrink down to that part of itself (<= 1; negative if it isn't needed at all). For
        negative terms it is the other way round.

        Raises:
            ValueError: there is no such term, or it is zero at all steps that count.
        """
        if term not in (allowed := {**self.left, **self.right}):
            raise ValueError(f"term must be one of {sorted(allowed)}, got {term!r}")
        cost = self.left[term] if term in self.left else -self.right[term]
        chosen = self.counts() & (cost != 0)
        if not bool(chosen.any()):
            raise ValueError(f"term {term!r} is zero at all steps that count")
        ratio = self.slack[chosen] / cost[chosen]
        costs = bool(cost[chosen].sum() > 0)
        return 1 + float(ratio.min() if costs else ratio.max())

    def scaled(self, term: str, factor: float) -> "Bound":
        """The inequality with one term multiplied by a factor.

        Raises:
            ValueError: there is no such term.
        """
        self.room(term)
        left, right = (
            {name: values * (factor if name == term else 1) for name, values in side.items()}
            for side in (self.left, self.right)
        )
        return Bound(left, right, self.constants)

    def _sizes(self) -> Tensor:
        return torch.stack([*self.left.values(), *self.right.values()]).abs().amax(0)
