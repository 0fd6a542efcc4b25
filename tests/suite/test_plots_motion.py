"""Explorers and animations: what is shown, moved, told; and what a static page keeps."""

import base64
import io
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from bregman.suite import plots
from bregman.suite.plots import motion, style


@pytest.fixture
def shown(monkeypatch):
    """All that is displayed, in order; an update replaces what it updates."""
    bundles = []

    class Handle:
        def __init__(self, place):
            self.place = place

        def update(self, data, raw):
            bundles[self.place] = data

    def display(data, raw, display_id=None):
        bundles.append(data)
        return Handle(len(bundles) - 1) if display_id else None

    for module in (motion, style):
        monkeypatch.setattr(module, "display", display)
    return bundles


@pytest.fixture
def controls(monkeypatch):
    """The controls made."""
    made, new = [], motion.Controls

    def kept(**traits):
        made.append(new(**traits))
        return made[-1]

    monkeypatch.setattr(motion, "Controls", kept)
    return made


def draw(level=1.0, colour="black"):
    if level > 2:
        raise ValueError(f"level must be at most 2, got {level}")
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.axhline(level, color=colour)
    ax.set(ylim=(0, 3), xlim=(0, 1))
    return figure


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))


def test_a_figure_is_shown_with_its_text(shown):
    plots.show(draw(), alt='A line at "one"')
    (data,) = shown
    assert data["text/plain"] == 'A line at "one"'
    assert 'alt="A line at &quot;one&quot;"' in data["text/html"]
    width, height = re.search(r'width="(\d+)" height="(\d+)"', data["text/html"]).groups()
    assert pixels(data).shape[:2] == pytest.approx((2 * int(height), 2 * int(width)), abs=1)
    assert base64.b64decode(data["image/png"]) in base64.b64decode(
        data["text/html"].split("base64,")[1].split('"')[0]
    )
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="alt must say what the figure shows, got nothing"):
        plots.show(draw(), alt=" ")


def test_a_slider_redraws_the_figure(shown, controls):
    plots.explore(
        draw,
        alt="a line",
        level=plots.Slider("level", np.linspace(0, 3, 7), 1.1),
        colour=plots.Slider("colour", ["black", "red"], "red"),
    )
    picture, widget = shown
    assert widget["text/plain"].endswith("sliders appear here: level, colour."), "without a kernel"
    (control,) = controls
    assert control.positions == control.start == [2, 1]
    assert control.sliders[0]["texts"] == ["0", "0.5", "1", "1.5", "2", "2.5", "3"]
    control.positions = [4, 0]
    assert (pixels(shown[0]) != pixels(picture)).any()
    expected = pixels(shown[0])
    # an error is told, and the figure stays
    control.positions = [6, 0]
    assert control.error == "ValueError: level must be at most 2, got 3.0"
    assert (pixels(shown[0]) == expected).all()
    control.positions = control.start
    assert not control.error
    assert (pixels(shown[0]) == pixels(picture)).all(), "reset"


def test_sliders_are_checked():
    with pytest.raises(ValueError, match="values must be at least two"):
        plots.Slider("x", [1], 1)
    with pytest.raises(ValueError, match="start must be one of"):
        plots.Slider("x", ["a", "b"], "c")
    with pytest.raises(ValueError, match="sliders must be arguments of draw, got 'depth'"):
        plots.explore(draw, alt="a line", depth=plots.Slider("x", [0, 1], 0))
    assert plots.Slider("epoch", range(4), 2).values == [0, 1, 2, 3]
    assert plots.Slider("δ", np.geomspace(0.1, 10, 5), 3).texts == [
        "0.1",
        "0.316",
        "1",
        "3.16",
        "10",
    ]


def test_an_animation_holds_its_frames_and_a_still(shown):
    levels = (0.5, 1.0, 1.5)
    for _ in range(2):
        plots.animate(map(draw, levels), [f"level {x}" for x in levels], "A line <rises>", still=1)
    first, again = shown
    assert first == again, "the same frames give the same bytes"
    frames = re.search(r'data-frames="([^"]*)"', first["text/html"]).group(1).split(" ")
    assert len(set(frames)) == 3
    assert frames[1] == first["image/png"]
    assert f'src="data:image/png;base64,{frames[1]}"' in first["text/html"]
    assert 'alt="A line &lt;rises&gt;"' in first["text/html"]
    assert 'aria-valuetext="level 1.0"' in first["text/html"]
    assert "<script" not in first["text/html"]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match="texts must be 3, one per frame, got 1"):
        plots.animate(map(draw, levels), ["one"], "lines")
