"""README and the pages of results: generated, without a number of their own, every link alive."""

import re
import shutil
import subprocess

import jinja2
import pandas as pd
import pytest

from bregman.suite.pages import PAGES, measured, render, speed, tables
from bregman.suite.pages.measured import Rows, Sample, markdown, number, paper, summary
from bregman.suite.pages.render import TEMPLATES
from bregman.suite.paths import ROOT

DOCS = sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))
WRITTEN_BY_HAND = [path for path in DOCS if str(path) not in PAGES]

# what a number in a template may be: the name of something, or a setting
SETTINGS = (
    # parts of the paper, of the course, of the network
    r"(Figures|Tables|Algorithms|notebooks) \d+ (and|to) \d+",
    r"(Figures?|Tables?|Algorithms?|sections?|[Nn]otebooks?|layer|Theorem) \d+(\.\d+)?",
    r"(\d+ to \d+|\d+) epochs?|epochs? \d+",
    r"\(\d\.\d+\)( to \(\d\.\d+\))?",
    r"784(-\d+)+|\d+ (neurons|channels)|every 30 steps|layer 1",
    r"for (30|10)|with smaller layers 11",
    # settings behind their letters
    r"\b(λ|τ|β|δ|m|lr|lam|density|gain|seed)\b( =|=)? ?\d[\d.e-]*",
    # the targets that were asked for, and the noise levels
    r"25, 10, 5 and 1 %|1 and 2 %|(with|From) \d %|and 1 % of them|\"Strong noise\" is 0\.3",
    r"say 0\.09 of the range",
    # of the command, and of how it is attacked
    r"--(seeds|jobs) \d|:8786|cifar10_\w+|exit code is 1 \(130|kill -9|NFS 4|400 times",
    # names and versions
    r"ResNet-18|ResNet18|CIFAR-10|SHA-256|bfloat16|float32|Python 3\.11|CC-BY 4\.0|l1|0?[89] and",
    r"23\(192\), 2022|arXiv[: ]\d{4}\.\d{5}|MALLOC_\w+=\d+",
)  # fmt: skip
MEASURED = (
    r"\d[\d.,]* ?(%|points|dB|ms\b|MB|MiB|GFLOP|seconds|minutes|hours|core-hours|times as)",
)


def prose(text: str) -> str:
    """A template or page without code, links' targets, tables' rules and what is generated."""
    for part in (r"\{%.*?%\}", r"\{\{.*?\}\}", r"```.*?```", r"`[^`\n]*`", r"\]\([^)]*\)",
                 r"!\[.*?\]", r"<!--.*?-->"):  # fmt: skip
        text = re.sub(part, " ", text, flags=re.DOTALL)
    return text


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_what_the_generator_writes(page):
    assert (ROOT / page).read_text() == render(page), "run `make pages`"


@pytest.mark.parametrize("page", PAGES)
def test_no_template_holds_a_number_of_a_result(page):
    text = prose((TEMPLATES / PAGES[page]).read_text())
    for allowed in SETTINGS:
        text = re.sub(allowed, " ", text)
    left = [line for line in text.splitlines() if re.search(r"\d", line)]
    assert not left


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=str)
def test_no_page_written_by_hand_holds_a_measurement(page):
    text = prose((ROOT / page).read_text())
    assert not [found.group() for word in MEASURED for found in re.finditer(word, text)]


def test_the_rule_sees_a_number_that_was_typed():
    text = prose("Trained for 100 epochs with λ = 0.1 it reaches {{ x }} %, 2 % less than `90`.")
    assert re.search(MEASURED[0], text)
    for allowed in SETTINGS:
        text = re.sub(allowed, " ", text)
    assert re.findall(r"\d+", text) == ["2"]


def test_readme_is_short_and_shows_the_usage_early():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) < 10_000
    usage = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert usage
    assert usage.end() < 5_000
    assert "nn.Sequential(" in usage.group()
    assert text.count("![") == 1


def test_the_usage_in_readme_runs():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    printed: list[float] = []
    exec(compile(code.group(1), "README.md", "exec"), {"print": printed.append})
    assert 0 < printed[0] < 0.2, "sparse from the start"


PROSE = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *map(str, DOCS)]


def anchors(text: str) -> set[str]:
    """The anchors that a host of Markdown makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PROSE)
def test_links_resolve(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text()), target


@pytest.mark.parametrize("page", PROSE)
def test_the_rows_of_a_table_have_the_cells_of_its_head(page):
    head = 0
    for line in (ROOT / page).read_text().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        if not line.startswith("|"):
            head = 0
            continue
        head = head or cells
        assert cells == head, line


def test_a_number_is_rounded_once_from_what_was_stored():
    # both would round up from two decimals
    assert number(97.3467, 1) == "97.3"
    assert number(96.9467, 1) == "96.9"
    assert number(float("nan")) == ""
    assert str(Sample((1.0, 2.0, 3.0), 1)) == "2.0 ± 1.0"
    assert str(Sample((1.25,), 1)) == "1.2"
    assert Sample((1.0, 3.0), 0).say("%") == "2 ± 1 % (n = 2)"
    assert Sample((3.0, 1.0)).each == "3.00, 1.00"
    assert Sample((3.0, 1.0), 0).range == "1 to 3"


def test_runs_are_paired_by_their_seed():
    ours = Rows(pd.DataFrame({"seed": [2, 0, 1], "x": [3.0, 1.0, 2.0]}))
    theirs = Rows(pd.DataFrame({"seed": [0, 2], "x": [0.5, 1.0]}))
    assert ours.minus(theirs, "x").values == (0.5, 2.0)
    with pytest.raises(KeyError, match="no run with"):
        ours.where(seed=7)


def test_a_number_that_was_not_measured_is_an_error():
    with pytest.raises(KeyError, match="0 rows of results"):
        speed.timed(name="SGD turbo")
    with pytest.raises(KeyError, match="0 numbers of the paper"):
        paper("Table 1", "Muon", "test_acc_pct")
    with pytest.raises(jinja2.UndefinedError):
        jinja2.Environment(undefined=jinja2.StrictUndefined).from_string("{{ x }}").render()


def test_a_table_has_the_keys_of_its_first_row():
    assert markdown([{"a": 1, "b": ""}, {"a": 2}]) == "| a | b |\n| --- | --- |\n| 1 |  |\n| 2 |  |"


def cnn(label: str, column: str) -> float:
    """The mean of a row of Tables 1 and 2."""
    return summary("fashion_mnist_cnn").where(label=label).of(column).mean


def test_table_3_has_the_papers_numbers_beside_the_full_width_alone(tmp_path, monkeypatch):
    # the finished row of the narrow network, as if it were of both scales
    for scale in ("narrow", "paper"):
        folder = tmp_path / scale / "cifar10_resnet"
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "results" / "narrow" / "cifar10_resnet" / "summary.csv", folder)
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    summary.cache_clear()
    narrow, full = tables.table_3("narrow"), tables.table_3("paper")
    summary.cache_clear()
    assert "paper" not in narrow
    assert "| paper | kernels [%] | paper  | test accuracy [%] | paper   |" in full
    known = paper("Table 3", "SGD with momentum", "test_acc_pct", "Vanilla")
    assert known in full
    assert known not in narrow


def test_what_the_words_about_table_1_say_holds():
    bregman = ("LinBreg", "LinBreg (float32)", "LinBreg β=0.9", "AdaBreg", "AdaBreg (float32)")
    for row in bregman:
        assert cnn("Lasso", "n_total_pct") < cnn(row, "n_total_pct")
        assert cnn("Lasso", "test_acc_pct") > cnn(row, "test_acc_pct")
        assert cnn("Pruning", "test_acc_pct") > cnn(row, "test_acc_pct")
        assert cnn("Pruning", "flops_pct") < cnn(row, "flops_pct")
        assert cnn("Pruning", "n_total_pct") > cnn(row, "n_total_pct")
    assert cnn("Lasso", "flops_pct") == 100
    exact, rounded = (summary("fashion_mnist_cnn").where(label=label)
                      for label in ("AdaBreg (float32)", "AdaBreg"))  # fmt: skip
    differences = exact.minus(rounded, "val_acc_pct").values
    assert min(differences) < 0 < max(differences), "no cost of bfloat16 is established"


def test_what_the_words_about_the_autoencoder_say_holds():
    strong = {
        label: tables.strong_noise(label).of("strong_ssim").mean
        for label in ("AdaBreg", "LinBreg", "SGD", "Adam", "Adam (gain 0.5)")
    }
    alike = [strong[label] for label in ("AdaBreg", "LinBreg", "Adam (gain 0.5)")]
    assert max(alike) - min(alike) < 0.01
    assert max(strong["SGD"], strong["Adam"]) < min(alike) - 0.02
    psnr = summary("denoising_autoencoder").where(label="AdaBreg").of("psnr").mean
    assert psnr < float(tables.noisy_psnr())


def test_what_the_words_about_equal_density_and_flops_say_holds():
    rows = summary("what_sparsity_buys")

    def mean(label: str, column: str) -> float:
        return rows.where(label=f"MLP, {label}").of(column).mean

    for density in (1, 2):
        ours = mean(f"LinBreg at {density} %", "test_acc_pct")
        rivals = (mean(f"{name} at {density} %", "test_acc_pct") for name in ("RigL", "SET"))
        assert ours > max(rivals)
    frozen = "LinBreg, frozen steps at 1 %"
    assert mean("RigL at 2 %", "flops_pct") < mean(frozen, "flops_pct")
    assert mean("RigL at 2 %", "test_acc_pct") > mean(frozen, "test_acc_pct")


def test_every_stored_run_stands_on_the_page_of_runs():
    from bregman.suite.pages import log

    text = (ROOT / "docs" / "runs.md").read_text()
    rows = [line for line in text.splitlines() if re.search(r"\d{4}-\d\d-\d\d \|$", line)]
    assert len(rows) == log.counts()["stored"] + log.counts()["lost"]


def test_the_lost_runs_are_those_of_the_history(tmp_path):
    deleted = measured.RESULTS / "paper" / "deleted_runs.csv"
    shallow = ["git", "rev-parse", "--is-shallow-repository"]
    done = subprocess.run(shallow, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.stdout.strip() != "false":
        pytest.skip("needs a clone with its history")
    log = subprocess.run(
        ["git", "log", "--no-renames", "--diff-filter=D", "--name-only", "--format=", "--",
         "results/paper/runs/*.json"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {line.rsplit("/", 1)[1].removesuffix(".json") for line in log.stdout.split()}
    stored = {path.stem for path in measured.RESULTS.glob("paper/runs/*.json")}
    assert names - stored <= set(pd.read_csv(deleted)["label"])
