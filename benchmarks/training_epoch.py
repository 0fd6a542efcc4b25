"""The time of one epoch of MNIST training: ``fit``, a bare loop, and torchvision's usual way."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Row, clock, interleaved, ratio_rows, timed
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from bregman.data import ImageData, load, train_val_split
from bregman.models import MLP, param_groups
from bregman.optim import LinBreg
from bregman.regularizers import L1
from bregman.training import fit

BATCH = 128
LAM = 0.1
FIT, BARE, BARE_NO_VALIDATION, USUAL = (
    "fit",
    "bare loop",
    "bare loop, no validation",
    "DataLoader over torchvision.datasets.MNIST",
)
Samples = tuple[Tensor, Tensor]


def make_model() -> tuple[MLP, LinBreg]:
    """The MLP of section 4.2 and LinBreg with l1 on its weights."""
    torch.manual_seed(0)
    model = MLP()
    return model, LinBreg(param_groups(model, linear=L1(LAM)), lr=0.1, fused=True)


def fit_epoch(train: Samples, validation: Samples) -> Callable[[], float]:
    """The second of two epochs with `fit`: what it does once, before the first, is left out."""
    model, optimizer = make_model()
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
            on_epoch=lambda _: finished.append(clock()),
        )
        return finished[1] - finished[0]

    return run


def bare_epoch(train: Samples, validation: Samples | None) -> Callable[[], float]:
    """The training work alone, over tensors; one validation pass after it unless None."""
    model, optimizer = make_model()
    images, labels = train
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        for chosen in torch.randperm(len(images), generator=generator).split(BATCH):
            optimizer.zero_grad()
            output = model(images.index_select(0, chosen))
            F.cross_entropy(output, labels.index_select(0, chosen)).backward()
            optimizer.step()
        if validation is not None:
            with torch.inference_mode():
                for batch, targets in zip(*(t.split(1000) for t in validation), strict=True):
                    output = model(batch)
                    F.cross_entropy(output, targets)
                    (output.argmax(1) == targets).float().mean()

    return timed(run)


def usual_epoch(train: Subset, validation: Subset) -> Callable[[], float]:
    """The same training, with samples read, converted and normalized one by one."""
    model, optimizer = make_model()
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


def measure(rounds: int) -> list[Row]:
    """Time one epoch of 55,000 images, then 5,000 for validation, on one thread."""
    torch.set_num_threads(1)
    data = load("mnist")
    chosen, held_out = train_val_split(len(data.train_images), 5000, torch.Generator())
    images = data.normalize(data.train_images)
    train = images[chosen], data.train_labels[chosen]
    validation = images[held_out], data.train_labels[held_out]
    with tempfile.TemporaryDirectory() as folder:
        usual = torchvision_mnist(data, Path(folder))
    candidates = {
        FIT: fit_epoch(train, validation),
        BARE: bare_epoch(train, validation),
        BARE_NO_VALIDATION: bare_epoch(train, None),
        USUAL: usual_epoch(Subset(usual, chosen.tolist()), Subset(usual, held_out.tolist())),
    }
    seconds = interleaved(candidates, rounds, warmup=1)
    comparisons = [
        (FIT, BARE, "<= 1.15"),
        (FIT, BARE_NO_VALIDATION, ""),
        (USUAL, FIT, ">= 8"),
    ]
    return ratio_rows("training epoch", "MNIST, MLP", 1, seconds, comparisons)
