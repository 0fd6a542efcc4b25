"""The cycle against the textbook algorithm, and one path against the other."""


def rests(model, optimizer):
    """What rests in frozen steps: weights that meet constants, and the biases that these are.

    In the network above a filter gives as many inputs of the next layer as it has pixels there.
    """
    regs = {p: group["reg"] for group in optimizer.param_groups for p in group["params"]}
    layers = [layer for layer in model if hasattr(layer, "weight")]
    found = {}
    for before, layer in pairwise(layers):
        reg, weight = regs[before.weight], layer.weight
        of_rows = isinstance(reg, GroupL12) and 0 not in reg.blocks(before.weight.dim())
        free = isinstance(regs[before.bias], Zero)
        if of_rows and free and isinstance(regs[weight], GroupL12 | Zero):
            dead = ~(before.weight != 0).flatten(1).any(1)
            columns = dead.repeat_interleave(weight.shape[1] // len(dead))
            sizes = [1, -1] + [1] * (weight.dim() - 2)
            found[weight], found[before.bias] = columns.view(sizes).expand_as(weight), dead
    return found


def textbook(model, optimizer, m, steps, cut=(), catch_up=True, lr=lambda k: 1.0):
    """Multilevel training with full gradients and masks; ``optimizer`` is only read.

    Returns the parameters and their v, in the optimizer's order.
    """
    ada = isinstance(optimizer, AdaBreg)
    state = {}
    missed = m  # the first step is a full one
    n_full = 0
    for k in range(steps):
        gradients = torch.autograd.grad(minibatch_loss(model, k), parameters(optimizer))
        full = missed == m or k in cut
        n_full += full
        for p, g in zip(parameters(optimizer), gradients, strict=True):
            group = next(group for group in optimizer.param_groups if p in set(group["params"]))
            reg, delta, tau = group["reg"], group["delta"], lr(k) * group["lr"]
            theta, zeros = p.detach(), torch.zeros_like(g)
            if p not in state:
                v = reg.subgrad(theta) + theta / delta
                everywhere = torch.ones_like(g, dtype=bool)
                state[p] = dict(v=v, m1=zeros, m2=zeros, inside=everywhere, resting=~everywhere)
            s = state[p]
            moving = torch.ones_like(s["inside"]) if full else s["inside"] & ~s["resting"]
            if ada:
                (b1, b2), t = group["betas"], k + 1
                s["m1"] = torch.where(moving, b1 * s["m1"] + (1 - b1) * g, s["m1"])
                s["m2"] = torch.where(moving, b2 * s["m2"] + (1 - b2) * g**2, s["m2"])
                step = s["m1"] / (1 - b1**t)
                step = tau * step / ((s["m2"] / (1 - b2**t)).sqrt() + group["eps"])
            else:
                beta = group["momentum"]
                s["m1"] = torch.where(moving, beta * s["m1"] + (1 - beta) * tau * g, s["m1"])
                step = s["m1"]
            dims = reg.blocks(p.dim())
            times = 1 + missed if catch_up and k and dims is not None else 1
            times, correction = math.sqrt(times) if ada else times, 1.0
            if ada:
                # the moments of what did not move have seen full steps alone
                first, second = ((1 - b**t) / (1 - b**n_full) for b in (b1, b2))
                correction = first / math.sqrt(second)
            count = moving.to(g)
            count[~s["inside"]] *= times
            count[s["resting"] | ~s["inside"]] *= correction
            s["v"] = s["v"] - step * count
            if full and dims is not None:
                # beyond the subdifferential at zero only the share of one step counts
                homogeneous = L1(reg.lam) if isinstance(reg, ElasticNet) else reg
                beyond = homogeneous.prox(s["v"], 1.0)
                kept = beyond / times
                s["v"] = torch.where(s["inside"], s["v"], s["v"] - beyond + kept)
            theta.copy_(reg.prox(delta * s["v"], delta))
            if full and p.dim() > 1 and dims is not None:
                blocks = theta != 0
                for d in dims:
                    blocks = blocks.any(d, keepdim=True)
                s["inside"] = blocks.expand_as(theta)
        if full:
            for p, resting in rests(model, optimizer).items():
                state[p]["resting"] = resting & state[p]["inside"]
        missed = 0 if full else missed + 1
    return [p.detach() for p in parameters(optimizer)], [s["v"] for s in state.values()]


@every_optimizer
@every_path
def test_follows_the_textbook(optimizer, regs, path):
    cut = (8, 21)  # here the cycle is ended in its middle
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 4, path=path)
    supports = []

    def look(k):
        if k in cut:
            assert cycle.frozen
            cycle.finish()
        if k:
            assert_in_subdifferential(ours)
            supports.append([(p != 0).detach().clone() for p in parameters(ours)])

    train(model, ours, 32, before=look)
    cycle.finish()
    assert len(supports) > 5
    assert not all(same(supports[0], later) for later in supports)

    model, optimizer = build(optimizer, regs)
    thetas, vs = textbook(model, optimizer, 4, 32, cut)
    assert_close([p.detach() for p in parameters(ours)], thetas)
    assert_close([ours.state[p]["subgrad"] for p in parameters(ours)], vs)


@pytest.mark.parametrize(("catch_up", "expected"), [(False, 10.0), (True, 1 + 9 * 5**0.5)])
def test_adabreg_moves_by_tau_where_the_gradient_is_constant(catch_up, expected):
    model = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    optimizer = AdaBreg(model.parameters(), lr=0.01, reg=L1(10.0))
    cycle = Multilevel(model, optimizer, 4, path="masked", catch_up=catch_up)
    weight = model.weight
    for _ in range(50):
        optimizer.zero_grad()
        model(torch.tensor([[1.0, 1.0, -1.0]])).sum().backward()
        optimizer.step()
    cycle.finish()
    v = optimizer.state[weight]["subgrad"]
    torch.testing.assert_close(v[0, 1:] / 0.01, torch.tensor([-expected, expected]))


@pytest.mark.parametrize("optimizer", [LinBreg, AdaBreg])
@pytest.mark.parametrize("reg", [L1(0.5), GroupL12(0.5, 1), ElasticNet(0.5, 1.0)])
def test_a_block_enters_with_no_more_than_one_step(optimizer, reg):
    # after catch-up v may be 29 steps beyond the threshold
    model = torch.nn.Linear(1, 2, bias=False).double()
    weight = model.weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0], [0.0]]))
    optimizer = optimizer(model.parameters(), lr=0.01, reg=reg)
    cycle = Multilevel(model, optimizer, 29)
    while weight[1] == 0:
        assert cycle._steps < 1000
        optimizer.zero_grad()
        model(torch.ones(1, 1).double()).sum().backward()
        optimizer.step()
    assert not cycle.missed, "in a full step"
    assert 0 < -weight[1] <= 0.01 * (1 + 1e-6)
    cycle.finish()
    assert_in_subdifferential(optimizer)


@pytest.mark.parametrize("path", ["masked", "gathered"])
def test_biases_with_a_regularizer_do_not_rest_nor_what_meets_them(path):
    def made():
        model, optimizer = build("LinBreg", "rows")
        optimizer.param_groups[-1]["reg"] = L1(0.01)
        assert {p.dim() for p in optimizer.param_groups[-1]["params"]} == {1}
        return model, optimizer

    model, ours = made()
    cycle = Multilevel(model, ours, 4, path=path)
    train(model, ours, 14)
    cycle.finish()
    thetas, _ = textbook(*made(), 4, 14)
    assert_close([p.detach() for p in parameters(ours)], thetas)
    assert any((layer.weight == 0).all(1).any() for layer in (model[1], model[3]))


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters"])
def test_without_catch_up_a_full_step_counts_once(optimizer, regs):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 3, catch_up=False)
    train(model, ours, 14)
    cycle.finish()
    twin, plain = build(optimizer, regs)
    thetas, _ = textbook(twin, plain, 3, 14, catch_up=False)
    assert_close([p.detach() for p in parameters(ours)], thetas)


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters"])
@pytest.mark.parametrize("fused", [None, True])
def test_without_frozen_steps_it_is_the_optimizer_bit_for_bit(optimizer, regs, fused):
    (model, ours), (twin, plain) = (build(optimizer, regs, fused=fused) for _ in range(2))
    cycle = Multilevel(model, ours, 0)
    train(model, ours, 10)
    train(twin, plain, 10)
    assert same(values(ours), values(plain))
    assert not cycle.paths


@pytest.mark.parametrize("path", ["auto", "gathered"])
def test_batch_normalization_and_shortcuts(path):
    # rows of a residual network are no neurons of a chain: outputs get their full width again
    def run(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = ResNet18(width=4, classes=4).double()
        with torch.no_grad():
            for p in model.parameters():
                if p.dim() == 4:
                    p[::2] = 0
        reg = GroupL12(0.01, (1, 2, 3))
        optimizer = LinBreg(param_groups(model, linear=GroupL12(0.01, 1), conv=reg), lr=0.05)
        cycle = Multilevel(model, optimizer, 3, path=path)
        for k in range(6):
            optimizer.zero_grad()
            images = X[4 * k : 4 * k + 4].expand(-1, 3, -1, -1)
            F.cross_entropy(model(images), Y[4 * k : 4 * k + 4]).backward()
            optimizer.step()
        cycle.finish()
        return list(model.state_dict().values()), set(cycle.paths.values())

    (found, paths), (expected, _) = run(path), run("masked")
    assert paths == {"gathered"}
    assert_close(found, expected, 1e-10)


# ---------------------------------------------------------------------------------------------
# What is not computed
# ---------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The largest number of entries of a tensor that an operation made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, list | tuple) else [out]:
            if isinstance(t, torch.Tensor) and t.layout == torch.strided:
                self.numel = max(self.numel, t.numel())
        return out


@every_optimizer
@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("rows", "gathered")])
def test_frozen_steps_form_nothing_of_full_size(optimizer, regs, path):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 3, path=path)
    full = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    train(model, ours, 1)
    assert cycle.frozen
    small = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    for p, whole in zip(small, full, strict=True):
        assert p.numel() < whole.numel()
        assert {s.numel() for s in ours.state[p].values()} <= {p.numel(), 1}
    ours.zero_grad()
    with Largest() as largest:
        minibatch_loss(model, 1).backward()
        ours.step()
    assert all(p.grad is None for p in full)
    assert all(p.grad.shape == p.shape for p in small)
    # the batch is the largest: 16 samples of 64 entries
    assert max(p.numel() for p in small) <= largest.numel <= 16 * 64 < full[0].numel()


# ---------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------


def linbreg(model, reg):
    return LinBreg(param_groups(model, linear=reg), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(frozen_steps=-1), ValueError, "must be an integer of at least 0, got -1"),
        (dict(frozen_steps=2.5), ValueError, "frozen_steps must be an integer .*, got 2.5"),
        (dict(path="fast"), ValueError, "path must be one of auto, masked, csr, .* 'fast'"),
        (dict(reg=Nuclear(0.1)), ValueError, r"reg must be a sum over blocks .*Nuclear\(lam=0.1\)"),
        (dict(reg=None), ValueError, "optimizer must regularize the weight of a linear or conv"),
        (dict(optimizer=ProxGD), TypeError, "optimizer must be LinBreg or AdaBreg, got ProxGD"),
        (dict(optimizer=torch.optim.SGD), TypeError, "must be LinBreg or AdaBreg, got SGD"),
        (dict(wrap=nn.DataParallel), TypeError, "neither compiled nor wrapped .* got DataParallel"),
        (dict(wrap=torch.compile), TypeError, "neither compiled .*, got OptimizedModule"),
        (dict(device="meta", path="csr"), ValueError, "'csr' needs a model on the cpu, got"),
    ],
)  # fmt: skip
def test_bad_input(arguments, error, message):
    model = MLP((4, 3, 2))
    if "optimizer" in arguments:
        optimizer = arguments["optimizer"](model.parameters(), lr=0.1)
    else:
        optimizer = linbreg(model, arguments.get("reg", L1(0.1)))
    if "device" in arguments:  # in place of a GPU; after the optimizer, which takes no meta tensors
        for p in model.parameters():
            torch.utils.swap_tensors(p, nn.Parameter(p.detach().to(arguments["device"])))
    model = arguments.get("wrap", lambda model: model)(model)
    options = {"path": arguments.get("path", "auto")}
    with pytest.raises(error, match=message):
        Multilevel(model, optimizer, arguments.get("frozen_steps", 3), **options)


def test_a_module_compiled_in_place():
    model = MLP((4, 3, 2))
    model.compile()
    with pytest.raises(TypeError, match="neither compiled"):
        Multilevel(model, linbreg(model, L1(0.1)), 3)


def test_a_bad_regularizer_added_later_raises_at_its_first_full_step():
    model, ours = build("LinBreg", "l1")
    del ours.param_groups[0]["params"][2]
    cycle = Multilevel(model, ours, 1)
    train(model, ours, 2)
    ours.add_param_group({"params": [model[5].weight], "reg": Nuclear(0.1)})
    with pytest.raises(ValueError, match="reg must be a sum over blocks"):
        train(model, ours, 1, start=2)
    assert not cycle.frozen
    assert_in_subdifferential(ours)
