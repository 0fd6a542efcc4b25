"""``python -m bregman.suite.pages``: write pages, and notebooks' buttons and links, anew."""

import json

from bregman.suite import notebooks
from bregman.suite.pages.launch import launchable, repository
from bregman.suite.pages.navigation import write_navigation
from bregman.suite.pages.render import PAGES, render, titles
from bregman.suite.paths import ROOT, replacing

write_navigation(titles())
for page in PAGES:
    with replacing(ROOT / page) as temporary:
        temporary.write_text(render(page))
for path in notebooks.find().values():
    notebook = json.loads(path.read_text())
    notebook["cells"] = launchable(notebook["cells"], path.stem, repository())
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
