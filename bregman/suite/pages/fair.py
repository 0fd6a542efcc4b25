"""Tables of the page on fair comparisons: methods tuned alike, and more seeds, as far as run."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bregman.suite.experiments import Results, dense_autoencoders, get, tuned_rivals
from bregman.suite.experiments.denoising_autoencoder import WATCHED
from bregman.suite.experiments.tuned_rivals import (
    COMPARED,
    COUNTS,
    DENSE,
    DENSITIES,
    GAIN,
    MOMENTA,
    RATE,
    SEARCHED,
    TRIALS,
    TRIED_AT,
    TUNED,
    searched,
)
from bregman.suite.pages.measured import (
    Rows,
    Sample,
    arrays_of,
    curve,
    exists,
    markdown,
    number,
    summary,
)
from bregman.suite.paths import ROOT
from bregman.suite.plots.equal_density import LEVEL, interval

__all__ = [
    "AUTOENCODER_SEEDS", "COUNTS", "GAIN", "LEVEL", "MOMENTA", "RATE", "TRIED_AT", "WATCHED",
    "architectures", "autoencoder_rates", "autoencoders", "drawn", "kernels", "leads", "progress",
    "rivals", "search", "within",
]  # fmt: skip

NOT_YET = "not run yet"
BREGMAN = ("LinBreg", "LinBreg, frozen steps")
# of FLOPs, in percent of those of dense training
BUDGETS = (2.5, 5, 10, 40)
KERNELS = "LinBreg (groups)"
AUTOENCODER_SEEDS = dense_autoencoders.SEEDS


def _table(experiment: str) -> pd.DataFrame:
    if exists(experiment):
        return summary(experiment).table
    return pd.DataFrame(
        columns=["artifact", "label", "strategy", "seed", "status", "seconds", "val_acc_pct",
                 "test_acc_pct", "flops_pct"]
    )  # fmt: skip


def drawn(figure: str) -> bool:
    """Whether ``scripts/draw_fair_comparisons.py`` drew a figure."""
    return (ROOT / "figures" / "paper" / f"{figure}.png").exists()


def progress() -> str:
    """How many runs of each part there are, and how long they took."""
    parts = [("tuned_rivals", f"{part}: {network}") for network in COUNTS
             for part in (TRIALS, TUNED)]  # fmt: skip
    parts += [("dense_autoencoders", part)
              for part in (dense_autoencoders.TRIALS, dense_autoencoders.COMPARED)]  # fmt: skip
    lines = []
    for name, artifact in [*parts, ("architecture_seeds", None)]:
        study = get(name)
        # of a study that shares runs with an experiment some are there before its own table is
        rows = [r.label for r in study.rows_at("paper") if artifact in (None, r.artifact)]
        there, made = study.forecast("paper", rows=rows), study.runs("paper", rows)
        lines.append({
            "study": name,
            "part": artifact or "all",
            "runs": there.stored,
            "of": there.stored + there.missing or "not chosen yet",
            "hours": number(sum(run.seconds for run in made) / 3600, 1),
        })  # fmt: skip
    return markdown(lines)


def search(network: str) -> str:
    """The trials: how many of each method there are, how far apart they lie, and the best."""
    table = _table("tuned_rivals")
    table = table[table["artifact"] == f"{TRIALS}: {network}"]
    best = tuned_rivals.choose(Results(table, pd.DataFrame())).get(network, {})
    lines = []
    for method in COMPARED:
        tried = table[table["strategy"] == method]
        scores = tried.loc[tried["status"] == "finished", "val_acc_pct"]
        found = searched(network, method, best[method]) if method in best else {}
        lines.append({
            "method": method,
            "trials": f"{len(tried)} of {COUNTS[network]}",
            "diverged": len(tried) - len(scores),
            "median [%]": number(scores.median()) if len(scores) else "",
            "best [%]": number(scores.max()) if len(scores) else "",
            **{name: f"{found[name]:g}" if name in found else "" for name in SEARCHED},
        })  # fmt: skip
    return markdown(lines)


def _runs(network: str, method: str, percent: float | None) -> pd.DataFrame:
    """The tuned runs of a method at a density; of dense training where there is none."""
    table = _table("tuned_rivals")
    words = "tuned" if method == DENSE else f"tuned, {percent} %"
    return table[table["label"] == f"{network}, {method}, {words}"]


def _as_before(network: str, method: str, percent: float | None) -> pd.DataFrame:
    """The same in notebook 11."""
    table = summary("what_sparsity_buys").table
    words = "" if method == DENSE else f" at {percent} %"
    return table[table["label"] == f"{network}, {method}{words}"]


def _finished(runs: pd.DataFrame, column: str = "test_acc_pct") -> Sample:
    return Rows(runs[runs["status"] == "finished"]).of(column)


def rivals(network: str) -> str:
    """Test accuracy at equal density: tuned alike, and below it as notebook 11 ran the method."""
    lines = []
    for method in COMPARED:
        for words, find in (("tuned", _runs), ("notebook 11", _as_before)):
            cells: dict[str, Sample | str] = {}
            costs, n = [], set()
            for percent in DENSITIES[network]:
                runs = find(network, method, percent)
                tested = _finished(runs)
                if method == DENSE and percent != DENSITIES[network][0]:
                    cells[f"{percent} %"] = ""
                    continue
                cells[f"{percent} %"] = tested if tested.n else NOT_YET
                if tested.n:
                    costs.append(number(_finished(runs, "flops_pct").mean, 1))
                    n.add(tested.n)
            lines.append({
                "method": method if words == "tuned" else "",
                "settings": words,
                "n": "".join(map(str, n)) if len(n) < 2 else f"{min(n)} to {max(n)}",
                **cells,
                "FLOPs of the training [%]": " to ".join(dict.fromkeys(costs[:1] + costs[-1:])),
            })  # fmt: skip
    return markdown(lines)


def leads(network: str) -> str:
    """What both forms of LinBreg have more than each other method at equal density, in pairs."""
    lines = []
    for ours in BREGMAN:
        for theirs in COMPARED:
            if theirs in (*BREGMAN, DENSE):
                continue
            cells = {}
            for percent in DENSITIES[network]:
                first, second = (
                    runs[runs["status"] == "finished"].set_index("seed")["test_acc_pct"]
                    for runs in (_runs(network, ours, percent), _runs(network, theirs, percent))
                )
                gaps = (first - second).dropna()
                mean, half = interval(gaps)
                words = NOT_YET
                if len(gaps):
                    spread = f" ({mean - half:+.2f} to {mean + half:+.2f})" if half == half else ""
                    words = f"{mean:+.2f}{spread}, n = {len(gaps)}"
                cells[f"{percent} %"] = words
            lines.append({"LinBreg": ours, "less": theirs, **cells})
    return markdown(lines)


def _settled(network: str) -> Iterator[tuple[str, str, Sample, float]]:
    for method in COMPARED:
        if method == DENSE:
            continue
        for percent in DENSITIES[network]:
            runs = _runs(network, method, percent)
            tested = _finished(runs)
            if tested.n:
                yield method, f"{percent} %", tested, _finished(runs, "flops_pct").mean


def within(network: str) -> str:
    """Equal FLOPs: the most accurate tuned run of each method within a budget."""
    settled = list(_settled(network))
    lines = []
    for method in COMPARED:
        if method == DENSE:
            continue
        cells = {}
        for budget in BUDGETS:
            fit = [run for run in settled if run[0] == method and run[3] <= budget]
            best = max(fit, key=lambda run: run[2].mean) if fit else None
            cells[f"{budget:g} %"] = f"{best[2]} at {best[1]}" if best else ""
        lines.append({"method": method, **cells})
    return markdown(lines) if settled else "No tuned run yet."


def autoencoder_rates() -> str:
    """SSIM on validation images after ten epochs, by learning rate; the best is chosen."""
    table = _table("dense_autoencoders")
    status = table.set_index("label")["status"]
    lines: dict[str, list[str]] = {}
    for row in dense_autoencoders.trial_rows():
        score = status.get(row.label, NOT_YET)
        if score == "finished":
            known = curve("dense_autoencoders", row.label, "weights", "ssim")
            score = known.last(1, 3).low
        network = row.label.partition(",")[0]
        lines.setdefault(network, []).append(f"{score} at {row.settings['lr']:g}")
    return markdown([
        {"network": network, **{f"trial {i}": cell for i, cell in enumerate(cells, start=1)}}
        for network, cells in lines.items()
    ])  # fmt: skip


def autoencoders() -> str:
    """What the compared autoencoders reach at the noise of the training and under strong noise."""
    table = _table("dense_autoencoders")
    lines = []
    for label in ("AdaBreg", "LinBreg", *dense_autoencoders.DENSE):
        runs = table[table["label"] == label]
        line: dict[str, object] = {"run": label, "τ": "", "n": len(runs), "SSIM": NOT_YET}
        measures = ("PSNR [dB]", "non-zero weights [%]", "SSIM, strong noise",
                    "PSNR, strong noise [dB]")  # fmt: skip
        line |= dict.fromkeys(measures, "")
        if len(runs):
            strong = np.array(
                [arrays_of(row)["denoised_quality"][-1] for _, row in runs.iterrows()]
            )
            rows = Rows(runs)
            line |= {"τ": f"{runs['config_lr'].iloc[0]:g}", "SSIM": rows.of("ssim")}
            line |= dict(zip(measures, (
                rows.of("psnr"), rows.of("n_total_pct", 1),
                Sample(tuple(strong[:, 0]), 3), Sample(tuple(strong[:, 1]), 1),
            ), strict=True))  # fmt: skip
        lines.append(line)
    return markdown(lines)


def architectures() -> str:
    """The architecture search over its seeds."""
    table = _table("architecture_seeds")
    if table.empty:
        return "No run of another seed yet; notebook 10 shows those of the first."
    lines = []
    for label in table["label"].unique():
        rows = Rows(table[table["label"] == label])
        restored = rows.of("ssim")
        lines.append({
            "run": label,
            "n": rows.seeds,
            "skips": rows.of("skips", 0).each,
            "neurons": rows.of("neurons", 0).each,
            "SSIM or test accuracy": restored if restored.n else rows.of("test_acc_pct").say("%"),
            "PSNR [dB]": rows.of("psnr"),
        })  # fmt: skip
    return markdown(lines)


def kernels() -> str:
    """The active kernels of Figure 1's run over the epochs, each seed."""
    table = _table("table_seeds")
    seeds = sorted(table.loc[table["label"] == KERNELS, "seed"])
    name = "table_seeds"
    if not seeds:
        name, seeds = "fashion_mnist_cnn", [0]
    lines = []
    for layer in ("conv1", "conv2"):
        for seed in seeds:
            active = curve(name, KERNELS, "weights", f"kernels_{layer}", seed)
            epochs = {f"epoch {epoch}": active.at(epoch) for epoch in (0, 5, 20, 50, 100)}
            lines.append({"layer": layer, "seed": seed, **epochs})
    return markdown(lines)
