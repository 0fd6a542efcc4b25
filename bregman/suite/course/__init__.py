"""What the teaching notebooks share: findings that are confirmed, exercises that are checked.

One module per notebook, named as it, holds the checks of its exercises.
"""

import copy
import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import bregman
from bregman.suite.paths import replacing, results_dir

_PACKAGE = Path(bregman.__file__).parent


class NotDoneError(Exception):
    """The starter cell of an exercise is as it was."""


class FaultError(Exception):
    """What is wrong with an answer, in one sentence."""


def confirm(findings: Mapping[str, Any]) -> None:
    """Print a ledger of findings, each of which must hold.

    Args:
        findings: from a statement to whether it holds.

    Raises:
        AssertionError: a finding does not hold; the message names all that do not.
    """
    wrong = [statement for statement, holds in findings.items() if not bool(holds)]
    assert not wrong, "does not hold: " + "; ".join(wrong)
    print("\n".join(f"✓ {statement}" for statement in findings))


def keep(table: pd.DataFrame, notebook: str, scale: str, seed: int) -> None:
    """Store what a notebook checked, for the verdicts: ``checked_seed<seed>.csv``.

    Args:
        table: its index says what was checked.
        notebook: its name without the number.
        scale: at which it runs.
        seed: of all that it draws.
    """
    with replacing(results_dir() / scale / notebook / f"checked_seed{seed}.csv") as temporary:
        table.to_csv(temporary, float_format="%.4g")


def exercise(check: Callable[..., str]) -> Callable[..., None]:
    """Turn a check into one that prints its verdict and never raises.

    Args:
        check: takes a student's functions; returns a sentence of praise, or raises ``FaultError``.
    """

    @functools.wraps(check)
    def verdict(*answers: Any, **named: Any) -> None:
        try:
            print(f"✓ {check(*answers, **named)}")
        except NotDoneError:
            print("… not yet done")
        except FaultError as fault:
            print(f"✗ {fault}")
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if _PACKAGE not in Path(frame.filename).parents]
            if own:
                print(f"✗ your code raises {what} (in {own[0].line or own[0].name!r})")
            else:
                print(f"✗ this answer cannot be checked: {what}")

    return verdict


def ask(answer: Callable[..., Any], *args: Any) -> Tensor:
    """What a student's function answers, as a tensor of its own precision that needs no gradient.

    Args:
        answer: the function; it may return a tensor, an array, a number or lists of them.
        args: of the function, which gets copies of them.

    Raises:
        NotDoneError: it answers nothing yet.
        FaultError: it is no function of these arguments, changes them or returns no numbers.
    """
    return _tensor(_call(answer, args))


def ask_two(wanted: str, answer: Callable[..., Any], *args: Any) -> tuple[Tensor, Tensor]:
    """What a student's function answers, if two things are asked for; as ``ask``.

    Args:
        wanted: what is said if there are not two.
        answer: the function.
        args: of the function.
    """
    result = _call(answer, args)
    try:
        first, second = result
    except (TypeError, ValueError):
        raise FaultError(wanted) from None
    return _tensor(first), _tensor(second)


def _call(answer: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    demand(callable(answer), f"a function is asked for, not {answer!r}")
    given = copy.deepcopy(args)
    try:
        inspect.signature(answer).bind(*given)
    except TypeError as error:
        raise FaultError(f"your function is called with {len(args)} arguments: {error}") from None
    except ValueError:
        pass  # written in C: its signature is not known
    result = answer(*given)
    if result is None or result is Ellipsis:
        raise NotDoneError
    demand(_unchanged(args, given), "your function changes its argument: work on a copy")
    return result


def _unchanged(before: Any, after: Any) -> bool:
    """Whether two arguments have equal numbers; functions and generators have none."""
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return not isinstance(before, int | float) or before == after


def _tensor(given: Any) -> Tensor:
    try:
        if isinstance(given, list | tuple) and given:
            result = torch.stack([_tensor(part) for part in given])
        else:
            tensor = given if isinstance(given, Tensor) else torch.as_tensor(np.array(given))
            result = tensor.detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError):
        kind = type(given).__name__
        raise FaultError(f"return a tensor or array of numbers, not this {kind}") from None
    demand(not result.is_complex(), "return real numbers, not complex ones")
    return result


def demand(holds: Any, fault: str) -> None:
    """Raise ``FaultError`` with a sentence unless something holds."""
    if not bool(holds):
        raise FaultError(fault)


def precision(x: Tensor) -> float:
    """How far numbers of the size of 1 may be off that were computed in the precision of x."""
    return max(1e-9, 32 * torch.finfo(x.dtype).eps) if x.is_floating_point() else 1e-9


def same(x: Any, y: Any, tol: float | None = None) -> bool:
    """Whether two arrays have one shape and are equal to within tol, the ``precision`` of x."""
    x, y = _tensor(x), _tensor(y)
    tol = precision(x) if tol is None else tol
    return x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=0, atol=tol)
