"""Every claim of the paper that the suite can test, with a verdict computed from stored runs.

A claim names its source, says in one sentence what the paper says, and has a judge: a function
from the stored tables to a verdict with its numbers. The rules are in the judges, so a verdict
changes when the data do, and never by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from bregman.suite.experiments.tables import beside_paper
from bregman.suite.paths import results_dir

Word = Literal["reproduced", "partly", "not reproduced", "open"]

# denser by more than a fifth, or less accurate by more than half a point, is a miss
DENSER, WORSE = 1.2, 0.5


@dataclass(frozen=True)
class Verdict:
    """What the stored runs say about a claim.

    Attributes:
        word: "open" where there is no run yet.
        evidence: the numbers, with n and spread where n > 1.
        why: one line on what limits the verdict, "" where nothing does.
    """

    word: Word
    evidence: str
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper.

    Attributes:
        source: where the paper makes it.
        text: what it says, in our words.
        experiment: whose runs decide, the name of the notebook without its number.
        judge: from the tables of that experiment to the verdict.
    """

    source: str
    text: str
    experiment: str
    judge: Callable[["Tables"], Verdict] = field(repr=False)


class Tables:
    """The stored tables of one experiment.

    Args:
        summary: one row per run, as in ``summary.csv``.
        history: tidy, as in ``history.csv``.
    """

    def __init__(self, summary: pd.DataFrame, history: pd.DataFrame) -> None:
        self.summary, self.history = summary, history

    def rows(self, **columns: object) -> pd.DataFrame:
        """The runs whose columns have these values; None stands for an empty cell."""
        chosen = self.summary
        for name, value in columns.items():
            is_value = chosen[name].isna() if value is None else chosen[name] == value
            chosen = chosen[is_value]
        return chosen

    def curves(self, runs: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
        """One column per run and seed of ``runs``, one row per epoch."""
        found = self.history.query("split == @split and metric == @metric")
        keys = runs[["label", "seed"]].rename(columns={"label": "run"})
        found = found.merge(keys, on=["run", "seed"])
        return found.pivot_table(index="epoch", columns=["run", "seed"], values="value")


def stored(experiment: str, scale: str = "paper") -> Tables | None:
    """The tables of an experiment at a scale, None where it was not run."""
    folder = results_dir() / scale / experiment
    checked = {int(path.stem.removeprefix("checked_seed")): pd.read_csv(path)
               for path in folder.glob("checked_seed*.csv")}  # fmt: skip
    if checked:
        return Tables(pd.concat(checked, names=["seed"]).reset_index("seed"), pd.DataFrame())
    if not (folder / "summary.csv").exists():
        return None
    return Tables(pd.read_csv(folder / "summary.csv"), pd.read_csv(folder / "history.csv"))


def spread(values: pd.Series, unit: str = "", digits: int = 2) -> str:
    """The mean and, over several runs, their standard deviation, with the number of runs."""
    values = values.dropna()
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    unit = unit and f" {unit}"
    return f"{values.mean():.{digits}f}{deviation}{unit} (n = {len(values)})"


def graded(passed: list[bool]) -> Word:
    """All, some or none."""
    return "reproduced" if all(passed) else "partly" if any(passed) else "not reproduced"


def missed(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which numbers of ours miss the paper's: denser, or less accurate, than a verdict allows.

    Args:
        table: of ``beside_paper``.
    """
    measure = table.index.get_level_values("measure")
    denser = measure.str.startswith("n_") & (table["ours"] > DENSER * table["paper"])
    # the last digits that are printed decide, not those behind them
    difference = table["difference"].round(3)
    worse = measure.isin(["val_acc_pct", "test_acc_pct"]) & (difference < -WORSE)
    return denser | worse


MEASURES = {
    "n_total_pct": "weights",
    "n_linear_pct": "linear weights",
    "n_conv_pct": "kernels",
    "val_acc_pct": "validation accuracy",
    "test_acc_pct": "test accuracy",
}

FIGURE_2, FIGURE_3 = "Figure 2 (read off the plot)", "Figure 3 (read off the plot)"


def _linbreg(tables: Tables, lam: float | None = None) -> pd.DataFrame:
    rows = tables.rows(config_optimizer="LinBreg", config_momentum=0.0)
    return rows if lam is None else rows[rows["lam"] == lam]


def _proxgd(tables: Tables) -> pd.DataFrame:
    return tables.rows(config_optimizer="ProxGD", config_lr=0.1)


def sgd_is_dense(tables: Tables) -> Verdict:
    first = 100 * tables.curves(tables.rows(config_optimizer="SGD"), "weights", "n_total").loc[1]
    return Verdict(
        graded([bool((first > 98).all())]),
        f"non-zero after the first epoch: {spread(first, '%', 1)}",
    )


def linbreg_only_adds(tables: Tables) -> Verdict:
    density = 100 * tables.curves(_linbreg(tables), "weights", "n_total")
    falls = -density.diff().min()
    relative = (falls / density.iloc[-1]).clip(lower=0)
    return Verdict(
        graded([bool((relative < 0.02).all())]),
        f"largest fall from one epoch to the next: {falls.max():.2f} points, "
        f"{100 * relative.max():.1f} % of the final density (n = {density.shape[1]} runs)",
    )


def linbreg_trains_monotonically(tables: Tables) -> Verdict:
    accuracy = 100 * tables.curves(_linbreg(tables), "train", "accuracy")
    falls = (-accuracy.diff().min()).clip(lower=0)
    rising = (accuracy.diff().iloc[1:] >= 0).mean().mean()
    return Verdict(
        graded([bool((falls < 0.5).all()), bool((falls < 0.05).all())]),
        f"{100 * rising:.0f} % of the epochs rise or stay; the largest fall is {falls.max():.2f} "
        f"points (n = {accuracy.shape[1]} runs)",
        "the accuracy over minibatches of an epoch fluctuates, so it is monotone up to noise",
    )


def proxgd_leaps_then_falls(tables: Tables) -> Verdict:
    density = 100 * tables.curves(_proxgd(tables), "weights", "n_total")
    leap, end = density.loc[1] / density.loc[0], density.iloc[-1] / density.max()
    return Verdict(
        graded([bool((leap > 5).all()), bool((end < 0.95).all())]),
        f"the first epoch multiplies the density by {leap.min():.0f} to {leap.max():.0f}; it ends "
        f"at {100 * end.min():.0f} to {100 * end.max():.0f} % of its peak (n = {len(leap)} runs)",
    )


def proxgd_oscillates(tables: Tables) -> Verdict:
    def jitter(runs: pd.DataFrame) -> pd.Series:
        accuracy = 100 * tables.curves(runs, "validation", "accuracy")
        return accuracy.iloc[: len(accuracy) // 2].diff().iloc[5:].std().groupby(level="run").mean()

    linbreg, proxgd = jitter(_linbreg(tables)), jitter(_proxgd(tables))
    return Verdict(
        graded(
            [bool(a > b) for a, b in zip(proxgd.sort_values(), linbreg.sort_values(), strict=True)]
        ),
        "standard deviation of the change from epoch to epoch, epochs 5 to 50: ProxGD "
        f"{proxgd.min():.2f} to {proxgd.max():.2f} points, LinBreg {linbreg.min():.2f} to "
        f"{linbreg.max():.2f} (three λ each, three seeds)",
    )


def dense_accuracy_with_most_weights(tables: Tables) -> Verdict:
    sgd, sparse = tables.rows(config_optimizer="SGD"), _linbreg(tables, 1e-3)
    lost = _paired(sgd, sparse, "val_acc_pct")
    density = sparse["n_total_pct"]
    return Verdict(
        graded([bool(lost.mean() < 0.25 and density.mean() < 80 * DENSER)]),
        f"LinBreg λ = 1e-3: {spread(density, '%', 1)} of the weights, validation accuracy lost "
        f"against SGD of the same seed {spread(lost, 'points')}",
    )


def tenth_of_the_weights(tables: Tables) -> Verdict:
    sgd, sparse = tables.rows(config_optimizer="SGD"), _linbreg(tables, 1e-1)
    density, validation = sparse["n_total_pct"], _paired(sgd, sparse, "val_acc_pct")
    test = _paired(sgd, sparse, "test_acc_pct")
    return Verdict(
        graded([bool(density.mean() < 10.3 * DENSER), bool(validation.mean() < 0.5)]),
        f"LinBreg λ = 1e-1: {spread(density, '%')} of the weights; lost against SGD of "
        f"the same seed: validation {spread(validation, 'points')}, test {spread(test, 'points')}",
        "the loss is a little more than half a point",
    )


def figure_2_numbers(tables: Tables) -> Verdict:
    return _numbers(tables.rows(artifact=FIGURE_2, config_lr=0.1),
                    "ProxGD with λ = 1e-4 keeps more weights than in the plot")  # fmt: skip


def accelerated_densities(tables: Tables) -> Verdict:
    rows = tables.rows(artifact=FIGURE_3)
    momentum = rows[rows["config_momentum"] > 0]["n_total_pct"]
    ada = {lam: part["n_total_pct"] for lam, part in
           rows[rows["config_optimizer"] == "AdaBreg"].groupby("lam")}  # fmt: skip
    return Verdict(
        graded([momentum.mean() < 11.1 * DENSER, ada[0.1].mean() < 13 * DENSER]),
        f"momentum {spread(momentum, '%', 1)}, AdaBreg with the paper's λ = 0.1 "
        f"{spread(ada[0.1], '%', 1)}, with λ = 0.5 {spread(ada[0.5], '%', 1)}",
        "AdaBreg needs a five times larger λ for the paper's curve",
    )


def accelerated_accuracy(tables: Tables) -> Verdict:
    plain = _linbreg(tables, 0.1)
    rows = tables.rows(artifact=FIGURE_3)
    others = {"momentum": rows[rows["config_momentum"] > 0],
              "AdaBreg (λ = 0.5)": rows[(rows["config_optimizer"] == "AdaBreg")
                                        & (rows["lam"] == 0.5)]}  # fmt: skip

    def early(runs: pd.DataFrame) -> pd.Series:
        accuracy = 100 * tables.curves(runs, "validation", "accuracy").loc[5:15].mean()
        return accuracy.droplevel("run")

    ahead = {name: early(runs) - early(plain) for name, runs in others.items()}
    return Verdict(
        graded([bool((gain > 0).all()) for gain in ahead.values()]),
        "validation accuracy ahead of LinBreg in epochs 5 to 15, same seeds: "
        + ", ".join(f"{name} {spread(gain, 'points')}" for name, gain in ahead.items()),
        "momentum gains less than the spread over seeds",
    )


def adabreg_beats_sgd(tables: Tables) -> Verdict:
    sgd = tables.rows(config_optimizer="SGD")
    ada = tables.rows(config_optimizer="AdaBreg")
    ahead = {lam: -_paired(sgd, ada[ada["lam"] == lam], "val_acc_pct") for lam in (0.1, 0.5)}
    return Verdict(
        graded([bool((gain > 0).all()) for gain in ahead.values()]),
        "validation accuracy over SGD of the same seed: "
        + ", ".join(f"λ = {lam} {spread(gain, 'points')}" for lam, gain in ahead.items()),
        "it does with three times the paper's density, and equals SGD at the paper's",
    )


def kernels_until_epoch_20(tables: Tables) -> Verdict:
    runs = tables.rows(artifact="Table 2", config_optimizer="LinBreg", config_momentum=0.0)
    counts = {i: tables.curves(runs, "weights", f"kernels_conv{i}").iloc[:, 0] for i in (1, 2)}
    reached = {i: count.loc[20] / count.iloc[-1] for i, count in counts.items()}
    return Verdict(
        graded([share >= 0.8 for share in reached.values()]),
        "kernels at epochs 0, 20 and 100: "
        + ", ".join(
            f"{count.loc[0]:.0f}, {count.loc[20]:.0f}, {count.iloc[-1]:.0f} in convolution {i}"
            for i, count in counts.items()
        )
        + " (n = 1)",
        "true of the first convolution, which Figure 1 shows, not of the second",
    )


def dense_classifier(tables: Tables) -> Verdict:
    rows = tables.rows(artifact="Table 1", config_optimizer="Adam", strategy="Vanilla")
    return Verdict(
        graded([abs(rows["test_acc_pct"].mean() - 92.1) < WORSE]),
        f"test accuracy {spread(rows['test_acc_pct'], '%')}, paper 92.1",
    )


def _row_of_table(
    artifact: str, optimizer: str, autocast: str | None = "bfloat16"
) -> Callable[[Tables], Verdict]:
    def judge(tables: Tables) -> Verdict:
        rows = tables.rows(artifact=artifact, strategy="Bregman", optimizer=optimizer)
        chosen = rows[
            rows["config_autocast"].isna()
            if autocast is None
            else rows["config_autocast"] == autocast
        ]
        return _numbers(chosen, "")

    return judge


def sparse_against_pruned(tables: Tables) -> Verdict:
    pruned = tables.rows(artifact="Table 1")
    pruned = pruned[pruned["config_prune_to"].notna()]
    bregman = tables.rows(artifact="Table 1", strategy="Bregman")
    best = bregman.groupby("label")["test_acc_pct"].mean().idxmax()
    ours = bregman[bregman["label"] == best]["test_acc_pct"]
    density = bregman[bregman["label"] == best]["n_total_pct"]
    return Verdict(
        graded([ours.mean() >= pruned["test_acc_pct"].mean()]),
        f"the best Bregman row: {spread(ours, '%')} at {spread(density, '%')} of the weights; "
        f"pruning to 5 %: {spread(pruned['test_acc_pct'], '%')}",
        "the paper's pruning was trained less: 92.0 % training accuracy against "
        f"{pruned['train_acc_pct'].mean():.1f} % here",
    )


def hourglass(tables: Tables) -> Verdict:
    widths = _autoencoders(tables).filter(regex="active_neurons_[1-7]$")
    inner = widths.filter(regex="_[3-5]$").min(axis=1)
    shaped = (inner < widths.filter(regex="_[1267]$").min(axis=1)) & (inner < 0.2 * 784)
    return Verdict(
        graded([bool(shaped.all()), bool(shaped.mean() >= 0.8)]),
        f"{shaped.sum()} of {len(shaped)} seeds: the narrowest layer is one of the three in the "
        f"middle, with {inner[shaped].min():.0f} to {inner[shaped].max():.0f} of 784 neurons",
        "in the other seed the last hidden layer is the narrowest",
    )


def hourglass_widths(tables: Tables) -> Verdict:
    paper = dict(zip(range(2, 7), (295, 170, 73, 108, 119), strict=True))
    rows = _autoencoders(tables)
    ratios = {i: (rows[f"active_neurons_{i}"] / width) for i, width in paper.items()}
    return Verdict(
        graded([bool(0.8 <= ratio.mean() <= 1.25) for ratio in ratios.values()]),
        "inner widths over those read off Figure 4, layers 2 to 6: "
        + ", ".join(f"{ratio.mean():.1f} ± {ratio.std():.1f}" for ratio in ratios.values())
        + f" (n = {len(rows)})",
        "ours are wider inside",
    )


def sparse_denoises_better_than_sgd(tables: Tables) -> Verdict:
    sparse = _autoencoders(tables)["ssim"]
    dense = tables.rows(config_epochs=100, lam=0.0)
    sgd = dense[dense["config_optimizer"] == "SGD"]["ssim"]
    best = dense["ssim"].max()
    return Verdict(
        graded([bool(sparse.mean() > sgd.max()), bool(sparse.mean() > best)]),
        f"SSIM: AdaBreg {spread(sparse, digits=3)}, SGD {spread(sgd, digits=3)}, "
        f"the best dense network {best:.3f} (n = 1)",
        "it beats plain SGD, not the best dense network, started with half the weights",
    )


def ssim_value(tables: Tables) -> Verdict:
    sparse = _autoencoders(tables)["ssim"]
    return Verdict(
        graded([abs(sparse.mean() - 0.93) < 0.02]),
        f"SSIM {spread(sparse, digits=3)}, paper 0.93, with noise of 0.09 as in its Figure 5",
    )


def headline(label: str, density: float, accuracy: float) -> Callable[[Tables], Verdict]:
    """The judge of one of the claims about Table 3."""

    def judge(tables: Tables) -> Verdict:
        rows = tables.rows(artifact="Table 3", optimizer=label)
        if rows.empty:
            return OPEN
        ours, test = rows["n_total_pct"], rows["test_acc_pct"]
        return Verdict(
            graded([ours.mean() <= density * DENSER, test.mean() >= accuracy - WORSE]),
            f"{spread(ours, '%')} of the weights, paper {density}; {spread(test, '%')} "
            f"on the test set, paper {accuracy}",
        )

    return judge


OPEN = Verdict("open", "no run at the paper's scale yet", "the trainings go on")


def _paired(dense: pd.DataFrame, sparse: pd.DataFrame, column: str) -> pd.Series:
    """What is lost against the run of the same seed."""
    return dense.set_index("seed")[column] - sparse.set_index("seed")[column]


def _autoencoders(tables: Tables) -> pd.DataFrame:
    return tables.rows(config_optimizer="AdaBreg", config_epochs=100, lam=0.07)


def _numbers(rows: pd.DataFrame, why: str) -> Verdict:
    """Densities and accuracies of some rows beside the paper's."""
    table = beside_paper(rows).dropna(subset="ours").reset_index()
    shares = table[table["measure"].str.startswith("n_") & (table["paper"] < 100)]
    accuracies = table[table["measure"].isin(["val_acc_pct", "test_acc_pct"])]
    sparse = shares["ours"] <= DENSER * shares["paper"]
    accurate = accuracies["difference"] >= -WORSE
    numbers = pd.concat([shares, accuracies]).sort_index()
    if len(numbers) <= 4:
        counts = rows.groupby("label")["seed"].count()
        evidence = "; ".join(
            f"{MEASURES[row.measure]} {row.ours:.2f}"
            + (f" ± {row.std:.2f}" if pd.notna(row.std) else "")
            + f" % (paper {row.paper:g})"
            for row in numbers.itertuples()
        )
        evidence += f" (n = {counts.max()})"
    else:
        evidence = (
            f"{sparse.sum()} of {len(sparse)} densities at most a fifth above the paper's, "
            f"{accurate.sum()} of {len(accurate)} accuracies at most half a point below"
        )
    return Verdict(graded([*sparse, *accurate]), evidence, why)


def inequality(*statements: str) -> Callable[[Tables], Verdict]:
    """The judge of a theorem: its inequality at every step that notebook 03 takes."""

    def judge(tables: Tables) -> Verdict:
        rows = tables.summary[tables.summary["statement"].isin(statements)]
        if rows.empty:
            return OPEN
        steps, violated = rows["steps"].sum(), rows["violated"].sum()
        return Verdict(
            graded([bool(violated == 0)]),
            f"its inequality, evaluated at {steps:,} steps, fails at {violated} "
            f"(n = {rows['seed'].nunique()} seeds)",
        )

    return judge


def sparse_weights_keep_the_variance(tables: Tables) -> Verdict:
    rows = tables.summary
    off, sparse = (rows["ratio"] - 1).abs(), rows["r"] < 1
    refused = (rows["masked"] - 1).abs() > 5 * rows["error"]
    return Verdict(
        graded([bool((off < 5 * rows["error"]).all() and refused[sparse].all())]),
        "variance over that of the formula, for four layers at 100, 10 and 1 % of the weights: "
        f"{rows['ratio'].min():.2f} to {rows['ratio'].max():.2f}; without the factor 1/r at most "
        f"{rows['masked'][sparse].max():.2f} where r < 1 (n = {rows['seed'].nunique()} seeds)",
    )


CLAIMS = (
    Claim("Theorem 2", "for short steps the loss falls, up to noise; no convexity is needed",
          "convergence_theory", inequality("Theorem 2", "Theorem 2, two moons")),
    Claim("Corollary 3", "what the iteration moves by is summable",
          "convergence_theory", inequality("Corollary 3")),
    Claim("Theorem 6", "the Bregman distance to the minimizer decays, up to noise",
          "convergence_theory", inequality("Theorem 6")),
    Claim("Theorem 11", "constant steps end at a level in proportion to them",
          "convergence_theory", inequality("Theorem 11")),
    Claim("Corollary 12", "steps c/k give the rate 1/k",
          "convergence_theory", inequality("Corollary 12")),
    Claim("section 4.1, (4.3) and (4.5)", "sparse weights, rescaled, have the variance of dense "
          "ones", "sparse_initialization", sparse_weights_keep_the_variance),
    Claim("section 4.2, Figure 2", "SGD has no zero weights from the first epoch on",
          "mnist_comparison", sgd_is_dense),
    Claim("section 4.2, Figure 2", "LinBreg's number of non-zero weights grows monotonically",
          "mnist_comparison", linbreg_only_adds),
    Claim("section 4.2, Figure 2", "so does its training accuracy",
          "mnist_comparison", linbreg_trains_monotonically),
    Claim("section 4.2, Figure 2", "ProxGD's non-zero weights jump up first, then fall",
          "mnist_comparison", proxgd_leaps_then_falls),
    Claim("section 4.2, Figure 2", "ProxGD's validation accuracy oscillates, LinBreg's does not",
          "mnist_comparison", proxgd_oscillates),
    Claim("section 4.2, Figure 2", "LinBreg reaches the dense validation accuracy with about 80 % "
          "of the weights", "mnist_comparison", dense_accuracy_with_most_weights),
    Claim("section 4.2, Figure 2", "with about 10 % of the weights it loses less than half a point",
          "mnist_comparison", tenth_of_the_weights),
    Claim("Figure 2", "the curves end at the densities and accuracies of the plot",
          "mnist_comparison", figure_2_numbers),
    Claim("section 4.3, Figure 3", "the accelerated algorithms keep about 10 % of the weights",
          "mnist_acceleration", accelerated_densities),
    Claim("section 4.3, Figure 3", "they raise the accuracy faster than LinBreg",
          "mnist_acceleration", accelerated_accuracy),
    Claim("section 4.3, Figure 3", "AdaBreg beats SGD's validation accuracy",
          "mnist_acceleration", adabreg_beats_sgd),
    Claim("section 4.4, Figure 1", "kernels are added until about epoch 20, then only refined",
          "fashion_mnist_cnn", kernels_until_epoch_20),
    Claim("Tables 1 and 2", "dense training with Adam reaches 92.1 %",
          "fashion_mnist_cnn", dense_classifier),
    Claim("Table 1", "LinBreg: 1.9 % of the weights, 89.2 %",
          "fashion_mnist_cnn", _row_of_table("Table 1", "LinBreg")),
    Claim("Table 1", "LinBreg with momentum: 2.7 %, 89.9 %",
          "fashion_mnist_cnn", _row_of_table("Table 1", "LinBreg (beta = 0.9)")),
    Claim("Table 1", "AdaBreg: 2.3 %, 90.5 % (in float32)",
          "fashion_mnist_cnn", _row_of_table("Table 1", "AdaBreg", None)),
    Claim("Table 1", "the same, forward passes in bfloat16",
          "fashion_mnist_cnn", _row_of_table("Table 1", "AdaBreg")),
    Claim("Table 2", "LinBreg with groups: 3.8 % and 4.2 % of the kernels, 89.5 %",
          "fashion_mnist_cnn", _row_of_table("Table 2", "LinBreg")),
    Claim("Table 2", "LinBreg with momentum and groups: 3.5 %, 4.7 %, 89.9 %",
          "fashion_mnist_cnn", _row_of_table("Table 2", "LinBreg (beta = 0.9)")),
    Claim("Table 2", "AdaBreg with groups: 3.5 %, 2.8 %, 89.4 %",
          "fashion_mnist_cnn", _row_of_table("Table 2", "AdaBreg")),
    Claim("section 4.4, Table 1", "Bregman training is at least as accurate as pruning to 5 %",
          "fashion_mnist_cnn", sparse_against_pruned),
    Claim("abstract, Table 3", "LinBreg, thresholded: 3.4 % of ResNet-18's weights, 90.2 %",
          "cifar10_resnet", headline("LinBreg + thresh.", 3.4, 90.2)),
    Claim("Table 3", "AdaBreg: 14.7 %, 92.3 %",
          "cifar10_resnet", headline("AdaBreg", 14.7, 92.3)),
    Claim("Table 3", "dense training with Adam reaches 93.6 %",
          "cifar10_resnet", headline("Adam", 100.0, 93.6)),
    Claim("section 4.6, Figure 4", "an hourglass emerges by itself",
          "denoising_autoencoder", hourglass),
    Claim("Figure 4", "the widths of its layers",
          "denoising_autoencoder", hourglass_widths),
    Claim("section 4.6, Figure 5", "the sparse autoencoder's SSIM is 0.93",
          "denoising_autoencoder", ssim_value),
    Claim("section 4.6", "it denoises better than the dense network",
          "denoising_autoencoder", sparse_denoises_better_than_sgd),
)  # fmt: skip


def table(experiment: str | None = None) -> pd.DataFrame:
    """The verdicts on the paper's claims, from the stored runs of the paper's scale.

    Args:
        experiment: only the claims that its runs decide; all if None.

    Returns:
        One row per claim: where the paper makes it, what it says, the verdict, the evidence, why,
        and the experiment whose notebook has more.
    """
    rows = []
    tables = {claim.experiment: stored(claim.experiment) for claim in CLAIMS}
    for claim in CLAIMS:
        if experiment in (None, claim.experiment):
            found = tables[claim.experiment]
            verdict = OPEN if found is None else claim.judge(found)
            # what limits a verdict is of no interest where nothing does
            why = "" if verdict.word == "reproduced" else verdict.why
            rows.append((claim.source, claim.text, verdict.word, verdict.evidence, why,
                         claim.experiment))  # fmt: skip
    return pd.DataFrame(
        rows, columns=["where", "the paper says", "verdict", "ours", "why", "experiment"]
    )


def markdown(experiment: str | None = None) -> str:
    """``table`` as a Markdown table of three columns, which narrow windows can show."""
    verdicts = table(experiment)
    why = verdicts["why"].where(verdicts["why"] == "", "; " + verdicts["why"])
    shown = {
        "the paper says": verdicts["the paper says"] + " (" + verdicts["where"] + ")",
        "verdict": "**" + verdicts["verdict"] + "**",
        "ours": verdicts["ours"] + why,
    }
    lines = [[*shown], ["---"] * len(shown), *zip(*shown.values(), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
