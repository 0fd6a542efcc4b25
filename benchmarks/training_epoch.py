"""The time of one epoch of training: ``fit``, a bare loop, and torchvision's usual way."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Row, clock, interleaved, ratio_rows, timed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from bregman.layers import param_groups
from bregman.optim import LinBreg
from bregman.regularizers import L1
from bregman.suite.data import ImageData, load, train_val_split
from bregman.suite.models import MLP, ConvNet
from bregman.suite.training import fit

BATCH = 128
LAM = 0.1
FIT, BARE, BARE_NO_VALIDATION, USUAL = (
    "fit",
    "bare loop",
    "bare loop, no validation",
    "DataLoader over torchvision.datasets.MNIST",
)
Samples = tuple[Tensor, Tensor]
CNN_SIZES = 5_000, 500


def make_model(kind: type[nn.Module]) -> tuple[nn.Module, LinBreg]:
    """A network of section 4 and LinBreg with l1 on its weights."""
    torch.manual_seed(0)
    model = kind().to(memory_format=torch.channels_last)
    reg = L1(LAM)
    return model, LinBreg(param_groups(model, linear=reg, conv=reg), lr=0.1, fused=True)


def autocast(kind: type[nn.Module]) -> torch.dtype | None:
    """As in the experiments: bfloat16 for the convolutional network."""
    return torch.bfloat16 if kind is ConvNet else None


def fit_epoch(kind: type[nn.Module], train: Samples, validation: Samples) -> Callable[[], float]:
    """The second of two epochs with `fit`: what it does once, before the first, is left out."""
    model, optimizer = make_model(kind)
    generator = torch.Generator().manual_seed(0)

    def run() -> float:
        finished: list[float] = []
        fit(
            model,
            optimizer,
            train,
            validation,
            epochs=2,
            batch_size=BATCH,
            generator=generator,
            autocast=autocast(kind),
            on_epoch=lambda _: finished.append(clock()),
        )
        return finished[1] - finished[0]

    return run


def bare_epoch(
    kind: type[nn.Module], train: Samples, validation: Samples | None
) -> Callable[[], float]:
    """The training work alone, over tensors; one validation pass after it unless None."""
    model, optimizer = make_model(kind)
    images, labels = train
    half = partial(torch.autocast, "cpu", autocast(kind), enabled=autocast(kind) is not None)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            with half():
                output = model(images.index_select(0, chosen))
                loss = F.cross_entropy(output, labels.index_select(0, chosen))
            loss.backward()
            optimizer.step()
        if validation is not None:
            with torch.inference_mode(), half():
                for batch, targets in zip(*(t.split(1000) for t in validation), strict=True):
                    output = model(batch)
                    F.cross_entropy(output, targets)
                    (output.argmax(1) == targets).float().mean()

    return timed(run)


def usual_epoch(train: Subset, validation: Subset) -> Callable[[], float]:
    """The same training, with samples read, converted and normalized one by one."""
    model, optimizer = make_model(MLP)
    train_loader = DataLoader(train, batch_size=BATCH, shuffle=True, num_workers=0)
    validation_loader = DataLoader(validation, batch_size=1000, num_workers=0)

    def run() -> None:
        for images, labels in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        with torch.inference_mode():
            for images, labels in validation_loader:
                output = model(images)
                F.cross_entropy(output, labels)
                (output.argmax(1) == labels).float().mean()

    return timed(run)


def torchvision_mnist(data: ImageData, root: Path) -> datasets.MNIST:
    """The train set as torchvision reads it, from files written here: no download."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    splits = {
        "train": (data.train_images, data.train_labels),
        "t10k": (data.test_images, data.test_labels),
    }
    for split, (images, labels) in splits.items():
        _write_idx(raw / f"{split}-images-idx3-ubyte", images.squeeze(1))
        _write_idx(raw / f"{split}-labels-idx1-ubyte", labels)
    normalize = transforms.Normalize(data.mean, data.std)
    transform = transforms.Compose([transforms.ToTensor(), normalize])
    return datasets.MNIST(root, download=False, transform=transform)


def _write_idx(path: Path, array: Tensor) -> None:
    # idx: 0, 0, the type (8 = unsigned byte), the number of dimensions; big-endian sizes; bytes
    sizes = np.array(array.shape, ">i4").tobytes()
    content = array.to(torch.uint8).numpy().tobytes()
    path.write_bytes(bytes((0, 0, 8, array.dim())) + sizes + content)


def split(name: str, sizes: tuple[int, int]) -> tuple[Tensor, Tensor, Samples, Samples]:
    """The indices of so many training and validation images, and the samples themselves."""
    data = load(name)
    chosen, held_out = train_val_split(len(data.train_images), sizes[1], torch.Generator())
    chosen = chosen[: sizes[0]]
    images = data.normalize(data.train_images)
    train, validation = ((images[i], data.train_labels[i]) for i in (chosen, held_out))
    return chosen, held_out, train, validation


def measure(threads: int, rounds: int) -> list[Row]:
    """Time an epoch: MNIST, 55,000 images and 5,000; Fashion-MNIST, a tenth."""
    torch.set_num_threads(threads)
    chosen, held_out, *samples = split("mnist", (55_000, 5_000))
    with tempfile.TemporaryDirectory() as folder:
        usual = torchvision_mnist(load("mnist"), Path(folder))
    candidates = {
        FIT: fit_epoch(MLP, *samples),
        BARE: bare_epoch(MLP, *samples),
        BARE_NO_VALIDATION: bare_epoch(MLP, samples[0], None),
        USUAL: usual_epoch(Subset(usual, chosen.tolist()), Subset(usual, held_out.tolist())),
    }
    seconds = interleaved(candidates, rounds, warmup=1)
    comparisons = [
        (FIT, BARE, "<= 1.15"),
        (FIT, BARE_NO_VALIDATION, ""),
        (USUAL, FIT, ">= 8"),
    ]
    rows = ratio_rows("training epoch", "MNIST, MLP", threads, seconds, comparisons)

    *_, train, validation = split("fashion_mnist", CNN_SIZES)
    candidates = {
        FIT: fit_epoch(ConvNet, train, validation),
        BARE: bare_epoch(ConvNet, train, validation),
    }
    seconds = interleaved(candidates, rounds, warmup=1)
    case = f"Fashion-MNIST, CNN, {CNN_SIZES[0]:,} images"
    return rows + ratio_rows("training epoch", case, threads, seconds, [(FIT, BARE, "<= 1.1")])
