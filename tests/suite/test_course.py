"""The course, notebooks 01 to 04: algorithms in the open, exercises, sliders, weight of motion.

Every notebook is run once, in this process; its sliders and exercises are tried in what it left.
"""

import ast
import itertools
import re

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from wrong_answers import WRONG

from bregman.suite import notebooks, plots

COURSE = {
    name: nbformat.read(path, as_version=4)
    for name, path in notebooks.find().items()
    if any(
        "exercise" in cell.metadata.get("tags", [])
        for cell in nbformat.read(path, as_version=4).cells
    )
}

# what of the package's objects computes, and so has no place in a cell that shows an algorithm
METHODS = {"f", "grad", "sample_grads", "minimizer", "prox", "subgrad", "subdiff_distance",
           "theta_at", "p_at", "step"}  # fmt: skip


def code(notebook, tag=None):
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code" and (tag is None or tag in cell.metadata.get("tags", []))
    ]


def exercises(notebook):
    """By name of the function asked for: the solution folded above it, its check."""
    found, solution = {}, None
    cells = iter(notebook.cells)
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and "<details>" in cell.source:
            blocks = re.findall(r"```python\n(.*?)```", cell.source, flags=re.S)
            solution = blocks[-1] if blocks else solution
        if "exercise" in tags:
            check = next(cells)
            assert "check" in check.metadata.get("tags", []), "a check cell follows its exercise"
            name = next(n.name for n in ast.walk(ast.parse(cell.source)) if hasattr(n, "name"))
            found[name] = (cell.source, solution, check)
            solution = None
    return found


EXERCISES = [(name, task) for name, notebook in COURSE.items() for task in exercises(notebook)]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """By notebook: the names that it leaves, its explorers, the bytes of its animations."""
    folder, kept, monkeypatch = tmp_path_factory.mktemp("course"), {}, pytest.MonkeyPatch()
    monkeypatch.setenv("BREGMAN_RESULTS", str(folder / "results"))
    monkeypatch.setenv("BREGMAN_FIGURES", str(folder / "figures"))
    monkeypatch.setattr(plots, "save", lambda *_: None)
    monkeypatch.setattr(plots, "show", lambda figure, alt: plt.close(figure))
    monkeypatch.setattr(plots, "animate", lambda frames, texts, alt, **_: next(iter(frames)))

    def run(name):
        if name not in kept:
            explorers = []
            monkeypatch.setattr(
                plots, "explore", lambda draw, alt, **sliders: explorers.append((draw, sliders))
            )
            namespace = {"__name__": "course", "display": lambda *_: None}
            # not that of the notebook before
            default = torch.float32
            torch.set_default_dtype(default)
            for cell in code(COURSE[name]):
                exec(compile(cell.source, name, "exec"), namespace)
            plt.close("all")
            kept[name] = namespace, explorers, torch.get_default_dtype()
            torch.set_default_dtype(default)
        namespace, explorers, dtype = kept[name]
        torch.set_default_dtype(dtype)
        return dict(namespace), explorers

    default = torch.get_default_dtype()
    yield run
    torch.set_default_dtype(default)
    monkeypatch.undo()


def test_there_is_a_course():
    assert len(EXERCISES) >= 5
    told = {(name, task) for name, answers in WRONG.items() for task in answers}
    assert told == set(EXERCISES), "every exercise has a wrong answer to be told"


def imported(notebook):
    """The names that a notebook takes from the package."""
    return {
        alias.asname or alias.name.split(".")[0]
        for cell in code(notebook)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.ImportFrom | ast.Import)
        and (getattr(node, "module", None) or node.names[0].name).split(".")[0] == "bregman"
        for alias in node.names
    }


def leans_on(tree, package):
    """What of the package a piece of code names: its imports, and the methods of its objects."""
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not ast.unparse(node).startswith("torch.")
    }
    return named & package | called & METHODS


def operations(cell, package):
    """How often a cell itself adds, multiplies or raises to a power.

    What counts stands in a statement that names nothing of the package; indices and texts are
    left out.
    """
    count = 0
    for statement in ast.walk(ast.parse(cell.source)):
        simple = ast.Assign | ast.AugAssign | ast.Return | ast.Expr
        if not isinstance(statement, simple) or leans_on(statement, package):
            continue
        nodes = list(ast.walk(statement))
        aside = [node.slice for node in nodes if isinstance(node, ast.Subscript)]
        aside += [node for node in nodes if isinstance(node, ast.JoinedStr)]
        aside = {id(node) for tree in aside for node in ast.walk(tree)}
        for node in nodes:
            if isinstance(node, ast.BinOp) and id(node) not in aside:
                inner = list(ast.walk(node))
                texts = any(isinstance(getattr(x, "value", None), str) for x in inner)
                count += any(isinstance(x, ast.Name) for x in inner) and not texts
    return count


def test_half_of_the_cells_show_mathematics():
    shares = {}
    for name, notebook in COURSE.items():
        package = imported(notebook)
        working = [
            cell
            for cell in code(notebook)
            if not {"parameters", "exercise", "check"} & set(cell.metadata.get("tags", []))
            and "\nfrom bregman" not in cell.source
        ]
        # an algorithm, or at least three operations of its own
        shows = [
            "algorithm" in cell.metadata.get("tags", []) or operations(cell, package) >= 3
            for cell in working
        ]
        seen = ["hide-input" not in cell.metadata.get("tags", []) for cell in working]
        assert sum(np.array(shows) & seen) >= sum(seen) / 2, f"{name}: of what is not folded"
        shares[name] = sum(shows), len(working)
    for some in (list(shares.values())[:3], list(shares.values())):
        shown, all_of_them = np.sum(some, axis=0)
        assert shown >= all_of_them / 2, f"{shares}: folded cells are counted here"


# each of the eight by hand, and what of the package it is compared with in the next cell
EIGHT = {
    "shrink": "L1(0.8).prox",
    "linbreg": "LinBreg([weights]",
    "linbreg_with_momentum": "by_package(LinBreg, 200, lr=tau, delta=delta, momentum=0.9)",
    "adabreg": "by_package(AdaBreg",
    "ista": "cx.ista",
    "bregman_iteration": "cx.bregman_iteration",
    "exact_flow": "cx.inverse_scale_space_flow",
    "group_shrink": "GroupL12(0.8, dim=1).prox",
}


@pytest.mark.parametrize("name", EIGHT)
def test_each_of_the_eight_algorithms_is_built_and_compared(name):
    compared = [
        following.source
        for notebook in COURSE.values()
        for cell, following in itertools.pairwise(code(notebook))
        if "algorithm" in cell.metadata.get("tags", []) and f"def {name}(" in cell.source
    ]
    assert any(
        f"{name}(" in source and EIGHT[name] in source and "confirm(" in source
        for source in compared
    )


@pytest.mark.parametrize("name", COURSE)
def test_algorithms_stand_on_their_own(name):
    notebook = COURSE[name]
    package, cells = imported(notebook), code(notebook)
    assert code(notebook, "algorithm")
    for cell, following in itertools.pairwise(cells):
        if "algorithm" not in cell.metadata.get("tags", []):
            continue
        assert not leans_on(ast.parse(cell.source), package), cell.source
        lines = [x for x in cell.source.splitlines() if x.strip() and x.strip()[0] != "#"]
        assert 2 <= len(lines) <= 14, "an algorithm in the open is short"
        assert "confirm" in following.source or "assert" in following.source, following.source


@pytest.mark.parametrize(("name", "task"), EXERCISES)
def test_an_exercise_takes_the_right_answer_and_names_the_fault_of_a_wrong_one(
    name, task, executed, capsys
):
    starter, solution, check = exercises(COURSE[name])[task]
    wrong, fault = WRONG[name][task]

    def verdict(answer):
        namespace, _ = executed(name)
        capsys.readouterr()
        exec(answer, namespace)
        exec(check.source, namespace)
        return capsys.readouterr().out

    assert verdict(starter).startswith("… not yet done")
    assert verdict(solution).startswith("✓ ")
    said = verdict(wrong)
    assert said.startswith("✗ ")
    assert fault in said
    assert "not yet done" in "".join(o.get("text", "") for o in check.outputs), "stored unsolved"


@pytest.mark.parametrize("name", COURSE)
def test_stars_grade_the_exercises(name):
    headings = [
        cell.source.splitlines()[0]
        for cell in COURSE[name].cells
        if cell.cell_type == "markdown" and cell.source.startswith("### Exercise")
    ]
    assert headings
    assert all(1 <= heading.count("★") <= 3 for heading in headings)


def written(tree):
    """The names that a cell sets for those after it."""
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    hidden = [*inner, *(x for x in ast.walk(tree) if isinstance(x, ast.comprehension))]
    hidden = {id(node) for x in hidden for node in ast.walk(x)}
    return {node.name for node in inner} | {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in hidden
    }


def leaned_on(name, functions, seen=()):
    """The names of the notebook that a function reads, itself and through others."""
    if name not in functions or name in seen:
        return set()
    function = functions[name]
    own = {arg.arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)}
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
    own |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    read = {node.id for node in names} - own
    return read.union(*(leaned_on(other, functions, (*seen, name)) for other in read))


@pytest.mark.parametrize("name", COURSE)
def test_no_later_cell_takes_a_name_from_an_explorer(name):
    trees = [ast.parse(cell.source) for cell in code(COURSE[name])]
    functions = {}
    for k, tree in enumerate(trees):
        functions |= {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "plots.explore":
                reads = leaned_on(call.args[0].id, functions)
                for later in trees[k + 1 :]:
                    assert not reads & written(later), "a slider would no longer do as it did"


@pytest.mark.parametrize("name", COURSE)
def test_no_corner_of_a_slider_fails_and_the_axes_stay(name, executed):
    _, explorers = executed(name)
    assert explorers
    for draw, sliders in explorers:
        limits = []
        ends = [(s.values[0], s.values[s.position], s.values[-1]) for s in sliders.values()]
        for corner in itertools.product(*ends):
            with plt.style.context(plots.style.STYLE):
                figure = draw(**dict(zip(sliders, corner, strict=True)))
            figure.canvas.draw()
            limits.append([(*ax.get_xlim(), *ax.get_ylim()) for ax in figure.axes])
            plt.close(figure)
        spread = np.ptp(np.array(limits), axis=0)
        assert spread.max() < 1e-12, f"axes move with {list(sliders)}"


@pytest.mark.parametrize("name", COURSE)
def test_stored_pictures_speak_and_are_light(name):
    motion = 0
    for cell in code(COURSE[name]):
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                assert re.search(r'alt="[^"]{20,}"', data["text/html"]), "a picture has an alt text"
                assert len(data["text/plain"]) >= 20
            if "data-frames" in data.get("text/html", ""):
                motion += len(data["text/html"])
                assert "<script" not in data["text/html"]
            if "application/vnd.jupyter.widget-view+json" in data:
                said = data["text/plain"]
                assert said.startswith("Run this cell in JupyterLab"), "no names of classes"
    assert 0 < motion < 1.5e6


@pytest.mark.parametrize("name", COURSE)
def test_headings_are_plain_text(name):
    for cell in COURSE[name].cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                assert not (line.startswith("#") and "$" in line), line
