"""Figures of groups, rank, noise and classification."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bregman.suite.convex import ExactFlow, Path
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.convex_toy_problems.trajectories import (
    COLORS,
    LASSO,
    LINBREG,
    TIME,
    TRUTH,
    Numbers,
    clock,
    draw_coefficients,
    draw_lines,
    thin_legend,
)
from bregman.suite.plots.style import BLACK, GRAY

DOTTED: draw.Look = {"color": TRUTH, "ls": ":", "lw": 1.6}
STOP: draw.Look = {"color": GRAY, "ls": "--", "label": "discrepancy: stop"}


def random_groups(sizes: Sequence[int], norms: Sequence[Tensor]) -> Figure:
    """Norms of random gradients of groups of different sizes, before and after weighting.

    Args:
        sizes: the numbers n_g of entries.
        norms: for each size, the norms of random gradients.

    Returns:
        Two panels.
    """
    with draw.panels(1, 2, 2.6, minor=False) as (fig, [[left, right]]):
        for n, values in zip(sizes, norms, strict=True):
            for ax, shown in ((left, values), (right, values / n**0.5)):
                ax.plot([n] * len(shown), shown, ".", color=LINBREG, ms=3, alpha=0.4)
        left.plot(sizes, [n**0.5 for n in sizes], color=BLACK, ls="--", label=r"$\sqrt{n_g}$")
        right.axhline(1, color=BLACK, ls="--", label="threshold with the weight")
        left.axhline(1, color=GRAY, ls=":", label="threshold without it")
        axis: draw.Look = {"xscale": "log", "xlabel": "entries of the group $n_g$"}
        draw.frame(left, "norm of a random gradient", key="upper left", log="y",
                   ylim=(2e-3, 1e3), **axis)  # fmt: skip
        draw.frame(right, r"divided by $\sqrt{n_g}$", key="upper right", ylim=(0, 3.2), **axis)
        for ax in (left, right):
            ax.set_xticks(sizes, map(str, sizes))
    return fig


def matrices(values: Mapping[str, Tensor], limit: float = 3.0) -> Figure:
    """Matrices side by side, on one colour scale; an entry that is exactly zero is hatched.

    Args:
        values: from a title to a matrix; all of one shape.
        limit: the colours reach from -limit to limit.

    Returns:
        One panel per matrix, and a colour bar.
    """
    rows, cols = next(iter(values.values())).shape
    width = 7.2 / (len(values) + 0.3)
    with draw.panels(1, len(values), min(3.2, width * rows / cols + 0.5)) as (fig, axes):
        for ax, (title, value) in zip(axes.flat, values.items(), strict=True):
            # crosses, so that exact zeros are told from small numbers
            ax.set_facecolor("white")
            ax.patch.set(hatch="xxxx", edgecolor="#C4C4C4", linewidth=0)
            shown = np.ma.masked_equal(value.numpy(), 0.0)
            picture = ax.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
            ax.set(title=title, xticks=(), yticks=())
            ax.grid(False)
            ax.spines[:].set(edgecolor="#888888", linewidth=0.8)
        fig.colorbar(picture, ax=axes, shrink=0.9, pad=0.02)
    return fig


def singular_values(path: Path, truth: Tensor, *, top: float, span: tuple[float, float]) -> Figure:
    """The singular values of the iterates over time.

    Args:
        path: LinBreg with one step size, theta a matrix.
        truth: the matrix to be found; its singular values are drawn as dotted lines.
        top: where the axis of singular values ends.
        span: the limits of the axis of time.

    Returns:
        One panel.
    """
    with draw.panels(1, 1, 2.6, 5) as (fig, [[ax]]):
        for k, value in enumerate(x for x in torch.linalg.svdvals(truth) if x > 1e-10):
            ax.axhline(float(value), label=None if k else "truth", **DOTTED)
        values = torch.linalg.svdvals(path.theta)
        draw_lines(ax, clock(path), values, LINBREG, "LinBreg, nuclear norm")
        draw.frame(ax, x=TIME, y="singular values", log="x", xlim=span, ylim=(-0.03 * top, top))
        thin_legend(ax)
    return fig


def stopping_rules(errors: Mapping[str, Sequence[float]]) -> Figure:
    """How far several rules end from the truth, over many draws.

    Args:
        errors: from the name of a rule to its errors, one per draw.

    Returns:
        One row per rule: each draw a dot, the median a bar.
    """
    with draw.panels(1, 1, 0.45 * len(errors) + 0.9) as (fig, [[ax]]):
        for row, (name, values) in enumerate(errors.items()):
            color = LASSO if "Lasso" in name else LINBREG
            ax.plot(values, [row] * len(values), "o", color=color, ms=4, alpha=0.45)
            ax.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=color, lw=2.5)
        ax.set_yticks(range(len(errors)), [*errors])
        draw.frame(ax, x=r"error $\|\theta - \theta_{\mathrm{true}}\|$, a bar is the median",
                   ylim=(len(errors) - 0.5, -0.5), xlim=(0, None))  # fmt: skip
    return fig


def early_stopping(
    flow: ExactFlow, path: Path, truth: Tensor, noise_loss: float, stop: int, lasso_error: float
) -> Figure:
    """Error and loss over time under noise, and where the discrepancy principle stops.

    Args:
        flow: the exact flow.
        path: LinBreg with one step size.
        truth: (n,).
        noise_loss: the loss that the noise alone leaves.
        stop: the index of the flow's event at which to stop.
        lasso_error: the least error on the Lasso path.

    Returns:
        Two panels over time.
    """
    times, first = clock(path), float(flow.times[1])
    end = float(times[-1])
    fine = torch.cat([first * torch.tensor([0.3]), flow.times[1:].clamp(max=end)])
    states = flow.theta_at(fine)
    losses = torch.stack([path.problem.f(theta) for theta in states])
    with draw.panels(1, 2, 2.8, sharex=True) as (fig, [[left, right]]):
        for ax, exact, iterated in (
            (left, (states - truth).norm(dim=1), (path.theta - truth).norm(dim=1)),
            (right, losses, path.losses),
        ):
            ax.axvline(float(flow.times[stop]), **STOP)
            ax.plot(times[1:], iterated[1:], color=LINBREG, lw=1.6, label="LinBreg")
            ax.step(fine, exact, color=BLACK, lw=1, where="post", label="exact flow")
            ax.set(xlabel=TIME, xscale="log", xlim=(float(fine[0]), end))
        left.axhline(lasso_error, label="best Lasso", **DOTTED | {"color": LASSO})
        right.axhline(noise_loss, label="loss that noise alone leaves", **DOTTED)
        draw.frame(left, r"error $\|\theta - \theta_{\mathrm{true}}\|$", key="upper right",
                   ylim=(0, None))  # fmt: skip
        draw.frame(right, r"loss $\mathcal{L}(\theta)$", key="upper right", log="y")
    return fig


def stopping_time(
    truth: Tensor, flow: ExactFlow, t: float, level: float, *, top: float, end: float
) -> Figure:
    """The exact flow of noisy data at one time, and its error over time.

    Args:
        truth: (n,).
        flow: the exact flow.
        t: when it is stopped.
        level: when the discrepancy principle stops it.
        top: where the axis of the error ends.
        end: where the axis of time ends.

    Returns:
        Two panels with fixed axes.
    """
    times = torch.linspace(0, end, 600, dtype=torch.float64)
    errors = (flow.theta_at(times) - truth).norm(dim=1)
    with draw.panels(1, 2, 2.7, width_ratios=(3, 2)) as (fig, [[left, right]]):
        draw_coefficients(left, truth, {"exact flow": flow.theta_at(t)}, f"flow at $t$ = {t:.3g}")
        right.plot(times, errors, color=BLACK, drawstyle="steps-post")
        right.axvline(level, **STOP)
        right.plot(t, float((flow.theta_at(t) - truth).norm()), "o", color=BLACK)
        draw.frame(right, "error", "time $t$", key="upper right", ylim=(0, top), xlim=(0, end))
    return fig


def classification(
    path: Path, relevant: Tensor, curves: Mapping[str, tuple[Numbers, Numbers]], floor: float
) -> Figure:
    """Logistic regression: the weights of LinBreg, and test loss against the number of weights.

    Args:
        path: LinBreg with one step size, theta of shape (n,).
        relevant: (n,) booleans, the features that matter.
        curves: from a name to numbers of non-zeros and test losses.
        floor: the test loss of the true weights.

    Returns:
        Two panels.
    """
    with draw.panels(1, 2, 2.8) as (fig, [[left, right]]):
        draw_lines(left, clock(path), path.theta[:, ~relevant], GRAY, "irrelevant", lw=0.7)
        draw_lines(left, clock(path), path.theta[:, relevant], LINBREG, "relevant", lw=1.5)
        draw.frame(left, r"$\theta$ along LinBreg", TIME, r"$\theta_i$")
        thin_legend(left)
        for name, points in curves.items():
            right.plot(*points, ".-", color=COLORS[name], lw=1, ms=4, label=name)
        right.axhline(floor, label="true weights", **DOTTED)
        draw.frame(right, "test loss", "non-zero weights", key="upper right")
    return fig
