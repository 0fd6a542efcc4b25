"""The repository: nothing of a machine in it, its metadata in agreement, its tools at work."""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# put together here, so that this file does not hold them either
OF_A_MACHINE = ["/" + "root/", "/" + "work/", "/home/" + r"\w+/", "/Users/" + r"\w+/",
                r"file:///[a-z]", r"/tmp/" + r"[a-z]\w+/\w+"]  # fmt: skip
HOSTS = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.(org|com)",
         "download" + r"\.pytorch\.org", "deb" + r"\.debian\.org", "conda" + r"\.anaconda\.org",
         "index-url" + r"[ =]+http", "proxy" + r"\.golang\.org"]  # fmt: skip


def tracked() -> list[Path]:
    """The files that git knows, or all but the hidden ones where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no git, or no repository")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def readable(path: Path) -> str:
    """The text of a file, nothing if it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return ""


def test_no_tracked_file_holds_paths_of_a_machine_or_hosts_of_registries():
    pattern = re.compile("|".join(OF_A_MACHINE + HOSTS))
    found = {
        (str(path.relative_to(ROOT)), match.group())
        for path in tracked()
        for match in pattern.finditer(readable(path))
    }
    assert not found


@pytest.mark.parametrize(
    "word", ["/" + "root/x", "https://pypi" + ".org/simple", "/" + "home/me/a"]
)
def test_the_search_finds_what_it_is_for(word):
    assert re.search("|".join(OF_A_MACHINE + HOSTS), f"in {word} it lies")


def test_the_version_is_told_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    history = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## {PROJECT['version']}" in history


def test_conda_takes_everything_from_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, by_pip = environment["dependencies"]
    assert by_pip == {"pip": ["--editable .[suite,dev]"]}
    (python,) = (line for line in conda if line.startswith("python="))
    minor = int(python.rsplit(".", 1)[1])
    assert minor >= int(PROJECT["requires-python"].rsplit(".", 1)[1])


def test_the_hooks_before_a_commit_fetch_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert all({"id", "name", "entry", "language"} <= set(hook) for hook in hooks)
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        for word in hook["entry"].split():
            assert not word.endswith(".py") or (ROOT / word).exists()


def test_every_target_of_make_is_told():
    text = (ROOT / "Makefile").read_text()
    told = set(re.findall(r"make ([\w-]+) ", "\n".join(re.findall(r"@echo .*", text))))
    rules = set(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE))
    assert rules - {"help"} == told
    for readme in re.findall(r"`make ([\w-]+)`", (ROOT / "README.md").read_text()):
        assert readme in rules


def test_two_executions_give_widgets_the_same_names(tmp_path):
    text = (ROOT / "notebooks" / "04_sparse_initialization.ipynb").read_text(encoding="utf-8")
    names = set(re.findall(r'"model_id": "([0-9a-f]{32})"', text))
    assert names, "it has some"
    first, second = tmp_path / "first.ipynb", tmp_path / "second.ipynb"
    first.write_text(text, encoding="utf-8")
    for name in re.findall(r'"([0-9a-f]{32})": \{', text):
        text = text.replace(name, hashlib.md5(name.encode()).hexdigest())
    notebook = json.loads(text)
    (widgets,) = notebook["metadata"]["widgets"].values()
    widgets["state"]["f" * 32] = {"model_name": "AnyModel", "state": {"of": "a cell before"}}
    second.write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, "scripts/clean_notebooks.py", str(first), str(second)]
    subprocess.run(command, cwd=ROOT, check=False)
    assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")
    for name in re.findall(r'"model_id": "([0-9a-f]{32})"', first.read_text(encoding="utf-8")):
        assert f'"{name}": {{' in first.read_text(encoding="utf-8")


def test_bars_go_and_what_was_printed_is_one_piece(tmp_path):
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0" * 32}}
    bar = {
        "output_type": "display_data",
        "metadata": {},
        "data": {**view, "text/plain": ["sgd:  40%|####  | 2/5 [00:02<?, ?epoch/s]"]},
    }
    slider = {
        "output_type": "display_data",
        "metadata": {},
        "data": {**view, "text/plain": ["FloatSlider(value=0.1)"]},
    }
    printed = [
        {"output_type": "stream", "name": name, "text": text}
        for name, text in (
            ("stdout", ["a\n", "b"]),
            ("stdout", ["c\n"]),
            ("stderr", ["d\n"]),
            ("stdout", ["e\n"]),
        )
    ]
    outputs = [bar, *printed[:2], slider, *printed[2:], bar]  # fmt: skip
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "source": [],
        "outputs": outputs,
    }
    path = tmp_path / "a.ipynb"
    path.write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    command = [sys.executable, "scripts/clean_notebooks.py", str(path)]
    subprocess.run(command, cwd=ROOT, check=False)
    (cleaned,) = json.loads(path.read_text())["cells"]
    assert cleaned["outputs"] == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "bc\n"]},
        slider,
        *printed[2:],
    ]


def test_cleaning_a_notebook_keeps_its_cells(tmp_path):
    stored = ROOT / "notebooks" / "05_mnist_comparison.ipynb"
    notebook = json.loads(stored.read_text(encoding="utf-8"))
    touched = json.loads(stored.read_text(encoding="utf-8"))
    touched["metadata"]["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    touched["cells"][1]["metadata"]["execution"] = {"iopub.execute_input": "2026"}
    touched["cells"][1]["metadata"]["collapsed"] = True
    # papermill's, which would hide what the parameters cell says
    injected = {**touched["cells"][1], "metadata": {"tags": ["injected-parameters"]}}
    touched["cells"].insert(2, injected)
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(touched), encoding="utf-8")
    command = [sys.executable, "scripts/clean_notebooks.py", str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 1, "changed"
    cleaned = path.read_text(encoding="utf-8")
    assert json.loads(cleaned)["cells"] == notebook["cells"]
    assert json.loads(cleaned)["metadata"]["kernelspec"] == notebook["metadata"]["kernelspec"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, "nothing left to do"
    assert path.read_text(encoding="utf-8") == cleaned
