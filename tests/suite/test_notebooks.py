"""The notebooks: well-formed, executed by papermill, checked by nbval as they are stored."""

import base64
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from PIL import Image

from bregman.suite import experiments, notebooks
from bregman.suite.experiments import EXPERIMENTS
from bregman.suite.notebooks import NotebookError
from bregman.suite.paths import results_dir
from bregman.suite.runs import RunStore

NOTEBOOKS = notebooks.find()
# what reads the runs of all experiments
READERS = ("start", "paper_and_ours")
# with the seed whose runs all tests share, one with another one; all with it in `make test-more`.
# What has no runs does the same at each scale, and nbval below executes it.
OTHER_SEED = ("mnist_acceleration",)
CASES = [
    (name, int(name in OTHER_SEED)) for name in NOTEBOOKS if name in (*EXPERIMENTS, *READERS)
] + [pytest.param(name, 1, marks=pytest.mark.more) for name in NOTEBOOKS if name not in OTHER_SEED]


# at the paper's scale; what has no whole table of runs there yet, at a smaller one
STORED_AS = [[f'scale = "{scale}"', "seed = 0"] for scale in ("paper", "narrow", "smoke")]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path / "figures"))
    return tmp_path


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.setenv("BREGMAN_FIGURES", str(tmp_path / "figures"))
    return tmp_path / "figures"


def stored_scale(name: str) -> str:
    """The scale at which a notebook is stored."""
    return str(eval(papermill.inspect_notebook(str(NOTEBOOKS[name]))["scale"]["default"]))


def complete(name: str, scale: str) -> bool:
    """Whether the store has every run that an experiment's notebook shows at a scale."""
    experiment = experiments.get(name)
    meaning, store = experiment.scale(scale), RunStore(results_dir() / scale / "runs")
    return all(
        store.get(experiment.config(meaning, seed, **row.settings))
        for row in experiment.rows_at(scale)
        for seed in range(row.seeds or meaning.seeds)
    )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_form_of_a_notebook(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    assert "injected-parameters" not in tags, "it would hide what the parameters cell says"
    assert tagged[0].source.splitlines()[:2] in STORED_AS
    opening = notebook.cells[0].source
    for heading in ("What you'll do", "What you'll learn", "What you'll need"):
        assert heading in opening
    code = [
        cell for cell in notebook.cells
        if cell.cell_type == "code" and "launch" not in cell.metadata.get("tags", [])
    ]  # fmt: skip
    findings = ("assert ", "confirm(")
    assert any(word in cell.source for cell in code for word in findings), "findings are asserted"
    assert name == "start" or "Exercise" in "".join(cell.source for cell in notebook.cells)
    for count, cell in enumerate(code, start=1):
        assert cell.execution_count == count, "stored executed, from top to bottom"
        assert not any(o.output_type == "error" for o in cell.outputs)
        assert not any(o.get("name") == "stderr" for o in cell.outputs)
        assert "plt.show(" not in cell.source, "plots.show tells what is seen"
        assert "class " not in cell.source
        assert "sys.path" not in cell.source
        marks = re.findall(r"#\s*(?:NBVAL\w*|noqa|fmt:|type:|ruff:)", cell.source)
        assert not marks, "what is for tools stands in the cell's tags"
    checked = [cell for cell in code if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert checked or name == "start"
    assert all(cell.outputs for cell in checked)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_folded_on_the_site_is_folded_in_jupyterlab(name):
    for cell in nbformat.read(NOTEBOOKS[name], as_version=4).cells:
        tags, folded = cell.metadata.get("tags", []), cell.metadata.get("jupyter", {})
        assert ("hide-input" in tags) == folded.get("source_hidden", False)
        assert ("hide-output" in tags) == folded.get("outputs_hidden", False)
        if folded.get("outputs_hidden"):
            # JupyterLab shows the first line in place of all
            first = cell.outputs[0]["data"]["text/html"].splitlines()[0]
            assert not first.startswith("<"), "words, no markup"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_headings_are_legible_in_a_list_of_contents(name):
    for cell in nbformat.read(NOTEBOOKS[name], as_version=4).cells:
        if cell.cell_type == "markdown":
            headings = [line for line in cell.source.splitlines() if line.startswith("#")]
            assert not re.search(r"[$`]", " ".join(headings)), "no mathematics, no code"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_tables_are_for_readers(name):
    """In words, without the columns' names in the code, and in the colours of the page."""
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    outputs = [o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", [])]
    tables = [data["text/html"] for data in outputs if "<table" in data.get("text/html", "")]
    for table in tables:
        headings = re.findall(r"<th[^>]*>(.*?)</th>", table, flags=re.DOTALL)
        assert not [text for text in headings if re.search(r"^[a-z0-9]+(_[a-z0-9]+)+$", text)]
        assert not re.search(r">(NaN|None|NaT|True|False)<", table)
        assert not re.search(r"colou?r\s*[:=]|#[0-9A-Fa-f]{3,6}\b|rgba?\(", table)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_are_legible_on_any_ground_and_fit_their_cell(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    outputs = [o.get("data", {}) for cell in notebook.cells for o in cell.get("outputs", [])]
    for data in outputs:
        for width in re.findall(r"<img[^>]* width=\"(\d+)", data.get("text/html", "")):
            assert int(width) <= 880, "a cell of JupyterLab in a window of 1,280 pixels"
        if "image/png" in data:
            image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
            assert not image.has_transparency_data, "black axes would vanish on a dark page"


def test_the_experiments_have_notebooks():
    assert set(EXPERIMENTS) <= set(NOTEBOOKS)


def drawn(output: Path) -> int:
    """How many pictures stand in an executed notebook."""
    executed = nbformat.read(output, as_version=4)
    cells = (cell for cell in executed.cells if cell.cell_type == "code")
    outputs = (output.get("data", {}) for cell in cells for output in cell.outputs)
    return sum(any(kind.startswith("image/") for kind in data) for data in outputs)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_papermill_executes_a_notebook_at_smoke_scale(name, seed, smoke, figures, tmp_path):
    if name in EXPERIMENTS and not seed:
        smoke(name)
    notebooks.execute(NOTEBOOKS[name], tmp_path / "out.ipynb", {"scale": "smoke", "seed": seed})
    if name == "start":
        return
    assert drawn(tmp_path / "out.ipynb")
    saved = list((figures / "smoke").glob("*.png"))
    assert len(saved) == len(list((figures / "smoke").glob("*.pdf"))) > 0
    if name in EXPERIMENTS:
        assert (results_dir() / "smoke" / name / "summary.csv").exists()


# the others are checked by nbval below
NOT_STORED_AT_PAPER = [name for name in NOTEBOOKS if stored_scale(name) != "paper"]


@pytest.mark.parametrize("name", [n for n in NOT_STORED_AT_PAPER if n in EXPERIMENTS])
def test_the_findings_at_the_papers_scale_hold_in_the_store(
    name, stored, figures, tmp_path, monkeypatch
):
    monkeypatch.setenv("BREGMAN_RESULTS", str(stored))
    if not complete(name, "paper"):
        pytest.skip("its runs at the paper's scale are not all made yet")
    notebooks.execute(NOTEBOOKS[name], tmp_path / "out.ipynb", {"scale": "paper", "seed": 0})
    assert drawn(tmp_path / "out.ipynb")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nbval_finds_the_stored_outputs_again(name, smoke, figures, tmp_path):
    """In a process of its own, since nbval is a pytest plugin that takes over the notebooks."""
    for experiment in EXPERIMENTS:
        smoke(experiment)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env",
         "--nbval-cell-timeout=300", "-p", "no:cacheprovider", "-p", "no:xdist", "-q",
         str(NOTEBOOKS[name])],
        cwd=tmp_path,
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
        NotebookError, match=r"05_mnist_comparison.*unknown scale 'tiny'.*see .*05_.*\.ipynb"
    ):
        notebooks.execute(path, folders / "out.ipynb", {"scale": "tiny", "seed": 0})
    assert not (folders / "out.ipynb").exists()


def small(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in ("scale = 'x'", *sources)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_an_executed_notebook_is_replaced_whole_and_tells_no_paths(folders):
    source, output = small(folders / "01_small.ipynb", "1 + 1"), folders / "out.ipynb"
    notebooks.execute(source, output, {"scale": "y"})
    complete = output.read_text()
    assert str(folders) not in complete
    assert "papermill" not in nbformat.reads(complete, as_version=4).metadata
    with pytest.raises(NotebookError, match="ZeroDivisionError"):
        notebooks.execute(small(source, "2 + 2", "1 / 0"), output, {"scale": "z"})
    assert output.read_text() == complete


KILLED = """
import sys
from pathlib import Path
from bregman.suite import notebooks
notebooks.execute(Path(sys.argv[1]), Path(sys.argv[2]), {"scale": "z"})
"""


def test_a_killed_command_leaves_the_executed_notebook_as_it_was(folders):
    source, output = folders / "01_small.ipynb", folders / "results" / "out.ipynb"
    output.parent.mkdir()
    output.write_text("a complete one")
    mark = folders / "mark"
    small(source, f"open({str(mark)!r}, 'w').close()", "import time; time.sleep(600)")
    command = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(output)])
    while not mark.exists():
        assert command.poll() is None
        time.sleep(0.1)
    command.kill()
    command.wait()
    assert output.read_text() == "a complete one"
    assert [path.name for path in output.parent.iterdir()] == ["out.ipynb"]


def test_a_kernel_that_does_not_start_is_named(folders):
    source = small(folders / "01_small.ipynb")
    notebook = nbformat.read(source, as_version=4)
    notebook.metadata["kernelspec"]["name"] = "no-such-kernel"
    nbformat.write(notebook, source)
    with pytest.raises(NotebookError, match=r"01_small.*can't be executed .*kernelspec list"):
        notebooks.execute(source, folders / "out.ipynb", {"scale": "x"})
