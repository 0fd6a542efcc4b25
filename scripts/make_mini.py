"""Write the mini subsets in the package: the first images of each class, in their first order."""

import numpy as np
import torch

from bregman.suite.data import NAMES, load
from bregman.suite.data.sets import PARTS, SETS, mini_sum
from bregman.suite.paths import ROOT


def first_of_each_class(labels: torch.Tensor, n: int) -> torch.Tensor:
    """Choose n samples, the first ones of each class.

    Args:
        labels: int64, N, classes 0 to 9.
        n: number of samples, a multiple of 10.

    Returns:
        Ascending indices, int64.
    """
    chosen = [torch.nonzero(labels == c).flatten()[: n // 10] for c in range(10)]
    return torch.cat(chosen).sort().values


def main() -> None:
    """Write one compressed .npz per data set; the same data gives the same bytes."""
    for name in NAMES:
        data = load(name)
        n_train, n_test = SETS[name].mini
        train = first_of_each_class(data.train_labels, n_train)
        test = first_of_each_class(data.test_labels, n_test)
        path = ROOT / "bregman" / "suite" / "mini" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = [
            data.train_images[train].numpy(),
            data.train_labels[train].to(torch.uint8).numpy(),
            data.test_images[test].numpy(),
            data.test_labels[test].to(torch.uint8).numpy(),
        ]
        np.savez_compressed(path, **dict(zip(PARTS, arrays, strict=True)))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, SHA-256 sum {mini_sum(arrays)}")


if __name__ == "__main__":
    main()
