"""Buttons that open the notebooks on machines of others: Binder and Colab.

They need the address of the project: ``repository`` under ``[tool.bregman]`` in pyproject.toml,
"owner/name" on GitHub. While that is empty there are none. After a change: ``make pages``.
"""

import tomllib
from typing import Any

from bregman.suite.paths import ROOT

TAG = "launch"
_BUTTONS = (
    "[![Open in Binder](https://mybinder.org/badge_logo.svg)]"
    "(https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/{notebook}.ipynb) "
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/HEAD/notebooks/{notebook}.ipynb)"
)
_INSTALL = """import importlib.util
import os
import subprocess
import sys

# where the project is not installed, as on Colab: itself, its stored runs, and what it needs
if not importlib.util.find_spec("bregman"):
    address = "https://github.com/{repository}"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", address, "project"], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--editable", "project[suite]"]
    subprocess.run(install, check=True)
    os.chdir("project")"""


def repository() -> str:
    """The owner and the name of the project on GitHub, "" where it has none.

    Raises:
        ValueError: it is no "owner/name".
    """
    with (ROOT / "pyproject.toml").open("rb") as file:
        name = tomllib.load(file)["tool"]["bregman"]["repository"]
    if name and name.count("/") != 1:
        raise ValueError(f'repository must be "owner/name" or "", got {name!r}')
    return str(name)


def buttons(repository: str, notebook: str = "00_start") -> str:
    """The buttons that open a notebook, in Markdown; "" without a repository."""
    return _BUTTONS.format(repository=repository, notebook=notebook) if repository else ""


def launchable(cells: list[dict[str, Any]], name: str, repository: str) -> list[dict[str, Any]]:
    """The cells of a notebook with buttons and an installing cell after the first, or with neither.

    Args:
        cells: as they are stored.
        name: of its file, without suffix.
        repository: "owner/name", or "".
    """
    rest = [cell for cell in cells if TAG not in cell["metadata"].get("tags", [])]
    if not repository:
        return rest
    button = {"cell_type": "markdown", "id": "launch", "metadata": {"tags": [TAG]},
              "source": [buttons(repository, name)]}  # fmt: skip
    install = {
        "cell_type": "code", "execution_count": None, "id": "launch-install",
        "metadata": {"jupyter": {"source_hidden": True}, "tags": [TAG, "hide-input"]},
        "outputs": [], "source": _INSTALL.format(repository=repository).splitlines(keepends=True),
    }  # fmt: skip
    return [rest[0], button, install, *rest[1:]]
