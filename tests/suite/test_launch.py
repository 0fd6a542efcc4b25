"""Buttons that launch the notebooks: there where the project has an address, and only there."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from bregman.suite import notebooks
from bregman.suite.pages import launch, render
from bregman.suite.paths import ROOT

NOTEBOOKS = notebooks.find()
ADDRESSES = ("mybinder.org/v2", "colab.research.google.com/github")


def cells(name):
    return json.loads(NOTEBOOKS[name].read_text())["cells"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_notebooks_are_as_the_repository_says(name):
    path = NOTEBOOKS[name]
    assert launch.launchable(cells(name), path.stem, launch.repository()) == cells(name)


@pytest.mark.parametrize("repository", ["", "someone/project"])
def test_pages_have_buttons_where_there_is_a_repository(repository, monkeypatch):
    monkeypatch.setattr(launch, "repository", lambda: repository)
    readme = render("README.md")
    for address in ADDRESSES:
        assert (address in readme) == bool(repository)
    assert readme.startswith("# Bregman learning, reproduced\n\n")
    assert "\n\n\n" not in readme
    if repository:
        assert f"/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/00_start.ipynb" in readme


def test_a_notebook_gets_buttons_and_an_install_cell_and_loses_them_again():
    plain = launch.launchable(cells("mnist_comparison"), "05_mnist_comparison", "")
    with_ = launch.launchable(plain, "05_mnist_comparison", "someone/project")
    assert launch.launchable(with_, "05_mnist_comparison", "someone/project") == with_
    assert launch.launchable(with_, "05_mnist_comparison", "") == plain
    nbformat.validate(nbformat.from_dict({"cells": with_, "metadata": {}, "nbformat": 4,
                                          "nbformat_minor": 5}))  # fmt: skip
    _, button, install = with_[:3]
    links = re.findall(r"\]\((https://[^)]*05_mnist_comparison\.ipynb)\)", button["source"][0])
    assert [any(address in link for address in ADDRESSES) for link in links] == [True, True]
    assert "https://github.com/someone/project" in "".join(install["source"])


def test_the_install_cell_fetches_the_project_only_where_it_is_not_installed(tmp_path):
    (_, _, install) = launch.launchable(cells("start")[:1], "00_start", "someone/project")
    # git and pip write down what they are asked
    (tmp_path / "git").write_text('#!/bin/sh\necho git "$@" >> log\nmkdir project\n')
    (tmp_path / "git").chmod(0o755)
    source = "".join(install["source"])
    for installed in (True, False):
        script = f"""import importlib.util, sys
found, executable = importlib.util.find_spec, sys.executable
importlib.util.find_spec = lambda name: {installed} or None
sys.executable = {str(tmp_path / "python")!r}
{source}
import os; print(os.path.basename(os.getcwd()))"""
        (tmp_path / "python").write_text('#!/bin/sh\necho python "$@" >> log\n')
        (tmp_path / "python").chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
            check=True, env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert (tmp_path / "log").exists() != installed
        assert done.stdout.strip() == (tmp_path.name if installed else "project")
    assert (tmp_path / "log").read_text().splitlines() == [
        "git clone --quiet --depth=1 https://github.com/someone/project project",
        "python -m pip install --quiet --editable project[suite]",
    ]


def test_a_repository_is_an_owner_and_a_name(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text('[tool.bregman]\nrepository = "https://x/y/z"\n')
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    with pytest.raises(ValueError, match='repository must be "owner/name" or "", got'):
        launch.repository()


def test_binder_installs_the_suite_with_torch_for_cpus():
    build = ROOT / "binder" / "postBuild"
    assert os.access(build, os.X_OK)
    subprocess.run(["bash", "-n", build], check=True)
    assert '--torch-backend cpu --editable ".[suite]"' in build.read_text()
    assert "uv" in (ROOT / "binder" / "requirements.txt").read_text().split()
