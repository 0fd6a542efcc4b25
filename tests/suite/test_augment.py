"""Random crops and flips of a batch, against cropping one image at a time."""

import pytest
import torch
from torchvision.transforms import functional as one_image

from bregman.suite.data.augment import crop_and_flip


def crops(image: torch.Tensor, padding: int, fill: list[float]) -> torch.Tensor:
    """Every outcome for one image: (2 padding + 1)^2 crops, then the same mirrored."""
    height, width = image.shape[-2:]
    padded = torch.stack([
        one_image.pad(channel[None], padding, fill=value)[0]
        for channel, value in zip(image, fill, strict=True)
    ])  # fmt: skip
    shifts = range(2 * padding + 1)
    upright = [one_image.crop(padded, y, x, height, width) for y in shifts for x in shifts]
    return torch.stack(upright + [one_image.hflip(crop) for crop in upright])


@pytest.mark.parametrize(("padding", "border"), [(1, None), (2, [-1.5, 0.25, 7.0]), (0, None)])
def test_every_image_is_one_of_its_crops_and_all_crops_occur(padding, border):
    torch.manual_seed(0)
    image = torch.randn(3, 6, 5)
    outcomes = crops(image, padding, border or [0.0, 0.0, 0.0])
    n = 60 * len(outcomes)
    fill = None if border is None else torch.tensor(border)
    images = image.expand(n, -1, -1, -1)
    out = crop_and_flip(images, torch.Generator().manual_seed(1), padding=padding, border=fill)
    matches = (out[:, None] == outcomes).flatten(2).all(2)
    assert (matches.sum(1) == 1).all(), "exactly one outcome each, to the last bit"
    counts = matches.sum(0)
    # 60 expected of each; 5 standard deviations are 39
    assert counts.min() > 20
    assert counts.max() < 100


def test_each_image_keeps_its_place_shape_and_type():
    images = torch.arange(1, 9, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 10, 10)
    out = crop_and_flip(images, torch.Generator().manual_seed(0), padding=3)
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out.amax((1, 2, 3)).tolist() == list(range(1, 9))


def test_the_generator_decides_and_the_images_stay():
    images = torch.randn(16, 3, 8, 8)
    before = images.clone()
    first, again, other = (
        crop_and_flip(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(images, before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="padding must be non-negative, got -1"):
        crop_and_flip(torch.zeros(2, 3, 8, 8), torch.Generator(), padding=-1)
    with pytest.raises(ValueError, match=r"images must be N x C x H x W, got shape \(3, 8, 8\)"):
        crop_and_flip(torch.zeros(3, 8, 8), torch.Generator())
