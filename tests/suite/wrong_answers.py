"""Typical wrong answers to the exercises of the course, and words of the verdict on each.

By notebook and by the first function asked for: the code, and what names its fault.
"""

WRONG: dict[str, dict[str, tuple[str, str]]] = {
    "inverse_scale_space": {
        "shrink_two_sides": (
            "def shrink_two_sides(x, up, down):\n    return x.sign() * (x.abs() - up).clamp(min=0)",
            "must move up by down, not by up",
        ),
        "linbreg_from": (
            """
def linbreg_from(theta0, grad, lam, delta, tau, steps):
    v = torch.zeros_like(theta0)
    for _ in range(steps + 1):
        theta = delta * shrink(v, lam)
        v = v - tau * grad(theta)
    return theta
""",
            "the first v must be a subgradient of J_delta",
        ),
        "value": (
            """
def value(x):
    return x.abs() + x.square()


def prox(x, step):
    return shrink(x, step)
""",
            "makes (z - x)^2 / 2 + step J(z) smaller",
        ),
    },
    "convex_toy_problems": {
        "stop_at": (
            "def stop_at(losses, sigma):\n    return np.argmin(np.abs(losses - sigma**2 / 2))",
            "closest to sigma^2 / 2 but above it",
        ),
        "shrink_groups": (
            """
def shrink_groups(x, lam, groups):
    z = x.clone()
    for g in groups:
        z[g] = x[g] * max(1 - lam / float(x[g].norm() + 1e-12), 0)
    return z
""",
            "the weight sqrt(n_g) of each group is missing",
        ),
        "nonnegative_flow": (
            """
def nonnegative_flow(A, y, lam):
    flow = cx.inverse_scale_space_flow(cx.LeastSquares(torch.tensor(A), torch.tensor(y)), lam)
    return flow.times.numpy(), flow.theta.numpy()
""",
            "theta has a negative entry",
        ),
    },
    "convergence_theory": {
        "momentum": (
            """
def momentum(gradient, theta, v, tau, beta, lam, delta, steps):
    m = torch.zeros_like(v)
    for _ in range(steps):
        m = beta * m + tau * gradient(theta)
        v = v - m
        theta = delta * v.sign() * (v.abs() - lam).clamp(min=0)
    return theta, v
""",
            "the average wants 1 - beta",
        ),
        "proxgd": (
            """
def proxgd(gradient, theta, tau, lam, steps):
    path = [theta]
    for _ in range(steps):
        x = theta - tau * gradient(theta)
        theta = x.sign() * (x.abs() - lam).clamp(min=0)
        path.append(theta)
    return torch.stack(path)
""",
            "in prox_(tau J) it is tau * lam",
        ),
    },
    "sparse_initialization": {
        "sparse_weights": (
            """
def sparse_weights(shape, r, alpha, group, generator):
    kept = {"entry": shape, "row": shape[:1], "kernel": shape[:2]}[group]
    kept = tuple(kept) + (1,) * (len(shape) - len(kept))
    mask = torch.rand(kept, generator=generator) < r
    return math.sqrt(alpha) * torch.randn(shape, generator=generator) * mask
""",
            "the mask costs a factor r, and nothing pays it back",
        ),
        "leaky_alpha": (
            """
def leaky_alpha(n_in, s):
    return 2 / ((1 + s) ** 2 * n_in)
""",
            "the slope is squared",
        ),
    },
}
