"""Fills the templates of the pages."""

import re

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bregman.suite import notebooks, verdicts
from bregman.suite.pages import (
    attacks,
    equal_density,
    fair,
    figure_2,
    guesses,
    launch,
    log,
    measured,
    speed,
    tables,
)
from bregman.suite.paths import ROOT

TEMPLATES = ROOT / "docs" / "templates"
# the page -> its template
PAGES = {
    "README.md": "README.md",
    "docs/verdicts.md": "verdicts.md",
    "docs/results.md": "results.md",
    "docs/figure-2.md": "figure-2.md",
    "docs/fair-comparisons.md": "fair-comparisons.md",
    "docs/performance.md": "performance.md",
    "docs/runs.md": "runs.md",
    "docs/running.md": "running.md",
}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
         "eleven", "twelve")  # fmt: skip


def in_words(count: int) -> str:
    """A small count as a word."""
    return WORDS[count] if 0 <= count < len(WORDS) else str(count)


def titles() -> dict[str, tuple[str, str]]:
    """From a notebook's name without its number to its file and its first heading."""
    found = {}
    for name, path in notebooks.find().items():
        opening = nbformat.read(path, as_version=4).cells[0].source
        found[name] = (path.name, opening.splitlines()[0].lstrip("# "))
    return found


def first_sentences() -> dict[str, str]:
    """From a notebook's name without its number to the first sentence of what is done in it."""
    found = {}
    for name, path in notebooks.find().items():
        opening = nbformat.read(path, as_version=4).cells[0].source
        does = re.search(r"What you'll do\W+(.*?)\.(\s|$)", opening)
        found[name] = does.group(1) if does else ""
    return found


def other_pages() -> dict[str, str]:
    """From the file to the heading of the pages under docs/ that README does not name itself."""
    named = ("architecture", "glossary", "results", "verdicts", "performance", "runs")
    paths = (path for path in sorted((ROOT / "docs").glob("*.md")) if path.stem not in named)
    return {path.name: path.read_text().splitlines()[0].lstrip("# ") for path in paths}


def render(page: str) -> str:
    """A page, from its template and what was measured.

    Args:
        page: one of ``PAGES``.

    Raises:
        KeyError: a number that the template asks for was not measured.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["words"] = in_words
    environment.filters["number"] = measured.number
    template = environment.get_template(PAGES[page])
    return template.render(
        summary=measured.summary,
        exists=measured.exists,
        curve=measured.curve,
        paper=measured.paper,
        tables=tables,
        verdicts=verdicts,
        speed=speed,
        log=log,
        attacks=attacks,
        equal_density=equal_density,
        fair=fair,
        figure_2=figure_2,
        guesses=guesses,
        notebooks=titles(),
        first_sentences=first_sentences(),
        other_pages=other_pages(),
        buttons=launch.buttons(launch.repository()),
    )
