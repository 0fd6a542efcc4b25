"""Figures of vectors over time: paths, the Lasso, two planes, inertia, exact regularization."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from bregman.suite.convex import ExactFlow, Path
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK, GRAY, PALETTE, PURPLE

Numbers = Sequence[float]
Vectors = Mapping[str, Tensor]

# what stands for zero on a logarithmic axis
FLOOR = 1e-16
LINBREG, ISTA, LASSO, TRUTH = PALETTE["LinBreg"], PALETTE["ProxGD"], PALETTE["Lasso"], PURPLE
COLORS = PALETTE | {"ISTA": ISTA, "exact flow": BLACK, "gradient descent": GRAY}
TIME = r"time $t = k\tau$"


def sparse_paths(
    flow: ExactFlow, path: Path, ista: Tensor, *, end: float, count: int, reach: float
) -> Figure:
    """How the coefficients appear: exact flow, LinBreg and ISTA.

    Args:
        flow: the inverse scale space flow, theta of shape (n,).
        path: LinBreg with one step size, for the same L1(lam).
        ista: (K, n), the iterates of ISTA from zero.
        end: where the axes of time end.
        count: where those of the iterations end.
        reach: the largest |theta_i| to be seen.

    Returns:
        Four panels with fixed axes: theta of flow and LinBreg over time, with the flow's events;
        its p / lam; ISTA's theta over its iterations; the numbers of non-zeros.
    """
    # between events theta rests and p goes straight
    nodes = torch.cat([flow.times[flow.times < end], torch.tensor([end], dtype=torch.float64)])
    visited, stays = (flow.theta != 0).any(0), flow.theta[-1] != 0
    theta, p, steps = flow.theta_at(nodes), flow.p_at(nodes) / lam(path), torch.arange(len(ista))
    with draw.panels(2, 2, 5) as (fig, [[bregman, subgrad], [prox, counts]]):
        events((bregman, subgrad), flow)
        draw_lines(bregman, clock(path), path.theta, LINBREG, "LinBreg", lw=1.6)
        draw_lines(bregman, nodes, theta, BLACK, "exact flow", lw=0.9, drawstyle="steps-post")
        draw_lines(subgrad, nodes, p[:, ~visited], GRAY, "entries that stay zero", lw=0.4)
        draw_lines(subgrad, nodes, p[:, visited & stays], BLACK, "entries that stay", lw=1.2)
        if bool((visited & ~stays).any()):
            draw_lines(
                subgrad, nodes, p[:, visited & ~stays], COLORS["AdaBreg"], "come and go", lw=1.4
            )
        draw_lines(prox, steps, ista, ISTA, "ISTA", lw=0.9)
        counts.plot(steps, (ista != 0).sum(1), color=ISTA, ls=":", label="ISTA")
        counts.plot(path.iterations, (path.theta != 0).sum(1), color=LINBREG, label="LinBreg")
        counts.axhline(int(stays.sum()), color=TRUTH, ls="--", lw=1.2, label="truth")
        weights: draw.Look = {"ylabel": r"$\theta_i$", "ylim": (-1.1 * reach, 1.5 * reach)}
        iterations: draw.Look = {"xlabel": "iteration $k$", "xscale": "symlog", "xlim": (0, count)}
        draw.frame(bregman, r"$\theta$ along LinBreg and the flow", TIME, xlim=(0, end), **weights)
        draw.frame(subgrad, r"events: $|\,p_i\,|$ reaches $\lambda$", r"time $t$",
                   r"$p_i / \lambda$", xlim=(0, end), yticks=(-1, 0, 1),
                   ylim=(-1.1, 2.2))  # fmt: skip
        prox.set(title=r"$\theta$ along ISTA", **iterations, **weights)
        for ax in (bregman, subgrad, prox):
            thin_legend(ax)
        draw.frame(counts, "non-zero entries", key="upper right", ylim=(-3, ista.shape[1] + 3),
                   **iterations)  # fmt: skip
    return fig


def time_average(
    times: Tensor, lassos: Tensor, averages: Tensor, flow: ExactFlow, false: int | None = None
) -> Figure:
    """The Lasso path over 1/lambda on the flow and on its time average.

    Args:
        times: (K,), the times t = 1/lambda.
        lassos: (K, n), the Lasso at these lambda.
        averages: (K, n), the flow's mean from 0 to t.
        flow: the exact flow.
        false: an entry that is not in the truth, drawn in a colour of its own.

    Returns:
        Two panels over t: the flow; the Lasso path with the averages on it.
    """
    fine = torch.linspace(0, float(times[-1]), 2000, dtype=torch.float64)
    states = flow.theta_at(fine)
    with draw.panels(1, 2, 2.9, sharex=True, sharey=True) as (fig, [[left, right]]):
        for k, i in enumerate((flow.theta != 0).any(0).nonzero().flatten().tolist()):
            color = COLORS["AdaBreg"] if i == false else None
            name = "a false entry" if color else None if k else "exact flow"
            left.plot(fine, states[:, i], color=color or BLACK, lw=1.2, label=name)
            name = None if k or color else "Lasso"
            right.plot(times, lassos[:, i], color=color or LASSO, lw=2.4, label=name)
            right.plot(times[::6], averages[::6, i], "o", color=BLACK, ms=2.6,
                       label=None if k else "time average of the flow")  # fmt: skip
        events((left, right), flow)
        draw.frame(left, r"flow $\theta(t)$", "time $t$", r"$\theta_i$", key="upper left",
                   ylim=(None, 2.1 * float(states.max())))  # fmt: skip
        draw.frame(right, r"Lasso at $\lambda = 1/t$", r"$t = 1/\lambda$", key="upper left")
    return fig


def two_planes(
    path: Path, truth: Tensor, *, upto: int | None = None, reach: float, spread: float
) -> Figure:
    """One trajectory of LinBreg in the plane of v and in the plane of theta.

    Args:
        path: LinBreg for two weights and J = L1(lam), with every iterate.
        truth: (2,), the minimizer.
        upto: the last iterate drawn, None for all.
        reach: the half width of the plane of v.
        spread: the half width of the plane of theta.

    Returns:
        Two panels with fixed axes: v with the square |v_i| <= lam, theta with contours of the loss.
    """
    last, edge = len(path.theta) - 1 if upto is None else upto, lam(path)
    grid = torch.linspace(-spread, spread, 61, dtype=torch.float64)
    losses = torch.stack([path.problem.f(x) for x in torch.cartesian_prod(grid, grid)])
    with draw.panels(1, 2, 3.4) as (fig, [[left, right]]):
        left.add_patch(Rectangle((-edge, -edge), 2 * edge, 2 * edge, color="#DCE5EF"))
        left.text(-0.95 * edge, -0.9 * edge, r"$\theta = (0, 0)$")
        for wall, name in ((-edge, r"$-\lambda$"), (edge, r"$\lambda$")):
            left.axvline(wall, color=GRAY, lw=0.8)
            left.axhline(wall, color=GRAY, lw=0.8)
            left.text(wall + 0.06, -0.96 * reach, name)
        levels = float(losses.max()) * np.array([0.003, 0.01, 0.03, 0.08, 0.16, 0.3, 0.5, 0.8])
        right.contour(grid, grid, losses.reshape(61, 61).T.numpy(), levels=levels, colors=[GRAY],
                      linewidths=0.6)  # fmt: skip
        right.plot(*truth, "o", color=TRUTH, mfc="none", ms=9, label="minimizer")
        for ax, values, name, half in ((left, path.v, "v", reach),
                                       (right, path.theta, r"\theta", spread)):  # fmt: skip
            ax.plot(*values[: last + 1].T, ".-", color=LINBREG, ms=3, lw=1)
            ax.plot(*values[last], "o", color=LINBREG, ms=7)
            draw.frame(ax, f"the plane of ${name}$", f"${name}_1$", f"${name}_2$", aspect="equal",
                       xlim=(-half, half), ylim=(-half, half))  # fmt: skip
        right.legend(loc="lower left")
    return fig


def event_errors(deltas: Numbers, errors: Mapping[str, Numbers]) -> Figure:
    """How late LinBreg is at the events of the flow, against delta.

    Args:
        deltas: K values of delta.
        errors: from a name to the K errors.

    Returns:
        One panel with a line of slope -1.
    """
    with draw.panels(1, 1, 2.8, 4.6, minor=False) as (fig, [[ax]]):
        draw.lines(ax, errors, ({"marker": mark, "ms": 4, "lw": 1} for mark in "osD^v"), deltas)
        top = max(max(values) for values in errors.values())
        line = [1.6 * top * deltas[0] / delta for delta in deltas]
        ax.loglog(deltas, line, color=GRAY, ls="--", label=r"slope $-1$")
        ax.set_xticks(deltas, [f"{delta:g}" for delta in deltas])
        draw.frame(ax, x=r"$\delta$", y="largest error of an event", key="lower left")
    return fig


def inertia(times: Tensor, curves: Mapping[str, Tensor], points: Mapping[str, tuple]) -> Figure:
    """Flows of one weight with and without inertia, and the iterations beside them.

    Args:
        times: (K,), of the curves.
        curves: from a name to (K, 2): v and theta of a flow.
        points: from a name to (times, v, theta) of an iteration, in the order of the curves.

    Returns:
        Two panels over time: v and theta.
    """
    looks = ((BLACK, LINBREG), (COLORS["AdaBreg"], COLORS["LinBreg β=0.9"]))
    with draw.panels(1, 2, 2.7) as (fig, [axes]):
        for k, (ax, name) in enumerate(zip(axes, ("$v$", r"$\theta$"), strict=True)):
            for (line, dots), (flow, values), (iteration, found) in zip(
                looks, curves.items(), points.items(), strict=True
            ):
                ax.plot(found[0][::3], found[1 + k][::3], "o", color=dots, ms=5, mfc="none",
                        label=iteration)  # fmt: skip
                ax.plot(times, values[:, k], color=line, lw=1.2, label=flow)
            draw.frame(ax, name, TIME)
        axes[1].legend(loc="lower right")
    return fig


def coefficients(truth: Tensor, estimates: Vectors, title: str) -> Figure:
    """Coefficients beside the truth.

    Args:
        truth: (n,), drawn as blue rings.
        estimates: from a name to (n,), entries that are zero to within rounding are left out.
        title: of the panel.

    Returns:
        One panel.
    """
    with draw.panels(1, 1, 2.5) as (fig, [[ax]]):
        draw_coefficients(ax, truth, estimates, title)
    return fig


def bias(
    truth: Tensor, estimates: Vectors, lams: Numbers, errors: Mapping[str, Numbers], title: str
) -> Figure:
    """Coefficients beside the truth, and how the error depends on lambda.

    Args:
        truth: (n,).
        estimates: from a name to (n,).
        lams: K values of lambda.
        errors: from a name to the K errors.
        title: of the coefficients, such as the lambda that they belong to.

    Returns:
        Two panels; an error below 1e-16 is drawn there.
    """
    markers = {"LinBreg": "x", "exact flow": "+"}
    with draw.panels(1, 2, 2.8, width_ratios=(3, 2)) as (fig, [[left, right]]):
        draw_coefficients(left, truth, estimates, title)
        for name, values in errors.items():
            right.loglog(lams, np.maximum(values, FLOOR), markers.get(name, "o") + "-", ms=4, lw=1,
                         color=COLORS[name], label=name)  # fmt: skip
        draw.frame(right, r"$\|\theta - \theta_{\mathrm{true}}\|$", r"$\lambda$", key="center left")
    return fig


def exact_regularization(deltas: Numbers, errors: Numbers, threshold: float) -> Figure:
    """The distance of LinBreg's limit to the basis pursuit solution, against delta.

    Args:
        deltas: K values of delta.
        errors: the K distances.
        threshold: the delta from which on the distance should be zero.

    Returns:
        One panel; a distance below 1e-16 is drawn there.
    """
    with draw.panels(1, 1, 2.8, 5) as (fig, [[ax]]):
        ax.axvline(threshold, color=BLACK, ls="--", lw=1.2, label=r"computed threshold $\delta^*$")
        ax.loglog(
            deltas, np.maximum(errors, FLOOR), "o-", color=LINBREG, ms=4, label="LinBreg, limit"
        )
        draw.frame(ax, x=r"$\delta$", y=r"$\|\theta^\infty - \theta_{\mathrm{BP}}\|$",
                   key="lower left")  # fmt: skip
    return fig


def clock(path: Path) -> Tensor:
    """The time k tau of each iterate, for one step size."""
    return float(path.taus[0]) * path.iterations


def lam(path: Path) -> float:
    """The weight of J = L1(lam), nan of another J."""
    return getattr(path.reg, "lam", float("nan"))


def events(panels: Sequence[Axes], flow: ExactFlow) -> None:
    """Mark the events of a flow."""
    for ax in panels:
        for event in flow.times[1:]:
            ax.axvline(event, color=GRAY, ls="--", lw=0.7)


def draw_lines(ax: Axes, x: Tensor, y: Tensor, color: str, label: str, **look: Any) -> None:
    """The columns of y as one line that is broken between them, which draws much faster."""
    broken = np.column_stack([y.T, np.full(y.shape[1], np.nan)]).flatten()
    again = np.tile(np.append(x, np.nan), y.shape[1])
    ax.plot(again, broken, color=color, label=label, **{"lw": 1.2} | look)


def thin_legend(ax: Axes) -> None:
    for line in ax.legend(loc="upper left").get_lines():
        line.set_linewidth(1.6)


def draw_coefficients(ax: Axes, truth: Tensor, estimates: Vectors, title: str) -> None:
    looks = {"LinBreg": ("x", 5.0), "Lasso": ("o", 3.5)}
    support = truth.nonzero().flatten()
    ax.axhline(0, color=GRAY, lw=0.8)
    ax.vlines(support, 0, truth[support], color=TRUTH, lw=0.8)
    ax.plot(support, truth[support], "o", color=TRUTH, mfc="none", ms=8, label="truth")
    for name, values in estimates.items():
        marker, size = looks.get(name, ("+", 6.0))
        shown = (values.abs() > 1e-12).nonzero().flatten()
        ax.plot(shown, values[shown], marker, color=COLORS[name], ms=size, label=name)
    top = 1.5 * float(truth.abs().max())  # room for the legend
    draw.frame(ax, title, "index $i$", r"$\theta_i$", "upper center", len(estimates) + 1,
               xlim=(-1, len(truth)), ylim=(-0.85 * top, 1.1 * top))  # fmt: skip
