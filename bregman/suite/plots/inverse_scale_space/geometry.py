"""Figures of one to three weights: waiting, shrinkage, subgradients, Bregman distances, balls."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from torch import Tensor

from bregman.regularizers import L1, Regularizer
from bregman.suite.convex import ExactFlow, Path, bregman_distance
from bregman.suite.plots import grammar as draw
from bregman.suite.plots.style import BLACK, BLUE, GRAY, PALETTE, PINK, RED

Numbers = Sequence[float]

LINBREG, ISTA, DESCENT = PALETTE["LinBreg"], PALETTE["ProxGD"], PALETTE["SGD"]
WAITING_ROOM = "#E6EBF2"
TIME = r"time $t = k\tau$"
# of the time axis of one weight
_END = 6.0


def pull_and_wait(
    v: Numbers, waiting: Numbers, pulled: Numbers, *, lam: float, tau: float, upto: int | None
) -> Figure:
    """One weight twice: pulled towards zero by a penalty, or waiting at zero behind a threshold.

    Args:
        v: K values of the memory.
        waiting: the weight that is read off it.
        pulled: the weight of gradient steps with a pull.
        lam: the threshold, and the pull.
        tau: the step size.
        upto: how many of the steps are drawn, None for all.

    Returns:
        Two panels over the time k tau, v and theta, with axes that do not depend on ``upto``.
    """
    clock, shown = tau * np.arange(len(v)), slice(None, None if upto is None else upto + 1)
    sides = (-0.1, clock[-1] + 0.1)
    with draw.panels(1, 2, 2.6) as (fig, [[left, right]]):
        _waiting_room(left, lam)
        left.text(clock[-1], lam + 0.03, r"$\lambda$", ha="right")
        left.text(clock[-1], 0.05, "waiting room: the weight is zero", ha="right")
        left.plot(clock[shown], v[shown], ".-", color=LINBREG, ms=4, lw=0.9)
        right.plot(clock[shown], pulled[shown], ":", color=ISTA, lw=1.5, label="pulled")
        right.plot(clock[shown], waiting[shown], ".-", color=LINBREG, ms=4, lw=1.5, label="waiting")
        draw.frame(left, "the memory $v$", TIME, ylim=(-0.1, 1.25 * max(*v, lam)), xlim=sides)
        draw.frame(right, r"the weight $\theta$", TIME, key="center right", ylim=(-0.05, 1.25),
                   xlim=sides)  # fmt: skip
    return fig


def proximal_map(reg: Regularizer, x: float) -> Figure:
    """The prox as a minimum: a parabola around x, plus J.

    Args:
        reg: J, of one variable.
        x: the point whose prox is wanted, in [-2.5, 2.5].

    Returns:
        Two panels with fixed axes: what is minimized, and the map x -> prox(x).
    """
    grid, ends = torch.linspace(-2.5, 2.5, 401, dtype=torch.float64), (-2.5, 2.5)
    values = torch.tensor([float(reg(z)) for z in grid.unsqueeze(1)])
    parabola = (grid - x).square() / 2
    least = float(reg.prox(torch.tensor([x], dtype=torch.float64), 1.0))
    height = float((values + parabola)[(grid - least).abs().argmin()])
    with draw.panels(1, 2, 3.0) as (fig, [[left, right]]):
        left.plot(grid, parabola, color=GRAY, ls="--", label=r"$\frac{1}{2}(z - x)^2$")
        left.plot(grid, values, color=BLACK, ls=":", label="$J(z)$")
        left.plot(grid, values + parabola, color=RED, lw=1.8, label="their sum")
        left.plot(x, 0, "o", color=GRAY, label=f"$x$ = {x:g}", zorder=3, clip_on=False)
        left.plot(least, height, "o", color=RED, label=f"prox$(x)$ = {least:.2f}", zorder=3)
        draw.frame(left, "what is minimized", "$z$", ylim=(0, 6), xlim=ends)
        right.plot(grid, grid, color=GRAY, ls="--", label="identity")
        mapped = torch.cat([reg.prox(z, 1.0) for z in grid.unsqueeze(1)])
        right.plot(grid, mapped, color=RED, lw=1.8, label="prox")
        right.plot(x, least, "o", color=RED)
        draw.frame(right, r"$x \to \mathrm{prox}_J(x)$", "$x$", key="upper left", xlim=ends,
                   ylim=ends)  # fmt: skip
        # above both, as the curves go everywhere when x moves
        draw.shared_legend(fig)
    return fig


def subgradients(reg: L1, slopes: Numbers) -> Figure:
    """J = lam |x| in one variable: its tangents at zero, its subdifferential, its prox.

    Args:
        reg: J.
        slopes: of the tangents at zero; those outside [-lam, lam] are no subgradients.

    Returns:
        Three panels.
    """
    lam = reg.lam
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    with draw.panels(1, 3, 2.5) as (fig, [[left, middle, right]]):
        left.plot(x, lam * x.abs(), color=BLACK, lw=2, label=r"$J(x) = \lambda|\,x\,|$")
        for slope in slopes:
            inside = abs(slope) <= lam
            name = "slope in $[-\\lambda, \\lambda]$" if inside else "slope outside"
            known = name in left.get_legend_handles_labels()[1]
            look = {"color": BLUE if inside else GRAY, "ls": "-" if inside else "--"}
            left.plot(x, slope * x, lw=1, label=None if known else name, **look)
        draw.frame(left, "tangents at 0", "$x$", key="upper center", ylim=(-1.2 * lam, 4.8 * lam))
        middle.plot([-2, 0, 0, 2], [-lam, -lam, lam, lam], color=BLUE, lw=2)
        draw.frame(middle, r"subdifferential $\partial J(x)$", "$x$", "$p$",
                   ylim=(-1.6 * lam, 1.6 * lam))  # fmt: skip
        middle.set_yticks((-lam, 0, lam), (r"$-\lambda$", "0", r"$\lambda$"))
        right.plot(x, x, color=GRAY, ls="--", label="identity")
        right.plot(x, reg.prox(x), color=RED, lw=2, label="prox")
        draw.frame(right, r"shrinkage $\mathrm{prox}_J(x)$", "$x$", key="upper left")
    return fig


def bregman_gaps(cases: Mapping[str, tuple[Regularizer, float, float, float]]) -> Figure:
    """D_J^p(z, theta) as the gap at z between J and its tangent at theta, eq. (1.17).

    Args:
        cases: from a title to J, theta, the slope p and z.

    Returns:
        One panel per case.
    """
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    with draw.panels(1, len(cases), 2.7, sharey=True, sharex=True) as (fig, [axes]):
        for ax, (title, (reg, theta, p, z)) in zip(axes, cases.items(), strict=True):
            at, there, slope = (torch.tensor([c], dtype=torch.float64) for c in (theta, z, p))
            gap = float(bregman_distance(reg, there, at, slope))
            top, touch = float(reg(there)), float(reg(at))
            ax.plot(x, [float(reg(c)) for c in x.unsqueeze(1)], color=BLACK, lw=1.8, label="$J$")
            ax.plot(x, touch + p * (x - theta), color=BLUE, lw=1.2, label="tangent, slope $p$")
            ax.plot([z, z], [top - gap, top], color=PINK, lw=3, solid_capstyle="butt",
                    label=f"$D$ = {gap:.2f}")  # fmt: skip
            ax.plot(theta, touch, "o", color=BLUE, ms=5, label=rf"$\theta = {theta:g}$")
            ax.plot(z, top, "o", color=PINK, ms=5, label=f"$z = {z:g}$")
            draw.frame(ax, title, "weight", ylim=(-1.1, 3.6), xlim=(-2, 2))
            ax.legend(loc="upper center", ncols=2, columnspacing=1, handlelength=1.4)
    return fig


def one_weight(flow: ExactFlow, path: Path, ista: Tensor, descent: Tensor) -> Figure:
    """A single weight: v has to travel to lambda before theta may leave zero.

    Args:
        flow: the exact inverse scale space flow, theta of shape (1,), towards 1.
        path: LinBreg with every iterate and one step size tau, for J = L1(lam).
        ista: (K, 1), the iterates of proximal gradient descent with the same tau.
        descent: (K, 1), those of gradient descent.

    Returns:
        Two panels over the time t = k tau, v and theta, with fixed axes: what leaves them diverges.
    """
    tau = float(path.taus[0])
    fine = torch.linspace(0, _END, 1000, dtype=torch.float64)
    clock, times = tau * path.iterations, tau * torch.arange(len(ista))
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    with draw.panels(1, 2, 2.8) as (fig, [[left, right]]):
        _waiting_room(left, lam)
        left.text(0.1, lam + 0.05, r"$\lambda$")
        left.plot(fine, flow.p_at(fine)[:, 0], color=BLACK, label="flow: $p$")
        left.plot(clock, path.v[:, 0], ".-", color=LINBREG, ms=3, lw=0.8, label="LinBreg: $v$")
        right.plot(times, descent[:, 0], color=DESCENT, lw=1.8, label="gradient descent")
        right.plot(times, ista[:, 0], ":", color=ISTA, lw=1.8, label="ISTA")
        right.plot(fine, flow.theta_at(fine)[:, 0], color=BLACK, label="flow")
        right.plot(clock, path.theta[:, 0], ".-", color=LINBREG, ms=3, lw=0.8, label="LinBreg")
        draw.frame(left, "the subgradient moves first", TIME, key="upper right", ylim=(-0.5, 3.2),
                   xlim=(0, _END))  # fmt: skip
        draw.frame(right, r"the weight $\theta$", TIME, key="upper right", columns=2,
                   ylim=(-0.5, 2.5), xlim=(0, _END))  # fmt: skip
    return fig


def shapes(regs: Mapping[str, Regularizer]) -> Figure:
    """What a regularizer of two variables wants: its level sets, and where its prox moves points.

    Args:
        regs: from a title to J, which takes tensors of shape (2,).

    Returns:
        Two rows, one column per J; below, the prox of J / 2. The unit ball J <= 1 is filled; a dot
        is where an arrow ends.
    """
    fine = torch.linspace(-1.6, 1.6, 161, dtype=torch.float64)
    coarse = torch.linspace(-1.5, 1.5, 5, dtype=torch.float64)
    grid = torch.cartesian_prod(fine, fine)
    points = torch.cartesian_prod(coarse, coarse)
    with draw.panels(2, len(regs), 3.9, sharex=True, sharey=True) as (fig, axes):
        for (upper, lower), (title, reg) in zip(axes.T, regs.items(), strict=True):
            values = torch.vmap(reg)(grid).reshape(len(fine), -1).T.numpy()
            values = np.ma.masked_invalid(values)
            upper.contourf(fine, fine, values, levels=[-1, 1], colors=[BLUE], alpha=0.35)
            upper.contour(fine, fine, values, levels=[0.5, 1, 1.5], colors=[BLUE],
                          linewidths=[0.8, 1.6, 0.8])  # fmt: skip
            moved = torch.vmap(lambda x, reg=reg: reg.prox(x, 0.5))(points)
            move = moved - points
            lower.quiver(*points.T, *move.T, angles="xy", scale_units="xy", scale=1, color=GRAY,
                         width=0.009, headwidth=4)  # fmt: skip
            lower.plot(*moved.T, "o", color=RED, ms=2.4)
            upper.set_title(title)
            lower.set_xlabel(r"$\theta_1$")
        for ax in axes.flat:
            ax.set(aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), xticks=(-1, 0, 1),
                   yticks=(-1, 0, 1))  # fmt: skip
        axes[0, 0].set_ylabel(r"$J(x) \leq 1$")
        axes[1, 0].set_ylabel(r"$x \to \mathrm{prox}_{J/2}(x)$")
    return fig


def unit_balls(regs: Mapping[str, Regularizer]) -> Figure:
    """The unit ball J <= 1 in three variables, where one can see sparsity across groups.

    Args:
        regs: from a title to a J that takes (3,) and is homogeneous, J(s x) = s J(x).

    Returns:
        One panel per J.
    """
    across = torch.linspace(0, 2 * torch.pi, 73, dtype=torch.float64)
    down = torch.linspace(0, torch.pi, 37, dtype=torch.float64)
    a, b = torch.meshgrid(across, down, indexing="ij")
    directions = torch.stack([a.cos() * b.sin(), a.sin() * b.sin(), b.cos()], dim=-1)
    limits, ticks = dict.fromkeys(("xlim", "ylim", "zlim"), (-1, 1)), (-1, 0, 1)
    with draw.panels(1, len(regs), 2.7, subplot_kw={"projection": "3d"}) as (fig, [axes]):
        for ax, (title, reg) in zip(axes, regs.items(), strict=True):
            sizes = torch.stack([reg(d) for d in directions.reshape(-1, 3)]).reshape(a.shape)
            x, y, z = (directions / sizes.unsqueeze(-1)).unbind(-1)
            ax.plot_surface(x.numpy(), y.numpy(), z.numpy(), color="#B9D3EE", lw=0.2,
                            edgecolor="#5F86AE", rstride=2, cstride=2,
                            lightsource=LightSource(azdeg=300, altdeg=60))  # fmt: skip
            ax.set(**limits, xticks=ticks, yticks=ticks, zticks=ticks)
            draw.frame(ax, x=r"$\theta_1$", y=r"$\theta_2$", zlabel=r"$\theta_3$")
            ax.set_title(title, y=1.0)
            ax.set_box_aspect((1, 1, 1), zoom=0.9)
            ax.view_init(elev=22, azim=32)
    return fig


def _waiting_room(ax: Axes, lam: float) -> None:
    ax.axhspan(-lam, lam, color=WAITING_ROOM, lw=0)
    ax.axhline(lam, color=BLACK, ls="--", lw=0.9)
