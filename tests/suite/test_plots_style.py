"""The palette: contrast on white by WCAG, and differences for dichromats (Machado et al. 2009)."""

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from bregman.suite.plots import style

COLOURS = {
    name: np.array([int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    for name, value in vars(style).items()
    if isinstance(value, str) and value.startswith("#")
}
# linear RGB as seen with no loss, without green cones, and without red ones
SIGHT = {
    "all": np.eye(3),
    "deuteranope": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                    [-0.011820, 0.042940, 0.968881]],
    "protanope": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                  [-0.003882, -0.048116, 1.051998]],
}  # fmt: skip


def linear(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def gamma(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def test_there_are_colours():
    assert len(COLOURS) == 8
    assert set(style.PALETTE.values()) <= {getattr(style, name) for name in COLOURS}
    assert len(set(style.PALETTE.values())) == len(style.PALETTE)


@pytest.mark.parametrize("name", COLOURS)
def test_contrast_on_white(name):
    luminance = linear(COLOURS[name]) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3


@pytest.mark.parametrize("sight", SIGHT)
def test_two_colours_differ_for_everyone(sight):
    seen = [
        rgb2lab(gamma(np.array(SIGHT[sight]) @ linear(colour))[None, None])[0, 0]
        for colour in COLOURS.values()
    ]
    assert min(deltaE_ciede2000(a, b) for a, b in combinations(seen, 2)) > 12
