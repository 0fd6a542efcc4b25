"""JupyterLab as a person uses it, in a real browser."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from bregman.suite import notebooks
from bregman.suite.paths import ROOT

pytestmark = pytest.mark.more
PATIENCE_MS = 300_000
TRAINING = """from bregman.suite import experiments
experiments.get("mnist_comparison").try_("SGD", epochs=1_000_000)"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(root):
    """JupyterLab as `make lab` starts it, on a copy of the notebooks: the address of a page."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "figures", root / "figures")
    cells = [nbformat.v4.new_code_cell(source) for source in (TRAINING, "print(6 * 7)")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    training = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(training, root / "notebooks" / "training.ipynb")
    # all cells stay in the page, and so can be found
    settings = root / "SETTINGS" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    own = {f"JUPYTER_{kind}_DIR": str(root / kind) for kind in ("CONFIG", "RUNTIME")}
    own |= {f"JUPYTERLAB_{kind}_DIR": str(root / kind) for kind in ("SETTINGS", "WORKSPACES")}
    own |= {"BREGMAN_RESULTS": str(root / "results"), "BREGMAN_FIGURES": str(root / "drawn"),
            "PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_PATH": str(ROOT / "scripts"),
            "JUPYTER_TOKEN": token}  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
         "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", "--expose-app-in-browser"],
        cwd=root, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    while True:
        assert server.poll() is None, "JupyterLab did not start"
        try:
            urllib.request.urlopen(f"{address}/api?token={token}").close()
            break
        except OSError:
            time.sleep(0.5)

    def page(notebook=None):
        tree = f"lab/tree/notebooks/{notebook}.ipynb" if notebook else ""
        return f"{address}/{tree}?token={token}&reset"

    yield page
    server.terminate()
    server.wait()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


# the notebook in front: its name, what it printed, its errors, and whether all of it has run
SEEN = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  if (!panel?.content?.model?.cells) return null;
  const cells = [...panel.content.model.cells].filter(cell => cell.type === 'code');
  const outputs = cells.flatMap(cell =>
    Array.from({ length: cell.outputs.length }, (_, k) => cell.outputs.get(k)));
  const told = (type) => outputs.filter(output => output.type === type).map(o => o.toJSON());
  return {
    name: panel.context.path,
    ready: panel.context.isReady && panel.sessionContext.session?.kernel?.status === 'idle',
    executed: cells.every(cell => cell.executionCount !== null),
    outputs: outputs.length,
    errors: told('error').map(({ ename, evalue }) => `${ename}: ${evalue}`),
    printed: told('stream').map(({ text }) => [text].flat().join('')),
  };
}"""


def wait(page, condition):
    """Until the notebook in front is as a condition on ``seen`` says."""
    page.wait_for_function(f"(seen => {condition})(({SEEN})())", polling=1000)


def opened(page, address):
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    wait(page, "seen?.ready")


def choose(page, menu, entry):
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.get_by_role("menuitem", name=entry, exact=True).click()


def test_from_the_start_to_a_notebook_that_runs_and_moves(lab, page):
    opened(page, lab("00_start"))
    page.wait_for_selector(".jp-MarkdownOutput img")
    page.wait_for_function("[...document.querySelectorAll('.jp-MarkdownOutput img')]"
                           ".every(image => image.naturalWidth > 0)")  # fmt: skip
    page.locator("a", has_text="01 Inverse scale space").first.click()
    wait(page, "seen?.name === 'notebooks/01_inverse_scale_space.ipynb' && seen.ready")

    choose(page, "Edit", "Clear Outputs of All Cells")
    wait(page, "!seen.outputs")
    choose(page, "Run", "Run All Cells")
    wait(page, "seen.errors.length || seen.executed && seen.ready")
    assert not page.evaluate(SEEN)["errors"]

    slider = page.get_by_role("slider", name="λ", exact=True).first
    slider.scroll_into_view_if_needed()
    # looked up each time: an update is another element
    shown = "(slider) => slider.closest('.jp-CodeCell').querySelector('.jp-OutputArea img').src"
    before = slider.evaluate(shown)
    value = slider.input_value()
    slider.press("ArrowRight")
    assert slider.input_value() != value
    handle = slider.element_handle()
    page.wait_for_function(f"([slider, before]) => ({shown})(slider) !== before",
                           arg=[handle, before], polling=500)  # fmt: skip
    assert not page.locator(".jp-OutputArea [role=alert]", has_text="Error").count()


def test_it_opens_at_the_landing_page(lab, page):
    page.goto(lab())
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    wait(page, "seen?.ready && seen.name === 'notebooks/00_start.ipynb'")


@pytest.mark.parametrize("name", [path.stem for path in notebooks.find().values()])
def test_opening_and_saving_a_notebook_changes_nothing(lab, root, page, name):
    path = root / "notebooks" / f"{name}.ipynb"
    before = path.read_text()
    opened(page, lab(name))
    written = path.stat().st_mtime_ns
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Control+s")
    # the server writes in place
    while path.stat().st_mtime_ns == written or not path.read_text().endswith("}\n"):
        page.wait_for_timeout(200)
    assert path.read_text() == before


def test_stop_ends_a_training_and_the_notebook_goes_on(lab, page):
    opened(page, lab("training"))
    choose(page, "Run", "Run All Cells")
    # its bar shows that it trains
    page.wait_for_selector(".jp-OutputArea :text('mnist_comparison')")
    page.locator("[data-command='notebook:interrupt-kernel'], "
                 "[data-jp-item-name='interrupt']").first.click()  # fmt: skip
    wait(page, "seen.errors.length && seen.ready")
    (error,) = page.evaluate(SEEN)["errors"]
    assert error.startswith("Stopped")
    page.locator(".jp-CodeCell").nth(1).click()
    page.keyboard.press("Shift+Enter")
    wait(page, "seen.printed.includes('42\\n')")
