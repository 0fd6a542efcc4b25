"""Regularizers beyond L1 and GroupL12, from outside: optimality, Moreau's identity, cvxpy."""

import dataclasses
import io
import math

import cvxpy as cp
import numpy as np
import pytest
import torch

from bregman.optim import LinBreg
from bregman.regularizers import (
    L1,
    ElasticNet,
    GroupL12,
    NonNegative,
    NonNegativeL1,
    Nuclear,
    Regularizer,
    SparseGroup,
    Zero,
)
from bregman.steering import SparsityTarget

SHAPE = (6, 5)
ACCURATE = dict(solver=cp.SCS, eps_abs=1e-11, eps_rel=1e-11, max_iters=200_000)

REGS = [
    SparseGroup(0.3, 0.2, 1),
    SparseGroup(0.0, 0.4, 0),
    SparseGroup(0.4, 0.0, (0, 1)),
    ElasticNet(0.4, 0.7),
    NonNegativeL1(0.3),
    NonNegative(),
    Nuclear(0.8),
]


def value_of(reg: Regularizer, X: cp.Variable) -> tuple[cp.Expression, list[cp.Constraint]]:
    """J as cvxpy writes it: an independent definition."""
    match reg:
        case NonNegativeL1():
            return reg.lam * cp.sum(X), [X >= 0]
        case ElasticNet():
            return reg.lam * cp.sum(cp.abs(X)) + reg.mu / 2 * cp.sum_squares(X), []
        case Nuclear():
            return reg.lam * cp.normNuc(X), []
        case SparseGroup(dim=(0, 1)):
            groups = math.sqrt(X.size) * cp.norm(X, "fro")
        case SparseGroup(dim=dim):
            groups = math.sqrt(X.shape[dim[0]]) * cp.sum(cp.norm(X, 2, axis=dim[0]))
    return reg.lam_l1 * cp.sum(cp.abs(X)) + reg.lam_group * groups, []


def sample(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=REGS, ids=repr)
def reg(request: pytest.FixtureRequest) -> Regularizer:
    return request.param


@pytest.mark.parametrize("step", [0.3, 1.0, 2.5])
def test_prox_agrees_with_cvxpy(reg: Regularizer, step: float) -> None:
    x = sample(1)
    X = cp.Variable(SHAPE)
    value, constraints = value_of(reg, X)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - x.numpy()) / 2 + step * value), constraints)
    problem.solve(**ACCURATE)
    z = reg.prox(x, step)
    np.testing.assert_allclose(z.numpy(), X.value, rtol=0, atol=1e-8)
    objective = (z - x).square().sum() / 2 + step * reg(z)
    assert float(objective) == pytest.approx(problem.value, abs=1e-9)


@pytest.mark.parametrize("step", [0.05, 0.7, 20.0])
def test_prox_is_optimal(reg: Regularizer, step: float) -> None:
    # z = prox(x) if and only if (x - z) / step is a subgradient at z
    x = sample(2)
    z = reg.prox(x, step)
    assert reg.subdiff_distance((x - z) / step, z) < 1e-12 / step + 1e-12
    if z.any():
        assert reg.subdiff_distance((x - z) / step + 0.1, z) > 1e-3


@pytest.mark.parametrize("step", [0.3, 1.0, 2.5])
def test_moreau_identity(reg: Regularizer, step: float) -> None:
    # x = prox_{sJ}(x) + s prox_{J*/s}(x/s); where J is homogeneous, J* is the indicator of dJ(0)
    x = sample(3)
    q = cp.Variable(SHAPE)
    if isinstance(reg, ElasticNet):
        beyond = cp.pos(cp.abs(q) - reg.lam)
        conjugate, constraints = cp.sum_squares(beyond) / (2 * reg.mu), []
    else:
        conjugate, constraints = 0, subdifferential(reg, q, torch.zeros_like(x))
    objective = cp.sum_squares(step * q - x.numpy()) / 2 + step * conjugate
    cp.Problem(cp.Minimize(objective), constraints).solve(**ACCURATE)
    np.testing.assert_allclose(
        reg.prox(x, step).numpy(), x.numpy() - step * q.value, rtol=0, atol=1e-8
    )


def test_prox_gives_a_supporting_plane(reg: Regularizer) -> None:
    # J(y) >= J(z) + <x - z, y - z> for every y
    x = sample(3)
    z = reg.prox(x)
    for seed in range(20):
        y = reg.prox(2 * sample(100 + seed), 0.1)  # inside the domain
        assert reg(y) - reg(z) - ((x - z) * (y - z)).sum() >= -1e-12


def test_prox_is_firmly_nonexpansive(reg: Regularizer) -> None:
    x, y = sample(4), sample(5)
    change = reg.prox(x, 0.5) - reg.prox(y, 0.5)
    assert change.square().sum() <= (change * (x - y)).sum() + 1e-12


def test_out_and_inputs(reg: Regularizer) -> None:
    x = sample(6)
    kept = x.clone()
    z = reg.prox(x, 0.5)
    assert torch.equal(x, kept)
    out = torch.empty_like(x)
    assert reg.prox(x, 0.5, out=out) is out
    assert torch.equal(out, z)
    assert reg.prox(x, 0.5, out=x) is x
    assert torch.equal(x, z)


def test_subgrad_is_the_least_norm_subgradient(reg: Regularizer) -> None:
    z = reg.prox(sample(7), 0.8)
    assert torch.count_nonzero(z) > 0
    least = reg.subgrad(z)
    assert reg.subdiff_distance(least, z) < 1e-12
    # the projection of zero onto dJ(z): its norm is the distance of zero
    assert reg.subdiff_distance(torch.zeros_like(z), z) == pytest.approx(float(least.norm()))
    zero = torch.zeros_like(z)
    assert torch.equal(reg.subgrad(zero), zero)
    assert reg.subdiff_distance(zero, zero) == 0


@pytest.mark.parametrize("at_zero", [False, True])
def test_subdiff_distance_agrees_with_cvxpy(reg: Regularizer, at_zero: bool) -> None:
    x = torch.zeros(SHAPE, dtype=torch.float64) if at_zero else reg.prox(sample(8), 0.9)
    p = 1.5 * sample(9)
    q = cp.Variable(SHAPE)
    nearest = cp.Problem(cp.Minimize(cp.norm(q - p.numpy(), "fro")), subdifferential(reg, q, x))
    # <q, x> = J(x) leaves no interior: for this the interior point method is the better solver
    nearest.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    # its slack of eps in <q, x> = J(x) may move q by sqrt(eps), as the nuclear norm shows on some
    # processors
    slack = 1e-3 if isinstance(reg, Nuclear) and not at_zero else 1e-6
    assert float(reg.subdiff_distance(p, x)) == pytest.approx(nearest.value, abs=slack)


def subdifferential(reg: Regularizer, q: cp.Variable, x: torch.Tensor) -> list[cp.Constraint]:
    """q in dJ(x) as <q, x> = J(x) and the polar constraint, for a positively homogeneous J."""
    inner = cp.sum(cp.multiply(q, x.numpy()))
    match reg:
        case ElasticNet():
            return subdifferential(L1(reg.lam), q - reg.mu * x.numpy(), x)
        case L1():
            return [cp.abs(q) <= reg.lam, inner == float(reg(x))]
        case NonNegativeL1():
            return [q <= reg.lam, inner == float(reg(x))]
        case Nuclear():
            return [cp.sigma_max(q) <= reg.lam, inner == float(reg(x))]
    dims = reg.dim
    cube, ball = cp.Variable(SHAPE), cp.Variable(SHAPE)
    if dims == (0, 1):
        radius = [cp.norm(ball, "fro") <= reg.lam_group * math.sqrt(q.size)]
    else:
        n = SHAPE[dims[0]]
        radius = [cp.norm(ball, 2, axis=dims[0]) <= reg.lam_group * math.sqrt(n)]
    return [q == cube + ball, cp.abs(cube) <= reg.lam_l1, inner == float(reg(x)), *radius]


def test_values() -> None:
    x = sample(10)
    assert SparseGroup(0.3, 0.2, 1)(x) == L1(0.3)(x) + GroupL12(0.2, 1)(x)
    assert ElasticNet(0.3, 0.5)(x) == pytest.approx(float(L1(0.3)(x) + x.square().sum() / 4))
    assert Nuclear(2.0)(x) == pytest.approx(2 * float(torch.linalg.matrix_norm(x, "nuc")))
    assert NonNegativeL1(0.3)(x) == math.inf
    assert NonNegative()(x) == math.inf
    assert NonNegativeL1(0.3)(x.abs()) == pytest.approx(float(0.3 * x.abs().sum()))
    assert NonNegative()(x.abs()) == 0


def test_blocks_and_quadratic_weight() -> None:
    for reg, blocks in [
        (SparseGroup(0.3, 0.2, (-1, 2)), (3, 2)),
        (GroupL12(0.3, -1), (3,)),
        (L1(0.3), ()),
        (ElasticNet(0.4, 0.7), ()),
        (NonNegativeL1(0.3), ()),
        (NonNegative(), ()),
        (Nuclear(0.8), None),
        (Zero(), None),
    ]:
        assert reg.blocks(4) == blocks
    assert ElasticNet(0.4, 0.7).quadratic_weight == 0.7
    assert L1(0.3).quadratic_weight == NonNegative().quadratic_weight == 0


# sums over blocks that some lam makes zero
LEVELED = [reg for reg in REGS if reg.blocks(2) is not None and not isinstance(reg, NonNegative)]


@pytest.mark.parametrize("reg", LEVELED, ids=repr)
def test_the_value_is_a_sum_over_blocks_and_a_quadratic_term(reg: Regularizer) -> None:
    x = sample(20).abs()
    dims = reg.blocks(2)
    assert dims is not None
    moved = x.movedim(dims, tuple(range(-len(dims), 0))) if dims else x
    blocks = moved.flatten(0, 1 - len(dims)) if len(dims) < 2 else moved.unsqueeze(0)
    total = 0.0
    for i in range(len(blocks)):
        alone = torch.zeros_like(blocks)
        alone[i] = blocks[i]
        alone = alone.view(moved.shape)
        total += float(reg(alone.movedim(tuple(range(-len(dims), 0)), dims) if dims else alone))
    assert total == pytest.approx(float(reg(x)))
    # what is left without the quadratic term is positively homogeneous, in x and in lam
    homogeneous = lambda r, y: float(r(y)) - r.quadratic_weight / 2 * float(y.square().sum())  # noqa: E731
    assert homogeneous(reg, 3 * x) == pytest.approx(3 * homogeneous(reg, x))
    scaled = reg.with_lam(3 * reg.lam)
    assert scaled.lam == pytest.approx(3 * reg.lam)
    assert scaled.quadratic_weight == reg.quadratic_weight
    assert homogeneous(scaled, x) == pytest.approx(3 * homogeneous(reg, x))


@pytest.mark.parametrize("delta", [0.4, 3.0])
@pytest.mark.parametrize("reg", LEVELED, ids=repr)
def test_levels_are_the_lam_from_which_on_an_entry_is_zero(reg: Regularizer, delta: float) -> None:
    v = sample(21)
    levels = reg.levels(v)
    assert levels.shape == v.shape
    every = levels.unique()
    for lam in [0.5 * every[every > 0][0], *(0.5 * (every[1:] + every[:-1])), 2 * every[-1]]:
        theta = reg.with_lam(float(lam)).prox(delta * v, delta)
        assert torch.equal(theta != 0, levels > lam)
    # the largest level of a block is where the whole of it goes
    if dims := reg.blocks(2):
        for lam in (0.7, 1.0, 1.3):
            theta = reg.with_lam(lam).prox(v)
            assert torch.equal((theta != 0).sum(dims) > 0, levels.amax(dims) > lam)


def test_levels_of_sparse_groups_far_apart() -> None:
    # from tiny to huge entries in one group, and groups of zeros
    v = sample(22, (20, 300)) * 10.0 ** (8 * sample(23, (20, 300)))
    v[3], v[5, :200] = 0, 0
    for reg in (SparseGroup(0.5, 0.1, 1), SparseGroup(0.01, 1.0, 1), SparseGroup(1.0, 1.0, 0)):
        levels = reg.levels(v)
        assert torch.equal(levels == 0, v == 0)
        edge = levels.amax(reg.blocks(2)).max()
        assert reg.with_lam(float(edge) * (1 - 1e-9)).prox(v).any()
        assert not reg.with_lam(float(edge) * (1 + 1e-9)).prox(v).any()


@dataclasses.dataclass(frozen=True)
class Weighted(Regularizer):
    """lam w ||x||_1, a regularizer of a user's own that says what it is."""

    lam: float
    w: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.lam * self.w * x.abs().sum()

    def prox(self, x, step=1.0, *, out=None):
        z = L1(self.lam * self.w).prox(x, step)
        return z if out is None else out.copy_(z)

    def subgrad(self, x: torch.Tensor) -> torch.Tensor:
        return self.lam * self.w * x.sign()

    def subdiff_distance(self, p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return L1(self.lam * self.w).subdiff_distance(p, x)

    def blocks(self, ndim: int) -> tuple[int, ...]:
        return ()

    def levels(self, v: torch.Tensor) -> torch.Tensor:
        return v.abs() / self.w


def test_a_regularizer_of_ones_own_is_trained_and_steered() -> None:
    p = torch.nn.Parameter(torch.zeros(SHAPE, dtype=torch.float64))
    optimizer = LinBreg([p], lr=1.0, reg=Weighted(0.3, 2.0))
    p.grad = -sample(24)
    optimizer.step()
    target = SparsityTarget(optimizer, 0.4, every=1)
    for _ in range(5):
        target.step()
    (group,) = optimizer.param_groups
    assert group["reg"].w == 2.0
    assert group["reg"].lam != 0.3
    assert p.count_nonzero() == 12


EXTREMES = [
    [1e20, 1.0], [3e38, 3e38], [1e-30, 1e-30], [1e-45, 0.0], [1e-20, 3e-21], [1e19, -2e19],
    [3.0, 4.0], [0.0, 0.0], [1e30, 1e-30],
]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("lam", [0.0, 1e-30, 1e-21, 1e-13, 0.1, 1e13, 1e19, 1e30])
@pytest.mark.parametrize("x", EXTREMES, ids=str)
def test_groups_where_squares_are_zero_or_infinite(
    x: list[float], lam: float, threads: int
) -> None:
    # double precision holds these squares
    wide = torch.tensor(x).double()
    norm = wide.norm()
    shrunk = (norm - lam * math.sqrt(2)).clamp(min=0) / norm if norm else norm
    slack = 1e-6 * float(norm) if 0.5 < norm / (lam * math.sqrt(2) or 1) < 2 else 1e-44
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for reg in (GroupL12(lam, 0), SparseGroup(0.0, lam, 0)):
                z = reg.prox(torch.tensor(x))
                torch.testing.assert_close(z.double(), shrunk * wide, rtol=2e-6, atol=slack)
                assert reg.prox(torch.tensor(x), out=torch.empty(2)).equal(z)
    finally:
        torch.set_num_threads(1)
    p = GroupL12(lam, 0).subgrad(torch.tensor(x))
    unit = wide / norm if norm else wide
    torch.testing.assert_close(p.double(), lam * math.sqrt(2) * unit, rtol=2e-6, atol=1e-6 * lam)


@pytest.mark.parametrize("sign", [1, -1])
def test_infinite_entries_and_steps(sign: int) -> None:
    inf = math.inf
    x = torch.tensor([sign * inf, 1.0])
    for reg in (GroupL12(0.1, 0), GroupL12(0.0, 0), SparseGroup(0.0, 0.1, 0)):
        assert torch.equal(reg.prox(x), x)
        torch.testing.assert_close(reg.subgrad(x), reg.subgrad(torch.tensor([sign * 1e30, 1.0])))
    y = torch.tensor([1.0, -1.0])
    positive, zero = torch.tensor([1.0, 0.0]), torch.zeros(2)
    for reg, limit in [
        (NonNegative(), positive),
        (NonNegativeL1(0.0), positive),
        (NonNegativeL1(0.1), zero),
        (L1(0.1), zero),
        (L1(0.0), y),
        (GroupL12(0.1, 0), zero),
        (GroupL12(0.0, 0), y),
        (ElasticNet(0.1, 0.0), zero),
        (ElasticNet(0.0, 0.0), y),
        (Zero(), y),
    ]:
        assert torch.equal(reg.prox(y, inf), limit), reg
    assert float(ElasticNet(0.0, 1.0).prox(y, inf).abs().max()) < 1e-37


@pytest.mark.parametrize("step", [-1.0, -1e-9, math.nan])
def test_a_step_is_not_negative(reg: Regularizer, step: float) -> None:
    for J in (reg, L1(0.1), GroupL12(0.1, 1), Zero()):
        with pytest.raises(ValueError, match=f"step must be non-negative, got {step}"):
            J.prox(sample(1), step)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_in_half_precision(dtype: torch.dtype, threads: int) -> None:
    x = (200 * sample(30, (40, 20))).to(dtype)
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            for dim in (0, 1):
                reg = GroupL12(100.0, dim)
                exact = reg.prox(x.double())
                out = torch.empty_like(x)
                for z in (reg.prox(x), reg.prox(x, out=out)):
                    assert z.dtype == dtype
                    torch.testing.assert_close(z.double(), exact, rtol=0.02, atol=1.0)
    finally:
        torch.set_num_threads(1)


def test_empty_matrices_have_a_subgradient() -> None:
    for shape in ((0, 3), (3, 0), (0, 0), (2, 0, 3)):
        x = torch.zeros(shape)
        assert Nuclear(1.0).subgrad(x).shape == shape
        assert Nuclear(1.0).subdiff_distance(x, x) == 0
        assert Nuclear(1.0).prox(x).shape == shape


@pytest.mark.parametrize("dim", [1.5, "12", "1", None, (1, 2.0), [None], {}, torch.nn.Linear])
def test_dims_are_integers(dim: object) -> None:
    for make in (lambda: GroupL12(0.1, dim), lambda: SparseGroup(0.1, 0.1, dim)):
        with pytest.raises(ValueError, match="dim must be one or more different dimensions, got"):
            make()


@pytest.mark.parametrize("bad", ["0.1", None, [0.1], L1])
def test_weights_are_numbers(bad: object) -> None:
    for make, name in [
        (lambda: L1(bad), "lam"),
        (lambda: GroupL12(bad, 1), "lam"),
        (lambda: SparseGroup(0.1, bad, 1), "lam_group"),
        (lambda: ElasticNet(0.1, bad), "mu"),
        (lambda: Nuclear(bad), "lam"),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be non-negative and finite, got"):
            make()


def test_outside_the_domain() -> None:
    x = sample(11)
    for reg in (NonNegativeL1(0.3), NonNegative()):
        assert reg.subdiff_distance(torch.zeros_like(x), x) == math.inf
        with pytest.raises(
            ValueError, match=r"x must be non-negative to have a subgradient, got tensor"
        ):
            reg.subgrad(x)


def test_special_cases_agree_with_the_older_regularizers() -> None:
    x = sample(12)
    assert torch.equal(SparseGroup(0.4, 0.0, 1).prox(x), L1(0.4).prox(x))
    assert torch.equal(SparseGroup(0.0, 0.3, 1).prox(x), GroupL12(0.3, 1).prox(x))
    assert torch.equal(ElasticNet(0.4, 0.0).prox(x), L1(0.4).prox(x))
    assert torch.equal(NonNegativeL1(0.2).prox(x.abs()), L1(0.2).prox(x.abs()))


def test_nuclear_takes_conv_weights_as_matrices() -> None:
    reg, x = Nuclear(0.5), sample(13, (4, 3, 2, 2))
    flat = x.flatten(1)
    assert reg(x) == reg(flat)
    assert torch.equal(reg.prox(x).flatten(1), reg.prox(flat))
    z = reg.prox(x, 6.0)
    assert 0 < torch.linalg.matrix_rank(z.flatten(1)) < 4
    assert torch.equal(reg.subgrad(z).flatten(1), reg.subgrad(z.flatten(1)))
    assert reg.subdiff_distance(x, z) == reg.subdiff_distance(x.flatten(1), z.flatten(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(reg: Regularizer, dtype: torch.dtype) -> None:
    x = sample(14).abs().to(dtype)
    tensors = [reg(x), reg.prox(x), reg.subgrad(x), reg.subdiff_distance(x, x)]
    assert all(t.dtype == dtype for t in tensors)


def test_linbreg_keeps_its_dual_variable(reg: Regularizer) -> None:
    theta = torch.nn.Parameter(sample(15).abs())
    target = sample(16)
    optimizer = LinBreg([theta], lr=0.3, reg=reg, delta=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        (theta - target).square().sum().div(2).backward()
        optimizer.step()
        v = optimizer.state[theta]["subgrad"]
        assert reg.subdiff_distance(v - theta.detach() / 0.5, theta.detach()) < 1e-12
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    assert torch.load(buffer)["param_groups"][0]["reg"] == reg


def test_frozen(reg: Regularizer) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        reg.lam = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [-1.0, math.inf, math.nan])
def test_weights_are_checked(bad: float) -> None:
    for make, name in [
        (lambda: SparseGroup(bad, 0.1, 1), "lam_l1"),
        (lambda: SparseGroup(0.1, bad, 1), "lam_group"),
        (lambda: ElasticNet(bad, 0.1), "lam"),
        (lambda: ElasticNet(0.1, bad), "mu"),
        (lambda: NonNegativeL1(bad), "lam"),
        (lambda: Nuclear(bad), "lam"),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be non-negative and finite, got {bad}"):
            make()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="dim must be one or more"):
        SparseGroup(0.1, 0.1, ())
    vector = torch.nn.Parameter(torch.zeros(3))
    for reg in (SparseGroup(0.1, 0.1, 1), Nuclear(0.1)):
        with pytest.raises(ValueError, match=r"shape.*\(3,\)"):
            LinBreg([vector], reg=reg)
