"""How an argument is refused: by its name, with what is allowed and what it is."""

from typing import Any


def check(holds: bool, name: str, allowed: str, value: Any) -> None:
    """Raise ValueError unless an argument is what is allowed.

    Args:
        holds: whether it is.
        name: of the argument.
        allowed: in words, what it must be.
        value: what it is.
    """
    if not holds:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
