"""The figures of notebook 02: paths, bias, two planes, exact regularization, structure, stopping.

Colours follow the algorithm through all notebooks: LinBreg blue, with momentum green, AdaBreg pink,
ISTA red, the Lasso ochre, exact flows black; what is to be found is purple.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from bregman.regularizers import L1
from bregman.suite.convex import ExactFlow, Path
from bregman.suite.plots.style import BLACK, GRAY, PALETTE, PURPLE, STYLE

# what stands for zero on a logarithmic axis
FLOOR = 1e-16
LINBREG, ISTA, LASSO, TRUTH = PALETTE["LinBreg"], PALETTE["ProxGD"], PALETTE["Lasso"], PURPLE
_COLORS = PALETTE | {"ISTA": ISTA, "exact flow": BLACK, "gradient descent": GRAY}


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
    clock = float(path.taus[0]) * path.iterations
    fine = torch.linspace(0, end, 1500, dtype=torch.float64)
    visited = (flow.theta != 0).any(0)
    stays = flow.theta[-1] != 0
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(2, 2, figsize=(7.2, 5))
        (bregman, subgrad), (prox, counts) = axes
        for ax in (bregman, subgrad):
            for event in flow.times[1:]:
                ax.axvline(event, color=GRAY, ls="--", lw=0.7)
        _lines(bregman, clock, path.theta, LINBREG, "LinBreg", lw=1.6)
        _lines(bregman, fine, flow.theta_at(fine), BLACK, "exact flow", lw=0.9)
        bregman.set(title=r"$\theta$ along LinBreg and the flow", xlabel=r"time $t = k\tau$")
        bregman.set(ylabel=r"$\theta_i$", xlim=(0, end), ylim=(-1.1 * reach, 1.5 * reach))
        _legend(bregman)
        p = flow.p_at(fine) / lam
        _lines(subgrad, fine, p[:, ~visited], GRAY, "entries that stay zero", lw=0.4)
        _lines(subgrad, fine, p[:, visited & stays], BLACK, "entries that stay", lw=1.2)
        if bool((visited & ~stays).any()):
            _lines(subgrad, fine, p[:, visited & ~stays], _COLORS["AdaBreg"], "come and go", lw=1.4)
        subgrad.set(title=r"events: $|p_i|$ reaches $\lambda$", xlabel=r"time $t$")
        subgrad.set(yticks=(-1, 0, 1), ylim=(-1.1, 2.2), ylabel=r"$p_i / \lambda$", xlim=(0, end))
        _legend(subgrad)
        steps = torch.arange(len(ista))
        _lines(prox, steps, ista, ISTA, "ISTA", lw=0.9)
        prox.set(title=r"$\theta$ along ISTA", xlabel="iteration $k$", ylabel=r"$\theta_i$")
        prox.set(xscale="symlog", xlim=(0, count), ylim=(-1.1 * reach, 1.5 * reach))
        _legend(prox)
        counts.plot(steps, (ista != 0).sum(1), color=ISTA, ls=":", label="ISTA")
        counts.plot(path.iterations, (path.theta != 0).sum(1), color=LINBREG, label="LinBreg")
        counts.axhline(int(stays.sum()), color=TRUTH, ls="--", lw=1.2, label="truth")
        counts.set(title="non-zero entries", xlabel="iteration $k$", xscale="symlog")
        counts.set(xlim=(0, count), ylim=(-3, ista.shape[1] + 3))
        counts.legend(loc="upper right")
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
    shown = (flow.theta != 0).any(0)
    colors = [_COLORS["AdaBreg"] if i == false else None for i in shown.nonzero().flatten()]
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), sharex=True, sharey=True)
        fine = torch.linspace(0, float(times[-1]), 2000, dtype=torch.float64)
        states = flow.theta_at(fine)
        for k, (i, color) in enumerate(zip(shown.nonzero().flatten(), colors, strict=True)):
            left.plot(
                fine,
                states[:, i],
                color=color or BLACK,
                lw=1.2,
                label="a false entry" if color else "exact flow" if k == 0 else None,
            )
            right.plot(
                times,
                lassos[:, i],
                color=color or LASSO,
                lw=2.4,
                label=None if k or color else "Lasso",
            )
            right.plot(times[::6], averages[::6, i], "o", color=BLACK, ms=2.6,
                       label=None if k else "time average of the flow")  # fmt: skip
        for ax in (left, right):
            for event in flow.times[1:]:
                ax.axvline(event, color=GRAY, ls="--", lw=0.7)
        left.set(title=r"flow $\theta(t)$", xlabel="time $t$", ylabel=r"$\theta_i$")
        right.set(title=r"Lasso at $\lambda = 1/t$", xlabel=r"$t = 1/\lambda$")
        left.legend(loc="upper left")
        right.legend(loc="upper left")
        left.set_ylim(top=1.5 * float(states.max()))
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
    last = len(path.theta) - 1 if upto is None else upto
    lam = path.reg.lam if isinstance(path.reg, L1) else float("nan")
    grid = torch.linspace(-spread, spread, 61, dtype=torch.float64)
    losses = torch.stack([path.problem.f(x) for x in torch.cartesian_prod(grid, grid)])
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4))
        left.add_patch(Rectangle((-lam, -lam), 2 * lam, 2 * lam, color="#DCE5EF"))
        left.text(-0.95 * lam, -0.9 * lam, r"$\theta = (0, 0)$")
        left.axvline(lam, color=GRAY, lw=0.6)
        left.axhline(lam, color=GRAY, lw=0.6)
        levels = float(losses.max()) * np.array([0.003, 0.01, 0.03, 0.08, 0.16, 0.3, 0.5, 0.8])
        right.contour(grid, grid, losses.reshape(61, 61).T.numpy(), levels=levels, colors=[GRAY],
                      linewidths=0.6)  # fmt: skip
        right.plot(*truth, "o", color=TRUTH, mfc="none", ms=9, label="minimizer")
        for ax, values, name in ((left, path.v, "$v$"), (right, path.theta, r"$\theta$")):
            ax.plot(*values[: last + 1].T, ".-", color=LINBREG, ms=3, lw=1)
            ax.plot(*values[last], "o", color=LINBREG, ms=7)
            ax.set(title=f"the plane of {name}", aspect="equal")
        left.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="$v_1$", ylabel="$v_2$")
        right.set(xlim=(-spread, spread), ylim=(-spread, spread))
        right.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$")
        right.legend(loc="lower left")
    return fig


def event_errors(deltas: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """How late LinBreg is at the events of the flow, against delta.

    Args:
        deltas: K values of delta.
        errors: from a name to the K errors.

    Returns:
        One panel with a line of slope -1.
    """
    with plt.style.context(STYLE):
        fig, ax = plt.subplots(figsize=(4.6, 2.8))
        for marker, (name, values) in zip("osD^v", errors.items(), strict=False):
            ax.loglog(deltas, values, marker + "-", ms=4, lw=1, label=name)
        top = max(max(values) for values in errors.values())
        line = [1.6 * top * deltas[0] / delta for delta in deltas]
        ax.loglog(deltas, line, color=GRAY, ls="--", label=r"slope $-1$")
        ax.set(xlabel=r"$\delta$", ylabel="largest error of an event", xticks=deltas)
        ax.set_xticklabels([f"{delta:g}" for delta in deltas])
        ax.minorticks_off()
        ax.legend(loc="lower left")
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
    looks = ((BLACK, LINBREG), (_COLORS["AdaBreg"], _COLORS["LinBreg β=0.9"]))
    with plt.style.context(STYLE):
        fig, axes = plt.subplots(1, 2, figsize=(7.2, 2.7))
        for k, (ax, name) in enumerate(zip(axes, ("$v$", r"$\theta$"), strict=True)):
            for (line, dots), (flow, values), (iteration, found) in zip(
                looks, curves.items(), points.items(), strict=True
            ):
                ax.plot(found[0][::3], found[1 + k][::3], "o", color=dots, ms=5, mfc="none",
                        label=iteration)  # fmt: skip
                ax.plot(times, values[:, k], color=line, lw=1.2, label=flow)
            ax.set(title=name, xlabel=r"time $t = k\tau$")
        axes[1].legend(loc="lower right")
    return fig


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
    title: str,
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
    with plt.style.context(STYLE):
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8), width_ratios=(3, 2))
        _coefficients(left, truth, estimates)
        left.set_title(title)
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
        ax.loglog(deltas, shown, "o-", color=LINBREG, ms=4, label="LinBreg, limit")
        ax.set(xlabel=r"$\delta$", ylabel=r"$\|\theta^\infty - \theta_{\mathrm{BP}}\|$")
        ax.legend(loc="lower left")
    return fig


def matrices(values: Mapping[str, Tensor]) -> Figure:
    """Matrices side by side, on one colour scale; an entry that is exactly zero is hatched.

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
        _lines(ax, clock, values, LINBREG, "LinBreg, nuclear norm")
        ax.set(xlabel=r"time $t = k\tau$", ylabel="singular values", xscale="log")
        ax.set(xlim=span, ylim=(-0.03 * top, top))
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
        _coefficients(left, truth, {"exact flow": flow.theta_at(t)})
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
        _lines(left, clock, path.theta[:, ~relevant], GRAY, "irrelevant", lw=0.7)
        _lines(left, clock, path.theta[:, relevant], LINBREG, "relevant", lw=1.5)
        left.set(title=r"$\theta$ along LinBreg", xlabel=r"time $t = k\tau$", ylabel=r"$\theta_i$")
        _legend(left)
        for name, (numbers, losses) in curves.items():
            right.plot(numbers, losses, ".-", color=_COLORS[name], lw=1, ms=4, label=name)
        right.axhline(floor, color=TRUTH, ls=":", lw=1.6, label="true weights")
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
    ax.vlines(support, 0, truth[support], color=TRUTH, lw=0.8)
    ax.plot(support, truth[support], "o", color=TRUTH, mfc="none", ms=8, label="truth")
    for name, values in estimates.items():
        marker, size = looks.get(name, ("+", 6.0))
        shown = (values.abs() > 1e-12).nonzero().flatten()
        ax.plot(shown, values[shown], marker, color=_COLORS[name], ms=size, label=name)
    top = 1.5 * float(truth.abs().max())  # room for the legend
    ax.set(xlim=(-1, len(truth)), ylim=(-0.85 * top, 1.1 * top))
    ax.set(xlabel="index $i$", ylabel=r"$\theta_i$")
    ax.legend(loc="upper center", ncols=len(estimates) + 1)
