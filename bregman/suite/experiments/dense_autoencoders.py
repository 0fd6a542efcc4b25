"""The dense rivals of notebook 09's sparse autoencoders: with their gain, validated, three seeds.

The sparse networks start with half the weights' size, gain 0.5; there only Adam had that, and each
dense network and LinBreg had one seed. Here SGD and Adam have both gains, the learning rate of
each is the one with the best SSIM on validation images among four trials of ten epochs, and all
have three seeds; AdaBreg keeps its five. Runs that the notebook made are shared.
"""

from collections.abc import Mapping
from typing import Any

from bregman.suite.experiments.denoising_autoencoder import (
    ADABREG,
    LINBREG,
    SCALES,
    SEARCH,
    config,
)
from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.tables import Results

TRIALS, COMPARED = "learning rates", "three seeds"
SEEDS = 3
# from a dense network's name to its optimizer and the gain of its initial weights
DENSE = {f"{name} (gain {gain:g})": (name, gain) for name, _ in SEARCH for gain in (1.0, 0.5)}


def trial_rows() -> tuple[Row, ...]:
    """Every learning rate of every dense network, one seed."""
    return tuple(
        Row(f"{label}, τ={lr:g}", TRIALS, "Vanilla", optimizer,
            {"optimizer": optimizer, "lr": lr, "gain": gain, "epochs": 10},
            scales=("smoke", "paper") if lr < 2 and gain < 1 and optimizer == "SGD" else ("paper",),
            seeds=1)
        for label, (optimizer, gain) in DENSE.items()
        for lr in dict(SEARCH)[optimizer]
    )  # fmt: skip


def compared_rows(chosen: Mapping[str, float]) -> tuple[Row, ...]:
    """The sparse networks, and the dense ones with the chosen learning rates."""
    made: dict[str, dict[str, Any]] = {"AdaBreg": ADABREG, "LinBreg": LINBREG} | {
        label: {"optimizer": DENSE[label][0], "lr": lr, "gain": DENSE[label][1]}
        for label, lr in chosen.items()
    }
    return tuple(
        Row(label, COMPARED, "Vanilla" if label in DENSE else "Bregman", settings["optimizer"],
            settings, scales=("smoke", "paper") if label in DENSE else ("paper",),
            seeds=None if label == "AdaBreg" else SEEDS)
        for label, settings in made.items()
    )  # fmt: skip


def validated(results: Results) -> dict[str, float]:
    """The SSIM on validation images after the last epoch, by the label of each trial; no test.

    A trial that diverged has none.
    """
    known = results.history[results.history["metric"] == "ssim"]
    finished = results.summary.query("artifact == @TRIALS and status == 'finished'")["label"]
    last = known.sort_values("epoch", kind="stable").groupby("run")["value"].last()
    return {label: float(last[label]) for label in finished}


def choose(results: Results, scale: str = "paper") -> dict[str, float]:
    """The learning rate of each dense network; one that lacks a trial is left out.

    Args:
        results: of the study, as far as it was run.
        scale: of its runs.
    """
    scores, made = validated(results), set(results.summary["label"])
    chosen = {}
    for label in DENSE:
        rows = [row for row in trial_rows() if row.label.startswith(label) and scale in row.scales]
        if rows and made.issuperset(row.label for row in rows):
            best = max(rows, key=lambda row: scores.get(row.label, float("-inf")))
            chosen[label] = float(best.settings["lr"])
    return chosen


def experiment(chosen: Mapping[str, float]) -> Experiment:
    """The table of runs, with the learning rates that were best."""
    return Experiment(
        name="dense_autoencoders",
        dataset="MNIST",
        model="Denoising autoencoder",
        scales={"smoke": Scale(epochs=1, mini=True, train_size=320), "paper": SCALES["paper"]},
        rows=(*trial_rows(), *compared_rows(chosen)),
        config=config,
    )


# entered from the stored trials, by ``choose``; a test chooses again
CHOSEN: dict[str, float] = {"SGD (gain 1)": 1.0, "Adam (gain 1)": 3e-4}

EXPERIMENT = experiment(CHOSEN)
