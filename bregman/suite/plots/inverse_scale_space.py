"""The figures of notebook 01: scale space, Bregman distances, shapes of J, contrast regained.

Colours follow the algorithm through all notebooks: LinBreg pink, proximal methods vermilion, exact
flows black, Bregman iteration blue, gradient descent gray.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bregman.regularizers import L1, Regularizer
from bregman.suite.convex import ExactFlow, Path, bregman_distance
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, OCHRE, PINK, RED, STYLE


def signal_scale_spaces(
    signal: Tensor, flows: Mapping[str, tuple[Sequence[float], Tensor]]
) -> Figure:
    """A signal on its way through several flows.

    Args:
        signal: (n,), the data f, drawn in gray behind every state.
        flows: from a flow's name to its times, K of them, and its states, (K, n).

    Returns:
        One row per flow and one column per time; if there is one time only, one row.
    """
    count = max(len(times) for times, _ in flows.values())
    rows, cols = (len(flows), count) if count > 1 else (1, len(flows))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            rows, cols, figsize=(7.2, 1.25 * rows + 0.45), sharex=True, sharey=True, squeeze=False
        )
        panels, colors = iter(axes.flat), (GREEN, RED, BLACK)
        for color, (name, (times, states)) in zip(colors, flows.items(), strict=False):
            for k, (time, state) in enumerate(zip(times, states, strict=True)):
                ax = next(panels)
                ax.step(range(len(signal)), signal, color=GRAY, lw=0.8, where="mid")
                ax.step(range(len(signal)), state, color=color, where="mid")
                ax.set_title(f"{name}, $t$ = {time:.3g}" if count == 1 else f"$t$ = {time:.3g}")
                ax.set(yticks=(0, 0.5, 1), xticks=(0, 30, 60, 90))
                if k == 0 and count > 1:
                    ax.set_ylabel(name)
    return fig


def image_scale_spaces(rows: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Rows of gray images with values in [0, 1].

    Args:
        rows: from the name of a row to its images, each by its title.

    Returns:
        One panel per image.
    """
    cols = max(len(images) for images in rows.values())
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(
            len(rows), cols, figsize=(7.2, 7.2 / cols * len(rows) * 1.12), squeeze=False
        )
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            for ax, (title, image) in zip(line, images.items(), strict=True):
                _image(ax, image, title)
            line[0].set_ylabel(name)
    return fig


def subgradients(reg: L1, step: float, slopes: Sequence[float]) -> Figure:
    """J = lam |x| in one variable: its tangents at zero, its subdifferential, its prox.

    Args:
        reg: J.
        step: the factor in front of J in the prox.
        slopes: of the tangents at zero; those outside [-lam, lam] are no subgradients.

    Returns:
        Three panels.
    """
    lam = reg.lam
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    with plt.style.context(STYLE):
        fig, (left, middle, right) = plt.subplots(1, 3, figsize=(7.2, 2.5))
        left.plot(x, lam * x.abs(), color=BLACK, lw=2, label=r"$J(x) = \lambda|x|$")
        for slope in slopes:
            inside = abs(slope) <= lam
            name = "slope in $[-\\lambda, \\lambda]$" if inside else "slope outside"
            known = name in left.get_legend_handles_labels()[1]
            look = {"color": PINK if inside else GRAY, "ls": "-" if inside else "--"}
            left.plot(x, slope * x, lw=1, label=None if known else name, **look)
        left.set(title="tangents at 0", xlabel="$x$", ylim=(-1.2 * lam, 3.2 * lam))
        left.legend(loc="upper center")
        middle.plot([-2, 0, 0, 2], [-lam, -lam, lam, lam], color=PINK, lw=2)
        middle.set(title=r"subdifferential $\partial J(x)$", xlabel="$x$", ylabel="$p$")
        middle.set(yticks=(-lam, 0, lam), ylim=(-1.6 * lam, 1.6 * lam))
        middle.set_yticklabels((r"$-\lambda$", "0", r"$\lambda$"))
        right.plot(x, x, color=GRAY, ls="--", label="identity")
        right.plot(x, reg.prox(x, step), color=RED, lw=2, label="prox")
        right.set(title=r"shrinkage $\mathrm{prox}_{sJ}(x)$", xlabel="$x$")
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
            ax.set(title=title, ylim=(-1.1, 3.6), xlim=(-2, 2))
            ax.legend(loc="upper center", ncols=2, columnspacing=1, handlelength=1.4)
    return fig


def one_weight(flow: ExactFlow, path: Path, ista: Tensor, descent: Tensor) -> Figure:
    """A single weight: v has to travel to lambda before theta may leave zero.

    Args:
        flow: the exact inverse scale space flow, theta of shape (1,).
        path: LinBreg with every iterate and one step size tau, for J = L1(lam).
        ista: (K, 1), the iterates of proximal gradient descent with the same tau.
        descent: (K, 1), those of gradient descent.

    Returns:
        Two panels over the time t = k tau: v and theta.
    """
    tau = float(path.taus[0])
    end = tau * len(path.taus)
    fine = torch.linspace(0, end, 1000, dtype=torch.float64)
    clock = tau * path.iterations
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
        left.axhspan(-lam, lam, color=GRAY, alpha=0.3, lw=0)
        left.axhline(lam, color=GRAY, ls="--", lw=1)
        left.text(end, lam, r"$\lambda$ ", ha="right", va="bottom")
        left.plot(fine, flow.p_at(fine)[:, 0], color=BLACK, label="flow: $p$")
        left.plot(clock, path.v[:, 0], ".-", color=PINK, ms=3, lw=0.8, label="LinBreg: $v$")
        left.set(title="the subgradient moves first", xlabel=r"time $t = k\tau$")
        left.set(ylim=(min(-0.1, 1.2 * float(path.v.min())), 1.15 * max(lam, float(path.v.max()))))
        left.legend(loc="lower right")
        times = tau * torch.arange(len(ista))
        right.plot(times, descent[:, 0], color=GRAY, lw=1.8, label="gradient descent")
        right.plot(times, ista[:, 0], ":", color=RED, lw=1.8, label="ISTA")
        right.plot(fine, flow.theta_at(fine)[:, 0], color=BLACK, label="flow")
        right.plot(clock, path.theta[:, 0], ".-", color=PINK, ms=3, lw=0.8, label="LinBreg")
        right.set(title=r"the weight $\theta$", xlabel=r"time $t = k\tau$")
        right.legend(loc="lower right")
    return fig


def shapes(regs: Mapping[str, Regularizer], step: float) -> Figure:
    """What a regularizer of two variables wants: its level sets, and where its prox moves points.

    Args:
        regs: from a title to J, which takes tensors of shape (2,).
        step: the factor in front of J in the prox.

    Returns:
        Two rows, one column per J. The unit ball J <= 1 is filled; a dot is where an arrow ends.
    """
    fine = torch.linspace(-1.6, 1.6, 161, dtype=torch.float64)
    coarse = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
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
            moved = torch.vmap(lambda x, reg=reg: reg.prox(x, step))(points)
            move = moved - points
            lower.quiver(*points.T, *move.T, angles="xy", scale_units="xy", scale=1, color=GRAY,
                         width=0.009, headwidth=4)  # fmt: skip
            lower.plot(*moved.T, "o", color=RED, ms=2.4)
            upper.set_title(title)
            for ax in (upper, lower):
                ax.set(aspect="equal", xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), xticks=(-1, 0, 1))
                ax.set(yticks=(-1, 0, 1))
        axes[0, 0].set_ylabel(r"$J(x) \leq 1$")
        axes[1, 0].set_ylabel(r"$x \to \mathrm{prox}_{sJ}(x)$")
    return fig


def denoising(
    clean: ArrayLike, noisy: ArrayLike, estimates: Mapping[str, ArrayLike], row: int
) -> Figure:
    """Two denoised images, what each took away, and a cut through both.

    Args:
        clean: (H, W), the image without noise.
        noisy: (H, W), the data f.
        estimates: three results u by name: ROF, ROF with its best weight, Bregman iteration.
        row: which row of the image the cut shows.

    Returns:
        Five images, three residuals f - u on the scale +-0.3, and the cut.
    """
    colors = (OCHRE, RED, BLUE)
    data: NDArray[np.float64] = np.asarray(noisy)
    with plt.style.context(STYLE):
        fig = plt.figure(figsize=(7.2, 3.4))
        grid = fig.add_gridspec(2, 5)
        for k, (name, image) in enumerate(
            {"clean": clean, "noisy $f$": noisy, **estimates}.items()
        ):
            ax = fig.add_subplot(grid[0, k])
            _image(ax, image, name)
            if k == 0:
                ax.axhline(row, color=PINK, lw=1)
        cut = fig.add_subplot(grid[1, :2])
        cut.plot(np.asarray(clean)[row], color=BLACK, lw=0.9, label="clean")
        for k, (color, (name, image)) in enumerate(zip(colors, estimates.items(), strict=True)):
            cut.plot(np.asarray(image)[row], color=color, lw=1.1, label=name)
            ax = fig.add_subplot(grid[1, 2 + k])
            _image(ax, (data - np.asarray(image)) / 0.6 + 0.5, f"$f - u$, {name}")
        cut.set(title=f"cut along row {row}", ylim=(0, 1.5))
        cut.legend(loc="upper center", ncols=2)
    return fig


def denoising_errors(
    errors: Sequence[float],
    residuals: Sequence[float],
    contrast: Sequence[float],
    *,
    sigma: float,
    stop: int,
    rof: tuple[float, float, float],
) -> Figure:
    """Bregman iteration for denoising, step by step, against the best ROF result.

    Args:
        errors: distance to the clean image after 1, 2, ... steps.
        residuals: distance to the noisy data.
        contrast: the share of the clean image's contrast that is missing.
        sigma: the noise level.
        stop: the step at which the discrepancy principle stops, counted from 1.
        rof: the same three numbers for ROF.

    Returns:
        Three panels.
    """
    titles = ("error against the clean image", "residual against the data", "contrast lost [%]")
    steps = range(1, len(errors) + 1)
    values = (errors, residuals, [100 * c for c in contrast])
    marks = (rof[0], rof[1], 100 * rof[2])
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.5), sharex=True)
        for ax, title, curve, mark in zip(axes, titles, values, marks, strict=True):
            ax.axvline(stop, color=GRAY, ls="--", lw=1.2, label="stop: residual $\\leq \\sigma$")
            ax.axhline(mark, color=RED, ls=":", lw=1.6, label="best ROF")
            ax.plot(steps, curve, ".-", color=BLUE, label="Bregman iteration")
            ax.set(title=title, xlabel="Bregman step $k$", xticks=steps[:: len(steps) // 5 or 1])
        axes[0].axhline(sigma, color=BLACK, lw=0.8)
        axes[1].axhline(sigma, color=BLACK, lw=0.8)
        axes[1].text(steps[-1], sigma, r"$\sigma$", ha="right", va="bottom")
        axes[0].text(steps[0], sigma, r"noise $\sigma$", ha="left", va="bottom")
        axes[0].set_ylim(0, 1.15 * sigma)
        axes[2].legend(loc="upper right")
    return fig


def _image(ax: Axes, image: ArrayLike, title: str) -> None:
    ax.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=(), yticks=(), title=title)
