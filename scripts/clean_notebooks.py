"""Take the traces of a machine out of notebooks; what they say and show stays as it is.

    python scripts/clean_notebooks.py notebooks/*.ipynb

Opening a notebook in JupyterLab changes the name of its kernel and notes times. Executing it draws
names for its widgets, leaves a bar where a run was made that was not stored yet, and cuts what is
printed where the machine paused. So that reading and executing leave git clean.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# the last is written beside "outputs_hidden", which says the same
OF_THE_MACHINE = ("papermill", "execution", "ExecuteTime", "collapsed")
WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"


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
            **({"outputs": settled(cell["outputs"])} if "outputs" in cell else {}),
        }
        for cell in notebook["cells"]
        # of papermill: it would hide what the parameters cell says
        if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    return numbered({**notebook, "cells": cells, "metadata": metadata})


def settled(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs of a cell without progress bars, and what was printed in one piece."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        data = output.get("data", {})
        if VIEW in data and re.search(r"\d+%\|", "".join(data.get("text/plain", ""))):
            continue
        last = kept[-1] if kept else {}
        if output["output_type"] == "stream" and last.get("name") == output["name"]:
            last["text"] = "".join([*last["text"], *output["text"]]).splitlines(keepends=True)
        else:
            kept.append(output)
    return kept


def numbered(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with its widgets numbered in the order in which they are seen.

    Those that no output leads to go.
    """
    state = notebook["metadata"].get("widgets", {}).get(WIDGETS, {}).get("state", {})
    names: dict[str, str] = {}

    def number(name: str) -> None:
        if name in state and name not in names:
            names[name] = f"{len(names) + 1:032x}"
            content = json.dumps(state[name], sort_keys=True)
            for part in re.findall(r"IPY_MODEL_([0-9a-f]{32})", content):
                number(part)

    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if view := output.get("data", {}).get(VIEW):
                number(view["model_id"])
    for name in state.keys() - names.keys():
        del state[name]
    text = re.sub(r"[0-9a-f]{32}", lambda m: names.get(m[0], m[0]), json.dumps(notebook))
    notebook = json.loads(text)
    if state:
        kept = notebook["metadata"]["widgets"][WIDGETS]
        kept["state"] = dict(sorted(kept["state"].items()))
    return notebook


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
