"""Figures of one to three weights: waiting, shrinkage, subgradients, Bregman distances, balls."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from torch import Tensor

from bregman.regularizers import L1, Regularizer
from bregman.suite.convex import ExactFlow, Path, bregman_distance
from bregman.suite.plots.style import BLACK, BLUE, GRAY, PALETTE, PINK, RED, STYLE

LINBREG, ISTA, DESCENT = PALETTE["LinBreg"], PALETTE["ProxGD"], PALETTE["SGD"]
WAITING_ROOM = "#E6EBF2"
# of the time axis of one weight
_END = 6.0


def pull_and_wait(
    v: Sequence[float],
    waiting: Sequence[float],
    pulled: Sequence[float],
    *,
    lam: float,
    tau: float,
    upto: int | None = None,
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
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.6))
        left.axhspan(-lam, lam, color=WAITING_ROOM, lw=0)
        left.axhline(lam, color=BLACK, ls="--", lw=0.9)
        left.text(clock[-1], lam + 0.03, r"$\lambda$", ha="right")
        left.text(clock[-1], 0.05, "waiting room: the weight is zero", ha="right")
        left.plot(clock[shown], v[shown], ".-", color=LINBREG, ms=4, lw=0.9)
        left.set(title="the memory $v$", xlabel=r"time $t = k\tau$")
        left.set(ylim=(-0.1, 1.25 * max(*v, lam)), xlim=(-0.1, clock[-1] + 0.1))
        for values, style, color, name in (
            (pulled, ":", ISTA, "pulled"), (waiting, ".-", LINBREG, "waiting")
        ):  # fmt: skip
            right.plot(clock[shown], values[shown], style, color=color, ms=4, lw=1.5, label=name)
        right.set(title=r"the weight $\theta$", xlabel=r"time $t = k\tau$")
        right.set(ylim=(-0.05, 1.25), xlim=left.get_xlim())
        right.legend(loc="center right")
    return fig


def proximal_map(reg: Regularizer, x: float, step: float = 1.0) -> Figure:
    """The prox as a minimum: a parabola around x, plus J.

    Args:
        reg: J, of one variable.
        x: the point whose prox is wanted, in [-2.5, 2.5].
        step: the factor in front of J.

    Returns:
        Two panels with fixed axes: what is minimized, and the map x -> prox(x).
    """
    grid = torch.linspace(-2.5, 2.5, 401, dtype=torch.float64)
    values = torch.tensor([float(step * reg(z)) for z in grid.unsqueeze(1)])
    parabola = (grid - x).square() / 2
    least = float(reg.prox(torch.tensor([x], dtype=torch.float64), step))
    height = float((values + parabola)[(grid - least).abs().argmin()])
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.0))
        left.plot(grid, parabola, color=GRAY, ls="--", label=r"$\frac{1}{2}(z - x)^2$")
        left.plot(grid, values, color=BLACK, ls=":", label="$J(z)$")
        left.plot(grid, values + parabola, color=RED, lw=1.8, label="their sum")
        left.plot(x, 0, "o", color=GRAY, label=f"$x$ = {x:g}", zorder=3, clip_on=False)
        left.plot(least, height, "o", color=RED, label=f"prox$(x)$ = {least:.2f}", zorder=3)
        left.set(xlabel="$z$", ylim=(0, 6), xlim=(-2.5, 2.5), title="what is minimized")
        right.plot(grid, grid, color=GRAY, ls="--", label="identity")
        mapped = torch.cat([reg.prox(z, step) for z in grid.unsqueeze(1)])
        right.plot(grid, mapped, color=RED, lw=1.8, label="prox")
        right.plot(x, least, "o", color=RED)
        right.set(xlabel="$x$", title=r"$x \to \mathrm{prox}_J(x)$", xlim=(-2.5, 2.5))
        right.set(ylim=(-2.5, 2.5))
        right.legend(loc="upper left")
        # above both, as the curves go everywhere when x moves
        fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return fig


def subgradients(reg: L1, slopes: Sequence[float]) -> Figure:
    """J = lam |x| in one variable: its tangents at zero, its subdifferential, its prox.

    Args:
        reg: J.
        slopes: of the tangents at zero; those outside [-lam, lam] are no subgradients.

    Returns:
        Three panels.
    """
    lam = reg.lam
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    with plt.style.context(STYLE):
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.5))
        left.plot(x, lam * x.abs(), color=BLACK, lw=2, label=r"$J(x) = \lambda|\,x\,|$")
        for slope in slopes:
            inside = abs(slope) <= lam
            name = "slope in $[-\\lambda, \\lambda]$" if inside else "slope outside"
            known = name in left.get_legend_handles_labels()[1]
            look = {"color": BLUE if inside else GRAY, "ls": "-" if inside else "--"}
            left.plot(x, slope * x, lw=1, label=None if known else name, **look)
        left.set(title="tangents at 0", xlabel="$x$", ylim=(-1.2 * lam, 4.8 * lam))
        left.legend(loc="upper center")
        middle.plot([-2, 0, 0, 2], [-lam, -lam, lam, lam], color=BLUE, lw=2)
        middle.set(title=r"subdifferential $\partial J(x)$", xlabel="$x$", ylabel="$p$")
        middle.set(yticks=(-lam, 0, lam), ylim=(-1.6 * lam, 1.6 * lam))
        middle.set_yticklabels((r"$-\lambda$", "0", r"$\lambda$"))
        right.plot(x, x, color=GRAY, ls="--", label="identity")
        right.plot(x, reg.prox(x), color=RED, lw=2, label="prox")
        right.set(title=r"shrinkage $\mathrm{prox}_J(x)$", xlabel="$x$")
        right.legend(loc="upper left")
    return fig


def bregman_gaps(cases: Mapping[str, tuple[Regularizer, float, float, float]]) -> Figure:
    """D_J^p(z, theta) as the gap at z between J and its tangent at theta, eq. (1.17).

    Args:
        cases: from a title to J, theta, the slope p and z.

    Returns:
        One panel per case.
    """
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            1, len(cases), figsize=(7.2, 2.7), sharey=True, sharex=True, squeeze=False
        )
        for ax, (title, (reg, theta, p, z)) in zip(axes.flat, cases.items(), strict=True):
            at, there, slope = (torch.tensor([c], dtype=torch.float64) for c in (theta, z, p))
            gap = float(bregman_distance(reg, there, at, slope))
            top, touch = float(reg(there)), float(reg(at))
            ax.plot(x, [float(reg(c)) for c in x.unsqueeze(1)], color=BLACK, lw=1.8, label="$J$")
            ax.plot(x, touch + p * (x - theta), color=BLUE, lw=1.2, label="tangent, slope $p$")
            ax.plot([z, z], [top - gap, top], color=PINK, lw=3, solid_capstyle="butt",
                    label=f"$D$ = {gap:.2f}")  # fmt: skip
            ax.plot(theta, touch, "o", color=BLUE, ms=5, label=rf"$\theta = {theta:g}$")
            ax.plot(z, top, "o", color=PINK, ms=5, label=f"$z = {z:g}$")
            ax.set(title=title, ylim=(-1.1, 3.6), xlim=(-2, 2), xlabel="weight")
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
    clock = tau * path.iterations
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        left.axhspan(-lam, lam, color=WAITING_ROOM, lw=0)
        left.axhline(lam, color=BLACK, ls="--", lw=0.9)
        left.text(0.1, lam + 0.05, r"$\lambda$")
        left.plot(fine, flow.p_at(fine)[:, 0], color=BLACK, label="flow: $p$")
        left.plot(clock, path.v[:, 0], ".-", color=LINBREG, ms=3, lw=0.8, label="LinBreg: $v$")
        left.set(title="the subgradient moves first", xlabel=r"time $t = k\tau$")
        left.set(ylim=(-0.5, 3.2), xlim=(0, _END))
        left.legend(loc="upper right")
        times = tau * torch.arange(len(ista))
        right.plot(times, descent[:, 0], color=DESCENT, lw=1.8, label="gradient descent")
        right.plot(times, ista[:, 0], ":", color=ISTA, lw=1.8, label="ISTA")
        right.plot(fine, flow.theta_at(fine)[:, 0], color=BLACK, label="flow")
        right.plot(clock, path.theta[:, 0], ".-", color=LINBREG, ms=3, lw=0.8, label="LinBreg")
        right.set(title=r"the weight $\theta$", xlabel=r"time $t = k\tau$")
        right.set(ylim=(-0.5, 2.5), xlim=(0, _END))
        right.legend(loc="upper right", ncols=2)
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
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            2, len(regs), figsize=(7.2, 3.9), sharex=True, sharey=True, squeeze=False
        )
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
            for ax in (upper, lower):
                ax.set(aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), xticks=(-1, 0, 1))
                ax.set(yticks=(-1, 0, 1))
        for ax in axes[1]:
            ax.set_xlabel(r"$\theta_1$")
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
    with plt.style.context(STYLE):
        fig = plt.figure(figsize=(7.2, 2.7))
        for k, (title, reg) in enumerate(regs.items()):
            ax = fig.add_subplot(1, len(regs), k + 1, projection="3d")
            sizes = torch.stack([reg(d) for d in directions.reshape(-1, 3)]).reshape(a.shape)
            x, y, z = (directions / sizes.unsqueeze(-1)).unbind(-1)
            ax.plot_surface(x.numpy(), y.numpy(), z.numpy(), color="#B9D3EE", lw=0.2,
                            edgecolor="#5F86AE", rstride=2, cstride=2,
                            lightsource=LightSource(azdeg=300, altdeg=60))  # fmt: skip
            ax.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
            ax.set_title(title, y=1.0)
            ax.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
            ax.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", zlabel=r"$\theta_3$")
            ax.set_box_aspect((1, 1, 1), zoom=0.9)
            ax.view_init(elev=22, azim=32)
    return fig
