"""README and the pages under docs/ that hold results: their words from templates, their numbers
from what was measured."""

from bregman.suite.pages.render import PAGES, render

__all__ = ["PAGES", "render"]
