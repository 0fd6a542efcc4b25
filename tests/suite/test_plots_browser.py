"""Stored results that move in the browser: what is handed to it, and what it does with that."""

import base64
import io
import json
from html.parser import HTMLParser

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.signal import correlate2d

from bregman.suite.experiments import Results
from bregman.suite.plots import browser as moving
from bregman.suite.plots.grammar import Measure

WEIGHTS = Measure("weights", "n_total", "Weights")
LOOKS = {"a": {"color": "#112233", "ls": "--"}, "b": {"color": "#445566"}}


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(moving, "display", lambda data, raw: bundles.append(data))
    return bundles


def handed(bundle) -> dict:
    """The data as a browser reads them."""
    found = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.update({key: value for key, value in attributes if key == "data-browse"})

    Reader().feed(bundle["text/html"])
    return json.loads(found["data-browse"])


def results(epochs=4, first=0) -> Results:
    """Run a rises by one an epoch, b by ten; seed 1 lies half above seed 0."""
    records = [
        (run, seed, epoch, "weights", "n_total", slope * epoch + seed / 2)
        for run, slope in (("a", 1), ("b", 10))
        for seed in (0, 1)
        for epoch in range(first if run == "a" else 0, epochs + 1)
    ]
    columns = ["run", "seed", "epoch", "split", "metric", "value"]
    return Results(pd.DataFrame({"label": ["a", "b"]}), pd.DataFrame(records, columns=columns))


def test_curves_hold_every_run_seed_and_epoch(shown):
    panel = moving.curves(results(first=1), WEIGHTS._replace(factor=100), LOOKS)
    moving.browse([panel], "Curves.", frames=range(5), many=("run", "seed"))
    data = handed(shown[0])
    marks = {
        (mark["tags"]["run"], mark["tags"]["seed"]): mark for mark in data["panels"][0]["marks"]
    }
    assert marks["a", "0"]["y"] == [None, 100, 200, 300, 400], "not recorded at epoch 0"
    assert marks["b", "1"]["y"] == [50, 1050, 2050, 3050, 4050]
    assert (marks["a", "1"]["color"], marks["a", "1"]["dash"]) == ("#112233", "--")
    assert (data["frames"], data["start"]) == ([0, 1, 2, 3, 4], 4)
    limited, unlimited = (
        moving.curves(results(), WEIGHTS._replace(limits=limits), LOOKS)
        for limits in ((30, 50), (90, 100))
    )
    assert limited["ylim"] == (30, 50)
    assert "ylim" not in unlimited, "nothing would be seen"


def test_names_arrive_as_they_are_and_nothing_breaks_out(shown):
    name = """it's <b> & "</figure><script>x</script>" """
    moving.browse([moving.paths([moving.path(name, {"color": "red"}, [1])], "x", "y")], "A point.")
    assert handed(shown[0])["panels"][0]["marks"][0]["name"] == name
    assert shown[0]["text/html"].count("<script>") == 1
    assert shown[0]["text/plain"] == "A point."


def test_what_is_not_allowed_is_refused(shown):
    point = moving.paths([moving.path("p", {"color": "red"}, [1], seed=0)], "x", "y")
    with pytest.raises(ValueError, match="alt must say what the picture shows"):
        moving.browse([point], " ")
    with pytest.raises(ValueError, match="one and many must be tags of marks, got 'run'"):
        moving.browse([point], "A point.", many=("seed", "run"))
    assert not shown


def test_numbers_that_are_none_are_left_out():
    assert moving.path("p", {"color": "red"}, [np.nan, np.inf, 1 / 3])["y"] == [None, None, 0.3333]


@pytest.fixture
def opened(browser, shown):
    """Opens what was shown, in a page that holds nothing else."""
    pages = []

    def open_(width=1000):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_content("".join(bundle["text/html"] for bundle in shown))
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()


@pytest.fixture
def curves(shown, opened):
    panel = moving.curves(results(), WEIGHTS, LOOKS)
    moving.browse([panel], "Curves.", frames=range(5), many=("run", "seed"))
    return opened()


def dots(page):
    """The places of the dots, by colour, from left to right and top to bottom."""
    found = page.evaluate("""() => [...document.querySelectorAll('svg g circle')].map(c =>
        [c.getAttribute('fill'), Number(c.getAttribute('cx')), Number(c.getAttribute('cy'))])""")
    return sorted((color, x, y) for color, x, y in found)


def ticks(page):
    return page.locator("svg text").all_text_contents()


@pytest.mark.more
def test_a_key_moves_every_dot_along_its_curve(curves):
    curves.locator("input[type=range]").focus()
    places = [dots(curves)]
    for _ in range(4):
        curves.keyboard.press("ArrowLeft")
        places.append(dots(curves))
    assert [len(place) for place in places] == [4] * 5
    a0 = [max(p for p in place if p[0] == "#112233")[1:] for place in places]
    steps = np.diff(a0, axis=0)
    assert (steps < [0, np.inf]).all()
    np.testing.assert_allclose(steps, steps[0] * np.ones((4, 1)), atol=1e-9, err_msg="a line")
    b0 = [max(p for p in place if p[0] == "#445566")[1:] for place in places]
    assert np.diff(b0, axis=0)[0][1] == pytest.approx(10 * steps[0][1]), "on the same axes"
    assert curves.locator("input[type=range]").get_attribute("aria-valuetext") == "epoch 0"


@pytest.mark.more
def test_a_frame_leaves_alone_what_stays(curves):
    """Axes and shadows are a picture of their own, which is not painted anew."""
    curves.evaluate("""() => {
        window.changes = {};
        document.querySelectorAll("[role=img] > svg").forEach((sheet, number) =>
            new MutationObserver((list) => window.changes[number] = list.length)
                .observe(sheet, {childList: true, subtree: true, attributes: true}));
    }""")
    curves.locator("input[type=range]").focus()
    curves.keyboard.press("ArrowLeft")
    curves.wait_for_function("Object.keys(window.changes).length")
    assert list(curves.evaluate("window.changes")) == ["1"], "the second sheet alone"
    curves.get_by_label("b", exact=True).uncheck()
    curves.wait_for_function("'0' in window.changes")


@pytest.mark.more
def test_axes_stay_whatever_is_switched_off(curves):
    before, places = ticks(curves), dots(curves)
    curves.get_by_label("b", exact=True).uncheck()
    curves.get_by_label("1", exact=True).uncheck()
    (left,) = dots(curves)
    assert left in places
    assert left[0] == "#112233"
    assert ticks(curves) == before
    assert before[:3] == ["Weights", "0", "1"]
    curves.get_by_label("b", exact=True).check()
    assert len(dots(curves)) == 2


@pytest.mark.more
def test_values_are_told_to_the_mouse_and_to_the_keyboard(curves):
    status = curves.locator("[role=status]")
    box = curves.locator("svg g circle").nth(0).bounding_box()
    curves.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert status.inner_text() == "a, seed 0: epoch 4, Weights 4"
    panel = curves.locator("[role=img]")
    panel.focus()
    for expected in ("a, seed 0: epoch 4, Weights 4", "a, seed 1: epoch 4, Weights 4.5"):
        curves.keyboard.press("ArrowDown")
        assert status.inner_text() == expected
    curves.keyboard.press("ArrowLeft")
    assert status.inner_text() == "a, seed 1: epoch 3, Weights 3.5"
    assert "Arrow keys" in panel.get_attribute("aria-label")


@pytest.mark.more
def test_play_goes_from_the_first_frame_to_the_last_and_stops(curves):
    curves.get_by_label("play or pause").click()
    output, button = curves.locator("output"), curves.get_by_label("play or pause")
    assert output.inner_text() == "epoch 0"
    assert button.inner_text() == "\u23f8"
    curves.wait_for_function("document.querySelector('output').textContent === 'epoch 4'")
    curves.wait_for_function("document.querySelector('button').textContent === '\u25b6'")


@pytest.mark.more
def test_one_value_of_a_tag_is_chosen_and_what_has_none_of_it_is_not_there(shown, opened):
    nodes = {run: [[2, k, 2] for k in ks] for run, ks in (("a", (1, 2)), ("b", (5, 6)))}
    networks = (
        moving.layered(nodes[run], {(0, 2): [0, 0.5 if run == "a" else -0.5]}, run=run)
        for run in nodes
    )
    other = moving.paths([moving.path("only", {"color": "red"}, [1, 2], run="b")], "epoch", "Of b")
    moving.browse([moving.network("Net", networks, ["x0", "x1", "x2"]), other], "Networks.",
                  frames=range(2), one=("run",))  # fmt: skip
    page = opened()
    texts = page.get_by_role("img").first.locator("text")
    assert texts.all_text_contents() == ["Net", "x0", "2", "x1", "2", "x2", "2"]
    assert not page.get_by_text("Of b").is_visible()
    page.get_by_label("run", exact=True).select_option("b")
    assert texts.all_text_contents() == ["Net", "x0", "2", "x1", "6", "x2", "2"]
    assert page.get_by_text("Of b").is_visible()
    page.locator("[role=img]").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.locator("[role=status]").inner_text() == "x0 → x2: −0.5"
    page.keyboard.press("ArrowLeft")
    assert texts.nth(4).text_content() == "5"


@pytest.mark.more
def test_feature_maps_are_the_correlations_with_the_kernels(shown, opened):
    generator = np.random.default_rng(0)
    kernels = generator.integers(0, 256, (2, 2, 5, 5))
    kernels[:, 1] = 128
    images = {name: generator.integers(0, 256, (1, 1, 28, 28)) for name in ("shirt", "shoe")}
    moving.browse([moving.tiles("Kernels", {"": kernels}, "kernels", 2, blank=True),
                   moving.tiles("Maps", images, "image", 2, kernels=0)],
                  "Kernels and maps.", frames=range(2), one=("image",))  # fmt: skip
    page = opened()
    page.get_by_label("image").select_option("shoe")
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    address = page.locator("svg image").nth(1).get_attribute("href")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
    expected = correlate2d(images["shoe"][0, 0], kernels[0, 0] - 128, mode="valid").astype(float)
    expected = 255 * (expected - expected.min()) / np.ptp(expected)
    assert np.abs(picture[:24, :24, 0] - expected).max() <= 1
    assert (picture[:24, 26:50, 0] == 0xE4).all(), "a kernel that is zero has no map"
    assert page.get_by_text("1 of 2").count() == 2


@pytest.mark.more
def test_an_error_is_told_under_the_figure(shown, opened):
    broken = moving.network("Net", [moving.layered([[1, 2]])], ["x0", "x1"])
    moving.browse([broken], "A network that lacks a frame.", frames=range(2))
    page = opened()
    assert "TypeError" in page.get_by_role("alert").inner_text()
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    assert not page.get_by_role("alert").inner_text(), "and goes when it is mended"


@pytest.mark.more
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_wide_and_narrow_windows(shown, opened, width):
    panels = [moving.curves(results(), WEIGHTS, LOOKS) for _ in range(4)]
    moving.browse(panels, "Curves.", frames=range(5), many=("run", "seed"))
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
