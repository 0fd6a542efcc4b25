"""The tables of timings, from what the scripts in benchmarks/ stored."""

import json
import math
from functools import cache
from typing import Any

import pandas as pd

from bregman.suite import experiments
from bregman.suite.pages.measured import markdown, number
from bregman.suite.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"
NETWORKS = {"wide MLP": "wide_mlp", "autoencoder": "autoencoder", "CNN": "cnn"}
RATIOS = ("ratio", "times as fast", "speed-up / FLOP ratio")


@cache
def timings(file: str = "results") -> pd.DataFrame:
    """The rows of a file, each named by case, name, threads, metric and baseline ("" if none)."""
    table = pd.read_csv(BENCHMARKS / f"{file}.csv", dtype={"target": str})
    return table.fillna({"baseline": "", "target": ""})


def made_by(file: str = "results") -> str:
    """The device, the versions, the commit and the date of a measurement."""
    made = json.loads((BENCHMARKS / f"{file}.json").read_text())
    return f"{made['device']}, torch {made['torch']}, commit {made['commit'][:7]}, {made['date']}"


def timed(file: str = "results", digits: int = 2, **columns: Any) -> str:
    """One number that was measured.

    Raises:
        KeyError: no row has these values, or several have.
    """
    table = timings(file)
    for name, value in columns.items():
        table = table[table[name] == value]
    if len(table) != 1:
        raise KeyError(f"{len(table)} rows of {file} with {columns}")
    return number(float(table["value"].iloc[0]), digits)


def _threads(count: int) -> str:
    return "one thread" if count == 1 else "two threads"


def _aim(target: str) -> str:
    sign, bound = target.split()
    return f"{'≤' if sign == '<=' else '≥'} {float(bound):g}"


def _met(row: Any) -> bool:
    sign, bound = row.target.split()
    return row.value <= float(bound) if sign == "<=" else row.value >= float(bound)


def aims() -> str:
    """Every ratio that has an aim, on one thread and on two."""
    table = timings()
    table = table[table["metric"].isin(RATIOS) & (table["target"] != "")]
    lines = []
    for key, rows in table.groupby(["benchmark", "case", "name", "baseline"], sort=False):
        benchmark, case, name, baseline = key
        cells = {
            row.threads: number(row.value) + ("" if _met(row) else " (missed)")
            for row in rows.itertuples()
        }
        lines.append({
            "what": benchmark,
            "of": case,
            "ratio": f"{name} over {baseline}",
            "one thread": cells.get(1, ""),
            "two threads": cells.get(2, ""),
            "aim": _aim(rows["target"].iloc[0]),
        })  # fmt: skip
    return markdown(lines)


def missed() -> list[str]:
    """The aims of the optimizers' steps that were missed, in words."""
    table = timings()
    table = table[(table["benchmark"] == "optimizer step") & (table["target"] != "")]
    return [
        f"{row.name} over {row.baseline} ({row.case}, {_threads(row.threads)}): "
        f"{number(row.value)}, aim {_aim(row.target)}"
        for row in table.itertuples(index=False)
        if not _met(row)
    ]


def steps() -> str:
    """What a step of each optimizer takes, in milliseconds."""
    table = timings()
    table = table[(table["benchmark"] == "optimizer step") & (table["metric"] == "ms")]
    lines = []
    for name, rows in table.groupby("name", sort=False):
        cells = {(row.case, row.threads): number(row.value, 3) for row in rows.itertuples()}
        line = {"optimizer": name}
        for case in ("ResNet-18", "MLP"):
            for threads in (1, 2):
                column = f"{case}, {_threads(threads)} [ms]"
                line[column] = cells.get((case, threads), "")
        lines.append(line)
    return markdown(lines)


def trainings() -> str:
    """Whole trainings side by side: one seed each."""
    lines = []
    for network, file in NETWORKS.items():
        one, two = (timings(f"sparse_training/{file}_{threads}") for threads in (1, 2))
        chosen = one[one["benchmark"] == "whole training"]
        for name in chosen["name"].unique():

            def cell(table: pd.DataFrame, metric: str, digits: int, name: str = name) -> str:
                rows = table[(table["benchmark"] == "whole training") & (table["name"] == name)]
                rows = rows[rows["metric"] == metric]
                if rows["value"].isin([math.inf]).any():
                    return "never"
                return number(rows["value"].iloc[0], digits) if len(rows) else ""

            quality = "SSIM" if network == "autoencoder" else "test accuracy"
            lines.append({
                "network": network,
                "training": name,
                "one thread [s]": cell(one, "seconds", 0),
                "times as fast": cell(one, "times as fast", 2),
                "two threads [s]": cell(two, "seconds", 0),
                "times as fast ": cell(two, "times as fast", 2),
                "to dense quality [s]": cell(one, "seconds to dense quality", 0),
                "two threads, to dense quality [s]": cell(two, "seconds to dense quality", 0),
                "quality": cell(one, quality, 3 if network == "autoencoder" else 2),
                "non-zero weights [%]": cell(one, "non-zero weights [%]", 1),
                "FLOPs [%]": cell(one, "FLOPs [%]", 1),
                "frozen steps' memory [MiB]": cell(
                    one, "gradients and activations, frozen [MiB]", 1
                ) or cell(one, "gradients and activations [MiB]", 1),
            })  # fmt: skip
    return markdown(lines)


def training_aims() -> dict[str, list[str]]:
    """The aims of the whole trainings, met and missed, in words."""
    found: dict[str, list[str]] = {"met": [], "missed": []}
    for threads in (1, 2):
        for network, file in NETWORKS.items():
            table = timings(f"sparse_training/{file}_{threads}")
            table = table[(table["benchmark"] == "whole training") & (table["target"] != "")]
            table = table[table["metric"].isin(["times as fast"])]
            for row in table.itertuples(index=False):
                words = f"{network}, {row.name}, {_threads(threads)}: "
                words += f"{number(row.value)} (aim {_aim(row.target)})"
                found["met" if _met(row) else "missed"].append(words)
    return found


def parts() -> str:
    """What a frozen step takes beside a dense one."""
    lines = []
    one, two = (timings(f"sparse_training/parts_{threads}") for threads in (1, 2))
    for network in NETWORKS:
        chosen = one[(one["case"] == network) & (one["metric"] == "step [ms]")]
        for name in chosen["name"].unique():

            def cell(
                table: pd.DataFrame,
                metric: str,
                digits: int,
                key: tuple[str, str] = (network, name),
            ) -> str:
                rows = table[(table["case"] == key[0]) & (table["name"] == key[1])]
                rows = rows[rows["metric"] == metric]
                return number(rows["value"].iloc[0], digits) if len(rows) else ""

            lines.append({
                "network": network,
                "step": name,
                "one thread [ms]": cell(one, "step [ms]", 2),
                "times as fast": cell(one, "times as fast", 2),
                "two threads [ms]": cell(two, "step [ms]", 2),
                "times as fast ": cell(two, "times as fast", 2),
                "a full step [ms]": cell(one, "full step [ms]", 1),
                "forward [GFLOP/s]": cell(one, "forward [GFLOP/s]", 0),
                "backward [GFLOP/s]": cell(one, "backward [GFLOP/s]", 0),
            })  # fmt: skip
    return markdown(lines)


def inference() -> str:
    """Inference of networks that were trained sparse, as a ratio to the dense one."""
    lines = []
    for network, file in NETWORKS.items():
        tables = [timings(f"sparse_training/{file}_{threads}") for threads in (1, 2)]
        one = tables[0][(tables[0]["benchmark"] == "inference")]
        chosen = one[one["metric"] == "times as fast"]
        for case, name in chosen[["case", "name"]].drop_duplicates().itertuples(index=False):
            cells = []
            for table in tables:
                rows = table[(table["benchmark"] == "inference") & (table["case"] == case)]
                rows = rows[(rows["name"] == name) & (rows["metric"] == "times as fast")]
                cells.append(number(rows["value"].iloc[0]) if len(rows) else "")
            size = one[(one["case"] == network) & (one["name"] == name)]["value"]
            lines.append({
                "network": case,
                "as": name,
                "one thread": cells[0],
                "two threads": cells[1],
                "file [MB]": number(size.iloc[0] / 1000, 1) if len(size) else "",
            })  # fmt: skip
    stored = timings()
    stored = stored[(stored["benchmark"] == "inference") & (stored["metric"] == "ratio")]
    size = timed(case="Autoencoder", name="compact", metric="bytes", digits=0)
    lines += [
        {
            "network": f"{row.case} (notebook 09's)", "as": row.baseline,
            "one thread": number(row.value), "two threads": "",
            "file [MB]": number(float(size) / 1e6, 1),
        }
        for row in stored.itertuples()
    ]  # fmt: skip
    return markdown(lines)


def explorers() -> str:
    """How long after a key the explorers of the notebooks have their picture."""
    rows = timings("explorers")
    table = rows.pivot_table("value", "case", "metric", sort=False)
    slowest, aim = table["95 % below [ms]"].idxmax(), _aim(rows["target"].max())
    return (
        f"{len(table)} explorers, median {table['median [ms]'].median():.0f} ms; in the slowest "
        f"({slowest}) 95 % of the pictures are there within "
        f"{table.loc[slowest, '95 % below [ms]']:.0f} ms (aim {aim})"
    )


def table_3() -> str:
    """A whole training step of ResNet-18, and what Bregman's optimizers add to it."""
    lines = []
    for case, rows in timings("table_3").groupby("case", sort=False):
        found = {(row.name, row.metric): row.value for row in rows.itertuples()}
        lines.append({
            "network": case,
            **{f"{name} [ms]": number(found[name, "ms"], 0) for name in ("SGD", "Adam")},
            "LinBreg over SGD": number(found["LinBreg", "ratio"], 3),
            "AdaBreg over Adam": number(found["AdaBreg", "ratio"], 3),
        })  # fmt: skip
    return markdown(lines)


def hours_of_table_3() -> str:
    """What the steps of one run of Table 3 at the paper's scale take."""
    scale: Any = experiments.get("cifar10_resnet").scale("paper")
    # a tenth of 50,000 images is held out
    steps = scale.epochs * math.ceil(45_000 / scale.batch_size)
    ms = timed("table_3", 6, case=f"ResNet-18, width {scale.width}", name="LinBreg", metric="ms")
    return number(steps * float(ms) / 3.6e6, 0)


def batch_sizes() -> str:
    """A training step of the wide MLP at several batch sizes: times as fast as the dense one."""
    tables = {t: timings(f"sparse_training/wide_mlp_{t}") for t in (1, 2)}
    lines: dict[str, dict[str, str]] = {}
    for threads, table in tables.items():
        rows = table[(table["benchmark"] == "training step") & (table["metric"] == "times as fast")]
        for row in rows.itertuples():
            batch = row.case.removeprefix("wide MLP, ")
            column = f"{batch}, {_threads(threads)}"
            lines.setdefault(row.name, {"step": row.name})[column] = number(row.value)
    return markdown(list(lines.values()))
