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
    "convergence_theory": {},
    "sparse_initialization": {},
}
