"""What the teaching notebooks share: findings that are confirmed, exercises that are checked.

One module per notebook, named as it, holds the checks of its exercises.
"""

import functools
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from bregman.suite.paths import replacing, results_dir


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
    def verdict(*answers: Any) -> None:
        try:
            print(f"✓ {check(*answers)}")
        except NotDoneError:
            print("… not yet done")
        except FaultError as fault:
            print(f"✗ {fault}")
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            print(f"✗ your code raises {type(error).__name__}: {error} (in {frame.line!r})")

    return verdict


def ask(answer: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a student's function answers.

    Raises:
        NotDoneError: it answers nothing yet.
        FaultError: it changes its arguments.
    """
    kept = [x.clone() if isinstance(x, torch.Tensor) else x for x in args]
    result = answer(*args, **kwargs)
    if result is None or result is Ellipsis:
        raise NotDoneError
    for before, after in zip(kept, args, strict=True):
        if isinstance(after, torch.Tensor) and not torch.equal(before, after):
            raise FaultError("your function changes its argument: work on a copy")
    return result


def demand(holds: Any, fault: str) -> None:
    """Raise ``FaultError`` with a sentence unless something holds."""
    if not bool(holds):
        raise FaultError(fault)


def same(x: Any, y: Any, tol: float = 1e-9) -> bool:
    """Whether two arrays have one shape and are equal to within tol."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=0, atol=tol))
