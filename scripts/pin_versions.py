"""Write constraints.txt: the versions of this environment that the package and its extras use.

    python scripts/pin_versions.py

Everything that pyproject.toml asks for with its extras, and what that asks for in turn.
"""

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bregman.suite.paths import ROOT


def closure(wanted: list[str]) -> dict[str, str]:
    """From name to version: the packages of some requirements, and all that they need."""
    found: dict[str, str] = {}
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            there = distribution(name)
        except PackageNotFoundError:
            continue
        if name in found and not requirement.extras:
            continue
        # without the local part: which build it is belongs to the machine
        found[name] = there.version.partition("+")[0]
        for text in there.requires or []:
            waiting += [(Requirement(text), extra) for extra in requirement.extras or {""}]
    return found


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    versions = closure([*project["dependencies"], *(text for extra in extras for text in extra)])
    lines = [
        f"# The versions that were tested together on Python {platform.python_version()}:",
        "#   pip install -c constraints.txt -e '.[suite,dev]'",
        "# Written by scripts/pin_versions.py.",
        *(f"{name}=={version}" for name, version in sorted(versions.items())),
    ]
    (ROOT / "constraints.txt").write_text("\n".join(lines) + "\n")
