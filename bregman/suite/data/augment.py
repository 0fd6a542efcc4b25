"""Random crops and flips of a whole batch at once, on its device."""

import torch
from torch import Tensor


def crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int = 4, border: Tensor | None = None
) -> Tensor:
    """Shift each image at random by up to ``padding`` pixels each way, and mirror every other one.

    What torchvision's ``RandomCrop(size, padding)`` and ``RandomHorizontalFlip()`` do to one image,
    with draws of its own for each: no loop, and nothing on the host waits for the device. That
    recipe pads with black and normalizes afterwards; for images that are normalized already, pass
    what black has become as ``border``.

    Args:
        images: N x C x H x W.
        generator: the source of randomness, on the device of the images.
        padding: the largest shift, in pixels, >= 0.
        border: C values, on the same device, of the pixels that are shifted in; None for zeros.

    Returns:
        New images of the same shape and type, in the memory format channels_last.

    Raises:
        ValueError: padding is negative, or images are not N x C x H x W.
    """
    if padding < 0:
        raise ValueError(f"padding must be non-negative, got {padding}")
    if images.dim() != 4:
        raise ValueError(f"images must be N x C x H x W, got shape {tuple(images.shape)}")
    n, channels, height, width = images.shape
    device = images.device
    padded = images.new_zeros(n, height + 2 * padding, width + 2 * padding, channels)
    if border is not None:
        padded += border
    inner = padded[:, padding : padding + height, padding : padding + width]
    inner.copy_(images.permute(0, 2, 3, 1))
    shift = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=device)
    mirrored = torch.rand(n, 1, generator=generator, device=device) < 0.5
    columns = torch.arange(width, device=device).expand(n, width)
    rows = shift[0] + torch.arange(height, device=device)
    columns = shift[1] + torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(n, device=device)
    cropped = padded[sample[:, None, None], rows[:, :, None], columns[:, None]]
    return cropped.permute(0, 3, 1, 2)
