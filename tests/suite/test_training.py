"""The epoch loop: what it records, that it learns, that a stop in the middle leaves no trace."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from bregman import L1, AdaBreg, LinBreg, Multilevel, param_groups, sparse_init_
from bregman.suite import stopping
from bregman.suite.checkpoints import Checkpoint, CheckpointError
from bregman.suite.models import MLP
from bregman.suite.stopping import Stopped
from bregman.suite.training import accuracy, evaluate, fit


def problem(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 12, generator=generator)
    return inputs, (inputs[:, :3].sum(1) > 0).long()


class Setup:
    """A model with all that fit needs, the same for the same seed."""

    def __init__(self, optimizer=LinBreg, scheduler="plateau", seed=0, **options):
        self.generator = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(MLP((12, 16, 2)), nn.BatchNorm1d(2))
        sparse_init_(self.model, 0.3, generator=self.generator)
        options = {"lr": 0.1, **options}
        self.optimizer = optimizer(param_groups(self.model, linear=L1(0.05)), **options)
        self.scheduler = {
            "plateau": lambda: ReduceLROnPlateau(self.optimizer, mode="max", patience=0),
            "step": lambda: StepLR(self.optimizer, 2),
            None: lambda: None,
        }[scheduler]()

    def fit(self, epochs=6, **changed):
        inputs, labels = problem()
        arguments = {
            "epochs": epochs,
            "batch_size": 32,
            "generator": self.generator,
            "scheduler": self.scheduler,
            **changed,
        }
        train, validation = (inputs[:200], labels[:200]), (inputs[200:], labels[200:])
        return fit(self.model, self.optimizer, train, validation, **arguments)

    def weights(self):
        return nn.utils.parameters_to_vector(self.model.parameters())


def column(result, split, metric):
    return [r.value for r in result.history if (r.split, r.metric) == (split, metric)]


def test_fit_learns_and_records_every_epoch():
    setup = Setup()
    result = setup.fit(epochs=8)
    assert column(result, "validation", "accuracy")[-1] > 0.85
    assert len(column(result, "validation", "loss")) == 9  # epoch 0 is before training
    assert len(column(result, "train", "loss")) == 8
    assert {r.epoch for r in result.history} == set(range(9))
    density = setup.model[0][1].weight.count_nonzero() + setup.model[0][3].weight.count_nonzero()
    assert column(result, "weights", "n_total")[-1] == pytest.approx(
        density.item() / (12 * 16 + 32)
    )
    assert not result.diverged


def test_fit_does_what_a_plain_loop_does():
    ours, plain = Setup(scheduler=None), Setup(scheduler=None)
    ours.fit(epochs=3)
    inputs, labels = problem()
    for _ in range(3):
        for chosen in torch.randperm(200, generator=plain.generator).split(32):
            plain.optimizer.zero_grad()
            F.cross_entropy(plain.model(inputs[chosen]), labels[chosen]).backward()
            plain.optimizer.step()
    assert torch.equal(ours.weights(), plain.weights())


def test_training_numbers_are_means_over_the_samples_of_the_epoch():
    seen = []

    def loss(output, labels):
        value = F.cross_entropy(output, labels)
        if torch.is_grad_enabled():
            seen.append((value.item(), len(labels)))
        return value

    result = Setup().fit(epochs=1, loss=loss)
    mean = sum(value * n for value, n in seen) / sum(n for _, n in seen)
    assert column(result, "train", "loss") == [pytest.approx(mean, rel=1e-6)]


@pytest.mark.parametrize("optimizer", [LinBreg, AdaBreg])
@pytest.mark.parametrize("scheduler", ["plateau", "step", None])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, optimizer, scheduler, stop):
    whole = Setup(optimizer, scheduler)
    expected = whole.fit()

    class InterruptionError(Exception):
        pass

    def interrupt(epoch):
        if epoch == stop:
            raise InterruptionError

    checkpoint = tmp_path / "run.ckpt"
    every_epoch = {"checkpoint": checkpoint, "checkpoint_seconds": 0.0}
    with pytest.raises(InterruptionError):
        Setup(optimizer, scheduler).fit(on_epoch=interrupt, **every_epoch)
    # another seed: everything must come from the checkpoint
    resumed = Setup(optimizer, scheduler, seed=99)
    result = resumed.fit(**every_epoch)
    assert result.history == expected.history
    assert torch.equal(resumed.weights(), whole.weights())
    buffers = zip(resumed.model.buffers(), whole.model.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)


@pytest.mark.parametrize("optimizer", [LinBreg, AdaBreg])
@pytest.mark.parametrize("stop", [1, 6, 7, 8, 20])
def test_a_run_that_was_killed_within_an_epoch_ends_like_an_uninterrupted_one(
    tmp_path, optimizer, stop
):
    def noisy(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    class KilledError(Exception):
        pass

    steps = 0

    def killed(output, labels):
        nonlocal steps
        steps += torch.is_grad_enabled()
        if steps > stop:
            raise KilledError
        return F.cross_entropy(output, labels)

    whole = Setup(optimizer)
    expected = whole.fit(transform=noisy)
    often = {"transform": noisy, "checkpoint": tmp_path / "run.ckpt", "checkpoint_seconds": 0.0}
    with pytest.raises(KilledError):
        Setup(optimizer).fit(loss=killed, **often)
    resumed = Setup(optimizer, seed=99)
    result = resumed.fit(**often)
    assert result.history == expected.history
    assert torch.equal(resumed.weights(), whole.weights())
    # 200 samples in batches of 32
    positions = [(start["epoch"], start["batch"]) for start in result.starts]
    assert positions == [(1, 0), (1 + stop // 7, stop % 7)]
    assert all(start["threads"] == torch.get_num_threads() for start in result.starts)


@pytest.mark.parametrize("optimizer", [LinBreg, AdaBreg])
@pytest.mark.parametrize("frozen_steps", [1, 4, 9])
@pytest.mark.parametrize("after", [2, 5, 8, 11, 17])
def test_a_stop_in_the_middle_of_a_cycle_goes_on_bit_for_bit(
    tmp_path, optimizer, frozen_steps, after
):
    """What asks whether to stop is asked between batches, and in each evaluation."""

    def setup(seed=0):
        made = Setup(optimizer, seed=seed)
        return made, Multilevel(made.model, made.optimizer, frozen_steps)

    whole, _ = setup()
    expected = whole.fit()
    asked = itertools.count()
    often = {"checkpoint": tmp_path / "run.ckpt", "checkpoint_seconds": 0.0}
    told, cycle = setup()
    with stopping.stopped_by(lambda: next(asked) >= after), pytest.raises(Stopped):
        told.fit(**often)
    assert cycle.missed > 0 or frozen_steps < 9, "in the middle of a cycle"
    resumed, _ = setup(seed=99)
    result = resumed.fit(**often)
    assert result.history == expected.history
    assert torch.equal(resumed.weights(), whole.weights())


def test_the_test_set_is_measured_in_the_last_ten_epochs_and_changes_nothing():
    inputs, labels = problem()
    test = (inputs[:50], labels[:50])
    plain, tested = Setup(), Setup()
    expected, result = plain.fit(epochs=12), tested.fit(epochs=12, test=test)
    measured = [r for r in result.history if r.split == "test"]
    assert [r.epoch for r in measured] == list(range(3, 13))
    assert [r for r in result.history if r.split != "test"] == expected.history
    assert torch.equal(tested.weights(), plain.weights())
    assert measured[-1].value == evaluate(tested.model, test, accuracy)[0]


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    Setup().fit(epochs=1, checkpoint=checkpoint, checkpoint_seconds=0.0)
    other = Setup()
    other.model = MLP((12, 5, 2))
    with pytest.raises(RuntimeError, match=r"run\.ckpt can't be used .* delete it"):
        other.fit(checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(RuntimeError, match=r"run\.ckpt can't be used .* delete it"):
        Setup().fit(checkpoint=checkpoint)


def test_a_diverged_run_stops_and_says_so():
    setup = Setup(scheduler=None)
    result = setup.fit(epochs=5, loss=lambda output, labels: output.sum() * math.nan)
    assert result.diverged
    assert {r.epoch for r in result.history} == {0, 1}


def test_the_plateau_rule_halves_the_learning_rate():
    setup = Setup()
    # the validation metric never gets better, patience 0: smaller after every epoch but the first
    result = setup.fit(epochs=4, metric=lambda output, labels: torch.tensor(0.5))
    rates = column(result, "train", "lr")
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_evaluation_leaves_the_model_as_it_was():
    model = Setup().model
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs, labels = problem()
    (found,) = evaluate(model, (inputs, labels), accuracy, batch_size=7)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    assert found == pytest.approx((model(inputs).argmax(1) == labels).float().mean().item())
    evaluate(model, (inputs, labels), accuracy)
    assert not model.training


def test_a_transform_sees_every_batch_and_draws_from_the_generator():
    def noisy(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    ours, plain = Setup(scheduler=None), Setup(scheduler=None)
    ours.fit(epochs=2, transform=noisy)
    inputs, labels = problem()
    for _ in range(2):
        for chosen in torch.randperm(200, generator=plain.generator).split(32):
            plain.optimizer.zero_grad()
            batch = noisy(inputs[chosen], plain.generator)
            F.cross_entropy(plain.model(batch), labels[chosen]).backward()
            plain.optimizer.step()
    assert torch.equal(ours.weights(), plain.weights())


def test_autocast_reaches_training_and_validation():
    seen = []

    def loss(output, labels):
        seen.append(output.dtype)
        return F.cross_entropy(output.float(), labels)

    setup = Setup()
    setup.model = MLP((12, 16, 2))
    setup.optimizer = LinBreg(setup.model.parameters())
    setup.fit(epochs=1, loss=loss, scheduler=None, autocast=torch.bfloat16)
    assert set(seen) == {torch.bfloat16}
    assert setup.weights().dtype == torch.float32


class Pruner:
    """Zeroes one more input at each epoch; what it did so far is its state."""

    def __init__(self, setup):
        self.setup = setup
        self.done = 0

    def __call__(self, epoch):
        self.done += 1
        with torch.no_grad():
            self.setup.model[0][1].weight[:, : self.done] = 0
        self.setup.optimizer.resync()

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def test_interventions_further_state_and_snapshots_survive_an_interruption(tmp_path):
    class InterruptionError(Exception):
        pass

    def interrupt(epoch):
        if epoch == 3:
            raise InterruptionError

    def run(setup, checkpoint=None, on_epoch=lambda epoch: None):
        pruner = Pruner(setup)
        return setup.fit(
            on_epoch=on_epoch,
            intervene=pruner,
            stateful={"pruner": pruner},
            snapshot=lambda epoch, model: {f"{epoch}": model[0][1].weight} if epoch % 2 else {},
            measure=lambda model: {"inputs": float(model[0][1].weight.any(0).sum())},
            checkpoint=checkpoint,
            checkpoint_seconds=0.0,
        )

    whole = Setup()
    expected = run(whole)
    with pytest.raises(InterruptionError):
        run(Setup(), tmp_path / "run.ckpt", interrupt)
    resumed = Setup(seed=99)
    result = run(resumed, tmp_path / "run.ckpt")
    assert result.history == expected.history
    assert torch.equal(resumed.weights(), whole.weights())
    assert list(result.snapshots) == ["1", "3", "5"]
    for name, kept in expected.snapshots.items():
        assert torch.equal(result.snapshots[name], kept)
    assert not torch.equal(expected.snapshots["1"], expected.snapshots["5"]), "kept as they were"


def test_what_intervenes_in_the_last_epoch_is_recorded():
    setup = Setup()

    def prune(epoch):
        if epoch == 4:
            with torch.no_grad():
                setup.model[0][1].weight.zero_()
            setup.optimizer.resync()

    result = setup.fit(
        epochs=4,
        intervene=prune,
        measure=lambda model: {"kept": float(model[0][1].weight.count_nonzero())},
    )
    assert column(result, "weights", "kept")[-2] > 0
    assert column(result, "weights", "kept")[-1] == 0


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_only_the_validation_shows_is_a_divergence(loss):
    def late(output, labels):
        value = F.cross_entropy(output, labels)
        return value if torch.is_grad_enabled() else value * loss

    result = Setup(scheduler=None).fit(epochs=5, loss=late)
    assert result.diverged
    assert {r.epoch for r in result.history} == {0, 1}


@pytest.mark.parametrize("name", ["model", "optimizer", "scheduler"])
def test_a_state_may_not_take_the_place_of_one_that_fit_keeps(name):
    setup = Setup()
    with pytest.raises(ValueError, match=f"must not name what fit keeps itself, got '{name}'"):
        setup.fit(stateful={name: Pruner(setup)})


def test_bad_arguments_are_named_before_any_work():
    setup = Setup()
    before = setup.weights().clone()
    with pytest.raises(ValueError, match="epochs must be a non-negative integer, got -1"):
        setup.fit(epochs=-1)
    with pytest.raises(TypeError, match=r"stateful\['x'\] must have state_dict .*, got 3"):
        setup.fit(stateful={"x": 3})

    def loss(output, labels):
        return torch.tensor(0.0)

    with pytest.raises(ValueError, match=r"metric must not be named .*, got 'loss'"):
        setup.fit(metric=loss)
    assert torch.equal(setup.weights(), before)


def checkpoint_after(stop, path, **changed):
    """A checkpoint of a training that broke off after some epochs."""

    class InterruptionError(Exception):
        pass

    def interrupt(epoch):
        if epoch == stop:
            raise InterruptionError

    with pytest.raises(InterruptionError):
        Setup().fit(on_epoch=interrupt, checkpoint=path, checkpoint_seconds=0.0, **changed)


@pytest.mark.parametrize(
    ("other", "changed", "difference"),
    [
        (dict(lr=0.5), {}, r"groups\.0\.lr is '0\.1' there, '0\.5' was asked for"),
        (dict(optimizer=AdaBreg), {}, "optimizer is 'LinBreg' there, 'AdaBreg' was asked for"),
        (dict(scheduler="step"), {}, "scheduler is 'ReduceLROnPlateau' there, 'StepLR' was asked"),
        ({}, dict(batch_size=16), "batch_size is 32 there, 16 was asked for"),
        ({}, dict(epochs=2), "it stands at epoch 4, batch 0, of 2 epochs of 7"),
        ({}, dict(autocast=torch.bfloat16), "autocast is 'None' there, 'torch.bfloat16' was asked"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, other, changed, difference):
    path = tmp_path / "run.ckpt"
    checkpoint_after(3, path)
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=rf"run\.ckpt can't be used .*{difference}.*delete it"
    ):
        Setup(**other).fit(checkpoint=path, **changed)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused_whatever_its_name(tmp_path):
    path = tmp_path / "run.ckpt"
    checkpoint_after(3, path)
    mine = Checkpoint(path, {"config": {"lam": 0.1}, "revision": 1})
    with pytest.raises(CheckpointError, match=r"config is in what was asked for alone"):
        Setup().fit(checkpoint=mine)
    path.unlink()
    Setup().fit(epochs=2, checkpoint=mine, checkpoint_seconds=0.0)
    for key, other in [("config", {"lam": 0.01}), ("revision", 2)]:
        theirs = Checkpoint(path, {**mine.identity, key: other})
        with pytest.raises(CheckpointError, match=f"{key}.* was asked for"):
            Setup().fit(checkpoint=theirs)


def test_no_damage_of_a_checkpoint_is_taken_on(tmp_path):
    path = tmp_path / "run.ckpt"
    checkpoint_after(3, path)
    whole = path.read_bytes()
    random = torch.Generator().manual_seed(0)
    cuts = [0, 1, 31, 32, 33, len(whole) // 2, len(whole) - 1]
    flips = torch.randint(len(whole), (60,), generator=random).tolist()
    damaged = [whole[:cut] for cut in cuts]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in flips]
    for content in [*damaged, whole + b"\0", b"junk", whole[32:]]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"its sum is wrong\); delete it to train") as e:
            Setup().fit(checkpoint=path)
        assert "weights_only" not in str(e.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(CheckpointError, match=r"run\.ckpt can't be used \(Is a directory\)"):
        Setup().fit(checkpoint=path)


def test_a_full_disk_at_a_checkpoint_is_named(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    message = r"run\.ckpt can't be written \(No space left on device\); make room"
    with pytest.raises(CheckpointError, match=message):
        Setup().fit(checkpoint=tmp_path / "run.ckpt", checkpoint_seconds=0.0)
    assert not list(tmp_path.iterdir())


def test_a_slow_training_is_saved_every_two_minutes_at_least(tmp_path, monkeypatch):
    now = 0.0
    saved = [now]

    def step(output, labels):
        nonlocal now
        now += 11.0  # seconds that a batch takes
        return F.cross_entropy(output, labels)

    save = Checkpoint.save
    monkeypatch.setattr("bregman.suite.training.time.perf_counter", lambda: now)
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, state: (saved.append(now), save(self, state))
    )
    Setup().fit(epochs=4, loss=step, checkpoint=tmp_path / "run.ckpt")
    assert saved[-1] > now - 120
    assert max(b - a for a, b in itertools.pairwise(saved)) <= 120


@pytest.mark.parametrize("after", [1, 5, 7, 9, 20])
def test_a_training_that_is_told_to_stop_goes_on_bit_for_bit(tmp_path, after):
    def noisy(inputs, generator):
        return inputs + torch.randn(inputs.shape, generator=generator)

    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked > after

    whole = Setup()
    expected = whole.fit(transform=noisy)
    path = tmp_path / "run.ckpt"
    told = Setup()
    with stopping.stopped_by(stop), pytest.raises(Stopped):
        told.fit(transform=noisy, checkpoint=path)
    if after == 1:  # of the evaluation before training: nothing to be kept but the state
        assert path.exists()
    resumed = Setup(seed=99)
    result = resumed.fit(transform=noisy, checkpoint=path)
    assert result.history == expected.history
    assert torch.equal(resumed.weights(), whole.weights())


def test_evaluation_keeps_the_modes_of_parts_also_after_an_error():
    model = Setup().model.train()
    model[1].eval()  # frozen statistics
    samples = problem()
    modes = [module.training for module in model.modules()]
    evaluate(model, samples, accuracy)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ZeroDivisionError):
        evaluate(model, samples, lambda output, labels: 1 / 0)
    assert [module.training for module in model.modules()] == modes


def test_training_leaves_frozen_parts_in_their_mode():
    setup = Setup()
    setup.model[1].eval()
    before = setup.model[1].running_mean.clone()
    setup.fit(epochs=2)
    assert torch.equal(setup.model[1].running_mean, before)
