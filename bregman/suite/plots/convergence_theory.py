"""Figures of notebook 03: what happens along a path (solid) beside what a theorem allows (dashed).

Blue stands for exact gradients, red for noisy ones; where step sizes are compared, each has a
colour of its own.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from bregman.suite.convex.bounds import Bound
from bregman.suite.plots.style import (
    BLACK,
    BLUE,
    GRAY,
    GREEN,
    OCHRE,
    PALETTE,
    PINK,
    PURPLE,
    RED,
    STYLE,
)

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
            axes[1].plot(promised[label], color=color, label=label)
        axes[0].set(title=r"exact: loss $\mathcal{L}(\theta^k)$")
        axes[1].legend(loc="center right")
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


def distance_decay(
    distances: Mapping[str, Tensor], slack: Tensor, at_minimizer: Bound, every: int = 1
) -> Figure:
    """Theorem 6: the distance to the minimizer, and the inequality where it is put to the test.

    Args:
        distances: (K,), d_k, with the keys "exact" and "noisy".
        slack: (K,), right minus left side with exact gradients.
        at_minimizer: what the distance grows by, and the allowance for it, from theta* on.
        every: how many steps lie between two noisy distances.

    Returns:
        Three panels.
    """
    with plt.style.context(STYLE):
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.7))
        for name, color, stride in (("exact", EXACT, 1), ("noisy", NOISY, every)):
            values = _shown(distances[name])
            left.loglog(1 + stride * np.arange(len(values)), values, color=color, label=name)
        left.set(title="distance $d_k$", xlabel="$k + 1$")
        left.legend(loc="lower left")
        shown = _shown(slack)
        middle.semilogy(shown, color=EXACT)
        middle.set(title="exact: right $-$ left", xlabel="$k$", xlim=(0, np.isfinite(shown).sum()))
        _both_sides(right, at_minimizer, NOISY)
        right.axhline(0, color=GRAY, lw=0.8)
        right.set(title=r"noisy, from $\theta^*$: both sides", xlabel="$k$")
        # room for the legend above the curves
        right.set(ylim=(None, 1.7 * float(at_minimizer.rhs.max())))
        right.legend(loc="upper right")
    return _few_ticks(fig)


def bregman_convexity(
    epsilon: Tensor, anywhere: Tensor, towards: Tensor, nu: float, worst: float
) -> Figure:
    """How large nu of strong Bregman convexity may be: between two bad points, and towards theta*.

    Args:
        epsilon: (K,), the distances of a second point from zero.
        anywhere: (K,), the largest nu that fits these pairs of points.
        towards: (N,), the largest nu that fits theta* and a random state, for N states.
        nu: the constant that is proved towards theta*.
        worst: the largest nu that fits theta* and the worst state.

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
        right.plot(worst, 1.5, color=RED, marker="v", ms=6, ls="", label="worst state")
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
        left.legend(loc="center right")
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


def vanishing_steps(mean: Tensor, bound: Tensor, level: Tensor, every: int) -> Figure:
    """Theorem 11 for steps that vanish slowly: the distance follows the step size to zero.

    Args:
        mean: (K,), the mean of d_k over runs.
        bound: (K,), the inequality applied k times.
        level: (K,), where the bound for a constant step of the present size would end.
        every: how many steps lie between two of them.

    Returns:
        One panel with logarithmic axes.
    """
    k = every * np.arange(1, len(mean) + 1)
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5.2, 3.0))
        ax.loglog(k, mean, color=NOISY, label="mean $d_k$")
        ax.loglog(k, bound, color=BLACK, ls=BOUND, label="bound")
        ax.loglog(k, level, color=GRAY, ls=":", label=r"level of the present $\tau_k$")
        ax.set(xlabel="$k$")
        ax.legend(loc="lower left")
    return _few_ticks(fig)


def rate(runs: Tensor, bound: Bound, slow: Tensor | None = None) -> Figure:
    """Corollary 12: the mean distance under the line C / (k + k_0).

    Args:
        runs: (runs, K), d_k of each run.
        bound: their mean with three standard errors, and its bound.
        slow: (K,), the mean distance where the steps are too short.

    Returns:
        One panel with logarithmic axes; a few of the runs are drawn.
    """
    k = np.arange(1, runs.shape[1] + 1)
    mean, errors = bound.left.values()
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5.6, 3.4))
        ax.loglog(k, runs[:6].T, color=NOISY, alpha=0.35, lw=0.6)
        ax.fill_between(k, (mean - errors).clamp(min=1e-12), mean + errors, color=BLUE, alpha=0.4)
        ax.loglog(k, mean, color=BLUE, lw=1.6)
        ax.loglog(k, bound.rhs, color=BLACK, ls=BOUND)
        lines = {"six runs": Line2D([], [], color=NOISY, alpha=0.6, lw=0.8),
                 f"mean of {len(runs)} runs ± 3 errors": Line2D([], [], color=BLUE, lw=1.6),
                 "bound $C/(k + k_0)$": Line2D([], [], color=BLACK, ls=BOUND)}  # fmt: skip
        if slow is not None:
            look = {"color": GRAY, "ls": "-."}
            lines[r"mean, $c\nu = 0.05$: too short"] = ax.loglog(k, slow, **look)[0]
        ax.set(xlabel="$k + 1$", ylabel="$d_k$")
        ax.legend(lines.values(), lines.keys(), loc="lower left")
    return _few_ticks(fig)


def rooms(table: pd.DataFrame) -> Figure:
    """By what factor each constant may be wrong before a check of it fails.

    Args:
        table: indexed by constant, one column per problem; missing where there is no such check.

    Returns:
        One panel: a row per constant, a mark per problem, on a logarithmic axis about one.
    """
    marks = (("o", BLUE), ("D", RED))
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 0.9 + 0.22 * len(table)))
        rows = np.arange(len(table))
        for (name, values), (mark, color) in zip(table.items(), marks, strict=False):
            ax.plot(values, rows, color=color, marker=mark, ms=5, ls="", label=name)
        ax.axvline(1, color=BLACK, ls=BOUND, label="exactly right")
        ax.set(xscale="log", xlabel="factor by which the constant may be wrong")
        ax.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        ax.set_yticks(rows, table.index)
        ax.invert_yaxis()
        fig.legend(loc="outside upper center", ncols=3)
    return _few_ticks(fig)


def descent_on_moons(
    promised: Mapping[str, Tensor], losses: Mapping[str, Tensor], densities: Mapping[str, Tensor]
) -> Figure:
    """Theorem 2 on a loss that is not convex: a small net on two moons, for several seeds.

    Args:
        promised: by label, (K,), the decrease that the theorem promises over the decrease seen.
        losses: by label, (K,).
        densities: by label, (K,), the share of weights that are not zero.

    Returns:
        Three panels.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.6))
        for ax, curves, title in (
            (axes[0], losses, r"loss $\mathcal{L}(\theta^k)$"),
            (axes[1], promised, "decrease, promised / seen"),
            (axes[2], densities, "share of non-zero weights"),
        ):
            for (label, values), color in zip(curves.items(), STEPS, strict=False):
                ax.plot(values, color=color, label=label)
            ax.set(title=title, xlabel="$k$")
        axes[0].set(yscale="log")
        axes[1].axhline(1, color=BLACK, ls=BOUND)
        axes[1].set(ylim=(0, 1.1))
        axes[2].set(ylim=(0, 1))
        axes[0].legend(loc="lower left")
    return _few_ticks(fig)


def growing_net(x: Tensor, labels: Tensor, regions: Tensor, weights: Tensor, title: str) -> Figure:
    """One moment of training on two moons: what the net says, and which weights it has.

    Args:
        x: (N, 2), the points.
        labels: (N,), -1 or 1.
        regions: (G, G), the net's output over the square from -1.6 to 2.6, -1.6 to 2.1.
        weights: (neurons, 3), the two incoming weights and the outgoing one of each neuron.
        title: above both panels.

    Returns:
        Two panels of fixed limits.
    """
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(
            1, 2, figsize=(6.6, 2.7), gridspec_kw={"width_ratios": (3, 2)}
        )
        left.imshow(
            regions.sigmoid(), extent=(-1.6, 2.6, -1.6, 2.1), origin="lower", cmap="PuOr",
            vmin=0, vmax=1, alpha=0.6, aspect="auto",
        )  # fmt: skip
        for sign, mark, color in ((-1, "o", OCHRE), (1, "^", PURPLE)):
            chosen = labels == sign
            left.plot(*x[chosen].T, color=color, marker=mark, ms=4, mec="white", mew=0.5, ls="")
        left.set(xlim=(-1.6, 2.6), ylim=(-1.6, 2.1), xticks=[], yticks=[])
        left.grid(False)
        right.imshow(
            weights != 0, cmap=ListedColormap(["#E5E5E5", BLACK]), aspect="auto",
            interpolation="none",
        )  # fmt: skip
        right.set_xticks([0, 1, 2], ["$x_1$", "$x_2$", "out"])
        right.set(ylabel="neuron", title="weights")
        right.grid(False)
        left.set(title=title)
    return fig


def beyond_the_theorems(curves: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Algorithms on one problem: the distance to the minimizer, and the support.

    Args:
        curves: by name of the algorithm, (K,) distances ||theta^k - theta*|| and numbers of
            non-zero entries.

    Returns:
        Two panels.
    """
    styles = dict(zip(curves, ("-", "--", "-.", ":"), strict=False))
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        for name, (error, support) in curves.items():
            look = {"color": PALETTE[name], "ls": styles[name], "lw": 1.5}
            left.semilogy(_shown(error), label=name, **look)
            right.plot(support, drawstyle="steps-post", **look)
        left.set(xlabel="$k$", ylabel=r"$\|\theta^k - \theta^*\|$", ylim=(1e-8, None))
        right.set(xlabel="$k$", ylabel="entries that are not zero")
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        fig.legend(loc="outside upper center", ncols=len(curves))
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
        # v equals theta while both are positive: a broad line under a thin one
        for values, color, label, look in (
            (v, GREEN, r"$v^k$", {"lw": 3.5, "alpha": 0.5}),
            (theta, EXACT, r"$\theta^k$", {}),
            (slopes, RED, r"$\mathcal{L}'(\theta^k)$", {"ls": "--"}),
        ):
            right.plot(values, color=color, label=label, **look)
        right.set(xlabel="$k$")
        right.legend(loc="lower left")
    return _few_ticks(fig)


def step_condition(losses: Mapping[str, Tensor], distances: Mapping[str, Tensor]) -> Figure:
    """What the step size does to the loss and to the distance.

    Args:
        losses: by label, (K,).
        distances: by label, (K,), d_k.

    Returns:
        Two panels with logarithmic axes.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.8), sharex=True)
        styles = ("-", "--", "-.", ":")
        for ax, curves in zip(axes, (losses, distances), strict=True):
            for (label, values), color, ls in zip(curves.items(), STEPS, styles, strict=False):
                ax.semilogy(_shown(values), color=color, ls=ls, label=label)
            # a diverging curve leaves the picture, so that the others stay visible
            first = max(float(values[0]) for values in curves.values())
            ax.set(xlabel="$k$", ylim=(None, min(1e3 * first, ax.get_ylim()[1])))
            # of one width, however soon a curve is lost in rounding
            ax.set(xlim=(0, max(len(values) for values in curves.values()) - 1))
        axes[0].set(ylabel=r"loss $\mathcal{L}(\theta^k)$")
        axes[1].set(ylabel="distance $d_k$")
        names = axes[0].get_legend_handles_labels()
        fig.legend(*names, loc="outside upper center", ncols=len(losses))
    return _few_ticks(fig)


def tried_steps(
    panels: Mapping[str, tuple[Tensor, Tensor]], title: str, *, logarithmic: bool = False
) -> Figure:
    """Curves under their bounds, for an explorer: the axes are always the same.

    Args:
        panels: by title, (K,) what happens and (K,) its bound.
        title: above all.
        logarithmic: whether the axis of steps is.

    Returns:
        One panel each, from 1e-6 to 1e3; what is beyond leaves the picture.
    """
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, len(panels), figsize=(7.2, 2.9), squeeze=False)
        for ax, (name, (values, bound)) in zip(axes[0], panels.items(), strict=True):
            k = np.arange(1, len(values) + 1) if logarithmic else np.arange(len(values))
            for curve, look in ((values, {"color": BLUE}), (bound, {"color": BLACK, "ls": BOUND})):
                shown = np.asarray(curve, dtype=float)
                ax.plot(k, np.where((shown > 0) & (shown < 1e30), shown, np.nan), **look)
            ax.set(yscale="log", ylim=(1e-6, 1e3), xlim=(k[0], k[-1]), title=name)
            ax.set(xlabel="$k + 1$" if logarithmic else "$k$")
            ax.set_yticks([1e-6, 1e-3, 1, 1e3])
            if logarithmic:
                ax.set(xscale="log")
        fig.legend(axes[0, 0].lines, ["seen", "bound"], loc="outside lower center", ncols=2)
        fig.suptitle(title, fontsize=9)
    return _few_ticks(fig)


def _both_sides(ax: Axes, bound: Bound, color: str, start: int = 0) -> None:
    k = range(start, start + len(bound.lhs))
    ax.plot(k, bound.lhs, color=color, label="left side")
    ax.plot(k, bound.rhs, color=BLACK, ls=BOUND, label="right side")


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
