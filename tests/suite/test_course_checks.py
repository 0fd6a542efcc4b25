"""The checks of the exercises: further answers that are wrong, each with its own verdict."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from bregman import L1
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


def linbreg(theta0, grad, lam, delta, tau, steps):
    theta, v = theta0, lam * theta0.sign() + theta0 / delta
    for _ in range(steps):
        v = v - tau * grad(theta)
        theta = delta * shrink(v, lam)
    return theta


def groups_of(x, lam, groups, dtype=torch.float64):
    z = torch.zeros(len(x), dtype=dtype)
    for g in groups:
        norm, level = x[g].norm(), lam * len(g) ** 0.5
        if norm > level:
            z[g] = ((1 - level / norm) * x[g]).to(dtype)
    return z


def stop(losses, sigma):
    return int(np.argmax(losses <= sigma**2 / 2))


def overwritten(losses, sigma):
    losses[:] = 0
    return 2 if sigma == 1 else 6


def moved(losses, sigma):
    losses -= sigma**2 / 2
    return int(np.argmax(losses <= 0))


def lost(array):
    array *= 0
    return np.zeros(1), np.zeros((1, 15))


def flow(A, y, lam):
    theta, p, t, events = np.zeros(A.shape[1]), np.zeros(A.shape[1]), 0.0, []
    while True:
        events.append((t, theta))
        speed = A.T @ (y - A @ theta) / len(y)
        speed[(theta != 0) | (np.abs(speed) < 1e-10)] = 0
        up = speed > 0
        if not up.any():
            return [np.array(x) for x in zip(*events, strict=True)]
        wait = ((lam - p)[up] / speed[up]).min()
        t, p = t + wait, np.minimum(p + wait * speed, lam)
        door = p > lam * (1 - 1e-9)
        theta = door * nnls(A * door, y)[0]


def overshooting(A, y, lam, by):
    """The flow, its last theta further away from zero than the best fit on its support."""
    times, thetas = flow(A, y, lam)
    support = thetas[-1] > 0
    gram = A[:, support].T @ A[:, support]
    thetas[-1][support] += by * np.linalg.solve(gram, np.ones(len(gram))) * len(y)
    return times, thetas


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
    "thresholds fixed": (first.check_shrinkage, [lambda x, up, down: two_sides(x, 1.05, 0.55)],
                         "(up = 0.35, down = 1.25)"),
    "down is half of up": (first.check_shrinkage, [lambda x, up, down: two_sides(x, up, up / 2)],
                           "✗ "),
    "delta fixed": (first.check_linbreg, [lambda *args: linbreg(*args[:3], 2.0, *args[4:])],
                    "delta = 0.6"),
    "lam fixed": (first.check_linbreg, [lambda *args: linbreg(*args[:2], 0.4, *args[3:])],
                  "lam = 0.7"),
    "tau fixed": (first.check_linbreg, [lambda *args: linbreg(*args[:4], 0.1, args[5])],
                  "tau = 0.2"),
    "two intervals": (first.check_own_regularizer,
                      [lambda x: torch.where((x.abs() <= 1) | (x >= 2), 0.0, torch.inf),
                       lambda x, step: torch.where(x >= 1.5, x.clamp(min=2), x.clamp(-1, 1))],
                      "J is not convex: it is finite at 1 and 2, but not between"),
    "the integers": (first.check_own_regularizer,
                     [lambda x: torch.where(x == x.round(), 0.0, torch.inf),
                      lambda x, step: x.round()],
                     "J is not convex: it is finite at -6 and -5, but not between"),
    "slightly concave": (first.check_own_regularizer,
                         [lambda x: x.abs() - 1e-5 * x.square(), shrink], "not convex"),
    "nan": (first.check_own_regularizer, [lambda x: x / x, shrink], "not a number"),
    "group lam fixed": (second.check_group_shrink,
                        [lambda x, lam, groups: groups_of(x, 1.1, groups)], "lam = 0.6"),
    "no integer": (second.check_stop, [lambda losses, sigma: stop(losses, sigma) + 0.9],
                   "an index is an integer, not 2.9"),
    "two numbers": (second.check_stop, [lambda losses, sigma: [2, 2]], "one index is asked for"),
    "losses lost": (second.check_stop, [lambda losses, sigma: overwritten(losses, sigma)],
                    "work on a copy"),
    "losses moved": (second.check_stop, [lambda losses, sigma: moved(losses, sigma)],
                     "work on a copy"),
    "groups lost": (second.check_group_shrink,
                    [lambda x, lam, groups: (groups_of(x, lam, groups), groups[0].pop())[0]],
                    "work on a copy"),
    "data lost": (second.check_nonnegative_flow, [lambda A, y, lam: lost(y)], "work on a copy"),
    "matrix lost": (second.check_nonnegative_flow, [lambda A, y, lam: lost(A)], "work on a copy"),
    "right but y is gone": (second.check_nonnegative_flow,
                            [lambda A, y, lam: (flow(A, y, lam), lost(y))[0]], "work on a copy"),
    "flow's lam fixed": (second.check_nonnegative_flow, [lambda A, y, lam: flow(A, y, 0.5)],
                         "(lam = 1.3)"),
    "a number for a flow": (second.check_nonnegative_flow, [lambda A, y, lam: 3],
                            "return two things"),
    "no function": (second.check_nonnegative_flow, [3], "a function is asked for, not 3"),
    "other arguments": (second.check_nonnegative_flow, [lambda A: A], "called with 3 arguments"),
    "a text": (first.check_shrinkage, [lambda x, up, down: "x"], "not this str"),
    "ragged": (first.check_shrinkage, [lambda x, up, down: [x, x[:1]]], "not this list"),
    "complex": (first.check_shrinkage, [lambda x, up, down: x + 1j], "real numbers"),
    "error in the package": (first.check_shrinkage,
                             [lambda x, up, down: L1(-1.0).prox(x, up)],
                             "L1(-1.0).prox(x, up)"),
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


@pytest.mark.parametrize("by", [0.001, 0.03, 0.5])
def test_a_flow_does_not_end_beyond_the_best_fit(by, capsys):
    second.check_nonnegative_flow(lambda A, y, lam: overshooting(A, y, lam, by))
    assert "not the best fit where it is positive" in capsys.readouterr().out
    second.check_nonnegative_flow(flow)
    assert capsys.readouterr().out.startswith("✓")


def in_float32(x):
    z = torch.zeros(len(x), dtype=torch.float32)
    for i in range(len(x)):
        z[i] = x[i]
    return z


FORMS = {
    "float32": in_float32,
    "numpy": lambda z: z.detach().numpy(),
    "list": lambda z: z.tolist(),
    "list of tensors": list,
    "grad": lambda z: z.clone().requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_right_answer_is_taken_in_every_form(form, capsys):
    as_form = FORMS[form]
    first.check_shrinkage(lambda x, up, down: as_form(two_sides(x, up, down)))
    first.check_linbreg(lambda *args: as_form(linbreg(*args)))
    first.check_own_regularizer(
        lambda x: as_form(x.abs() + x.square()),
        lambda x, step: as_form(shrink(x, step) / (1 + 2 * step)),
    )
    second.check_group_shrink(lambda x, lam, groups: as_form(groups_of(x, lam, groups)))
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✓"] * 4


@pytest.mark.parametrize("height", [1e-7, 1.0, 1e7])
def test_convexity_does_not_depend_on_the_height(height, capsys):
    first.check_own_regularizer(lambda x: height * x.abs(), lambda x, s: shrink(x, height * s))
    assert capsys.readouterr().out.startswith("✓")
    first.check_own_regularizer(lambda x: height * x.abs().sqrt(), shrink)
    assert "not convex" in capsys.readouterr().out


def test_own_regularizers_that_are_convex_are_taken(capsys):
    first.check_own_regularizer(
        lambda x: torch.where(x.abs() <= 1, 0.0, torch.inf), lambda x, step: x.clamp(-1, 1)
    )
    first.check_own_regularizer(
        lambda x: torch.where(x == 0, 0.0, torch.inf), lambda x, step: 0 * x
    )
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["✓", "✓"]


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.array, torch.tensor])
def test_every_integer_is_an_index(kind, capsys):
    second.check_stop(lambda losses, sigma: kind(stop(losses, sigma)))
    assert capsys.readouterr().out.startswith("✓")


def test_an_exercise_never_raises_and_does_not_blame_the_student_for_its_own_lines(
    capsys, monkeypatch
):
    first.check_shrinkage(shrink=two_sides)
    assert capsys.readouterr().out.startswith("✓")
    for call in (first.check_shrinkage, lambda: first.check_shrinkage(nosuch=two_sides)):
        call()
        said = capsys.readouterr().out
        assert said.startswith("✗ this answer cannot be checked: TypeError")

    first.check_shrinkage(lambda x, up, down: 1 // 0)
    said = capsys.readouterr().out
    assert said.startswith("✗ your code raises ZeroDivisionError")
    assert "1 // 0" in said
    monkeypatch.setattr(first, "same", None)  # a fault in the check
    first.check_shrinkage(two_sides)
    assert capsys.readouterr().out.startswith("✗ this answer cannot be checked: TypeError")


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
