"""The quality of restored images.

torchmetrics is imported where it is used: it takes seconds, and every command imports this module.
"""

from torch import Tensor


def psnr(output: Tensor, clean: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of pixels clipped to [0, 1], in decibel, mean over images."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    axes = tuple(range(1, output.dim()))
    clipped = output.float().clamp(0, 1)
    return peak_signal_noise_ratio(clipped, clean, 1.0, reduction="elementwise_mean", dim=axes)


def ssim(output: Tensor, clean: Tensor) -> Tensor:
    """SSIM as torchmetrics averages it: also the windows over the rim, with images reflected."""
    return ssim_map(output, clean).mean()


def ssim_inside(output: Tensor, clean: Tensor) -> Tensor:
    """SSIM as Wang et al. 2004 and scikit-image do it: of the 11 x 11 windows in the image."""
    return ssim_map(output, clean)[..., 5:-5, 5:-5].mean()


def ssim_map(output: Tensor, clean: Tensor) -> Tensor:
    """The structural similarity of each window of 11 x 11 pixels, N x C x H x W."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    _, image = structural_similarity_index_measure(
        output.clamp(0, 1), clean, data_range=1.0, return_full_image=True
    )
    assert isinstance(image, Tensor)
    return image
