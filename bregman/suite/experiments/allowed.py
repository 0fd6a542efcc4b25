"""What the fields of a config may be: their annotation, with a range where there is one."""

import math
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a word",
          type(None): "None"}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Which numbers are allowed.

    Attributes:
        low: the smallest.
        high: the largest.
        above: the smallest itself is not allowed.
    """

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number is allowed."""
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        """In words."""
        if self.above:
            return f"above {self.low}" + ("" if self.high == math.inf else f", up to {self.high}")
        return (
            f"at least {self.low}" if self.high == math.inf else f"from {self.low} to {self.high}"
        )


# torch takes no larger seeds
LARGEST_SEED = 2**63 - 1

Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, LARGEST_SEED)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1, above=True)]


def check(name: str, value: Any, meant: Any) -> None:
    """Hold a value to an annotation; unlike Python, True is no number.

    Args:
        name: of the argument, for the message.
        value: what was given.
        meant: a type, one with a ``Range``, or a union of such.

    Raises:
        ValueError: it is of another type, or out of range.
    """
    union = typing.get_origin(meant) in (typing.Union, types.UnionType)
    kinds, ranges = [], []
    for option in typing.get_args(meant) if union else (meant,):
        kind, *rules = typing.get_args(option) if hasattr(option, "__metadata__") else (option,)
        kinds.append(kind)
        if _is(value, kind):
            if all(rule.holds(value) for rule in rules):
                return
            ranges += rules
    words = [_WORDS[kind] for kind in kinds]
    if ranges:
        words = [str(ranges[0]), *(["None"] if type(None) in kinds else [])]
    raise ValueError(f"{name} must be {' or '.join(words)}, got {value!r}")


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        number = isinstance(value, int | kind) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind)


def check_fields(config: Any) -> None:
    """Hold all fields of a dataclass to their annotations.

    Raises:
        ValueError: one is of another type, or out of range.
    """
    for name, meant in _annotations(config.__class__).items():
        check(name, getattr(config, name), meant)


@cache
def _annotations(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)
