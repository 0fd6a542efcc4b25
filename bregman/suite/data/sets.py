"""What the data sets are: sizes, statistics, and the sums that their bytes must have."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


class DataError(RuntimeError):
    """A data set cannot be fetched, or a file does not hold what it should."""


@dataclass(frozen=True)
class DataSet:
    """The constants of one data set.

    Args:
        shape: C x H x W of an image.
        counts: numbers of train and test images.
        mini: the same for the subset in the package.
        mean: per channel, of the train images scaled to [0, 1].
        std: per channel, of the train images scaled to [0, 1].
        sums: SHA-256 of the bytes of each of `PARTS`, uint8 in C order.
        mini_sum: of all four in the package, one after the other.
    """

    shape: tuple[int, int, int]
    counts: tuple[int, int]
    mini: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sums: tuple[str, str, str, str]
    mini_sum: str

    def shapes(self, *, mini: bool = False) -> list[tuple[int, ...]]:
        """Give the shape of each of `PARTS`."""
        counts = self.mini if mini else self.counts
        return [shape for n in counts for shape in ((n, *self.shape), (n,))]


SETS = {
    "mnist": DataSet(
        shape=(1, 28, 28),
        counts=(60_000, 10_000),
        mini=(2_000, 500),
        mean=(0.1307,),
        std=(0.3081,),
        sums=(
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        ),
        mini_sum="94140092314e88531f70adaf8648cc39442bffeaaf8cee2b9d1c2742856e359e",
    ),
    "fashion_mnist": DataSet(
        shape=(1, 28, 28),
        counts=(60_000, 10_000),
        mini=(2_000, 500),
        mean=(0.2860,),
        std=(0.3530,),
        sums=(
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        ),
        mini_sum="5a90f6a6330157805811cdde6565f4bc66bca6c681c46cbd75c61eee7a4e62b0",
    ),
    "cifar10": DataSet(
        shape=(3, 32, 32),
        counts=(50_000, 10_000),
        mini=(1_000, 250),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        sums=(
            "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
        mini_sum="4b6e9b573984c6c90ab390c071260a7ff8a5f909e58a79a81ef6b05e915e4344",
    ),
}


def mini_sum(arrays: Sequence[Bytes]) -> str:
    """Give the SHA-256 sum of the bytes of all four `PARTS`."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def verified(raw: Bytes, data_set: DataSet, origin: str) -> list[Bytes]:
    """Cut raw bytes into the arrays of a data set and check their sums.

    Args:
        raw: the bytes of the four `PARTS`, one after the other.
        data_set: what they should be.
        origin: the file or source to name in the error.

    Returns:
        The four `PARTS`, as views of `raw`.

    Raises:
        DataError: a sum is wrong.
    """
    shapes = data_set.shapes()
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    # The last part takes all that is left, so that bytes too many spoil its sum.
    parts = np.split(raw, ends[:-1])
    for name, part, expected in zip(PARTS, parts, data_set.sums, strict=True):
        found = hashlib.sha256(part.data).hexdigest()
        if found != expected:
            raise DataError(f"{origin}: {name} has SHA-256 sum {found}, expected {expected}")
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
