"""The site as a browser shows it: every page, wide and narrow, without a network."""

import importlib.util
import re
import runpy
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from bregman.suite.paths import ROOT

MISSING = [name for name in ("sphinx", "myst_nb") if not importlib.util.find_spec(name)]

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(shared):
    """The built site under a local address, and its pages."""
    with FileLock(shared / "site.lock"):
        if not (shared / "site").exists():
            runpy.run_path(str(ROOT / "scripts" / "build_site.py"), run_name="__main__")
            (shared / "site").touch()
    html = ROOT / "build" / "site" / "html"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=html))
    Thread(target=server.serve_forever, daemon=True).start()
    pages = sorted(str(path.relative_to(html)) for path in html.rglob("*.html")
                   if "_static" not in path.parts)  # fmt: skip
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()


def test_every_notebook_and_page_is_there(site):
    _, pages = site
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert {f"notebooks/{name}.html" for name in notebooks} <= set(pages)
    assert {"index.html", "gallery.html", "api.html", "search.html", "README.html"} <= set(pages)
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= set(pages)


@pytest.mark.parametrize("width", [390, 1280])
def test_pages_show_without_error_at_a_width(site, browser, width):
    address, pages = site
    page = browser.new_page(viewport={"width": width, "height": 900})
    wrong, asked_outside = [], []
    page.on("console", lambda m: m.type == "error" and wrong.append(f"{page.url}: {m.text}"))
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("request", lambda r: r.url.startswith((address, "data:", "blob:"))
            or asked_outside.append(r.url))  # fmt: skip
    for name in pages:
        page.goto(f"{address}/{name}", wait_until="load")
        text = page.content()
        if "MathJax" in text:
            page.wait_for_function("window.MathJax?.startup?.promise !== undefined")
            page.evaluate("MathJax.startup.promise")
        seen = page.evaluate(
            """() => ({
                broken: [...document.images].filter(i => i.complete && !i.naturalWidth)
                    .map(i => i.src.slice(0, 90)),
                markup: (document.body.innerText
                    .match(/:::|\\{grid|\\| *(---|—) *\\|/g) || []).length,
                wide: document.documentElement.scrollWidth - window.innerWidth,
                mathErrors: document.querySelectorAll('mjx-merror, [data-mjx-error]').length,
                mathWaits: [...document.querySelectorAll('div.math, span.math')]
                    .filter(m => !m.querySelector('mjx-container')).length,
            })"""
        )
        for fault, found in seen.items():
            if found and not (fault == "wide" and found <= 0):
                wrong.append(f"{name}: {fault} {found}")
    page.close()
    assert not asked_outside, "no page needs a network"
    assert not wrong, "\n".join(map(str, wrong))


def test_search_finds_a_notebook(site, browser):
    address, _ = site
    page = browser.new_page()
    page.goto(f"{address}/search.html?q=hourglass")
    page.wait_for_selector("#search-results li a")
    hits = [link.get_attribute("href") for link in page.query_selector_all("#search-results li a")]
    page.close()
    assert any("09_denoising_autoencoder" in hit for hit in hits)


def test_dark_pages_are_dark_and_figures_stay_on_white(site, browser):
    address, _ = site
    page = browser.new_page(color_scheme="dark")
    page.goto(f"{address}/notebooks/05_mnist_comparison.html")
    body, figure = (
        page.evaluate(f"getComputedStyle(document.querySelector('{css}')).backgroundColor")
        for css in ("body", ".cell_output img")
    )
    page.close()
    assert max(map(int, re.findall(r"\d+", body)[:3])) < 60
    assert figure == "rgb(255, 255, 255)"


def test_the_steps_of_an_algorithm_stand_below_each_other(site, browser):
    address, _ = site
    page = browser.new_page()
    page.goto(f"{address}/api.html")
    steps = page.locator("dt[id='bregman.optim.AdaBreg'] + dd .line").all_inner_texts()
    page.close()
    assert [step.split(" <- ")[0] for step in steps] == ["m1", "m2", "v", "theta"]


def test_verdicts_are_a_table(site, browser):
    address, _ = site
    page = browser.new_page()
    page.goto(f"{address}/notebooks/05_mnist_comparison.html")
    headings = page.locator(".cell_output table:has(strong) th").all_inner_texts()
    page.close()
    assert headings[:3] == ["the paper says", "verdict", "ours"]


def test_stored_runs_move_on_a_page(site, browser):
    address, _ = site
    page = browser.new_page()
    page.goto(f"{address}/notebooks/05_mnist_comparison.html")
    slider = page.locator("figure[data-browse] input[type=range]")
    panel = page.locator("figure[data-browse] [role=img]").first
    before = panel.inner_html()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "epoch 99"
    assert panel.inner_html() != before
    page.close()


def test_nothing_is_left_in_the_work_tree():
    assert not (Path(ROOT) / "docs" / "notebooks").exists()
