"""Build the site into build/site/html: notebooks as stored, docs/, gallery, API reference.

    python scripts/build_site.py

Nothing is executed and no network is needed. Warnings are errors.
"""

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, HTML = ROOT / "build" / "site" / "source", ROOT / "build" / "site" / "html"
# what pages link to, but is none
LINKED = ("bregman", "benchmarks", "results", "scripts", "tests", "figures", "environment.yml",
          "pyproject.toml", "constraints.txt", "LICENSE", "CITATION.cff", "Makefile")  # fmt: skip


def title(notebook: Path) -> str:
    """The first heading of a notebook."""
    first = json.loads(notebook.read_text())["cells"][0]["source"]
    return "".join(first).splitlines()[0].removeprefix("# ")


def collect() -> None:
    """Lay out the pages as they lie in the project, so that their links hold here too."""
    for folder in (SOURCE, HTML):
        shutil.rmtree(folder, ignore_errors=True)
    (SOURCE / "notebooks").mkdir(parents=True)
    for notebook in NOTEBOOKS:
        shutil.copy(notebook, SOURCE / "notebooks")
    shutil.copytree(
        ROOT / "docs", SOURCE / "docs", ignore=shutil.ignore_patterns("templates", "site")
    )
    for page in ROOT.glob("*.md"):
        shutil.copy(page, SOURCE)
    for name in LINKED:
        if (ROOT / name).exists():
            os.symlink(ROOT / name, SOURCE / name)


def index() -> str:
    """The front page: what it is, and cards to everything."""
    pages = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    cards = "\n".join(
        f":::{{grid-item-card}} {title(path)}\n:link: notebooks/{path.stem}\n:link-type: doc\n"
        f"`{path.stem}`\n:::"
        for path in NOTEBOOKS
    )
    return f"""# Bregman learning, reproduced

Sparse neural networks that grow from one weight in a hundred: the optimizers of Bungert, Roith,
Tenbrinck and Burger (JMLR 2022), a course on inverse scale space methods, and the paper's figures
and tables made anew, each with its verdict.

Start with [what this is and how to run it](README.md), or open a notebook. They are shown as
stored, at the paper's scale, and need nothing installed.

::::{{grid}} 1 2 2 3
:gutter: 2

{cards}
::::

```{{toctree}}
:caption: Notebooks
:maxdepth: 1
:hidden:

{chr(10).join(f"notebooks/{path.stem}" for path in NOTEBOOKS)}
```

```{{toctree}}
:caption: Pages
:maxdepth: 1
:hidden:

README
gallery
{chr(10).join(f"docs/{page}" for page in pages)}
api
{chr(10).join(path.stem for path in sorted(ROOT.glob("*.md")) if path.stem != "README")}
```
"""


def gallery() -> str:
    """Every figure of the paper's scale, by the notebook that draws it."""
    figures = sorted(path.stem for path in (ROOT / "figures" / "paper").glob("*.png"))
    parts = []
    for notebook in NOTEBOOKS:
        source = notebook.read_text().replace('\\"', '"')
        cards = "\n".join(
            f":::{{grid-item-card}} {caption(figure)}\n:link: notebooks/{notebook.stem}\n"
            f":link-type: doc\n![{caption(figure)}](figures/paper/{figure}.png)\n:::"
            for figure in figures
            if f'"{figure}"' in source
        )
        if cards:
            grid = f"::::{{grid}} 1 2 2 3\n:gutter: 2\n\n{cards}\n::::"
            parts.append(f"## {notebook.stem[:2]} {title(notebook)}\n\n{grid}")
    return "\n\n".join(["# Gallery", "Each figure leads to its notebook.", *parts]) + "\n"


def caption(figure: str) -> str:
    """The name of a figure's file in words."""
    words = re.sub(r"^notebook\d\d_|^architecture_search_", "", figure).replace("_", " ")
    numbered = re.sub(r"^figure(\d) ", r"Figure \1, ", words)
    return numbered[0].upper() + numbered[1:]


def api() -> str:
    """The public API, from its docstrings."""
    modules = {
        "Optimizers": "bregman.optim", "Regularizers": "bregman.regularizers",
        "Initialization": "bregman.initialization", "Weights of a model": "bregman.layers",
        "Sparsity": "bregman.sparsity", "Thresholding": "bregman.thresholding",
        "A wanted density": "bregman.steering", "Multilevel training": "bregman.multilevel",
        "Smaller networks": "bregman.compact", "Sparse inference": "bregman.inference",
        "FLOPs": "bregman.flops",
    }  # fmt: skip
    parts = "\n\n".join(
        f"## {name}\n\n```{{eval-rst}}\n{directives(module)}\n```"
        for name, module in modules.items()
    )
    return f"# The API\n\n{parts}\n"


def directives(name: str) -> str:
    """What a module of the core, or its parts, define for others."""
    module = importlib.import_module(name)
    found = []
    for key, value in vars(module).items():
        home = getattr(value, "__module__", "")
        if key.startswith("_") or not (home == name or home.startswith(f"{name}.")):
            continue
        if inspect.isclass(value):
            found.append(f".. autoclass:: {name}.{key}\n   :members:\n")
        elif inspect.isfunction(value):
            found.append(f".. autofunction:: {name}.{key}\n")
    return "\n".join(found)


def build() -> None:
    """Write the sources and let Sphinx make pages of them."""
    collect()
    for name, page in (("index", index), ("gallery", gallery), ("api", api)):
        (SOURCE / f"{name}.md").write_text(page())
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going",
         "-c", str(ROOT / "docs" / "site"), str(SOURCE), str(HTML)],
        check=True,
    )  # fmt: skip
    print(f"the site is in {HTML.relative_to(ROOT)}/index.html")


NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

if __name__ == "__main__":
    build()
