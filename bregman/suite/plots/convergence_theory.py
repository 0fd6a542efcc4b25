"""Figures of notebook 03: what happens along a path (solid) beside what a theorem allows (dashed).

Blue stands for exact gradients, vermilion for noisy ones; where step sizes are compared, each has a
colour of its own.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from torch import Tensor

from bregman.suite.convex.bounds import Bound
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, OCHRE, PINK, RED, STYLE

EXACT, NOISY = BLUE, RED
STEPS = (BLUE, GREEN, PINK, OCHRE, RED)
BOUND = (0, (3, 1.5))

# in parts of the first value: what is smaller is rounding of float64
FLOOR = 1e-14


def loss_decay(
    losses: Mapping[str, Tensor], promised: Mapping[str, Tensor], noisy: Bound
) -> Figure:
    """Theorem 2: the loss falls, at least as fast as promised.

    Args:
        losses: by label, (K,), of exact gradients.
        promised: by label, (K,), the decrease that the theorem promises over the decrease seen.
        noisy: the two sides with noisy gradients.

    Returns:
        Three panels.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6))
        for (label, values), color in zip(losses.items(), STEPS, strict=False):
            axes[0].semilogy(_shown(values), color=color, label=label)
            axes[1].plot(promised[label], color=color)
        axes[0].set(title=r"exact: loss $\mathcal{L}(\theta^k)$")
        axes[0].legend(loc="lower right")
        axes[1].axhline(1, color=BLACK, ls=BOUND)
        axes[1].set(title="exact: decrease, promised / seen", ylim=(0, 1.1))
        _both_sides(axes[2], noisy, NOISY)
        axes[2].set(title="noisy: both sides", yscale="log")
        axes[2].yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes[2].yaxis.set_major_formatter("{x:g}")
        axes[2].legend(loc="upper right")
        for ax in axes:
            ax.set(xlabel="$k$")
    return _few_ticks(fig)


def summability(bounds: Mapping[str, Bound]) -> Figure:
    """Corollary 3: the sums of what the iteration does, and their bound.

    Args:
        bounds: by label, partial sums and their bounds.

    Returns:
        One panel per label, with logarithmic axes of one range.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(bounds), figsize=(7.2, 2.6), sharey=True, squeeze=False)
        for ax, (label, bound), color in zip(
            axes[0], bounds.items(), (EXACT, NOISY, NOISY), strict=False
        ):
            _both_sides(ax, bound, color, start=1)
            ax.set(xscale="log", yscale="log", title=label, xlabel="number of steps")
            ax.legend(loc="upper left")
        axes[0, 0].set(ylabel="partial sum")
        # room for the legend above the curves
        top = max(float(bound.rhs.max()) for bound in bounds.values())
        axes[0, 0].set(ylim=(None, 6 * top))
    return _few_ticks(fig)


def distance_parts(bregman: Tensor, quadratic: Tensor, total: Tensor) -> Figure:
    """Lemma 13: the two parts of the distance of J_delta to the minimizer.

    Args:
        bregman: (K,), D_J^p(theta*, theta^k).
        quadratic: (K,), ||theta* - theta^k||^2 / (2 delta).
        total: (K,), D_{J_delta}^v(theta*, theta^k), computed on its own.

    Returns:
        Two panels: stacked, and each part on a logarithmic axis.
    """
    steps = range(len(total))
    parts = {r"$D_J^p(\theta^*, \theta^k)$": bregman,
             r"$\|\theta^* - \theta^k\|^2/(2\delta)$": quadratic}  # fmt: skip
    whole = r"$D_{J_\delta}^v(\theta^*, \theta^k)$"
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
        left.stackplot(steps, *parts.values(), labels=parts, colors=[GREEN, PINK], alpha=0.55, lw=0)
        left.plot(steps, total, color=BLACK, ls=BOUND, label=whole)
        left.set(title="stacked", ylabel="distance", ylim=(0, None))
        for (label, values), color in zip(parts.items(), (GREEN, PINK), strict=True):
            right.semilogy(steps, _shown(values), color=color, label=label)
        right.semilogy(steps, _shown(total), color=BLACK, ls=BOUND, label=whole)
        right.set(title="each on its own")
        for ax in (left, right):
            ax.set(xlabel="$k$")
            ax.legend(loc="upper right")
    return _few_ticks(fig)


def distance_decay(distances: Mapping[str, Tensor], exact: Bound, noisy: Bound) -> Figure:
    """Theorem 6: the distance to the minimizer, and both sides of the inequality.

    Args:
        distances: (K,), d_k, with the keys "exact" and "noisy".
        exact: the two sides with exact gradients, where the right one is zero.
        noisy: the two sides with noisy gradients.

    Returns:
        Three panels with a logarithmic axis of steps; the right one shows both signs.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.7))
        for ax, exact_values, noisy_values, title in (
            (axes[0], distances["exact"], distances["noisy"], "distance $d_k$"),
            (axes[1], exact.slack, noisy.slack, "right side $-$ left side"),
        ):
            for values, color, label in (
                (exact_values, EXACT, "exact"),
                (noisy_values, NOISY, "noisy"),
            ):
                shown = _shown(values)
                ax.loglog(range(1, len(shown) + 1), shown, color=color, label=label)
            ax.set(title=title)
        _both_sides(axes[2], noisy, NOISY, start=1)
        axes[2].set(title="noisy: both sides", xscale="log")
        axes[2].set_yscale("symlog", linthresh=1e-3)
        axes[2].set_yticks([-1, -1e-2, 0, 1e-2])
        for ax, place in zip(axes, ("lower left", "lower left", "lower right"), strict=True):
            ax.set(xlabel="$k + 1$")
            ax.legend(loc=place)
    return _few_ticks(fig)


def bregman_convexity(epsilon: Tensor, anywhere: Tensor, towards: Tensor, nu: float) -> Figure:
    """How large nu of strong Bregman convexity may be: between two bad points, and towards theta*.

    Args:
        epsilon: (K,), the distances of a second point from zero.
        anywhere: (K,), the largest nu that fits these pairs of points.
        towards: (N,), the largest nu that fits theta* and a random state, for N states.
        nu: the constant that is proved towards theta*.

    Returns:
        Two panels.
    """
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
        left.loglog(epsilon, anywhere, color=PINK, marker="o", ms=3.5)
        left.set(
            title=r"from $\theta = 0$, $p = 0$ towards $\varepsilon e_1$",
            xlabel=r"$\varepsilon$",
            ylabel=r"largest possible $\nu$",
        )
        counts, *_ = right.hist(towards, bins=40, color=BLUE)
        right.axvline(nu, color=BLACK, ls=BOUND, label=r"$\nu$ of the proof")
        right.set(
            title=r"from random states towards $\theta^*$",
            xlabel=r"largest possible $\nu$",
            ylabel="number of states",
            xlim=(0, None),
            ylim=(0, 1.25 * max(counts)),
        )
        right.legend(loc="upper right")
    return _few_ticks(fig)


def constant_steps(
    means: Mapping[float, Tensor],
    bounds: Mapping[float, Tensor],
    plateaus: Mapping[float, float],
    limits: Mapping[float, float],
) -> Figure:
    """Theorem 11: for constant steps the distance falls to a level that shrinks with the step.

    Args:
        means: by step size, (K,), d_k averaged over runs.
        bounds: by step size, (K,), the inequality applied k times.
        plateaus: by step size, the level seen at the end.
        limits: by step size, the limit of the bound.

    Returns:
        Two panels: over the steps, and the levels over the step size.
    """
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(
            1, 2, figsize=(7.2, 2.9), gridspec_kw={"width_ratios": (3, 2)}
        )
        for (tau, values), color in zip(means.items(), STEPS, strict=False):
            left.semilogy(values, color=color, label=rf"$\tau = {tau:.3g}$")
            left.semilogy(bounds[tau], color=color, ls=BOUND)
        left.set(xlabel="$k$", ylabel="mean $d_k$", title="solid: seen, dashed: bound")
        left.legend(loc="lower left")
        taus = list(plateaus)
        right.loglog(taus, list(plateaus.values()), color=NOISY, marker="o", ms=4, label="seen")
        right.loglog(
            taus, [limits[tau] for tau in taus], color=NOISY, marker="o", ms=4, ls=BOUND,
            label="bound",
        )  # fmt: skip
        right.set(xlabel=r"step size $\tau$", title=r"level as $k \to \infty$")
        right.set_xticks(taus, [f"{tau:.2g}" for tau in taus])
        right.legend(loc="upper left")
    return _few_ticks(fig)


def rate(runs: Tensor, bound: Bound, slow: Tensor | None = None) -> Figure:
    """Corollary 12: the mean distance under the line C / (k + k_0).

    Args:
        runs: (runs, K), d_k of each run.
        bound: their mean and its bound.
        slow: (K,), the mean distance where the steps are too short.

    Returns:
        One panel with logarithmic axes.
    """
    k = np.arange(1, runs.shape[1] + 1)
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.4))
        ax.loglog(k, runs.T, color=NOISY, alpha=0.2, lw=0.6)
        ax.loglog(k, bound.lhs, color=NOISY, lw=1.6)
        ax.loglog(k, bound.rhs, color=BLACK, ls=BOUND)
        lines = {"single runs": Line2D([], [], color=NOISY, alpha=0.4, lw=0.8),
                 f"mean of {len(runs)} runs": Line2D([], [], color=NOISY, lw=1.6),
                 "bound $C/(k + k_0)$": Line2D([], [], color=BLACK, ls=BOUND)}  # fmt: skip
        if slow is not None:
            lines[r"mean, steps too short ($c\nu < 1$)"] = ax.loglog(k, slow, color=GRAY)[0]
        ax.set(xlabel="$k + 1$", ylabel="$d_k$")
        ax.legend(lines.values(), lines.keys(), loc="lower left")
    return _few_ticks(fig)


def example_1(theta: Tensor, v: Tensor, slopes: Tensor) -> Figure:
    """Example 1: the iteration ends where the loss still falls.

    Args:
        theta: (K,), the iterates on the half line.
        v: (K,), their subgradients.
        slopes: (K,), the derivative of the loss at the iterates.

    Returns:
        Two panels: on the parabola, and over the steps.
    """
    x = np.linspace(-1.6, 1.15 * float(theta.max()), 200)
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        left.axvspan(float(x[0]), 0, color=GRAY, alpha=0.35, lw=0, label=r"$J = \infty$")
        left.plot(x, (x + 1) ** 2, color=BLACK, label=r"$\mathcal{L}(\theta) = (\theta + 1)^2$")
        left.plot(
            theta, (theta + 1) ** 2, color=EXACT, marker="o", ms=4, lw=0.8, label=r"$\theta^k$"
        )
        left.plot(-1, 0, color=RED, marker="*", ms=10, ls="", label="minimizer, out of reach")
        left.set(xlabel=r"$\theta$", xlim=(x[0], x[-1]), ylim=(-0.6, None))
        left.legend(loc="upper left")
        right.axhline(0, color=BLACK, lw=0.6)
        for values, color, label in (
            (theta, EXACT, r"$\theta^k$"),
            (slopes, RED, r"$\mathcal{L}'(\theta^k)$"),
            (v, GREEN, r"$v^k$"),
        ):
            right.plot(values, color=color, label=label)
        right.set(xlabel="$k$")
        right.legend(loc="lower left")
    return _few_ticks(fig)


def step_condition(
    losses: Mapping[str, Tensor], distances: Mapping[str, Tensor], title: str | None = None
) -> Figure:
    """What the step size does to the loss and to the distance.

    Args:
        losses: by label, (K,).
        distances: by label, (K,), d_k.
        title: above both panels.

    Returns:
        Two panels with logarithmic axes.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8), sharex=True)
        for ax, curves in zip(axes, (losses, distances), strict=True):
            for (label, values), color in zip(curves.items(), STEPS, strict=False):
                ax.semilogy(_shown(values), color=color, label=label)
            # a diverging curve leaves the picture, so that the others stay visible
            first = max(float(values[0]) for values in curves.values())
            ax.set(xlabel="$k$", ylim=(None, min(1e3 * first, ax.get_ylim()[1])))
            # of one width, however soon a curve is lost in rounding
            ax.set(xlim=(0, max(len(values) for values in curves.values()) - 1))
        axes[0].set(ylabel=r"loss $\mathcal{L}(\theta^k)$")
        axes[1].set(ylabel="distance $d_k$")
        if len(losses) > 1:
            axes[0].legend(loc="lower left")
        if title is not None:
            fig.suptitle(title, fontsize=9)
    return _few_ticks(fig)


def _both_sides(ax: Axes, bound: Bound, color: str, start: int = 0) -> None:
    k = range(start, start + len(bound.lhs))
    ax.plot(k, bound.lhs, color=color, label="left side")
    ax.plot(k, bound.rhs, color=BLACK, ls=BOUND, label="bound")


def _shown(values: Tensor) -> np.ndarray:
    """Values for a logarithmic axis, up to where they are lost in rounding."""
    array = np.asarray(values, dtype=float)
    seen = np.logical_and.accumulate(array > FLOOR * array[0])
    return np.where(seen, array, np.nan)


def _few_ticks(fig: Figure) -> Figure:
    """Without minor ticks: on logarithmic axes they are clutter, and half the time of drawing."""
    for ax in fig.axes:
        ax.minorticks_off()
    return fig
