"""``python -m bregman.suite.pages``: write the pages anew."""

from bregman.suite.pages.render import PAGES, render
from bregman.suite.paths import ROOT, replacing

for page in PAGES:
    with replacing(ROOT / page) as temporary:
        temporary.write_text(render(page))
