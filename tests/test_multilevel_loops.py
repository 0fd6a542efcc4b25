"""The cycle beside all that a training loop does."""


@every_optimizer
@pytest.mark.parametrize("regs", ["l1", "filters", "kernels"])
@pytest.mark.parametrize(
    "look",
    [
        lambda model, optimizer, cycle: evaluate(model, (X[:4], Y[:4]), F.cross_entropy),
        lambda model, optimizer, cycle: model.eval()(X[:4]),
        lambda model, optimizer, cycle: model.state_dict(),
        lambda model, optimizer, cycle: optimizer.state_dict(),
        lambda model, optimizer, cycle: cycle.state_dict(),
        lambda model, optimizer, cycle: cycle.finish(),
    ],
    ids=["evaluate", "eval", "model", "optimizer", "cycle", "finish"],
)
def test_whoever_looks_finds_whole_weights(optimizer, regs, look):
    model, ours = build(optimizer, regs)
    cycle = Multilevel(model, ours, 5)
    whole, plain_forward = parameters(ours), [type(m).forward for m in model]
    train(model, ours, 4)
    assert cycle.frozen
    assert cycle.missed == 3
    look(model, ours, cycle)
    assert not cycle.frozen
    assert all(p is q for p, q in zip(parameters(ours), whole, strict=True))
    assert {id(p) for p in model.parameters()} == {id(p) for p in whole}
    assert set(ours.state) == set(whole)
    assert all(s.shape in (p.shape, ()) for p in whole for s in ours.state[p].values())
    assert_in_subdifferential(ours)
    assert [m.forward.__func__ for m in model] == plain_forward
    assert not model._forward_pre_hooks
    twin, plain = build(optimizer, regs)
    thetas, vs = textbook(twin, plain, 5, 4)
    assert_close([p.detach() for p in whole], thetas)
    assert_close([ours.state[p]["subgrad"] for p in whole], vs)


def test_outputs_are_the_same_before_and_after_the_cycle_ends():
    model, ours = build("LinBreg", "filters")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 4)
    before = model(X[:7])
    cycle.finish()
    torch.testing.assert_close(model(X[:7]), before, rtol=1e-12, atol=1e-12)


def test_a_gradient_that_waits_for_its_step_is_kept():
    (model, ours), (twin, plain) = (build("LinBreg", "l1") for _ in range(2))
    cycles = [Multilevel(model, ours, 5), Multilevel(twin, plain, 5, catch_up=False)]
    for net, optimizer in ((model, ours), (twin, plain)):
        train(net, optimizer, 3)
        optimizer.zero_grad()
        minibatch_loss(net, 3).backward()
    model.eval()(X[:2])
    ours.step()
    plain.step()
    for cycle in cycles:
        cycle.finish()
    assert_close(values(ours), values(plain))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize(("regs", "steps"), [("l1", 3), ("filters", 3), ("l1", 6), ("rows", 12)])
def test_a_copy_of_the_model_is_a_model_of_its_own(copied, regs, steps):
    model, ours = build("momentum", regs)
    cycle = Multilevel(model, ours, 5)
    train(model, ours, steps)
    twin = copied(model)
    torch.testing.assert_close(twin(X[:5]), model(X[:5]))
    expected = twin.eval()(X[:5])
    train(model, ours, 4, start=steps)
    assert torch.equal(twin(X[:5]), expected)
    whole = build("momentum", regs)[0].state_dict()
    assert {key: t.shape for key, t in twin.state_dict().items()} == {
        key: t.shape for key, t in whole.items()
    }
    cycle.finish()
    assert not torch.equal(model(X[:5]), expected)


def test_weights_edited_between_two_cycles():
    def run(path):
        model, ours = build("LinBreg", "l1")
        cycle = Multilevel(model, ours, 3, path=path)

        def edit(k):
            if k == 8:
                assert not cycle.frozen
                with torch.no_grad():
                    model[1].weight[:, :5] = 0.1
                    model[3].weight.mul_(0.5)
                ours.resync()

        train(model, ours, 12, before=edit)
        cycle.finish()
        return values(ours)

    assert_close(run("csr"), run("masked"))




@every_optimizer
@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("filters", "gathered")])
def test_a_run_through_fit_resumes_bit_for_bit(optimizer, regs, path, tmp_path):
    def run(epochs, checkpoint=None):
        model, ours = build(optimizer, regs)
        cycle = Multilevel(model, ours, 3, path=path)
        result = fit(
            model, ours, (X[:350], Y[:350]), (X[350:], Y[350:]), epochs=epochs, batch_size=32,
            generator=torch.Generator().manual_seed(5), stateful={"multilevel": cycle},
            scheduler=lr_scheduler.StepLR(ours, 2, 0.5), checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )  # fmt: skip
        return result.history, values(ours), cycle.missed

    expected = run(6)
    # eleven steps make an epoch, which ends in the middle of a cycle
    assert expected[2] == 2
    run(3, tmp_path / "run.ckpt")
    history, found, _ = run(6, tmp_path / "run.ckpt")
    assert history == expected[0]
    assert same(found, expected[1])


def test_state_dict_loads_with_torchs_default():
    model, ours = build("AdaBreg", "filters")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 4)
    file = io.BytesIO()
    torch.save(cycle.state_dict(), file)
    file.seek(0)
    twin, other = build("AdaBreg", "filters")
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(copy.deepcopy(ours.state_dict()))
    second = Multilevel(twin, other, 5)
    second.load_state_dict(torch.load(file))
    assert second.missed == 3
    for net, optimizer in ((model, ours), (twin, other)):
        train(net, optimizer, 1, start=4)
    cycle.finish()
    second.finish()
    assert same(values(ours), values(other))


def test_loading_in_the_middle_of_a_cycle():
    model, ours = build("momentum", "rows")
    cycle = Multilevel(model, ours, 5)
    train(model, ours, 6)
    stored = copy.deepcopy([part.state_dict() for part in (model, ours, cycle)])
    train(model, ours, 3, start=6)
    expected = model.state_dict()
    train(model, ours, 2, start=9)
    assert cycle.frozen
    for part, state in zip((model, ours, cycle), stored, strict=True):
        part.load_state_dict(state)
    train(model, ours, 3, start=6)
    assert_close(model.state_dict().values(), expected.values())


def test_the_learning_rate_of_every_step_counts():
    model, ours = build("momentum", "l1")
    cycle = Multilevel(model, ours, 3)
    scheduler = lr_scheduler.LambdaLR(ours, lambda k: 1 / (1 + k))
    for k in range(10):
        train(model, ours, 1, start=k)
        scheduler.step()
    cycle.finish()
    twin, plain = build("momentum", "l1")
    thetas, _ = textbook(twin, plain, 3, 10, lr=lambda k: 1 / (1 + k))
    assert_close([p.detach() for p in parameters(ours)], thetas)


def test_closures():
    (model, ours), (twin, plain) = (build("AdaBreg", "filters") for _ in range(2))
    cycles = [Multilevel(model, ours, 3), Multilevel(twin, plain, 3)]
    train(twin, plain, 9)
    for k in range(9):

        def closure(k=k):
            ours.zero_grad()
            loss = minibatch_loss(model, k)
            loss.backward()
            return loss.item()

        assert ours.step(closure) > 0
    for cycle in cycles:
        cycle.finish()
    assert same(values(ours), values(plain))


def test_clipping_and_grad_scaler_see_the_small_gradients():
    def run(scaler):
        model, ours = build("LinBreg", "rows")
        cycle = Multilevel(model, ours, 3)
        for k in range(10):
            ours.zero_grad()
            loss = minibatch_loss(model, k)
            if k == 6:  # one that the scaler skips
                loss = loss * (torch.inf if scaler.is_enabled() else 0)
            scaler.scale(loss).backward()
            scaler.unscale_(ours)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            if k != 6 or scaler.is_enabled():
                scaler.step(ours)
            scaler.update()
        cycle.finish()
        return values(ours)

    scalers = [torch.amp.GradScaler("cpu", 1024.0, enabled=enabled) for enabled in (True, False)]
    assert_close(*map(run, scalers))


@pytest.mark.parametrize(("regs", "path"), [("l1", "csr"), ("filters", "gathered")])
def test_autocast(regs, path):
    def run(path):
        model, _ = build("LinBreg", regs)
        model.float()
        linear, conv, _ = REGULARIZERS[regs]
        ours = LinBreg(param_groups(model, linear=linear, conv=conv), lr=0.1)
        cycle = Multilevel(model, ours, 3, path=path)
        for k in range(10):
            ours.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = minibatch_loss(model, k)
            loss.backward()
            ours.step()
        cycle.finish()
        return [p.detach() for p in parameters(ours)]

    # products in another precision, or of numbers that were rounded to 8 bits
    assert_close(run(path), run("masked"), 0.05)


def test_a_group_added_later_is_frozen_from_its_first_step_on():
    (model, ours), (twin, plain) = (build("LinBreg", "l1") for _ in range(2))
    for net, optimizer in ((model, ours), (twin, plain)):
        del optimizer.param_groups[0]["params"][2]
        cycle = Multilevel(net, optimizer, 3, path="csr")
        train(net, optimizer, 3)
        assert cycle.paths["5"] == "dense: its weight had no step of the optimizer"
        optimizer.add_param_group({"params": [net[5].weight], "reg": L1(0.02), "lr": 0.05})
        train(net, optimizer, 3, start=3)
        assert cycle.paths["5"] == "csr"
        cycle.finish()
        assert_in_subdifferential(optimizer)


def test_a_regularizer_replaced_within_a_cycle():
    model, ours = build("LinBreg", "l1")
    cycle = Multilevel(model, ours, 4)
    train(model, ours, 8)
    assert cycle.frozen
    for lam in (0.01, 0.2):
        ours.param_groups[0]["reg"] = replace(ours.param_groups[0]["reg"], lam=lam)
        train(model, ours, 1, start=8)
        cycle.finish()
        assert_in_subdifferential(ours)
        train(model, ours, 2, start=9)


def test_sparsity_on_target_between_two_cycles():
    model, ours = build("LinBreg", "l1")
    cycle = Multilevel(model, ours, 4)
    target = SparsityTarget(ours, 0.1, every=1)
    ours.register_step_post_hook(lambda *_: cycle.frozen or target.step())
    train(model, ours, 100)
    assert not cycle.frozen
    assert target.steps == 20
    assert_in_subdifferential(ours)
    weights = torch.cat([p.detach().flatten() for p in ours.param_groups[0]["params"]])
    assert 0.05 < weights.count_nonzero() / len(weights) < 0.15


def test_regularized_parameters_outside_of_layers_with_a_path_stay_dense_and_are_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(1, 3, 3), nn.Flatten(), nn.Linear(300, 4)).double()
    groups = [
        {"params": [model[0].weight, model[2].weight], "reg": L1(0.01)},
        {"params": [model[0].bias, model[2].bias]},
    ]
    cycle = Multilevel(model, LinBreg(groups, lr=0.1), 3, path="csr")
    assert cycle.paths == {"0.weight": "dense: outside of linear and convolution layers"}
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    for _ in range(3):
        before = model[0].weight.detach().clone()
        cycle.optimizer.zero_grad()
        model(images).square().mean().backward()
        cycle.optimizer.step()
        assert not torch.equal(model[0].weight, before), "it moves in frozen steps as in full ones"
    assert cycle.frozen
    assert cycle.paths["2"] == "csr"
    assert model[0].weight.shape == (1, 3, 3, 3)


def test_layers_that_cannot_be_frozen_take_full_steps():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(2 * x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(64, 8), Own(8, 8), nn.Linear(8, 8)
            self.d, self.e = nn.Linear(8, 8), nn.Linear(8, 4)
            self.d.weight = self.c.weight
            self.e.weight.requires_grad_(False)

        def forward(self, x):
            return self.e(self.d(self.c(self.b(self.a(x.flatten(1))).relu()).relu()))

    model = Net().double()
    ours = LinBreg(param_groups(model, linear=L1(0.01)), lr=0.1)
    cycle = Multilevel(model, ours, 3, path="csr")
    before = [p.detach().clone() for p in model.parameters()]
    train(model, ours, 2)
    cycle.finish()
    assert cycle.paths == {
        "a": "csr",
        "b": "dense: Own may have a forward of its own",
        "c": "dense: its weight is shared",
        "d": "dense: its weight is shared",
        "e": "dense: its weight had no step of the optimizer",
    }
    changed = [not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)]
    assert changed.count(False) == 1


def test_scalars_between_layers_take_part():
    def run(path):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = SkipMLP(64, depth=2, classes=4).double()
        ours = LinBreg(model.param_groups(GroupL12(0.03, 1), skips=L1(0.001)), lr=0.1)
        cycle = Multilevel(model, ours, 3, path=path)
        train(model, ours, 9)
        cycle.finish()
        assert_in_subdifferential(ours)
        return values(ours)

    assert_close(run("gathered"), run("masked"))


