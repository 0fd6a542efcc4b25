"""The figures of notebook 02: paths, bias, exact regularization, structure, stopping in time.

Colours follow the algorithm through all notebooks: LinBreg pink, proximal methods vermilion, exact
flows black, gradient descent gray; what is to be found is blue.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite.convex import ExactFlow, Path
from bregman.suite.plots.style import BLACK, BLUE, GRAY, OCHRE, PINK, RED, STYLE

# what stands for zero on a logarithmic axis
FLOOR = 1e-16
_COLORS = {"LinBreg": PINK, "Lasso": RED, "ISTA": RED, "exact flow": BLACK}


def sparse_paths(flow: ExactFlow, path: Path, ista: Tensor) -> Figure:
    """How the coefficients appear: exact flow, LinBreg and ISTA.

    Args:
        flow: the inverse scale space flow, theta of shape (n,).
        path: LinBreg with every iterate and one step size, for the same L1(lam).
        ista: (K, n), the iterates of ISTA from zero.

    Returns:
        Four panels: theta of flow and LinBreg over time, with the flow's events; its p; ISTA's
        theta over its iterations; the numbers of non-zeros.
    """
    clock = float(path.taus[0]) * path.iterations
    end = float(clock[-1])
    fine = torch.linspace(0, end, 1500, dtype=torch.float64)
    events = flow.times[1:]
    found = (flow.theta[-1] != 0).nonzero().flatten()
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, 2, figsize=(7.2, 5))
        (bregman, subgrad), (prox, counts) = axes
        for ax in (bregman, subgrad):
            for event in events:
                ax.axvline(event, color=OCHRE, ls="--", lw=0.9)
        _lines(bregman, clock, path.theta, PINK, "LinBreg", lw=1.5)
        _lines(bregman, fine, flow.theta_at(fine), BLACK, "exact flow", lw=0.9)
        bregman.set(title=r"$\theta$ along LinBreg and the flow", xlabel=r"time $t = k\tau$")
        bregman.set(ylabel=r"$\theta_i$")
        _legend(bregman)
        p = flow.p_at(fine)
        _lines(subgrad, fine, p, GRAY, "other entries", lw=0.5)
        _lines(subgrad, fine, p[:, found], BLACK, "entries that appear", lw=1.2)
        subgrad.axhline(lam, color=PINK, lw=1)
        subgrad.axhline(-lam, color=PINK, lw=1)
        subgrad.set(title=r"events: $|p_i|$ reaches $\lambda$", xlabel=r"time $t$")
        subgrad.set(yticks=(-lam, 0, lam), ylim=(-1.15 * lam, 1.7 * lam), ylabel="$p_i$")
        subgrad.set_yticklabels((r"$-\lambda$", "0", r"$\lambda$"))
        _legend(subgrad)
        steps = torch.arange(len(ista))
        _lines(prox, steps, ista, RED, "ISTA", lw=0.9)
        prox.set(title=r"$\theta$ along ISTA", xlabel="iteration $k$", ylabel=r"$\theta_i$")
        prox.set(xscale="symlog", xlim=(0, len(ista) - 1), ylim=bregman.get_ylim())
        _legend(prox)
        counts.plot(steps, (ista != 0).sum(1), color=RED, label="ISTA")
        counts.plot(path.iterations, (path.theta != 0).sum(1), color=PINK, label="LinBreg")
        counts.axhline(len(found), color=BLUE, ls=":", lw=1.6, label="truth")
        counts.set(title="non-zero entries", xlabel="iteration $k$", xscale="symlog")
        counts.set(xlim=(0, max(len(ista), int(path.iterations[-1]) + 1) - 1))
        counts.legend(loc="upper right")
    return fig


def coefficients(truth: Tensor, estimates: Mapping[str, Tensor], title: str = "") -> Figure:
    """Coefficients beside the truth.

    Args:
        truth: (n,), drawn as blue rings.
        estimates: from a name to (n,), entries that are zero to within rounding are left out.
        title: of the panel.

    Returns:
        One panel.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(7.2, 2.5))
        _coefficients(ax, truth, estimates)
        ax.set_title(title)
    return fig


def bias(
    truth: Tensor,
    estimates: Mapping[str, Tensor],
    lams: Sequence[float],
    errors: Mapping[str, Sequence[float]],
) -> Figure:
    """Coefficients beside the truth, and how the error depends on lambda.

    Args:
        truth: (n,).
        estimates: from a name to (n,).
        lams: K values of lambda.
        errors: from a name to the K errors.

    Returns:
        Two panels; an error below 1e-16 is drawn there.
    """
    markers = {"LinBreg": "x", "exact flow": "+"}
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), width_ratios=(3, 2))
        _coefficients(left, truth, estimates)
        for name, values in errors.items():
            shown = np.maximum(np.asarray(values, dtype=float), FLOOR)
            right.loglog(lams, shown, markers.get(name, "o") + "-", ms=4, lw=1,
                         color=_COLORS[name], label=name)  # fmt: skip
        right.set(xlabel=r"$\lambda$", title=r"$\|\theta - \theta_{\mathrm{true}}\|$")
        right.legend(loc="center left")
    return fig


def exact_regularization(
    deltas: Sequence[float], errors: Sequence[float], threshold: float
) -> Figure:
    """The distance of LinBreg's limit to the basis pursuit solution, against delta.

    Args:
        deltas: K values of delta.
        errors: the K distances.
        threshold: the delta from which on the distance should be zero.

    Returns:
        One panel; a distance below 1e-16 is drawn there.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5, 2.8))
        shown = np.maximum(np.asarray(errors, dtype=float), FLOOR)
        ax.axvline(threshold, color=BLACK, ls="--", lw=1.2, label=r"computed threshold $\delta^*$")
        ax.loglog(deltas, shown, "o-", color=PINK, ms=4, label="LinBreg, limit")
        ax.set(xlabel=r"$\delta$", ylabel=r"$\|\theta^\infty - \theta_{\mathrm{BP}}\|$")
        ax.legend(loc="lower left")
    return fig


def matrices(values: Mapping[str, Tensor]) -> Figure:
    """Matrices side by side, on one colour scale; an entry that is exactly zero is white.

    Args:
        values: from a title to a matrix; all of one shape.

    Returns:
        One panel per matrix, and a colour bar.
    """
    rows, cols = next(iter(values.values())).shape
    limit = max(float(value.abs().max()) for value in values.values())
    width = 7.2 / (len(values) + 0.3)
    with plt.style.context(STYLE):
        height = min(3.2, width * rows / cols + 0.5)
        fig, axes = plt.subplots(1, len(values), figsize=(7.2, height), squeeze=False)
        for ax, (title, value) in zip(axes.flat, values.items(), strict=True):
            shown = np.ma.masked_equal(value.numpy(), 0.0)
            ax.set_facecolor("white")
            picture = ax.imshow(shown, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
            ax.set(title=title, xticks=(), yticks=())
            ax.grid(False)
            ax.spines[:].set(edgecolor="#888888", linewidth=0.8)
        fig.colorbar(picture, ax=axes, shrink=0.9, pad=0.02)
    return fig


def singular_values(path: Path, truth: Tensor) -> Figure:
    """The singular values of the iterates over time.

    Args:
        path: LinBreg with one step size, theta a matrix.
        truth: the matrix to be found; its singular values are drawn as dotted lines.

    Returns:
        One panel.
    """
    values = torch.linalg.svdvals(path.theta)
    clock = float(path.taus[0]) * path.iterations
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(5, 2.6))
        for k, value in enumerate(x for x in torch.linalg.svdvals(truth) if x > 1e-10):
            ax.axhline(float(value), color=BLUE, ls=":", lw=1.6, label=None if k else "truth")
        _lines(ax, clock, values, PINK, "LinBreg, nuclear norm")
        ax.set(xlabel=r"time $t = k\tau$", ylabel="singular values", xscale="log")
        ax.set_ylim(top=1.35 * float(values.max()))
        _legend(ax)
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
        noise_loss: the loss at the truth, that is of the noise alone.
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
            ax.axvline(float(flow.times[stop]), color=OCHRE, ls="--", label="discrepancy: stop")
            ax.plot(clock[1:], iterated[1:], color=PINK, lw=1.6, label="LinBreg")
            ax.step(fine, exact, color=BLACK, lw=1, where="post", label="exact flow")
            ax.set(xlabel=r"time $t = k\tau$", xscale="log", xlim=(float(fine[0]), end))
        if lasso_error is not None:
            left.axhline(lasso_error, color=RED, ls=":", lw=1.6, label="best Lasso")
        right.axhline(noise_loss, color=BLUE, ls=":", lw=1.6, label="loss of the noise alone")
        left.set(title=r"error $\|\theta - \theta_{\mathrm{true}}\|$", ylim=(0, None))
        right.set(title=r"loss $\mathcal{L}(\theta)$", yscale="log")
        left.legend(loc="upper right")
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
        _lines(left, clock, path.theta[:, ~relevant], GRAY, "irrelevant", lw=0.7)
        _lines(left, clock, path.theta[:, relevant], PINK, "relevant", lw=1.5)
        left.set(title=r"$\theta$ along LinBreg", xlabel=r"time $t = k\tau$", ylabel=r"$\theta_i$")
        _legend(left)
        for name, (numbers, losses) in curves.items():
            right.plot(numbers, losses, ".-", color=_COLORS[name], lw=1, ms=4, label=name)
        right.axhline(floor, color=BLUE, ls=":", lw=1.6, label="true weights")
        right.set(title="test loss", xlabel="non-zero weights")
        right.legend(loc="upper right")
    return fig


def _lines(ax: Axes, x: Tensor, y: Tensor, color: str, label: str, lw: float = 1.2) -> None:
    """One line per column of y, and one name for all."""
    for k, column in enumerate(y.T):
        ax.plot(x, column, color=color, lw=lw, label=None if k else label)


def _legend(ax: Axes) -> None:
    for line in ax.legend(loc="upper left").get_lines():
        line.set_linewidth(1.6)


def _coefficients(ax: Axes, truth: Tensor, estimates: Mapping[str, Tensor]) -> None:
    looks = {"LinBreg": ("x", 5.0), "Lasso": ("o", 3.5)}
    support = truth.nonzero().flatten()
    ax.axhline(0, color=GRAY, lw=0.8)
    ax.vlines(support, 0, truth[support], color=BLUE, lw=0.8)
    ax.plot(support, truth[support], "o", color=BLUE, mfc="none", ms=8, label="truth")
    for name, values in estimates.items():
        marker, size = looks.get(name, ("+", 6.0))
        shown = (values.abs() > 1e-12).nonzero().flatten()
        ax.plot(shown, values[shown], marker, color=_COLORS[name], ms=size, label=name)
    top = 1.5 * float(truth.abs().max())  # room for the legend
    ax.set(xlim=(-1, len(truth)), ylim=(-0.85 * top, 1.1 * top))
    ax.set(xlabel="index $i$", ylabel=r"$\theta_i$")
    ax.legend(loc="upper center", ncols=len(estimates) + 1)
