"""How `make lab` starts JupyterLab: at the landing page, and saving leaves git clean.

Opening a notebook writes the name and version of its kernel into it, and running it draws names
for its widgets; what is saved has neither.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from clean_notebooks import clean


def cleaned(model: dict[str, Any], **_: Any) -> None:
    """Clean a notebook before it is written."""
    if model["type"] == "notebook":
        model["content"] = clean(model["content"])


config = get_config()  # noqa: F821, Jupyter defines it
config.LabApp.default_url = "/lab/tree/notebooks/00_start.ipynb"
config.FileContentsManager.pre_save_hook = cleaned
