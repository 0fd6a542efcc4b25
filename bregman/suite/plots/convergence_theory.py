"""Figures of notebook 03: what happens along a path (solid) beside what a theorem allows (dashed).

Blue stands for exact gradients, red for noisy ones; where step sizes are compared, each has a
colour of its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from torch import Tensor

from bregman.suite.convex.bounds import Bound
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.grammar import DASHED
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, OCHRE, PALETTE, PINK, PURPLE, RED

Curves = Mapping[str, Tensor]
BySteps = Mapping[float, Any]

EXACT, NOISY = BLUE, RED
STEPS = tuple({"color": color} for color in (BLUE, GREEN, PINK, OCHRE, RED))
STYLES = ("-", "--", "-.", ":")
BOUND: draw.Look = {"color": BLACK, "ls": DASHED}

# in parts of the first value: what is smaller is rounding of float64
FLOOR = 1e-14


def loss_decay(losses: Curves, promised: Curves, noisy: Bound) -> Figure:
    """Theorem 2: the loss falls, at least as fast as promised.

    Args:
        losses: by label, (K,), of exact gradients.
        promised: by label, (K,), the decrease that the theorem promises over the decrease seen.
        noisy: the two sides with noisy gradients.

    Returns:
        Three panels.
    """
    with draw.panels(1, 3, 2.6, minor=False) as (fig, [[left, middle, right]]):
        draw.lines(left, {label: _shown(values) for label, values in losses.items()}, STEPS)
        draw.frame(left, r"exact: loss $\mathcal{L}(\theta^k)$", "$k$", log="y")
        _promised(middle, promised, "exact: ")
        middle.legend(loc="center right")
        _both_sides(right, noisy, NOISY)
        draw.frame(right, "noisy: both sides", "$k$", key="upper right", log="y")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        right.yaxis.set_major_formatter("{x:g}")
    return fig


def summability(bounds: Mapping[str, Bound]) -> Figure:
    """Corollary 3: the sums of what the iteration does, and their bound.

    Args:
        bounds: by label, partial sums and their bounds.

    Returns:
        One panel per label, with logarithmic axes of one range.
    """
    with draw.panels(1, len(bounds), 2.6, sharey=True, minor=False) as (fig, [axes]):
        colors = (EXACT, NOISY, NOISY)
        for ax, (label, bound), color in zip(axes, bounds.items(), colors, strict=False):
            _both_sides(ax, bound, color, start=1)
            draw.frame(ax, label, "number of steps", key="upper left", log="xy")
        # room for the legend above the curves
        top = max(float(bound.rhs.max()) for bound in bounds.values())
        axes[0].set(ylabel="partial sum", ylim=(None, 6 * top))
    return fig


def distance_parts(bregman: Tensor, quadratic: Tensor, total: Tensor) -> Figure:
    """Lemma 13: the two parts of the distance of J_delta to the minimizer.

    Args:
        bregman: (K,), D_J^p(theta*, theta^k).
        quadratic: (K,), ||theta* - theta^k||^2 / (2 delta).
        total: (K,), D_{J_delta}^v(theta*, theta^k), computed on its own.

    Returns:
        Two panels: stacked, and each part on a logarithmic axis.
    """
    parts = {r"$D_J^p(\theta^*, \theta^k)$": bregman,
             r"$\|\theta^* - \theta^k\|^2/(2\delta)$": quadratic}  # fmt: skip
    curves = parts | {r"$D_{J_\delta}^v(\theta^*, \theta^k)$": total}
    looks = ({"color": GREEN}, {"color": PINK}, BOUND)
    with draw.panels(1, 2, 2.7, minor=False) as (fig, [[left, right]]):
        left.stackplot(range(len(total)), *parts.values(), labels=parts, colors=[GREEN, PINK],
                       alpha=0.55, lw=0)  # fmt: skip
        left.plot(total, label=[*curves][-1], **BOUND)
        draw.lines(right, {label: _shown(values) for label, values in curves.items()}, looks)
        draw.frame(left, "stacked", "$k$", "distance", key="upper right", ylim=(0, None))
        draw.frame(right, "each on its own", "$k$", key="upper right", log="y")
    return fig


def distance_decay(distances: Curves, slack: Tensor, at_minimizer: Bound, every: int) -> Figure:
    """Theorem 6: the distance to the minimizer, and the inequality where it is put to the test.

    Args:
        distances: (K,), d_k, with the keys "exact" and "noisy".
        slack: (K,), right minus left side with exact gradients.
        at_minimizer: what the distance grows by, and the allowance for it, from theta* on.
        every: how many steps lie between two noisy distances.

    Returns:
        Three panels.
    """
    with draw.panels(1, 3, 2.7, minor=False) as (fig, [[left, middle, right]]):
        for name, color, stride in (("exact", EXACT, 1), ("noisy", NOISY, every)):
            values = _shown(distances[name])
            left.loglog(1 + stride * np.arange(len(values)), values, color=color, label=name)
        draw.frame(left, "distance $d_k$", "$k + 1$", key="lower left")
        shown = _shown(slack)
        middle.semilogy(shown, color=EXACT)
        draw.frame(middle, "exact: right $-$ left", "$k$", xlim=(0, np.isfinite(shown).sum()))
        _both_sides(right, at_minimizer, NOISY)
        right.axhline(0, color=GRAY, lw=0.8)
        # room for the legend above the curves
        draw.frame(right, r"noisy, from $\theta^*$: both sides", "$k$", key="upper right",
                   ylim=(None, 1.7 * float(at_minimizer.rhs.max())))  # fmt: skip
    return fig


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
    largest = r"largest possible $\nu$"
    with draw.panels(1, 2, 2.7, minor=False) as (fig, [[left, right]]):
        left.loglog(epsilon, anywhere, color=PINK, marker="o", ms=3.5)
        draw.frame(left, r"from $\theta = 0$, $p = 0$ towards $\varepsilon e_1$", r"$\varepsilon$",
                   largest)  # fmt: skip
        counts, *_ = right.hist(towards, bins=40, color=BLUE)
        right.axvline(nu, label=r"$\nu$ of the proof", **BOUND)
        right.plot(worst, 1.5, color=RED, marker="v", ms=6, ls="", label="worst state")
        draw.frame(right, r"from random states towards $\theta^*$", largest, "number of states",
                   key="upper right", xlim=(0, None), ylim=(0, 1.25 * max(counts)))  # fmt: skip
    return fig


def constant_steps(means: BySteps, bounds: BySteps, plateaus: BySteps, limits: BySteps) -> Figure:
    """Theorem 11: for constant steps the distance falls to a level that shrinks with the step.

    Args:
        means: by step size, (K,), d_k averaged over runs.
        bounds: by step size, (K,), the inequality applied k times.
        plateaus: by step size, the level seen at the end.
        limits: by step size, the limit of the bound.

    Returns:
        Two panels: over the steps, and the levels over the step size.
    """
    with draw.panels(1, 2, 2.9, width_ratios=(3, 2), minor=False) as (fig, [[left, right]]):
        for (tau, values), look in zip(means.items(), STEPS, strict=False):
            left.semilogy(values, label=rf"$\tau = {tau:.3g}$", **look)
            left.semilogy(bounds[tau], ls=DASHED, **look)
        draw.frame(left, "solid: seen, dashed: bound", "$k$", "mean $d_k$", key="center right")
        taus = [*plateaus]
        levels = {"seen": [*plateaus.values()], "bound": [limits[tau] for tau in taus]}
        mark: draw.Look = {"color": NOISY, "marker": "o", "ms": 4}
        draw.lines(right, levels, (mark, mark | {"ls": DASHED}), taus)
        draw.frame(right, r"level as $k \to \infty$", r"step size $\tau$", key="upper left",
                   log="xy")  # fmt: skip
        right.set_xticks(taus, [f"{tau:.2g}" for tau in taus])
    return fig


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
    with draw.panels(1, 1, 3.0, 5.2, minor=False) as (fig, [[ax]]):
        curves = {"mean $d_k$": mean, "bound": bound, r"level of the present $\tau_k$": level}
        looks = ({"color": NOISY}, BOUND, {"color": GRAY, "ls": ":"})
        draw.lines(ax, curves, looks, every * np.arange(1, len(mean) + 1))
        draw.frame(ax, x="$k$", key="lower left", log="xy")
    return fig


def rate(runs: Tensor, bound: Bound, slow: Tensor) -> Figure:
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
    with draw.panels(1, 1, 3.4, 5.6, minor=False) as (fig, [[ax]]):
        ax.loglog(k, runs[:6].T, color=NOISY, alpha=0.35, lw=0.6)
        ax.fill_between(k, (mean - errors).clamp(min=1e-12), mean + errors, color=BLUE, alpha=0.4)
        ax.plot(k, mean, color=BLUE, lw=1.6)
        ax.plot(k, bound.rhs, **BOUND)
        ax.plot(k, slow, color=GRAY, ls="-.")
        lines = {"six runs": Line2D([], [], color=NOISY, alpha=0.6, lw=0.8),
                 f"mean of {len(runs)} runs ± 3 errors": ax.lines[-3],
                 "bound $C/(k + k_0)$": ax.lines[-2],
                 r"mean, $c\nu = 0.05$: too short": ax.lines[-1]}  # fmt: skip
        draw.frame(ax, x="$k + 1$", y="$d_k$")
        ax.legend(lines.values(), lines.keys(), loc="lower left")
    return fig


def rooms(table: pd.DataFrame) -> Figure:
    """By what factor each constant may be wrong before a check of it fails.

    Args:
        table: indexed by constant, one column per problem; missing where there is no such check.

    Returns:
        One panel: a row per constant, a mark per problem, on a logarithmic axis about one.
    """
    with draw.panels(1, 1, 0.9 + 0.22 * len(table), minor=False) as (fig, [[ax]]):
        rows, ticks = np.arange(len(table)), (0.1, 0.2, 0.5, 1, 2, 5, 10)
        looks = ({"color": BLUE, "marker": "o"}, {"color": RED, "marker": "D"})
        for (name, values), look in zip(table.items(), looks, strict=False):
            ax.plot(values, rows, ms=5, ls="", label=name, **look)
        ax.axvline(1, label="exactly right", **BOUND)
        ax.set(xscale="log", xlabel="factor by which the constant may be wrong")
        ax.set_xticks(ticks, map(str, ticks))
        ax.set_yticks(rows, table.index)
        ax.invert_yaxis()
        draw.shared_legend(fig)
    return fig


def descent_on_moons(promised: Curves, losses: Curves, densities: Curves) -> Figure:
    """Theorem 2 on a loss that is not convex: a small net on two moons, for several seeds.

    Args:
        promised: by label, (K,), the decrease that the theorem promises over the decrease seen.
        losses: by label, (K,).
        densities: by label, (K,), the share of weights that are not zero.

    Returns:
        Three panels.
    """
    with draw.panels(1, 3, 2.6, minor=False) as (fig, [[left, middle, right]]):
        draw.lines(left, losses, STEPS)
        draw.frame(left, r"loss $\mathcal{L}(\theta^k)$", "$k$", key="lower left", log="y")
        _promised(middle, promised)
        draw.lines(right, densities, STEPS)
        draw.frame(right, "share of non-zero weights", "$k$", ylim=(0, 1))
    return fig


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
    xlim, ylim = (-1.6, 2.6), (-1.6, 2.1)
    with draw.panels(1, 2, 2.7, 6.6, width_ratios=(3, 2)) as (fig, [[left, right]]):
        left.imshow(
            regions.sigmoid(), extent=(*xlim, *ylim), origin="lower", cmap="PuOr", vmin=0, vmax=1,
            alpha=0.6, aspect="auto",
        )  # fmt: skip
        for sign, mark, color in ((-1, "o", OCHRE), (1, "^", PURPLE)):
            chosen = labels == sign
            left.plot(*x[chosen].T, color=color, marker=mark, ms=4, mec="white", mew=0.5, ls="")
        left.set(xlim=xlim, ylim=ylim, xticks=[], yticks=[], title=title)
        left.grid(False)
        draw.support(right, weights)
        right.set_xticks([0, 1, 2], ["$x_1$", "$x_2$", "out"])
        draw.frame(right, "weights", y="neuron")
    return fig


def beyond_the_theorems(curves: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Algorithms on one problem: the distance to the minimizer, and the support.

    Args:
        curves: by name of the algorithm, (K,) distances ||theta^k - theta*|| and numbers of
            non-zero entries.

    Returns:
        Two panels.
    """
    with draw.panels(1, 2, 2.8, minor=False) as (fig, [[left, right]]):
        for (name, (error, support)), style in zip(curves.items(), STYLES, strict=False):
            look: draw.Look = {"color": PALETTE[name], "ls": style, "lw": 1.5}
            left.semilogy(_shown(error), label=name, **look)
            right.plot(support, drawstyle="steps-post", **look)
        draw.frame(left, x="$k$", y=r"$\|\theta^k - \theta^*\|$", ylim=(1e-8, None))
        draw.frame(right, x="$k$", y="entries that are not zero")
        draw.whole_numbers(right.yaxis)
        draw.shared_legend(fig)
    return fig


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
    with draw.panels(1, 2, 2.8, minor=False) as (fig, [[left, right]]):
        left.axvspan(float(x[0]), 0, color=GRAY, alpha=0.35, lw=0, label=r"$J = \infty$")
        left.plot(x, (x + 1) ** 2, color=BLACK, label=r"$\mathcal{L}(\theta) = (\theta + 1)^2$")
        left.plot(theta, (theta + 1) ** 2, "o-", color=EXACT, ms=4, lw=0.8, label=r"$\theta^k$")
        left.plot(-1, 0, color=RED, marker="*", ms=10, ls="", label="minimizer, out of reach")
        draw.frame(left, x=r"$\theta$", key="upper left", xlim=(x[0], x[-1]), ylim=(-0.6, None))
        right.axhline(0, color=BLACK, lw=0.6)
        # v equals theta while both are positive: a broad line under a thin one
        right.plot(v, color=GREEN, lw=3.5, alpha=0.5, label=r"$v^k$")
        right.plot(theta, color=EXACT, label=r"$\theta^k$")
        right.plot(slopes, "--", color=RED, label=r"$\mathcal{L}'(\theta^k)$")
        draw.frame(right, x="$k$", key="lower left")
    return fig


def step_condition(losses: Curves, distances: Curves) -> Figure:
    """What the step size does to the loss and to the distance.

    Args:
        losses: by label, (K,).
        distances: by label, (K,), d_k.

    Returns:
        Two panels with logarithmic axes.
    """
    with draw.panels(1, 2, 2.8, sharex=True, minor=False) as (fig, [axes]):
        looks = [look | {"ls": style} for look, style in zip(STEPS, STYLES, strict=False)]
        names = (r"loss $\mathcal{L}(\theta^k)$", "distance $d_k$")
        for ax, curves, name in zip(axes, (losses, distances), names, strict=True):
            draw.lines(ax, {label: _shown(values) for label, values in curves.items()}, looks)
            draw.frame(ax, x="$k$", y=name, log="y")
            # a diverging curve leaves the picture, so that the others stay visible
            first = max(float(values[0]) for values in curves.values())
            # of one width, however soon a curve is lost in rounding
            last = max(len(values) for values in curves.values()) - 1
            ax.set(ylim=(None, min(1e3 * first, ax.get_ylim()[1])), xlim=(0, last))
        draw.shared_legend(fig)
    return fig


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
    with draw.panels(1, len(panels), 2.9, minor=False, title=title) as (fig, [axes]):
        for ax, (name, sides) in zip(axes, panels.items(), strict=True):
            k = np.arange(len(sides[0])) + logarithmic
            for curve, look in zip(sides, ({"color": BLUE}, BOUND), strict=True):
                shown = np.asarray(curve, dtype=float)
                ax.plot(k, np.where((shown > 0) & (shown < 1e30), shown, np.nan), **look)
            across, log = ("$k + 1$", "xy") if logarithmic else ("$k$", "y")
            draw.frame(ax, name, across, log=log, ylim=(1e-6, 1e3), xlim=(k[0], k[-1]),
                       yticks=[1e-6, 1e-3, 1, 1e3])  # fmt: skip
        fig.legend(axes[0].lines, ["seen", "bound"], loc="outside lower center", ncols=2)
    return fig


def _promised(ax: Axes, curves: Curves, where: str = "") -> None:
    draw.lines(ax, curves, STEPS)
    ax.axhline(1, **BOUND)
    draw.frame(ax, f"{where}decrease, promised / seen", "$k$", ylim=(0, 1.1))


def _both_sides(ax: Axes, bound: Bound, color: str, start: int = 0) -> None:
    sides = {"left side": bound.lhs, "right side": bound.rhs}
    draw.lines(ax, sides, ({"color": color}, BOUND), range(start, start + len(bound.lhs)))


def _shown(values: Tensor) -> np.ndarray:
    """Values for a logarithmic axis, up to where they are lost in rounding."""
    array = np.asarray(values, dtype=float)
    seen = np.logical_and.accumulate(array > FLOOR * array[0])
    return np.where(seen, array, np.nan)
