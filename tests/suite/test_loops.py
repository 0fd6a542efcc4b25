"""The optimizers in other people's training loops: the weights of the plain loop, bit for bit."""

import inspect
import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from bregman.multilevel import Multilevel
from bregman.suite import loops
from bregman.suite.paths import ROOT

TASKS = {
    "digits": (loops.digits, loops.mlp, loops.linbreg),
    "text": (loops.text, loops.transformer, loops.adabreg),
}
every_task = pytest.mark.parametrize("task", TASKS)
both = pytest.mark.parametrize("frozen_steps", [0, loops.FROZEN_STEPS])


def loader(task, seed=0):
    return DataLoader(TASKS[task][0](seed), loops.BATCH)


def made(task, frozen_steps=0, seed=0):
    _, network, optimizer = TASKS[task]
    model = network(seed)
    ours = optimizer(model)
    if frozen_steps:
        Multilevel(model, ours, frozen_steps)
    return model, ours


def values(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


PLAIN = {}


def plain(task, frozen_steps=0):
    if (task, frozen_steps) not in PLAIN:
        model, ours = made(task, frozen_steps)
        loops.train(model, ours, loader(task), loops.EPOCHS)
        PLAIN[task, frozen_steps] = values(model)
    return PLAIN[task, frozen_steps]


def assert_same(model, task, frozen_steps=0):
    assert all(map(torch.equal, values(model), plain(task, frozen_steps)))


@every_task
def test_the_tasks_can_be_learned_and_the_networks_are_sparse(task):
    (images, labels), (model, ours) = loader(task).dataset[:], made(task)
    before = loops.loss_of(model(images), labels)
    density = loops.record(model, ours)
    loops.train(model, ours, loader(task), loops.EPOCHS)
    assert loops.loss_of(model(images), labels) < 0.7 * before
    assert len(density) == loops.STEPS * loops.EPOCHS
    assert all(0 < share < 0.6 for share in density)
    assert len({*density}) > 10
    # frozen steps are no other name for the same thing
    assert not all(map(torch.equal, plain(task), plain(task, loops.FROZEN_STEPS)))


def test_the_density_that_is_recorded():
    model, ours = made("digits")
    density = loops.record(model, ours)
    loops.train(model, ours, loader("digits"), 1)
    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    nonzero = sum(float((layer.weight != 0).sum()) for layer in layers)
    assert density[-1] == nonzero / (784 * 100 + 100 * 50 + 50 * 10)


def test_the_transformer_sees_no_later_bytes():
    model = loops.transformer(0)
    x = torch.randint(128, (2, loops.LENGTH), generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 7:] = 5
    torch.testing.assert_close(model(x)[:, :7], model(other)[:, :7], rtol=0, atol=0)
    assert not torch.equal(model(x)[:, 7:], model(other)[:, 7:])
    text, following = loops.text(0)[:]
    assert torch.equal(text[:, 1:], following[:, :-1])


@pytest.fixture
def lightning(monkeypatch):
    lightning = pytest.importorskip("lightning")
    monkeypatch.setattr("warnings.showwarning", lambda *_, **__: None)
    return lightning


@pytest.mark.more
@every_task
@both
def test_lightning_and_its_checkpoint(task, frozen_steps, lightning, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    def run(seed, start=None):
        model, ours = made(task, frozen_steps, seed)
        keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        trainer = lightning.Trainer(
            max_epochs=loops.EPOCHS, accelerator="cpu", devices=1, logger=False, callbacks=[keep],
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(loops.lightning_module(model, ours), loader(task), ckpt_path=start)
        assert trainer.global_step == loops.STEPS * loops.EPOCHS
        return model

    assert_same(run(0), task, frozen_steps)
    stored = tmp_path / "epoch=0.ckpt"
    (state,) = torch.load(stored, weights_only=False)["optimizer_states"]
    assert ("multilevel" in state) == bool(frozen_steps)
    assert_same(run(1, stored), task, frozen_steps)


@pytest.mark.more
@every_task
@both
def test_hugging_face_trainer_and_its_checkpoint(task, frozen_steps, tmp_path):
    transformers = pytest.importorskip("transformers", "5.0")
    pytest.importorskip("accelerate")
    arguments = transformers.TrainingArguments(
        tmp_path, num_train_epochs=loops.EPOCHS, per_device_train_batch_size=loops.BATCH,
        train_sampling_strategy="sequential", lr_scheduler_type="constant", max_grad_norm=0,
        save_steps=26, use_cpu=True, disable_tqdm=True, logging_strategy="no", report_to="none",
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    name = next(iter(inspect.signature(TASKS[task][1](0).forward).parameters))
    samples = [{name: x, "labels": y} for x, y in loader(task).dataset]

    def run(seed, start=None):
        model, ours = made(task, frozen_steps, seed)
        trainer = transformers.Trainer(
            model, arguments, train_dataset=samples, compute_loss_func=loops.loss_of,
            optimizers=(ours, None),
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=start)
        return model

    assert_same(run(0), task, frozen_steps)
    assert_same(run(1, str(tmp_path / "checkpoint-26")), task, frozen_steps)


@pytest.mark.more
@every_task
@both
def test_accelerate_and_its_checkpoint(task, frozen_steps, tmp_path):
    accelerate = pytest.importorskip("accelerate")

    def run(seed, resumed):
        accelerator = accelerate.Accelerator(cpu=True)
        model, ours = made(task, frozen_steps, seed)
        wrapped, optimizer, batches = accelerator.prepare(model, ours, loader(task))
        if resumed:
            accelerator.load_state(tmp_path)
        for _ in range(resumed, loops.EPOCHS):
            for x, y in batches:
                optimizer.zero_grad()
                accelerator.backward(loops.loss_of(wrapped(x), y))
                optimizer.step()
            accelerator.save_state(tmp_path / "last")
            if not resumed and not (tmp_path / "model.safetensors").exists():
                accelerator.save_state(tmp_path)
        return model

    assert_same(run(0, False), task, frozen_steps)
    assert_same(run(1, True), task, frozen_steps)


@pytest.mark.more
@both
def test_the_default_backend_of_torch_compile(frozen_steps):
    if not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    torch._dynamo.reset()
    model, ours = made("digits", frozen_steps)
    loops.train(torch.compile(model), ours, loader("digits"), loops.EPOCHS)
    torch.testing.assert_close(values(model), plain("digits", frozen_steps), rtol=0, atol=1e-3)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.more
def test_two_processes_that_torchrun_starts(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = ["--nproc-per-node", "2", "-m", "bregman.suite.loops", str(tmp_path), "0"]
    done = subprocess.run(
        [*command, *program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, rounding in (("digits", 1e-3), ("digits, Multilevel", 1e-3), ("text", 1e-6)):
        task, _, cycle = name.partition(", ")
        expected = plain(task, loops.FROZEN_STEPS if cycle else 0)
        assert all(map(torch.equal, first[name], second[name])), "the replicas agree"
        torch.testing.assert_close(first[name], expected, rtol=0, atol=rounding)
