"""List the runs at the paper's scale that the store lost, from the history of the repository.

    python scripts/list_deleted_runs.py

Writes results/paper/deleted_runs.csv, one row per run that results/paper/runs/ does not hold any
more: its file was deleted or replaced, or it never had one and stood in a table alone. Needs a
clone with its whole history.
"""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bregman.suite.paths import ROOT, replacing, results_dir

RUNS, TABLES = "results/paper/runs", "results/paper/*/summary.csv"


def git(*words: str) -> str:
    """What git prints."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def changes(paths: str) -> Iterator[tuple[dict[str, str], str, str, str, str]]:
    """Every change of some files, the oldest first: commit, status, blob before and after, path."""
    log = git("log", "--reverse", "--raw", "--no-abbrev", "--no-renames", "--date=short",
              "--format=commit %H %ad %s", "--", paths)  # fmt: skip
    commit: dict[str, str] = {}
    for line in filter(None, log.splitlines()):
        if line.startswith("commit "):
            _, name, date, message = line.split(" ", 3)
            commit = {"in_commit": name[:7], "on": date, "message": message}
        else:
            _, _, old, new, rest = line.split(" ", 4)
            status, path = rest.split("\t")
            yield commit, status, old, new, path


def lost_files() -> Iterator[dict[str, Any]]:
    """The runs whose files a commit deleted or replaced."""
    seen = set(git("ls-tree", "-r", "--object-only", "HEAD", RUNS).split())
    for commit, status, old, _, path in changes(f"{RUNS}/*.json"):
        if status in "DM" and old not in seen:
            seen.add(old)
            run = json.loads(git("cat-file", "blob", old))
            yield {
                "what": "deleted" if status == "D" else "made anew",
                **commit,
                "label": Path(path).stem,
                "config": json.dumps(run["config"], sort_keys=True),
                **{name: run["config"][name] for name in ("lam", "seed", "epochs")},
                **{name: run[name] for name in ("status", "seconds")},
                **{name: run["environment"][name] for name in ("device", "commit", "date")},
                **run["result"],
            }


def without_files(known: set[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
    """The runs that stand in some version of a table and have no file; ``known`` have one."""
    for commit, status, _, new, _ in changes(TABLES):
        table = pd.read_csv(io.StringIO(git("cat-file", "blob", new) if status != "D" else "seed"))
        for row in table.to_dict("records"):
            key = (row["seconds"], row["seed"], row["epochs"])
            if key not in known:
                known.add(key)
                yield {"what": "stood in a table alone", **commit, **row}


if __name__ == "__main__":
    lost = list(lost_files())
    runs = [json.loads(path.read_text()) for path in (ROOT / RUNS).glob("*.json")]
    known = {(run["seconds"], run["seed"], run["epochs"]) for run in lost} | {
        # rounded as the tables are
        (float(f"{run['seconds']:.6g}"), run["config"]["seed"], run["config"]["epochs"])
        for run in runs
    }
    table = pd.DataFrame([*lost, *without_files(known)]).dropna(axis="columns", how="all")
    table = table.drop(columns=["artifact", "dataset", "model", "strategy", "optimizer"])
    with replacing(results_dir() / "paper" / "deleted_runs.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    print(table.groupby(["what", "in_commit", "message"], sort=False).size().to_string())
