"""How long the large runs take, and what attacks on the store of runs measured."""

from bregman.suite.experiments import EXPERIMENTS, STUDIES
from bregman.suite.pages.measured import Sample, markdown, number
from bregman.suite.pages.speed import timings
from bregman.suite.workers.executors import GRACE_S

__all__ = ["GRACE_S", "figures", "hours", "load"]


def figures(benchmark: str, case: str, metric: str, digits: int = 1) -> Sample:
    """What ``make attack`` measured, once for every try.

    Raises:
        KeyError: it did not measure that.
    """
    table = timings("attack")
    found = table.query("benchmark == @benchmark and case == @case and metric == @metric")
    if found.empty:
        raise KeyError(f"make attack did not measure {metric!r} of {benchmark}, {case}")
    return Sample(tuple(found["value"]), digits)


def load() -> Sample:
    """How many processes there were in line for each CPU meanwhile."""
    return Sample(tuple(timings("attack")["processes in line per CPU"]), 0)


def hours() -> str:
    """Of each experiment and study at the large scales, from the stored runs."""
    lines = []
    for name, experiment in (EXPERIMENTS | STUDIES).items():
        for scale in ("narrow", "paper"):
            # a study whose settings are still to be chosen has no rows yet
            if scale not in experiment.scales or not experiment.rows_at(scale):
                continue
            runs = [run.seconds / 3600 for run in experiment.runs(scale)]
            lines.append({
                "experiment": name,
                "scale": scale,
                "runs": len(runs),
                "hours": number(sum(runs), 1) if runs else "",
                "longest run [h]": number(max(runs), 2) if runs else "",
                "missing": experiment.forecast(scale).missing,
            })  # fmt: skip
    return markdown(lines)
