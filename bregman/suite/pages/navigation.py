"""The way from a notebook to its neighbours, a line at both of its ends."""

import json
import re

from bregman.suite import notebooks
from bregman.suite.paths import replacing


def write_navigation(titles: dict[str, tuple[str, str]]) -> None:
    """Lead every notebook to its neighbours; one that leads there stays as it is.

    Args:
        titles: from a notebook's name without its number to its file and its title, in order.
    """
    paths, named = notebooks.find(), list(titles.values())
    for i, path in enumerate(paths.values()):
        stored = json.loads(path.read_text())
        ways = [c for c in stored["cells"] if "navigation" in c["metadata"].get("tags", [])]
        links = [f"[Start]({named[0][0]})"]
        if i > 1:
            links.insert(0, _link("← {}", *named[i - 1]))
        if i + 1 < len(named):
            links.append(_link("{} →", *named[i + 1]))
        targets = [re.findall(r"\((\w+\.ipynb)\)", "".join(cell["source"])) for cell in ways]
        wanted = re.findall(r"\((\w+\.ipynb)\)", " ".join(links))
        if i == 0 or all(found == wanted for found in targets):
            continue
        for cell in ways:
            cell["source"] = [" · ".join(links)]
        with replacing(path) as temporary:
            text = json.dumps(stored, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def _link(form: str, file: str, title: str) -> str:
    short = re.split(r" \(|: ", title)[0]
    return f"[{form.format(f'{file[:2]} {short}')}]({file})"
