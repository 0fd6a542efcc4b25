"""The package as a whole: what importing it needs, what it offers, and its two rooms."""

import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib.metadata import requires

import pytest
from imports import PACKAGE, code_lines, core, imports, modules, packages, room

import bregman

ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# where a package is not imported by the name that it is installed by
IMPORTED_AS = {"ipython": "IPython", "pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage",
               "pytest-xdist": "xdist"}  # fmt: skip


def requested(lines: list[str]) -> set[str]:
    """The names of the packages that requirements ask for."""
    return {re.split(r"[^\w-]", line)[0].lower() for line in lines}


def absent() -> set[str]:
    """What the suite and the tests use and torch does not, as it is imported."""
    extras = PROJECT["optional-dependencies"].values()
    used = {name for extra in extras for name in requested(extra)} | {"numpy"}
    return {IMPORTED_AS.get(name, name) for name in used - requested(requires("torch") or [])}


WITHOUT = f"""
import importlib, sys
from importlib.machinery import PathFinder

ABSENT = {sorted(absent())}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""

ALONE = """
import torch
from torch import nn
from bregman import L1, LinBreg, param_groups, sparse_init_, sparsity_summary
from bregman.flops import forward_flops, layer_densities
from bregman.thresholding import largest_threshold, refresh_batch_norm_

for name in CORE:
    importlib.import_module(name)
assert not ABSENT & {name.split(".")[0] for name in sys.modules}, "blocked"
model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
sparse_init_(model, 0.9)
LinBreg(param_groups(model, linear=L1(0.1))).step()
forward_flops(model, torch.randn(5, 4)), layer_densities(model)
largest_threshold(model, lambda m: 1.0, 0.1)
refresh_batch_norm_(torch.nn.BatchNorm1d(4), torch.randn(5, 4).split(2))
print(sparsity_summary(model)["n_total"] > 0)
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_every_module_of_the_core_needs_torch_alone():
    done = python(f"{WITHOUT}\nCORE, ABSENT = {core()}, set(ABSENT)\n{ALONE}")
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_the_command_without_the_suites_packages_says_what_to_install():
    done = python(f"{WITHOUT}\nimport bregman.__main__\nbregman.__main__.main()")
    assert done.returncode == 1
    assert re.search(r"needs the suite's packages, \w+ is missing: pip install", done.stderr)
    assert "Traceback" not in done.stderr


def test_everything_that_is_offered_exists():
    assert {"LinBreg", "AdaBreg", "ProxGD", "L1", "GroupL12", "Zero"} <= set(bregman.__all__)
    assert all(hasattr(bregman, name) for name in bregman.__all__)


def test_no_module_of_the_core_imports_the_suite():
    assert not [
        (name, module)
        for name in core()
        for module in imports(name)
        if module.startswith("bregman.suite")
    ]


# config -> data -> model -> optimizer -> fit -> history -> run store -> figures; a part that is
# not named here may stand anywhere, as long as there is no cycle
DIRECTION = ("paths", "data", "models", "convex", "baselines", "training", "runs", "analysis",
             "experiments", "plots", "notebooks", "pages", "cli")  # fmt: skip


def test_no_arrow_in_the_suite_points_back():
    order = {f"bregman.suite.{name}": i for i, name in enumerate(DIRECTION)}
    assert not [
        (name, module)
        for name in modules()
        for module in imports(name)
        if order.get(room(name), len(order)) < order.get(room(module), 0)
    ]


def cycles(arrows: dict[str, set[str]]) -> set[str]:
    """What can be reached from itself."""
    found = set()
    for start in list(arrows):
        reached: set[str] = set()
        waiting = [start]
        while waiting:
            new = arrows.get(waiting.pop(), set()) - reached
            reached |= new
            waiting += new
        if start in reached:
            found.add(start)
    return found


def test_the_search_for_cycles_finds_one():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == {"b", "c"}
    assert not cycles({"a": {"b", "c"}, "b": {"c"}})


def test_no_modules_import_each_other_in_a_circle():
    # a package's own file only names what its modules offer
    arrows = {
        name: {module for module in imports(name) if not name.startswith(f"{module}.")}
        for name in modules()
    }
    assert not cycles(arrows)


def test_no_parts_of_the_package_import_each_other_in_a_circle():
    arrows: dict[str, set[str]] = defaultdict(set)
    for name in modules():
        arrows[room(name)] |= {room(module) for module in imports(name)} - {room(name), "bregman"}
    assert not cycles(arrows)


def test_the_core_stays_small():
    # more than the 2,400 that it should have: it grows by what a regularizer or an optimizer brings
    # that is added, and else only by mends of wrong results
    added = len(bregman.regularizers.__all__) + len(bregman.optim.__all__) - 13
    lines = sum(code_lines(modules()[name]) for name in core())
    assert lines <= 2_563 + 40 * added, "bregman/ outgrows its size: what can go?"


def test_lines_of_code_are_counted_without_words(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc."""\n\n# why\nx = 1\n\n\ndef f():\n    """More\n\n    doc."""\n    return x\n'
    )
    assert code_lines(path) == 3


def test_the_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("extra", ["suite", "dev"])
def test_what_is_imported_is_declared(extra):
    extras = PROJECT["optional-dependencies"]
    declared = requested(PROJECT["dependencies"]) | requested(
        extras["suite"] + extras["cluster"] + extras["loops"]
    )
    files, own = list(PACKAGE.rglob("*.py")), {"bregman"}
    if extra == "dev":
        # tests of further libraries are skipped where these are missing
        declared |= requested([line for lines in extras.values() for line in lines])
        files = list(ROOT.glob("tests/**/*.py"))
        own |= {path.stem for path in files}
    known = {IMPORTED_AS.get(name, name) for name in declared} | {"mpl_toolkits"}
    imported = set[str]().union(*map(packages, files))
    assert imported - known - set(sys.stdlib_module_names) <= own


def test_the_tested_versions_satisfy_what_is_declared():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = [*PROJECT["dependencies"]]
    asked += [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    for requirement in map(Requirement, asked):
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement
