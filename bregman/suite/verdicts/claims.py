"""The paper's claims in its order, each with the rule that decides on it."""

import pandas as pd

from bregman.suite.experiments import Results, beside_paper
from bregman.suite.verdicts.judge import DENSER, OPEN, WORSE, Verdict, claim, missed, spread

MEASURES = {
    "n_total_pct": "weights",
    "n_linear_pct": "linear weights",
    "n_conv_pct": "kernels",
    "val_acc_pct": "validation accuracy",
    "test_acc_pct": "test accuracy",
}

FIGURE_2, FIGURE_3 = "Figure 2 (read off the plot)", "Figure 3 (read off the plot)"
SECTION_4_2, SECTION_4_3 = "section 4.2, Figure 2", "section 4.3, Figure 3"


def inequality(source: str, text: str, *statements: str) -> None:
    """A claim of a theorem, judged by its inequality at every step that notebook 03 takes."""

    @claim(source, text, "convergence_theory")
    def judge(tables: Results) -> Verdict:
        rows = tables.summary[tables.summary["statement"].isin(statements or [source])]
        if rows.empty:
            return OPEN
        violated = rows["violated"].sum()
        return Verdict(
            [violated == 0],
            f"its inequality, evaluated at {rows['steps'].sum():,} steps, fails at {violated} "
            f"(n = {rows['seed'].nunique()} seeds)",
        )


inequality("Theorem 2", "for short steps the loss falls, up to noise; no convexity is needed",
           "Theorem 2", "Theorem 2, two moons")  # fmt: skip
inequality("Corollary 3", "what the iteration moves by is summable")
inequality("Theorem 6", "the Bregman distance to the minimizer decays, up to noise")
inequality("Theorem 11", "constant steps end at a level in proportion to them")
inequality("Corollary 12", "steps c/k give the rate 1/k")


@claim("section 4.1, (4.3) and (4.5)", "sparse weights, rescaled, have the variance of dense ones",
       "sparse_initialization")  # fmt: skip
def sparse_weights_keep_the_variance(tables: Results) -> Verdict:
    rows = tables.summary
    off, sparse = (rows["ratio"] - 1).abs(), rows["r"] < 1
    refused = (rows["masked"] - 1).abs() > 5 * rows["error"]
    return Verdict(
        [(off < 5 * rows["error"]).all() and refused[sparse].all()],
        "variance over that of the formula, for four layers at 100, 10 and 1 % of the weights: "
        f"{rows['ratio'].min():.2f} to {rows['ratio'].max():.2f}; without the factor 1/r at most "
        f"{rows['masked'][sparse].max():.2f} where r < 1 (n = {rows['seed'].nunique()} seeds)",
    )


def _linbreg(tables: Results, **columns: object) -> Results:
    return tables.where(config_optimizer="LinBreg", config_momentum=0.0, **columns)


def _proxgd(tables: Results) -> Results:
    return tables.where(config_optimizer="ProxGD", config_lr=0.1)


def _density(runs: Results) -> pd.DataFrame:
    return 100 * runs.by_seed("weights", "n_total")


def _accuracy(runs: Results, split: str = "validation") -> pd.DataFrame:
    return 100 * runs.by_seed(split, "accuracy")


def _lost(dense: Results, sparse: Results, column: str = "val_acc_pct") -> pd.Series:
    """What is lost against the run of the same seed."""
    ours, theirs = (runs.summary.set_index("seed")[column] for runs in (sparse, dense))
    return theirs - ours


@claim(SECTION_4_2, "SGD has no zero weights from the first epoch on", "mnist_comparison")
def sgd_is_dense(tables: Results) -> Verdict:
    first = _density(tables.where(config_optimizer="SGD")).loc[1]
    return Verdict([(first > 98).all()], f"non-zero after the first epoch: {spread(first, '%', 1)}")


@claim(SECTION_4_2, "LinBreg's number of non-zero weights grows monotonically", "mnist_comparison")
def linbreg_only_adds(tables: Results) -> Verdict:
    density = _density(_linbreg(tables))
    falls = -density.diff().min()
    relative = (falls / density.iloc[-1]).clip(lower=0)
    return Verdict(
        [(relative < 0.02).all()],
        f"largest fall from one epoch to the next: {falls.max():.2f} points, "
        f"{100 * relative.max():.1f} % of the final density (n = {density.shape[1]} runs)",
    )


@claim(SECTION_4_2, "so does its training accuracy", "mnist_comparison")
def linbreg_trains_monotonically(tables: Results) -> Verdict:
    accuracy = _accuracy(_linbreg(tables), "train")
    falls = (-accuracy.diff().min()).clip(lower=0)
    rising = (accuracy.diff().iloc[1:] >= 0).mean().mean()
    return Verdict(
        [(falls < 0.5).all(), (falls < 0.05).all()],
        f"{100 * rising:.0f} % of the epochs rise or stay; the largest fall is {falls.max():.2f} "
        f"points (n = {accuracy.shape[1]} runs)",
        "the accuracy over minibatches of an epoch fluctuates, so it is monotone up to noise",
    )


@claim(SECTION_4_2, "ProxGD's non-zero weights jump up first, then fall", "mnist_comparison")
def proxgd_leaps_then_falls(tables: Results) -> Verdict:
    density = _density(_proxgd(tables))
    leap, end = density.loc[1] / density.loc[0], density.iloc[-1] / density.max()
    return Verdict(
        [(leap > 5).all(), (end < 0.95).all()],
        f"the first epoch multiplies the density by {leap.min():.0f} to {leap.max():.0f}; it ends "
        f"at {100 * end.min():.0f} to {100 * end.max():.0f} % of its peak (n = {len(leap)} runs)",
    )


@claim(SECTION_4_2, "ProxGD's validation accuracy oscillates, LinBreg's does not",
       "mnist_comparison")  # fmt: skip
def proxgd_oscillates(tables: Results) -> Verdict:
    def jitter(runs: Results) -> pd.Series:
        accuracy = _accuracy(runs)
        early = accuracy.iloc[: len(accuracy) // 2].diff().iloc[5:]
        return early.std().groupby(level="run").mean().sort_values()

    linbreg, proxgd = jitter(_linbreg(tables)), jitter(_proxgd(tables))
    return Verdict(
        [a > b for a, b in zip(proxgd, linbreg, strict=True)],
        "standard deviation of the change from epoch to epoch, epochs 5 to 50: ProxGD "
        f"{proxgd.min():.2f} to {proxgd.max():.2f} points, LinBreg {linbreg.min():.2f} to "
        f"{linbreg.max():.2f} (three λ each, three seeds)",
    )


@claim(SECTION_4_2, "LinBreg reaches the dense validation accuracy with about 80 % of the weights",
       "mnist_comparison")  # fmt: skip
def dense_accuracy_with_most_weights(tables: Results) -> Verdict:
    sparse = _linbreg(tables, lam=1e-3)
    lost, density = (
        _lost(tables.where(config_optimizer="SGD"), sparse),
        sparse.summary["n_total_pct"],
    )
    return Verdict(
        [lost.mean() < 0.25 and density.mean() < 80 * DENSER],
        f"LinBreg λ = 1e-3: {spread(density, '%', 1)} of the weights, validation accuracy lost "
        f"against SGD of the same seed {spread(lost, 'points')}",
    )


@claim(SECTION_4_2, "with about 10 % of the weights it loses less than half a point",
       "mnist_comparison")  # fmt: skip
def tenth_of_the_weights(tables: Results) -> Verdict:
    sgd, sparse = tables.where(config_optimizer="SGD"), _linbreg(tables, lam=1e-1)
    density, validation = sparse.summary["n_total_pct"], _lost(sgd, sparse)
    test = _lost(sgd, sparse, "test_acc_pct")
    return Verdict(
        [density.mean() < 10.3 * DENSER, validation.mean() < 0.5],
        f"LinBreg λ = 1e-1: {spread(density, '%')} of the weights; lost against SGD of "
        f"the same seed: validation {spread(validation, 'points')}, test {spread(test, 'points')}",
        "the loss is a little more than half a point",
    )


@claim("Figure 2", "the curves end at the densities and accuracies of the plot", "mnist_comparison")
def figure_2_numbers(tables: Results) -> Verdict:
    return _numbers(tables.where(artifact=FIGURE_2, config_lr=0.1),
                    "ProxGD with λ = 1e-4 keeps more weights than in the plot")  # fmt: skip


def _momentum(tables: Results) -> Results:
    return tables.where(artifact=FIGURE_3, config_optimizer="LinBreg")


def _adabreg(tables: Results, lam: float) -> Results:
    return tables.where(config_optimizer="AdaBreg", lam=lam)


@claim(SECTION_4_3, "the accelerated algorithms keep about 10 % of the weights",
       "mnist_acceleration")  # fmt: skip
def accelerated_densities(tables: Results) -> Verdict:
    chosen = (_momentum(tables), _adabreg(tables, 0.1), _adabreg(tables, 0.5))
    momentum, small, large = (runs.summary["n_total_pct"] for runs in chosen)
    return Verdict(
        [momentum.mean() < 11.1 * DENSER, small.mean() < 13 * DENSER],
        f"momentum {spread(momentum, '%', 1)}, AdaBreg with the paper's λ = 0.1 "
        f"{spread(small, '%', 1)}, with λ = 0.5 {spread(large, '%', 1)}",
        "AdaBreg needs a five times larger λ for the paper's curve",
    )


@claim(SECTION_4_3, "they raise the accuracy faster than LinBreg", "mnist_acceleration")
def accelerated_accuracy(tables: Results) -> Verdict:
    def early(runs: Results) -> pd.Series:
        return _accuracy(runs).loc[5:15].mean().droplevel("run")

    others = {"momentum": _momentum(tables), "AdaBreg (λ = 0.5)": _adabreg(tables, 0.5)}
    plain = early(_linbreg(tables, lam=0.1))
    ahead = {name: early(runs) - plain for name, runs in others.items()}
    return Verdict(
        [(gain > 0).all() for gain in ahead.values()],
        "validation accuracy ahead of LinBreg in epochs 5 to 15, same seeds: "
        + ", ".join(f"{name} {spread(gain, 'points')}" for name, gain in ahead.items()),
        "momentum gains less than the spread over seeds",
    )


@claim(SECTION_4_3, "AdaBreg beats SGD's validation accuracy", "mnist_acceleration")
def adabreg_beats_sgd(tables: Results) -> Verdict:
    sgd = tables.where(config_optimizer="SGD")
    ahead = {lam: -_lost(sgd, _adabreg(tables, lam)) for lam in (0.1, 0.5)}
    return Verdict(
        [(gain > 0).all() for gain in ahead.values()],
        "validation accuracy over SGD of the same seed: "
        + ", ".join(f"λ = {lam} {spread(gain, 'points')}" for lam, gain in ahead.items()),
        "it does with three times the paper's density, and equals SGD at the paper's",
    )


@claim("section 4.4, Figure 1", "kernels are added until about epoch 20, then only refined",
       "fashion_mnist_cnn")  # fmt: skip
def kernels_until_epoch_20(tables: Results) -> Verdict:
    runs = _linbreg(tables, artifact="Table 2")
    counts = {i: runs.by_seed("weights", f"kernels_conv{i}").iloc[:, 0] for i in (1, 2)}
    return Verdict(
        [count.loc[20] / count.iloc[-1] >= 0.8 for count in counts.values()],
        "kernels at epochs 0, 20 and 100: "
        + ", ".join(
            f"{count.loc[0]:.0f}, {count.loc[20]:.0f}, {count.iloc[-1]:.0f} in convolution {i}"
            for i, count in counts.items()
        )
        + " (n = 1)",
        "true of the first convolution, which Figure 1 shows, not of the second",
    )


@claim("Tables 1 and 2", "dense training with Adam reaches 92.1 %", "fashion_mnist_cnn")
def dense_classifier(tables: Results) -> Verdict:
    dense = tables.where(artifact="Table 1", config_optimizer="Adam", strategy="Vanilla")
    tested = dense.summary["test_acc_pct"]
    return Verdict(
        [abs(tested.mean() - 92.1) < WORSE], f"test accuracy {spread(tested, '%')}, paper 92.1"
    )


def row_of_table(
    artifact: str, text: str, optimizer: str, autocast: str | None = "bfloat16"
) -> None:
    """A claim of a row of Table 1 or 2: its numbers."""

    @claim(artifact, text, "fashion_mnist_cnn")
    def judge(tables: Results) -> Verdict:
        row = {"artifact": artifact, "strategy": "Bregman", "optimizer": optimizer}
        return _numbers(tables.where(**row, config_autocast=autocast))


BETA = "LinBreg (beta = 0.9)"
row_of_table("Table 1", "LinBreg: 1.9 % of the weights, 89.2 %", "LinBreg")
row_of_table("Table 1", "LinBreg with momentum: 2.7 %, 89.9 %", BETA)
row_of_table("Table 1", "AdaBreg: 2.3 %, 90.5 % (in float32)", "AdaBreg", None)
row_of_table("Table 1", "the same, forward passes in bfloat16", "AdaBreg")
row_of_table("Table 2", "LinBreg with groups: 3.8 % and 4.2 % of the kernels, 89.5 %", "LinBreg")
row_of_table("Table 2", "LinBreg with momentum and groups: 3.5 %, 4.7 %, 89.9 %", BETA)
row_of_table("Table 2", "AdaBreg with groups: 3.5 %, 2.8 %, 89.4 %", "AdaBreg")


@claim("section 4.4, Table 1", "Bregman training is at least as accurate as pruning to 5 %",
       "fashion_mnist_cnn")  # fmt: skip
def sparse_against_pruned(tables: Results) -> Verdict:
    first = tables.where(artifact="Table 1").summary
    pruned = first[first["config_prune_to"].notna()]
    bregman = first[first["strategy"] == "Bregman"]
    best = bregman[bregman["label"] == bregman.groupby("label")["test_acc_pct"].mean().idxmax()]
    ours, density = best["test_acc_pct"], best["n_total_pct"]
    return Verdict(
        [ours.mean() >= pruned["test_acc_pct"].mean()],
        f"the best Bregman row: {spread(ours, '%')} at {spread(density, '%')} of the weights; "
        f"pruning to 5 %: {spread(pruned['test_acc_pct'], '%')}",
        "the paper's pruning was trained less: 92.0 % training accuracy against "
        f"{pruned['train_acc_pct'].mean():.1f} % here",
    )


def row_of_table_3(source: str, text: str, optimizer: str, density: float, accuracy: float) -> None:
    """A claim about ResNet-18: its density and test accuracy."""

    @claim(source, text, "cifar10_resnet")
    def judge(tables: Results) -> Verdict:
        rows = tables.where(artifact="Table 3", optimizer=optimizer).summary
        if rows.empty:
            return OPEN
        ours, test = rows["n_total_pct"], rows["test_acc_pct"]
        return Verdict(
            [ours.mean() <= density * DENSER, test.mean() >= accuracy - WORSE],
            f"{spread(ours, '%')} of the weights, paper {density}; {spread(test, '%')} "
            f"on the test set, paper {accuracy}",
        )


row_of_table_3("abstract, Table 3", "LinBreg, thresholded: 3.4 % of ResNet-18's weights, 90.2 %",
               "LinBreg + thresh.", 3.4, 90.2)  # fmt: skip
row_of_table_3("Table 3", "AdaBreg: 14.7 %, 92.3 %", "AdaBreg", 14.7, 92.3)
row_of_table_3("Table 3", "dense training with Adam reaches 93.6 %", "Adam", 100.0, 93.6)


def _autoencoders(tables: Results) -> pd.DataFrame:
    return tables.where(config_optimizer="AdaBreg", config_epochs=100, lam=0.07).summary


@claim("section 4.6, Figure 4", "an hourglass emerges by itself", "denoising_autoencoder")
def hourglass(tables: Results) -> Verdict:
    widths = _autoencoders(tables).filter(regex="active_neurons_[1-7]$")
    inner = widths.filter(regex="_[3-5]$").min(axis=1)
    shaped = (inner < widths.filter(regex="_[1267]$").min(axis=1)) & (inner < 0.2 * 784)
    return Verdict(
        [shaped.all(), shaped.mean() >= 0.8],
        f"{shaped.sum()} of {len(shaped)} seeds: the narrowest layer is one of the three in the "
        f"middle, with {inner[shaped].min():.0f} to {inner[shaped].max():.0f} of 784 neurons",
        "in the other seed the last hidden layer is the narrowest",
    )


@claim("Figure 4", "the widths of its layers", "denoising_autoencoder")
def hourglass_widths(tables: Results) -> Verdict:
    paper = dict(zip(range(2, 7), (295, 170, 73, 108, 119), strict=True))
    rows = _autoencoders(tables)
    ratios = [rows[f"active_neurons_{i}"] / width for i, width in paper.items()]
    return Verdict(
        [0.8 <= ratio.mean() <= 1.25 for ratio in ratios],
        "inner widths over those read off Figure 4, layers 2 to 6: "
        + ", ".join(f"{ratio.mean():.1f} ± {ratio.std():.1f}" for ratio in ratios)
        + f" (n = {len(rows)})",
        "ours are wider inside",
    )


@claim("section 4.6, Figure 5", "the sparse autoencoder's SSIM is 0.93", "denoising_autoencoder")
def ssim_value(tables: Results) -> Verdict:
    sparse = _autoencoders(tables)["ssim"]
    return Verdict(
        [abs(sparse.mean() - 0.93) < 0.02],
        f"SSIM {spread(sparse, digits=3)}, paper 0.93, with noise of 0.09 as in its Figure 5",
    )


@claim("section 4.6", "it denoises better than the dense network", "denoising_autoencoder")
def sparse_denoises_better_than_sgd(tables: Results) -> Verdict:
    sparse = _autoencoders(tables)["ssim"]
    dense = tables.where(config_epochs=100, lam=0.0)
    sgd, best = dense.where(config_optimizer="SGD").summary["ssim"], dense.summary["ssim"].max()
    return Verdict(
        [sparse.mean() > sgd.max(), sparse.mean() > best],
        f"SSIM: AdaBreg {spread(sparse, digits=3)}, SGD {spread(sgd, digits=3)}, "
        f"the best dense network {best:.3f} (n = 1)",
        "it beats plain SGD, not the best dense network, started with half the weights",
    )


def _numbers(runs: Results, why: str = "") -> Verdict:
    """Densities and accuracies of some rows beside the paper's."""
    table = beside_paper(runs.summary).dropna(subset="ours")
    table = table.assign(met=~missed(table)).reset_index()
    shares = table[table["measure"].str.startswith("n_") & (table["paper"] < 100)]
    accuracies = table[table["measure"].isin(["val_acc_pct", "test_acc_pct"])]
    sparse, accurate = shares["met"], accuracies["met"]
    numbers = pd.concat([shares, accuracies]).sort_index()
    if len(numbers) <= 4:
        evidence = "; ".join(
            f"{MEASURES[row.measure]} {row.ours:.2f}"
            + (f" ± {row.std:.2f}" if pd.notna(row.std) else "")
            + f" % (paper {row.paper:g})"
            for row in numbers.itertuples()
        ) + f" (n = {runs.summary.groupby('label')['seed'].count().max()})"  # fmt: skip
    else:
        evidence = (
            f"{sparse.sum()} of {len(sparse)} densities at most a fifth above the paper's, "
            f"{accurate.sum()} of {len(accurate)} accuracies at most half a point below"
        )
    return Verdict([*sparse, *accurate], evidence, why)
