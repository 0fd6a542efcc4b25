"""What is printed and stored of the rows that were measured."""

import csv
import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from common import Row


def met(row: Row) -> str:
    """Whether the value meets its target, in a word."""
    if not row.target:
        return ""
    sign, bound = row.target.split()
    ok = row.value <= float(bound) if sign == "<=" else row.value >= float(bound)
    return f"{row.target}  {'met' if ok else 'MISSED'}"


def print_tables(rows: list[Row]) -> None:
    """One table per benchmark, case and number of threads."""
    for (benchmark, case, threads), group in groupby(rows, key=lambda row: row[:2] + row[3:4]):
        print(f"\n{benchmark}: {case}, {threads} thread{'s' * (threads > 1)}")
        for row in group:
            if row.metric == "ratio_of_minima":
                continue
            unit = f"{row.metric} over {row.baseline}" if row.baseline else row.metric
            print(f"  {row.name:44} {row.value:9.3f}  {unit:56} {met(row)}".rstrip())


def write(rows: list[Row], provenance: Mapping[str, Any], stem: Path) -> None:
    """Store the rows as .csv, with four significant digits, and what made them as .json."""
    stem.with_suffix(".json").write_text(json.dumps(provenance, indent=2) + "\n")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(row._replace(value=float(f"{row.value:.4g}")) for row in rows)
