"""The tables of results, each from the runs of one experiment."""

import re
from collections.abc import Iterator

import pandas as pd

from bregman.suite import verdicts
from bregman.suite.pages.measured import (
    Rows,
    Sample,
    arrays_of,
    curve,
    exists,
    markdown,
    number,
    paper,
    summary,
)

LAST = 10  # epochs, over which validation accuracies still move


def _groups(rows: Rows) -> Iterator[tuple[str, Rows]]:
    for label in rows.table["label"].unique():
        yield label, rows.where(label=label)


def _moves(experiment: str, label: str, rows: Rows) -> str:
    runs = [
        curve(experiment, label, "validation", "accuracy", seed, 100).last(LAST).std
        for seed in rows.table["seed"]
    ]
    return number(sum(runs) / len(runs))


def verdicts_in_words() -> str:
    """How many claims have which verdict."""
    counts = verdicts.table()["verdict"].value_counts()
    words = ("reproduced", "partly", "not reproduced", "open")
    return ", ".join(f"{counts[word]} {word}" for word in words if word in counts)


def verdicts_by_notebook() -> Iterator[tuple[str, str]]:
    """Experiments in the order of the claims, each with the table of its verdicts."""
    for experiment in dict.fromkeys(claim.experiment for claim in verdicts.CLAIMS):
        yield experiment, verdicts.markdown(experiment)


# the table of README: experiment, labels, what is compared, its name
HEADLINES = (
    ("mnist_comparison", ("SGD", "LinBreg (λ=1e-1)"), "val_acc_pct", "MNIST, validation [%]"),
    ("fashion_mnist_cnn", ("Adam", "Pruning", "Lasso", "ProxGD", "LinBreg", "LinBreg β=0.9",
                           "AdaBreg", "AdaBreg (float32)"), "test_acc_pct", "Fashion-MNIST [%]"),
    ("cifar10_resnet", ("Adam", "LinBreg", "LinBreg + threshold", "AdaBreg"), "test_acc_pct",
     "CIFAR-10 [%]"),
    ("denoising_autoencoder", ("AdaBreg", "SGD"), "ssim", "denoising, SSIM"),
)  # fmt: skip


def headlines() -> str:
    """The main numbers beside the paper's, as far as they were measured."""
    lines: list[dict[str, object]] = []
    for experiment, labels, measure, name in HEADLINES:
        if not exists(experiment):
            continue
        for label, rows in _groups(summary(experiment)):
            if label not in labels:
                continue
            known = any(line["measured"] == name for line in lines)
            first = rows.table.iloc[0]
            key = (first.artifact, first.optimizer)
            lines.append({
                "measured": "" if known else name,
                "run": label,
                "n": rows.seeds,
                "non-zero weights [%]": rows.of("n_total_pct"),
                "paper": paper(*key, "n_total_pct", first.strategy),
                "quality": rows.of(measure),
                "paper ": paper(*key, measure, first.strategy),
            })  # fmt: skip
    return markdown(lines)


def bregman_rows(measure: str) -> Sample:
    """The Bregman rows of Tables 1 and 2 less the paper's, the repetitions in float32 left out.

    Args:
        measure: "density" for the ratio of the share of non-zero weights, of the linear ones with
            groups; or a column for the difference.
    """
    found = []
    table = summary("fashion_mnist_cnn").where(strategy="Bregman")
    for label, rows in _groups(table):
        if "float32" in label:
            continue
        first = rows.table.iloc[0]
        density = "n_total_pct" if first.artifact == "Table 1" else "n_linear_pct"
        column = density if measure == "density" else measure
        theirs = float(paper(first.artifact, first.optimizer, column))
        ours = rows.of(column).mean
        found.append(ours / theirs if measure == "density" else ours - theirs)
    return Sample(tuple(found))


def classifiers(artifact: str) -> str:
    """Table 1 or 2, ours beside the paper's."""
    densities = {"n_total_pct": "non-zero weights [%]"}
    if artifact == "Table 2":
        densities = {"n_linear_pct": "linear weights [%]", "n_conv_pct": "kernels [%]"}
    lines = []
    for label, rows in _groups(summary("fashion_mnist_cnn").where(artifact=artifact)):
        first = rows.table.iloc[0]

        def theirs(measure: str, key: tuple[str, str] = (first.optimizer, first.strategy)) -> str:
            return paper(artifact, key[0], measure, key[1])

        line = {artifact: re.sub(r" \((groups|Table 2)\)", "", label), "n": rows.seeds}
        for column, name in densities.items():
            line |= {name: rows.of(column), f"paper, {name}": theirs(column)}
        lines.append({
            **line,
            "test accuracy [%]": rows.of("test_acc_pct"),
            "paper": theirs("test_acc_pct"),
            "moves by": _moves("fashion_mnist_cnn", label, rows),
            "training accuracy [%]": rows.of("train_acc_pct", 1),
            "training FLOPs [%]": number(rows.of("flops_pct").mean, 0),
            "minutes": rows.minutes.range,
        })  # fmt: skip
    return markdown(lines)


def curves(experiment: str) -> str:
    """The ends of the curves of Figure 2 or 3, ours beside the paper's."""
    lines = []
    for label, rows in _groups(summary(experiment)):
        first = rows.table.iloc[0]
        key = (first.artifact, first.optimizer)
        lines.append({
            "run": label,
            "n": rows.seeds,
            "non-zero weights [%]": rows.of("n_total_pct"),
            "paper": paper(*key, "n_total_pct"),
            "validation accuracy [%]": rows.of("val_acc_pct"),
            "paper ": paper(*key, "val_acc_pct"),
            "test accuracy [%]": rows.of("test_acc_pct"),
            "l1 norm": rows.of("l1_norm"),
            "paper  ": paper(*key, "l1_norm"),
        })  # fmt: skip
    return markdown(lines)


def autoencoders() -> str:
    """What whole runs of the autoencoder do at the noise of the training and at the largest one."""
    lines: list[dict[str, object]] = []
    whole = summary("denoising_autoencoder").where(epochs=100)
    for label, rows in _groups(whole):
        table = rows.table.assign(**_at_largest_noise(rows))
        large = Rows(table)
        lines.append({
            "run": label,
            "n": rows.seeds,
            "non-zero weights [%]": rows.of("n_total_pct", 1),
            "SSIM": rows.of("ssim"),
            "PSNR [dB]": rows.of("psnr"),
            "SSIM, strong noise": large.of("strong_ssim", 3),
            "PSNR, strong noise [dB]": large.of("strong_psnr", 1),
        })  # fmt: skip
    images = _noisy(whole.table.iloc[0])
    lines.append({"run": "the noisy image itself", "n": "", "non-zero weights [%]": "", **images})
    return markdown(lines)


def _at_largest_noise(rows: Rows) -> dict[str, list[float]]:
    last = [arrays_of(row)["denoised_quality"][-1] for _, row in rows.table.iterrows()]
    return {"strong_ssim": [float(q[0]) for q in last], "strong_psnr": [float(q[1]) for q in last]}


def strong_noise(label: str) -> Rows:
    """The whole runs of one row, with their SSIM and PSNR at the largest noise."""
    rows = summary("denoising_autoencoder").where(epochs=100, label=label)
    return Rows(rows.table.assign(**_at_largest_noise(rows)))


def _noisy(row: pd.Series) -> dict[str, str]:
    stored = arrays_of(row)
    quality = stored["noisy_quality"]
    trained = int(abs(stored["noise_levels"] - row.noise).argmin())
    return {
        "SSIM": number(quality[trained][0], 3), "PSNR [dB]": number(quality[trained][1], 1),
        "SSIM, strong noise": number(quality[-1][0], 3),
        "PSNR, strong noise [dB]": number(quality[-1][1], 1),
    }  # fmt: skip


def widths() -> str:
    """The active neurons of each layer of the autoencoders that AdaBreg trained."""
    rows = summary("denoising_autoencoder").where(epochs=100, label="AdaBreg")
    layers = {f"layer {i}": f"active_neurons_{i}" for i in range(1, 8)}
    lines = [
        {"seed": row.seed, **{name: getattr(row, column) for name, column in layers.items()}}
        for row in rows.table.itertuples()
    ]
    means = {name: rows.of(column, 0) for name, column in layers.items()}
    return markdown([*lines, {"seed": f"mean, n = {rows.seeds}", **means}])


def architectures() -> str:
    """The networks that the architecture search found."""
    lines = []
    for label, rows in _groups(summary("architecture_search")):
        restored = f"{rows.of('psnr')} dB, SSIM {rows.of('ssim')}"
        classified = f"{rows.of('test_acc_pct')} %"
        lines.append({
            "run": label,
            "n": rows.seeds,
            "skips": rows.of("skips", 0),
            "neurons": rows.of("neurons", 0),
            "non-zero weights [%]": rows.of("n_total_pct", 1),
            "on the test set": restored if rows.of("psnr").n else classified,
        })  # fmt: skip
    return markdown(lines)


def at_density(network: str) -> str:
    """Test accuracy at equal density, and the FLOPs of the training."""
    rows = summary("what_sparsity_buys").where(artifact=f"Accuracy against density: {network}")
    densities = sorted(rows.table["target_pct"].dropna().unique())
    lines = []
    methods = [re.sub(r" at .*", "", label) for label in rows.table["label"].unique()]
    for method in dict.fromkeys(methods):
        dense = method.endswith("dense")
        runs = [
            rows.where(label=method if dense else f"{method} at {density:g} %")
            for density in densities
        ]
        shown = runs[:1] if dense else runs
        ends = dict.fromkeys(number(part.of("flops_pct").mean, 1) for part in (shown[0], shown[-1]))
        lines.append({
            "method": method.removeprefix(f"{network}, "),
            "n": shown[0].seeds,
            **dict(zip((f"{d:g} %" for d in densities),
                       (run.of("test_acc_pct") for run in shown), strict=False)),
            "FLOPs of the training [%]": " to ".join(ends),
        })  # fmt: skip
    lines.sort(key=len, reverse=True)
    return markdown(lines)


def whole_runs() -> str:
    """Whole trainings of three networks, dense and sparse."""
    table = summary("what_sparsity_buys").table
    rows = Rows(table[table["artifact"].str.startswith("Whole runs")])
    lines = []
    for label, group in _groups(rows):
        training, network = re.fullmatch(r"(.*) \((.*)\)", label).groups()  # type: ignore[union-attr]
        ssim = group.of("ssim")
        lines.append({
            "network": network,
            "training": training,
            "n": group.seeds,
            "epochs": group.of("epochs", 0).range,
            "quality": f"{ssim} SSIM" if ssim.n else f"{group.of('test_acc_pct')} %",
            "non-zero weights [%]": group.of("n_total_pct", 1),
            "FLOPs of the training [%]": group.of("flops_pct"),
        })  # fmt: skip
    return markdown(lines)


def searched(experiment: str) -> str:
    """How many settings of each optimizer were tried."""
    rows = summary(experiment).table
    lines = [
        {"optimizer": name, "settings": len(group), "epochs": group["epochs"].iloc[0]}
        for name, group in rows.groupby("optimizer", sort=False)
    ]
    return markdown(lines)


def table_3(scale: str) -> str:
    """Table 3 as far as it was run at a scale; only the full width has the paper's beside it."""
    measures = (
        ("n_total_pct", "non-zero weights [%]", "paper"),
        ("n_conv_pct", "kernels [%]", "paper "),
        ("test_acc_pct", "test accuracy [%]", "paper  "),
    )
    lines = []
    for label, rows in _groups(summary("cifar10_resnet", scale)):
        first = rows.table.iloc[0]
        line: dict[str, object] = {"run": label, "n": rows.seeds}
        for measure, name, beside in measures:
            line[name] = rows.of(measure)
            if scale == "paper":
                known = first.artifact == "Table 3" and first.variant != "refreshed"
                row = "Table 3", first.optimizer, measure, first.strategy
                line[beside] = paper(*row) if known else ""
        lines.append({**line, "hours": number(rows.of("seconds").mean / 3600, 1)})
    return markdown(lines)


def one_seed() -> str:
    """How many rows of Tables 1 and 2 have one seed, of how many."""
    seeds = [rows.seeds for _, rows in _groups(summary("fashion_mnist_cnn"))]
    return f"{seeds.count(1)} of {len(seeds)}"


def stages(label: str) -> str:
    """The shares of the weights that pruning keeps, one after the other."""
    densities = curve("fashion_mnist_cnn", label, "weights", "n_total", factor=100).values
    *first, last = dict.fromkeys(number(value, 0) for value in densities if value < 99.5)
    return f"{', '.join(first)} and {last}"


def dense_epochs(label: str) -> str:
    """After how many epochs pruning begins."""
    densities = curve("fashion_mnist_cnn", label, "weights", "n_total", factor=100).values
    return number((densities > 99.5).sum() - 1, 0)


def lost(training: str, network: str, column: str) -> str:
    """What a whole training of notebook 11 has more than dense training on the same seeds."""
    rows = summary("what_sparsity_buys")
    sparse, dense = (rows.where(label=f"{name} ({network})") for name in (training, "dense"))
    return sparse.minus(dense, column).say()


def last_rates(label: str) -> str:
    """The learning rates in the last epoch, one per seed."""
    seeds = summary("fashion_mnist_cnn").where(label=label).table["seed"]
    rates = [curve("fashion_mnist_cnn", label, "train", "lr", seed).last(1) for seed in seeds]
    return ", ".join(f"{rate.mean:.2g}" for rate in rates)


def kernels() -> str:
    """The active kernels of Figure 1's run over the epochs."""
    run = "LinBreg (groups)"
    lines = []
    for layer in ("conv1", "conv2"):
        active = curve("fashion_mnist_cnn", run, "weights", f"kernels_{layer}")
        epochs = {f"epoch {epoch}": active.at(epoch) for epoch in (0, 5, 20, 100)}
        lines.append({"layer": layer, **epochs})
    return markdown(lines)


def paper_gap(optimizer: str) -> str:
    """What the paper's validation accuracy of a row of Figure 2 is less than SGD's."""
    artifact = "Figure 2 (read off the plot)"
    ours, dense = (float(paper(artifact, name, "val_acc_pct")) for name in (optimizer, "SGD"))
    return number(ours - dense, 1)


def at_least(column: str, bound: float) -> str:
    """How many seeds of AdaBreg's autoencoder reach a number."""
    values = summary("denoising_autoencoder").where(epochs=100, label="AdaBreg").of(column).values
    reach = sum(value >= bound for value in values)
    return f"{reach} of {len(values)} reach {bound:g}"


def noisy_psnr() -> str:
    """The PSNR of the noisy test images at the noise of the training."""
    return _noisy(summary("denoising_autoencoder").table.iloc[0])["PSNR [dB]"]


def hourglasses() -> str:
    """In how many of AdaBreg's autoencoders the narrowest layer lies inside."""
    table = summary("denoising_autoencoder").where(epochs=100, label="AdaBreg").table
    hidden = table[[f"active_neurons_{i}" for i in range(2, 7)]].to_numpy()
    inside = [0 < row.argmin() < len(row) - 1 for row in hidden]
    narrowest = Sample(tuple(hidden.min(1).astype(float)), 0)
    return f"{sum(inside)} of {len(inside)} seeds; the narrowest has {narrowest.range} neurons"


def off_target() -> str:
    """How far the runs of SparsityTarget end from the density that was asked for."""
    table = summary("what_sparsity_buys").table
    runs = table[table["artifact"].str.startswith("Sparsity on target")]
    off = (runs["n_total_pct"] - runs["target_pct"]).abs().max()
    return f"{number(off, 4)} points of it in all {len(runs)} trainings (one seed each)"


def frozen() -> str:
    """FLOPs, density and accuracy over the number of frozen steps and lambda."""
    table = summary("what_sparsity_buys").table
    runs = table[table["artifact"].str.startswith("Frozen steps")]
    lines = []
    for lam, group in runs.groupby("lam"):
        cells = {
            f"m = {row.frozen_steps}": f"{number(row.flops_pct, 1)} ({number(row.n_total_pct, 1)}, "
            f"{number(row.test_acc_pct, 1)})"
            for row in group.itertuples()
        }
        lines.append({"λ": f"{lam:g}", **cells})
    return markdown(lines)
