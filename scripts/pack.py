"""Pack what a machine without a network needs for the runs on CIFAR-10, in parts that travel.

    python scripts/pack.py                  writes build/device/1, build/device/2, ...
    python scripts/pack.py --wheels typer   and wheels of these packages beside them

Take every part to the same folder of a checkout there, then run scripts/unpack.py.
"""

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from bregman.suite.data import ImageData, load
from bregman.suite.paths import ROOT

FOLDER = ROOT / "build" / "device"
STRIP = 500  # images in a picture; WebP allows a height of 16,383 pixels


def pack(data: ImageData, folder: Path, part_bytes: int) -> list[Path]:
    """Write the images as losslessly compressed pictures, and the labels, in parts.

    Args:
        data: of colour images.
        folder: the parts become its subfolders 1, 2, ...
        part_bytes: no part gets larger, if a single file fits into one.

    Returns:
        The parts.
    """
    parts: list[Path] = []
    room = 0
    for name, content in _files(data):
        if len(content) > room:
            parts.append(folder / str(len(parts) + 1))
            parts[-1].mkdir(parents=True)
            room = part_bytes
        (parts[-1] / name).write_bytes(content)
        room -= len(content)
    return parts


def _files(data: ImageData) -> Iterator[tuple[str, bytes]]:
    labels = torch.cat([data.train_labels, data.test_labels]).to(torch.uint8)
    yield "labels.bin", labels.numpy().tobytes()
    images = torch.cat([data.train_images, data.test_images])
    for number, strip in enumerate(images.split(STRIP)):
        # one image below the other, the channels last
        rows = strip.permute(0, 2, 3, 1).flatten(0, 1).contiguous()
        file = io.BytesIO()
        Image.fromarray(rows.numpy()).save(file, "WEBP", lossless=True, quality=50)
        yield f"images_{number:03}.webp", file.getvalue()


def download(packages: list[str], folder: Path) -> None:
    """Fetch the wheels of some packages for Python 3.12 on x86-64 Linux, without what they need."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 27, 28)]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12", *platforms]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), *packages]
    subprocess.run(command, check=True)


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="a new or empty one")
    parser.add_argument("--part-mib", type=int, default=40, help="size of the largest part")
    parser.add_argument("--wheels", nargs="*", default=[], help="packages that are missing there")
    arguments = parser.parse_args()
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        parser.error(f"--folder must be new or empty, got {arguments.folder}")
    for part in pack(load("cifar10"), arguments.folder, arguments.part_mib << 20):
        size = sum(file.stat().st_size for file in part.iterdir())
        print(f"{part}: {size / 2**20:.1f} MiB")
    if arguments.wheels:
        download(arguments.wheels, arguments.folder / "wheels")


if __name__ == "__main__":
    main()
