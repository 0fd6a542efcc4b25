"""Figures of signals and photographs: flows, bands, denoising."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bregman.suite.plots import grammar as draw
from bregman.suite.plots.inverse_scale_space.geometry import WAITING_ROOM, Numbers
from bregman.suite.plots.style import BLACK, BLUE, GRAY, GREEN, OCHRE, PINK, RED, STYLE


def signal_scale_spaces(signal: Tensor, flows: Mapping[str, tuple[Numbers, Tensor]]) -> Figure:
    """A signal on its way through several flows.

    Args:
        signal: (n,), the data f, drawn in gray behind every state.
        flows: from a flow's name to its times, K of them, and its states, (K, n).

    Returns:
        One row per flow and one column per time; if there is one time only, one row.
    """
    count = max(len(times) for times, _ in flows.values())
    rows, cols = (len(flows), count) if count > 1 else (1, len(flows))
    with draw.panels(rows, cols, 1.25 * rows + 0.6, sharex=True, sharey=True) as (fig, axes):
        panels, colors = iter(axes.flat), (GREEN, RED, BLACK)
        for color, (name, (times, states)) in zip(colors, flows.items(), strict=False):
            for k, (time, state) in enumerate(zip(times, states, strict=True)):
                ax = next(panels)
                _signal(ax, signal)
                _signal(ax, state, color)
                ax.set_title(f"{name}, $t$ = {time:.3g}" if count == 1 else f"$t$ = {time:.3g}")
                ax.set(yticks=(0, 0.5, 1), xticks=(0, 30, 60, 90), ylim=(-0.35, 1.4))
                if k == 0 and count > 1:
                    ax.set_ylabel(name)
        for ax in axes[-1]:
            ax.set_xlabel("sample")
    return fig


def flow_frame(f: Tensor, u: Tensor, p: Tensor, lam: float, t: float) -> Figure:
    """The inverse TV flow of a signal at one time: what is there, and what is on its way.

    Args:
        f: (n,), the data.
        u: (n,), the state.
        p: (n - 1,), the subgradient at each possible jump.
        lam: its bound.
        t: the time.

    Returns:
        Two panels with fixed axes.
    """
    with draw.panels(1, 2, 2.5) as (fig, [[left, right]]):
        _signal(left, f, label="data $f$")
        _signal(left, u, BLACK, label="$u(t)$")
        draw.frame(left, f"signal, $t$ = {t:.2f}", "sample", key="upper center", columns=2,
                   ylim=(-0.35, 1.6))  # fmt: skip
        places = np.arange(1, len(f)) - 0.5
        touching = p.abs() >= lam * (1 - 1e-9)
        right.axhspan(-1, 1, color=WAITING_ROOM, lw=0)
        right.plot(places, p / lam, color=GRAY, lw=0.9)
        right.plot(places[touching], (p / lam)[touching], "o", color=BLACK, ms=4)
        draw.frame(right, r"subgradient $p / \lambda$ at each jump", "between samples",
                   ylim=(-1.15, 1.15), yticks=(-1, 0, 1))  # fmt: skip
    return fig


def band_frame(f: Tensor, bands: Tensor, times: Tensor, k: int) -> Figure:
    """The TV spectrum of a signal, and its bands added up to the k-th.

    Args:
        f: (n,), the data.
        bands: (K, n), the mean value, then what each event of the flow adds.
        times: (K,), the events; 0 for the mean.
        k: the band to show.

    Returns:
        Three panels with fixed axes: spectrum, band, sum so far.
    """
    sizes = bands.norm(dim=1)
    with draw.panels(1, 3, 2.3) as (fig, [[left, middle, right]]):
        left.vlines(times[1:], 0, sizes[1:], color=GRAY, lw=1)
        left.vlines(times[1 : k + 1], 0, sizes[1 : k + 1], color=BLUE, lw=1.4)
        draw.frame(left, "spectrum: size of each band", "time $t$", xscale="log",
                   ylim=(0, 1.1 * float(sizes[1:].max())))  # fmt: skip
        _signal(middle, bands[k], BLUE)
        draw.frame(middle, f"band {k}", "sample", ylim=(-0.6, 1.4))
        _signal(right, f)
        _signal(right, bands[: k + 1].sum(0), BLACK)
        draw.frame(right, f"bands 0 to {k} added", "sample", ylim=(-0.35, 1.4))
    return fig


def image_scale_spaces(rows: Mapping[str, Mapping[str, ArrayLike]]) -> Figure:
    """Rows of gray images with values in [0, 1].

    Args:
        rows: from the name of a row to its images, each by its title.

    Returns:
        One panel per image.
    """
    cols = max(len(images) for images in rows.values())
    with draw.panels(len(rows), cols, 7.2 / cols * len(rows) * 1.12) as (fig, axes):
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            for ax, (title, image) in zip(line, images.items(), strict=True):
                _image(ax, image, title)
            line[0].set_ylabel(name)
    return fig


def growing_image(images: Sequence[ArrayLike], data: ArrayLike, k: int) -> Figure:
    """An image at the k-th step of Bregman iteration, and what it still lacks.

    Args:
        images: u^1, u^2, ...
        data: the image f that they approach.
        k: the step, counted from 1.

    Returns:
        Two images, the second on the scale +-0.3.
    """
    with draw.panels(1, 2, 2.95, 5.2) as (fig, [[left, right]]):
        _image(left, images[k - 1], f"$u^{{{k}}}$")
        _residual(right, data, images[k - 1], f"$f - u^{{{k}}}$, gray is zero")
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
        colors = (OCHRE, RED, BLUE)
        for k, (color, (name, image)) in enumerate(zip(colors, estimates.items(), strict=True)):
            cut.plot(np.asarray(image)[row], color=color, lw=1.1, label=name)
            _residual(fig.add_subplot(grid[1, 2 + k]), noisy, image, f"$f - u$, {name}")
        draw.frame(
            cut, f"cut along row {row}", "column", key="upper center", columns=2, ylim=(0, 1.5)
        )
    return fig


def denoising_errors(
    errors: Numbers, residuals: Numbers, contrast: Numbers, *, sigma: float, stop: int, rof: Numbers
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
    with draw.panels(1, 3, 2.5, sharex=True) as (fig, [axes]):
        for ax, title, curve, mark in zip(axes, titles, values, marks, strict=True):
            ax.axvline(stop, color=GRAY, ls="--", lw=1.2, label="stop: residual $\\leq \\sigma$")
            ax.axhline(mark, color=RED, ls=":", lw=1.6, label="best ROF")
            ax.plot(steps, curve, ".-", color=BLUE, label="Bregman iteration")
            draw.frame(ax, title, "Bregman step $k$", xticks=steps[:: len(steps) // 5 or 1])
        for ax, height, name in ((axes[0], 1.02, r"noise $\sigma$"), (axes[1], 1.003, r"$\sigma$")):
            ax.axhline(sigma, color=BLACK, lw=0.8)
            ax.text(steps[-1], height * sigma, name, ha="right", va="bottom")
        axes[0].set_ylim(0, 1.15 * sigma)
        axes[2].legend(loc="upper right")
    return fig


def denoising_step(
    clean: ArrayLike, data: ArrayLike, images: Sequence[ArrayLike], k: int, sigma: float
) -> Figure:
    """A noisy image at the k-th step of Bregman iteration: was this the time to stop?

    Args:
        clean: (H, W), the image without noise.
        data: (H, W), the data f.
        images: u^1, u^2, ...
        k: the step, counted from 1.
        sigma: the noise level.

    Returns:
        Three panels: the image, its residual on the scale +-0.3, error and residual over all steps.
    """
    steps = range(1, len(images) + 1)
    errors, residuals = (
        [float(np.sqrt(np.square(np.asarray(u) - np.asarray(target)).mean())) for u in images]
        for target in (clean, data)
    )
    with draw.panels(1, 3, 2.5) as (fig, [[left, middle, right]]):
        _image(left, images[k - 1], f"$u^{{{k}}}$")
        _residual(middle, data, images[k - 1], f"$f - u^{{{k}}}$")
        right.plot(steps, errors, ".-", color=BLUE, label="error")
        right.plot(steps, residuals, ".--", color=PINK, label="residual")
        right.plot([k, k], [errors[k - 1], residuals[k - 1]], "o", color=BLACK)
        right.axhline(sigma, color=BLACK, lw=0.8)
        right.text(steps[-1], 1.02 * sigma, r"$\sigma$", ha="right")
        draw.frame(right, "distance to clean, to data", "step $k$", key="lower left",
                   ylim=(0, 1.1 * max(residuals)))  # fmt: skip
    return fig


def _signal(ax: Axes, values: Tensor, color: str = GRAY, label: str | None = None) -> None:
    """A signal as a line of steps; the data, gray, is thin."""
    width: draw.Look = {"lw": 0.8} if color == GRAY else {}
    ax.step(range(len(values)), values, color=color, where="mid", label=label, **width)


def _image(ax: Axes, image: ArrayLike, title: str) -> None:
    draw.image(ax, np.asarray(image), interpolation="nearest")
    ax.set(title=title)


def _residual(ax: Axes, data: ArrayLike, image: ArrayLike, title: str) -> None:
    difference: NDArray[np.float64] = np.asarray(data) - np.asarray(image)
    _image(ax, difference / 0.6 + 0.5, title)
