"""Take the traces of a machine out of notebooks; their sources and outputs stay as they are.

    python scripts/clean_notebooks.py notebooks/*.ipynb

Opening a notebook in JupyterLab changes the name of its kernel and notes times: so that reading
leaves git clean.
"""

import json
import sys
from pathlib import Path
from typing import Any

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
OF_THE_MACHINE = ("papermill", "execution", "ExecuteTime")


def clean(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without what its last reader's machine left in its metadata."""
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "papermill"}
    metadata |= {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    cells = [
        {
            **cell,
            "metadata": {
                key: value for key, value in cell["metadata"].items() if key not in OF_THE_MACHINE
            },
        }
        for cell in notebook["cells"]
    ]
    return {**notebook, "cells": cells, "metadata": metadata}


def main(paths: list[str]) -> int:
    """Rewrite the notebooks that are not clean; how many they were."""
    changed = 0
    for path in map(Path, paths):
        before = path.read_text(encoding="utf-8")
        after = json.dumps(clean(json.loads(before)), indent=1, ensure_ascii=False) + "\n"
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
