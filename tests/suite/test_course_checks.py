"""The checks of the exercises: further answers that are wrong, each with its own verdict."""

import numpy as np
import pytest
import torch

from bregman.suite.course import NotDoneError, ask, confirm, demand, exercise, same
from bregman.suite.course import convex_toy_problems as second
from bregman.suite.course import inverse_scale_space as first


def two_sides(x, up, down):
    return (x - up).clamp(min=0) - (-x - down).clamp(min=0)


def ista_from(theta0, grad, lam, delta, tau, steps):
    theta = theta0
    for _ in range(steps):
        x = theta - tau * grad(theta)
        theta = x.sign() * (x.abs() - tau * lam).clamp(min=0)
    return theta


def linbreg_without_delta(theta0, grad, lam, delta, tau, steps):
    theta, v = theta0, lam * theta0.sign() + theta0 / delta
    for _ in range(steps):
        v = v - tau * grad(theta)
        theta = v.sign() * (v.abs() - lam).clamp(min=0)
    return theta


def shrink(x, lam):
    return x.sign() * (x.abs() - lam).clamp(min=0)


CASES = {
    "one threshold": (first.check_shrinkage, [lambda x, up, down: two_sides(x, up, up)],
                      "must move up by down, not by up"),
    "too little to zero": (first.check_shrinkage, [lambda x, up, down: two_sides(x, 0.2, down)],
                           "from -down to up every x"),
    "thresholds exchanged": (first.check_shrinkage, [lambda x, up, down: two_sides(x, down, up)],
                             "✗ "),
    "jump at the threshold": (first.check_shrinkage,
                              [lambda x, up, down: x * ((x > up) | (x < -down))],
                              "a positive x beyond up must move down by up"),
    "shape": (first.check_shrinkage, [lambda x, up, down: x[:3]], "shape of x"),
    "argument changed": (first.check_shrinkage, [lambda x, up, down: x.zero_()], "work on a copy"),
    "error": (first.check_shrinkage, [lambda x, up, down: x.nosuch], "your code raises Attribute"),
    "ISTA": (first.check_linbreg, [ista_from], "this is a step of ISTA"),
    "no delta": (first.check_linbreg, [linbreg_without_delta], "the first step is wrong"),
    "concave": (first.check_own_regularizer, [lambda x: x.abs().sqrt(), shrink], "not convex"),
    "not zero at zero": (first.check_own_regularizer, [lambda x: x.abs() + 1, shrink],
                         "J must be 0 at 0"),
    "a number": (first.check_own_regularizer, [lambda x: x.abs().sum(), shrink], "entry by entry"),
    "the last": (second.check_stop, [lambda losses, sigma: len(losses) - 1], "fitted the noise"),
    "no half": (second.check_stop, [lambda losses, sigma: int(np.argmax(losses <= sigma**2))],
                "is at index 2, not 1"),
    "no square": (second.check_stop, [lambda losses, sigma: int(np.argmax(losses <= sigma / 2))],
                  "the level is 0.125"),
    "entries": (second.check_group_shrink, [lambda x, lam, groups: shrink(x, lam)],
                "shrinks every entry alone"),
    "0 / 0": (second.check_group_shrink,
              [lambda x, lam, groups: torch.cat([
                  x[g] / x[g].norm() * (x[g].norm() - lam * len(g) ** 0.5).clamp(min=0)
                  for g in groups])],
              "mind 0 / 0"),
    "starts late": (second.check_nonnegative_flow,
                    [lambda A, y, lam: (np.array([1.0]), np.zeros((1, 15)))], "starts at time 0"),
    "stops early": (second.check_nonnegative_flow,
                    [lambda A, y, lam: (np.zeros(1), np.zeros((1, 15)))], "stops too early"),
    "no flow": (second.check_nonnegative_flow,
                [lambda A, y, lam: (np.array([0, 0.1]), np.eye(2, 15, k=-1))], "no subgradient"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_answer_is_told_what_is_wrong(name, capsys):
    check, answers, fault = CASES[name]
    check(*answers)
    said = capsys.readouterr().out
    assert said.startswith("✗ ")
    assert fault in said


def test_right_answers_are_taken(capsys):
    first.check_shrinkage(two_sides)
    first.check_own_regularizer(
        lambda x: x.abs() + torch.where(x < 0, torch.inf, 0.0),
        lambda x, step: (x - step).clamp(min=0),
    )
    second.check_stop(lambda losses, sigma: int(np.argmax(losses <= sigma**2 / 2)))
    second.check_nonnegative_flow(lambda A, y, lam: ...)
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✓", "✓", "✓", "…"]


def test_findings_are_confirmed_or_named(capsys):
    confirm({"one is one": 1 == 1, "so is a tensor": torch.tensor(True)})
    assert capsys.readouterr().out == "✓ one is one\n✓ so is a tensor\n"
    with pytest.raises(AssertionError, match="does not hold: two is three; nor five"):
        confirm({"fine": True, "two is three": False, "nor five": np.bool_(False)})


def test_what_checks_are_made_of(capsys):
    @exercise
    def check(answer):
        demand(same(ask(answer, 2), 4), "2 must become 4")
        return "doubled"

    check(lambda x: 2 * x)
    check(lambda x: x + 1)
    check(lambda x: ...)
    assert capsys.readouterr().out == "✓ doubled\n✗ 2 must become 4\n… not yet done\n"
    with pytest.raises(NotDoneError):
        ask(lambda: None)
    assert not same([1.0], [1.0, 1.0])
