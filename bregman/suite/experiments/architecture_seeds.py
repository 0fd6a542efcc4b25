"""The architecture search with a second seed; the runs of the notebook are the first one."""

from dataclasses import replace

from bregman.suite.experiments import architecture_search

EXPERIMENT = replace(
    architecture_search.EXPERIMENT,
    name="architecture_seeds",
    scales={
        name: replace(scale, seeds=2) if name == "paper" else scale
        for name, scale in architecture_search.SCALES.items()
    },
)
