"""Ways through the project: notebooks lead to one another, and no relative link leads nowhere."""

import json
import re
import shutil
import subprocess

import pytest

from bregman.suite import notebooks
from bregman.suite.pages.navigation import write_navigation
from bregman.suite.pages.render import titles
from bregman.suite.paths import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
TRACKED = subprocess.run(
    ["git", "ls-files", "*.md", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
PAGES = [ROOT / name for name in TRACKED if "templates" not in name]


def text(path):
    """The prose of a page or notebook."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path):
    prose = re.sub(r"```.*?```|`[^`]*`", "", text(path), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'src="([^"]+)"', prose)
    relative = [link for link in links if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in relative if not (path.parent / link.partition("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_leads_to_its_neighbours_at_both_ends(path):
    i = NOTEBOOKS.index(path)
    neighbours = [NOTEBOOKS[k].name for k in (i - 1, i + 1) if 0 <= k < len(NOTEBOOKS)]
    ways = [
        "".join(cell["source"])
        for cell in json.loads(path.read_text())["cells"]
        if "navigation" in cell["metadata"].get("tags", [])
    ]
    assert len(ways) == 2
    for way in ways:
        assert [n for n in neighbours if f"]({n})" in way] == neighbours
        assert i == 0 or "](00_start.ipynb)" in way


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_leads_to_the_paper(path):
    assert re.search(r"\]\(https://arxiv\.org/abs/\d{4}\.\d{5}\)", text(path))


def ways_of(path):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(c["source"]) for c in cells if "navigation" in c["metadata"].get("tags", [])]


def test_a_new_notebook_is_led_to_and_the_others_stay_as_they_are(tmp_path, monkeypatch):
    for path in NOTEBOOKS[:4]:
        shutil.copy(path, tmp_path)
    new = tmp_path / "04_new.ipynb"
    new.write_text(NOTEBOOKS[6].read_text())
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    write_navigation(titles())
    assert (
        ways_of(new)
        == [
            "[← 03 Convergence theory, seen step by step](03_convergence_theory.ipynb) · "
            "[Start](00_start.ipynb)"
        ]
        * 2
    )
    last = ways_of(tmp_path / NOTEBOOKS[3].name)
    assert all(way.endswith("[04 Momentum and AdaBreg on MNIST →](04_new.ipynb)") for way in last)
    for path in NOTEBOOKS[:3]:
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    # but for the way, it is the same file
    before = json.loads(NOTEBOOKS[3].read_text())
    after = json.loads((tmp_path / NOTEBOOKS[3].name).read_text())
    for cells in (before["cells"], after["cells"]):
        cells[:] = [c for c in cells if "navigation" not in c["metadata"].get("tags", [])]
    assert after == before
