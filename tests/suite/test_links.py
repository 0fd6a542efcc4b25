"""Ways through the project: notebooks lead to one another, and no relative link leads nowhere."""

import json
import re
import subprocess

import pytest

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
