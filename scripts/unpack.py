"""Put what scripts/pack.py packed into its place: the data set into the cache, wheels installed.

    python scripts/unpack.py

The sums of the data set are checked. With it, and with the packages that ``python -m bregman run``
imports, the runs need neither a network nor Jupyter.
"""

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "build" / "device"
sys.path.insert(0, str(FOLDER.parent.parent))  # the package need not be installed


def unpack(folder: Path, target: Path) -> None:
    """Join the parts, check their sums, and write the file that ``bregman.suite.data.load`` reads.

    Args:
        folder: with the parts as subfolders.
        target: the file to write.

    Raises:
        DataError: a part is missing, or a sum is wrong.
    """
    import numpy as np
    from PIL import Image

    from bregman.suite.data.sets import SETS, DataError, verified
    from bregman.suite.paths import replacing

    strips = sorted(folder.glob("*/images_*.webp"), key=lambda path: path.name)
    labels = list(folder.glob("*/labels.bin"))
    counts = SETS["cifar10"].counts
    rows = [np.asarray(Image.open(path).convert("RGB")) for path in strips]
    n_images = sum(map(len, rows)) // 32
    if n_images != sum(counts) or not labels:
        raise DataError(
            f"{folder} holds {n_images} images in {len(strips)} files and {len(labels)} files of "
            f"labels, expected {sum(counts)} images and 1: all parts must lie there"
        )
    images = np.concatenate(rows).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    classes = np.frombuffer(labels[0].read_bytes(), np.uint8)
    n_train = counts[0]
    halves = (images[:n_train], classes[:n_train], images[n_train:], classes[n_train:])
    raw = np.concatenate([half.ravel() for half in halves])
    verified(raw, SETS["cifar10"], str(folder))
    with replacing(target) as temporary:
        raw.tofile(temporary)


def main() -> None:
    """Read the command line and unpack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the parts are")
    folder = parser.parse_args().folder
    if wheels := [str(path) for path in folder.glob("wheels/*.whl")]:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*command, *wheels], check=True)
    from bregman.suite.paths import data_dir

    target = data_dir() / "cifar10.bin"
    unpack(folder, target)
    print(f"{target}: verified")


if __name__ == "__main__":
    main()
