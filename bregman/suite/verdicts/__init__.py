"""Every claim of the paper that the suite can test, with a verdict computed from stored runs.

A claim names its source, says in one sentence what the paper says, and has a judge: a function
from the stored tables to a verdict with its numbers. The rules are in the judges, so a verdict
changes when the data do, and never by hand.
"""

import pandas as pd

from bregman.suite.verdicts import claims
from bregman.suite.verdicts.judge import CLAIMS, OPEN, missed, spread, stored

__all__ = ["CLAIMS", "claims", "markdown", "missed", "spread", "table"]


def table(experiment: str | None = None) -> pd.DataFrame:
    """The verdicts on the paper's claims, from the stored runs of the paper's scale.

    Args:
        experiment: only the claims that its runs decide; all if None.

    Returns:
        One row per claim: where the paper makes it, what it says, the verdict, the evidence, why,
        and the experiment whose notebook has more.
    """
    chosen = [claim for claim in CLAIMS if experiment in (None, claim.experiment)]
    tables = {name: stored(name) for name in {claim.experiment for claim in chosen}}
    rows = []
    for claim in chosen:
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
