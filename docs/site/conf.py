"""The site: all notebooks as stored, the pages under docs/, the API from its docstrings."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bregman.suite.pages import launch  # noqa: E402, the package is found only now

project = "Bregman learning, reproduced"
author = "the authors of this suite"
copyright = "the authors, MIT licence; the paper's figures and numbers are its authors', CC-BY 4.0"
release = installed_version("bregman-suite")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    # MathJax comes out of this package: no page needs a network
    "sphinx-mathjax-offline",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["bregman/**", "results/**", "benchmarks/**", "tests/**", "scripts/**",
                    "docs/templates/**", "docs/site/**"]  # fmt: skip

# notebooks are shown as they are stored; nothing runs while the site is built
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
# with tables
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 4
# a table of numbers may hold dates and paths that look like links
myst_linkify_fuzzy_links = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = True

html_theme = "furo"
html_title = project
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_favicon = str(Path(__file__).parent / "static" / "favicon.svg")
html_show_sourcelink = False
html_copy_source = False
repository = launch.repository()
html_theme_options = (
    {"source_repository": f"https://github.com/{repository}/"} if repository else {}
)


def absolute_values(app, what, name, value, options, lines) -> None:
    """Bars in docstrings are absolute values and norms, and each step of an algorithm is a line."""
    for i, line in enumerate(lines):
        parts = re.split("(``.*?``)", line)
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[i] = "".join(parts)
        # the steps of an algorithm stay below each other
        if line.startswith("    ") and "<-" in line:
            lines[i] = "    | " + lines[i].strip()


def setup(app) -> None:
    # before napoleon makes its own markup of sections
    app.connect("autodoc-process-docstring", absolute_values, priority=100)
