"""Figures of groups, rank, noise and classification."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bregman.suite.convex import ExactFlow, Path
from bregman.suite.plots.convex_toy_problems.trajectories import (
    COLORS,
    LASSO,
    LINBREG,
    TRUTH,
    draw_coefficients,
    draw_lines,
    thin_legend,
)
from bregman.suite.plots.style import BLACK, GRAY, STYLE


def random_groups(sizes: Sequence[int], norms: Sequence[Tensor]) -> Figure:
    """Norms of random gradients of groups of different sizes, before and after weighting.

    Args:
        sizes: the numbers n_g of entries.
        norms: for each size, the norms of random gradients.

    Returns:
        Two panels.
    """
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6))
        for n, values in zip(sizes, norms, strict=True):
            left.plot([n] * len(values), values, ".", color=LINBREG, ms=3, alpha=0.4)
            right.plot([n] * len(values), values / n**0.5, ".", color=LINBREG, ms=3, alpha=0.4)
        left.plot(sizes, [n**0.5 for n in sizes], color=BLACK, ls="--", label=r"$\sqrt{n_g}$")
        right.axhline(1, color=BLACK, ls="--", label="threshold with the weight")
        left.axhline(1, color=GRAY, ls=":", label="threshold without it")
        left.set(title="norm of a random gradient", yscale="log", ylim=(2e-3, 1e3))
        right.set(title=r"divided by $\sqrt{n_g}$", ylim=(0, 3.2))
        for ax in (left, right):
            ax.set(xscale="log", xlabel="entries of the group $n_g$", xticks=sizes)
            ax.set_xticklabels([str(n) for n in sizes])
            ax.minorticks_off()
            ax.legend(loc="upper left" if ax is left else "upper right")
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
    with plt.style.context(STYLE):
        height = min(3.2, width * rows / cols + 0.5)
        fig, axes = plt.subplots(1, len(values), figsize=(7.2, height), squeeze=False)
        for ax, (title, value) in zip(axes.flat, values.items(), strict=True):
            shown = np.ma.masked_equal(value.numpy(), 0.0)
            # crosses, so that exact zeros are told from small numbers
            ax.set_facecolor("white")
            ax.patch.set(hatch="xxxx", edgecolor="#C4C4C4", linewidth=0)
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
    values = torch.linalg.svdvals(path.theta)
    clock = float(path.taus[0]) * path.iterations
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5, 2.6))
        for k, value in enumerate(x for x in torch.linalg.svdvals(truth) if x > 1e-10):
            ax.axhline(float(value), color=TRUTH, ls=":", lw=1.6, label=None if k else "truth")
        draw_lines(ax, clock, values, LINBREG, "LinBreg, nuclear norm")
        ax.set(xlabel=r"time $t = k\tau$", ylabel="singular values", xscale="log")
        ax.set(xlim=span, ylim=(-0.03 * top, top))
        thin_legend(ax)
    return fig


def stopping_rules(errors: Mapping[str, Sequence[float]]) -> Figure:
    """How far several rules end from the truth, over many draws.

    Args:
        errors: from the name of a rule to its errors, one per draw.

    Returns:
        One row per rule: each draw a dot, the median a bar.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 0.45 * len(errors) + 0.9))
        for row, (name, values) in enumerate(errors.items()):
            color = LASSO if "Lasso" in name else LINBREG
            ax.plot(values, [row] * len(values), "o", color=color, ms=4, alpha=0.45)
            ax.plot([np.median(values)] * 2, [row - 0.3, row + 0.3], color=color, lw=2.5)
        ax.set(yticks=range(len(errors)), ylim=(len(errors) - 0.5, -0.5), xlim=(0, None))
        ax.set_yticklabels(list(errors))
        ax.set(xlabel=r"error $\|\theta - \theta_{\mathrm{true}}\|$, a bar is the median")
    return fig


def early_stopping(
    flow: ExactFlow,
    path: Path,
    truth: Tensor,
    noise_loss: float,
    stop: int,
    lasso_error: float | None = None,
) -> Figure:
    """Error and loss over time under noise, and where the discrepancy principle stops.

    Args:
        flow: the exact flow.
        path: LinBreg with one step size.
        truth: (n,).
        noise_loss: the loss that the noise alone leaves.
        stop: the index of the flow's event at which to stop.
        lasso_error: the least error on the Lasso path, where known.

    Returns:
        Two panels over time.
    """
    clock = float(path.taus[0]) * path.iterations
    first = float(flow.times[1])
    end = float(clock[-1])
    fine = torch.cat([first * torch.tensor([0.3]), flow.times[1:].clamp(max=end)])
    states = flow.theta_at(fine)
    losses = torch.stack([path.problem.f(theta) for theta in states])
    errors = (states - truth).norm(dim=1)
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), sharex=True)
        for ax, exact, iterated in (
            (left, errors, (path.theta - truth).norm(dim=1)),
            (right, losses, path.losses),
        ):
            ax.axvline(float(flow.times[stop]), color=GRAY, ls="--", label="discrepancy: stop")
            ax.plot(clock[1:], iterated[1:], color=LINBREG, lw=1.6, label="LinBreg")
            ax.step(fine, exact, color=BLACK, lw=1, where="post", label="exact flow")
            ax.set(xlabel=r"time $t = k\tau$", xscale="log", xlim=(float(fine[0]), end))
        if lasso_error is not None:
            left.axhline(lasso_error, color=LASSO, ls=":", lw=1.6, label="best Lasso")
        right.axhline(noise_loss, color=TRUTH, ls=":", lw=1.6, label="loss that noise alone leaves")
        left.set(title=r"error $\|\theta - \theta_{\mathrm{true}}\|$", ylim=(0, None))
        right.set(title=r"loss $\mathcal{L}(\theta)$", yscale="log")
        left.legend(loc="upper right")
        right.legend(loc="upper right")
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
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7), width_ratios=(3, 2))
        draw_coefficients(left, truth, {"exact flow": flow.theta_at(t)})
        left.set_title(f"flow at $t$ = {t:.3g}")
        right.plot(times, errors, color=BLACK, drawstyle="steps-post")
        right.axvline(level, color=GRAY, ls="--", label="discrepancy: stop")
        right.plot(t, float((flow.theta_at(t) - truth).norm()), "o", color=BLACK)
        right.set(title="error", xlabel="time $t$", ylim=(0, top), xlim=(0, end))
        right.legend(loc="upper right")
    return fig


def classification(
    path: Path,
    relevant: Tensor,
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    floor: float,
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
    clock = float(path.taus[0]) * path.iterations
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        draw_lines(left, clock, path.theta[:, ~relevant], GRAY, "irrelevant", lw=0.7)
        draw_lines(left, clock, path.theta[:, relevant], LINBREG, "relevant", lw=1.5)
        left.set(title=r"$\theta$ along LinBreg", xlabel=r"time $t = k\tau$", ylabel=r"$\theta_i$")
        thin_legend(left)
        for name, (numbers, losses) in curves.items():
            right.plot(numbers, losses, ".-", color=COLORS[name], lw=1, ms=4, label=name)
        right.axhline(floor, color=TRUTH, ls=":", lw=1.6, label="true weights")
        right.set(title="test loss", xlabel="non-zero weights")
        right.legend(loc="upper right")
    return fig
