"""The notebooks: well-formed, executed by papermill at smoke scale, checked by nbval as stored."""

import subprocess
import sys

import nbformat
import pytest

from bregman.suite import notebooks
from bregman.suite.experiments import EXPERIMENTS
from bregman.suite.notebooks import NotebookError

NOTEBOOKS = notebooks.find()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path / "figures"))
    return tmp_path


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_form_of_a_notebook(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.source.splitlines()[:2] for cell in tagged] == [['scale = "smoke"', "seed = 0"]]
    opening = notebook.cells[0].source
    for heading in ("What you'll do", "What you'll learn", "What you'll need"):
        assert heading in opening
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    findings = ("assert ", "confirm(")
    assert any(word in cell.source for cell in code for word in findings), "findings are asserted"
    assert "Exercises" in "".join(cell.source for cell in notebook.cells)
    for count, cell in enumerate(code, start=1):
        assert cell.execution_count == count, "stored executed, from top to bottom"
        assert not any(o.output_type == "error" for o in cell.outputs)
        assert not any(o.get("name") == "stderr" for o in cell.outputs)
        assert "class " not in cell.source
        assert "sys.path" not in cell.source
    checked = [cell for cell in code if "# NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.outputs for cell in checked)


def test_the_experiments_have_notebooks():
    assert set(EXPERIMENTS) <= set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_papermill_executes_a_notebook_at_smoke_scale(name, folders):
    output = notebooks.output_path(NOTEBOOKS[name], "smoke")
    notebooks.execute(NOTEBOOKS[name], output, {"scale": "smoke", "seed": 1})
    executed = nbformat.read(output, as_version=4)
    drawn = [
        data
        for cell in executed.cells
        if cell.cell_type == "code"
        for data in (o.get("data", {}) for o in cell.outputs)
        if "image/png" in data
    ]
    assert drawn
    saved = list((folders / "figures" / "smoke").glob("*.png"))
    assert len(saved) == len(list((folders / "figures" / "smoke").glob("*.pdf"))) > 0
    if name in EXPERIMENTS:
        assert (folders / "results" / "smoke" / name / "summary.csv").exists()


def test_nbval_finds_the_stored_outputs_again(folders):
    """In a process of its own, since nbval is a pytest plugin that takes over the notebooks."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-q",
         *map(str, NOTEBOOKS.values())],
        cwd=folders,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]


def test_unknown_names_and_parameters_are_refused(folders):
    path = NOTEBOOKS["mnist_comparison"]
    with pytest.raises(ValueError, match=r"has no parameter 'sed', allowed: scale, seed"):
        notebooks.execute(path, folders / "out.ipynb", {"scale": "smoke", "sed": 1})
    with pytest.raises(ValueError, match="unknown notebook '05', allowed: "):
        notebooks.find(["05"])
    assert list(notebooks.find(["05_mnist_comparison"])) == ["mnist_comparison"]


def test_a_failing_cell_is_named(folders):
    path = NOTEBOOKS["mnist_comparison"]
    with pytest.raises(
        NotebookError, match=r"05_mnist_comparison.*unknown scale 'tiny'.*out\.ipynb"
    ):
        notebooks.execute(path, folders / "out.ipynb", {"scale": "tiny", "seed": 0})
