"""From a key to the picture: how long the explorers of the stored notebooks take to redraw.

    python benchmarks/explorers.py

Opens what notebooks 05 to 12 hold in Debian's Chromium, moves the epoch by the arrow keys and takes
the time from the key until the browser has painted. Needs playwright. Writes explorers.csv beside
this file.
"""

import json
import shutil
import statistics
from pathlib import Path

from common import Row
from playwright.sync_api import Browser, sync_playwright
from report import print_tables, write

from bregman.suite import notebooks
from bregman.suite.provenance import environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEYS = 40
# resolves when the frame that follows the one of the key has begun: the picture is there
TIMED = """([slider, key]) => new Promise(done => {
  const start = performance.now();
  slider.value = Number(slider.value) + key;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def explorers(path: Path) -> list[str]:
    """The pages of the explorers in a stored notebook."""
    cells = json.loads(path.read_text())["cells"]
    outputs = [o.get("data", {}) for cell in cells for o in cell.get("outputs", [])]
    pages = ["".join(data.get("text/html", "")) for data in outputs]
    return [page for page in pages if "data-browse" in page]


def measure(browser: Browser, name: str, html: str) -> list[Row]:
    """Milliseconds of one explorer; none if it has no slider."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_content(html)
    rows = []
    if page.locator("input[type=range]").count():
        slider = page.locator("input[type=range]").first.element_handle()
        times = [page.evaluate(TIMED, [slider, -1 if k < KEYS / 2 else 1]) for k in range(KEYS)]
        last = statistics.quantiles(times, n=20)[-1]
        rows = [
            Row(
                "explorers", name, "from key to picture", 1, "median [ms]", statistics.median(times)
            ),
            Row("explorers", name, "from key to picture", 1, "95 % below [ms]", last, "", "<= 150"),
        ]
    page.close()
    return rows


def main() -> None:
    """Measure all explorers and store the times."""
    provenance = environment("cpu")
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for path in notebooks.find().values():
            for number, html in enumerate(explorers(path), start=1):
                rows += measure(browser, f"{path.stem}, {number}", html)
        browser.close()
    print_tables(rows)
    write(rows, provenance, Path(__file__).with_suffix(""))


if __name__ == "__main__":
    main()
