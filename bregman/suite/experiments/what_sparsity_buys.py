"""What sparsity buys: targets that are met, accuracy per weight, FLOPs and seconds of training.

The paper's section 5 names sparse backpropagation as its open promise; none of these numbers is in
the paper. Four questions, each an artifact of its own:

    TARGET      does steering lambda end at the density that was asked for?
    DENSITY     how accurate are the methods of sparse training at the same density?
    FROZEN      what do frozen steps cost in accuracy, and save in FLOPs?
    WHOLE_RUNS  what becomes of that in seconds?
"""

from dataclasses import asdict, dataclass
from typing import Any

from bregman.suite.experiments.experiment import Experiment, Row, Scale
from bregman.suite.experiments.sparse_training import SparseTraining

TARGET = "Sparsity on target"
DENSITY = "Accuracy against density"
FROZEN = "Frozen steps"
WHOLE_RUNS = "Whole runs"


@dataclass(frozen=True)
class SparsityScale(Scale):
    """What a scale means here.

    Attributes:
        epochs: at most; each network has its own number.
        train_size: of the MLP; the slower networks use a part of it.
        width: neurons of the wide MLP's hidden layers.
        channels: of ResNet-18's first stage.
        frozen_steps: the largest m, since a short training has few full steps.
    """

    width: int = 2048
    channels: int = 16
    frozen_steps: int = 429


@dataclass(frozen=True)
class Network:
    """What belongs to a network, whatever trains it.

    Attributes:
        dataset: what it is trained on.
        epochs: passes over the training set, if the scale allows as many.
        part: the share of ``train_size`` at a scale that limits it.
        gain: of the sparse initialization, as in the notebook that introduces the network.
        density: r of the sparse initialization.
        autocast: the dtype of the forward passes.
        lr: tau of SGD and LinBreg.
    """

    dataset: str
    epochs: int
    part: float
    gain: float
    density: float = 0.01
    autocast: str | None = None
    lr: float = 0.1


NETWORKS = {
    "MLP": Network("mnist", epochs=20, part=1.0, gain=0.7),
    "wide MLP": Network("mnist", epochs=15, part=1.0, gain=0.7),
    # with 0.1 it diverges if many weights come at once
    "CNN": Network("fashion_mnist", epochs=10, part=0.2, gain=1.0, autocast="bfloat16", lr=0.05),
    # narrow: with 1 % of the weights many channels would be dead for good
    "ResNet-18": Network("cifar10", 10, part=0.25, gain=0.5, density=0.05, autocast="bfloat16"),
    "autoencoder": Network("mnist", epochs=30, part=1.0, gain=0.5, autocast="bfloat16"),
}

SCALES: dict[str, Scale] = {
    "smoke": SparsityScale(epochs=6, mini=True, width=256, channels=8, frozen_steps=4),
    "quick": SparsityScale(epochs=4, train_size=20_000, channels=8, frozen_steps=19),
    "paper": SparsityScale(epochs=30, seeds=3),
}


SETUP: dict[str, Any] = {
    "optimizer": "LinBreg", "lam": 0.1, "neurons": False, "target": None, "baseline": None,
    "frozen_steps": 0, "catch_up": True, "path": "masked", "turnover": False, "keep": False,
}  # fmt: skip


def config(scale: SparsityScale, seed: int, network: str, **settings: Any) -> SparseTraining:
    """What settings leave open is the network's.

    Adam and AdaBreg have a learning rate of 1e-3. The Bregman optimizers start sparse, the others
    dense and without a regularizer.
    """
    made = {**SETUP, **asdict(NETWORKS[network])}
    if settings.get("optimizer") in ("Adam", "AdaBreg"):
        made["lr"] = 1e-3
    made |= settings
    if made["optimizer"] not in ("LinBreg", "AdaBreg"):
        made |= {"lam": 0.0, "density": 1.0, "gain": settings.get("gain", 1.0)}
    for limited in ("epochs", "frozen_steps"):
        made[limited] = min(made[limited], getattr(scale, limited))
    part = made.pop("part")
    return SparseTraining(
        **made, network=network, seed=seed, mini=scale.mini,
        width=scale.channels if network == "ResNet-18" else scale.width,
        train_size=scale.train_size and int(part * scale.train_size),
        batch_size=32 if scale.mini else 128,
    )  # fmt: skip


ALL, LARGE, PAPER = ("smoke", "quick", "paper"), ("quick", "paper"), ("paper",)
# of sparse training: an optimizer, and what is beside it
METHODS: dict[str, dict[str, Any]] = {
    "LinBreg": {"optimizer": "LinBreg"},
    "LinBreg, frozen steps": {"optimizer": "LinBreg", "frozen_steps": 9},
    "RigL": {"optimizer": "SGD", "baseline": "RigL"},
    "SET": {"optimizer": "SGD", "baseline": "SET"},
    "static": {"optimizer": "SGD", "baseline": "static"},
    "pruning": {"optimizer": "SGD", "baseline": "pruning"},
}
# of whole runs: nothing is zero; zeros are multiplied; or they are left out
DENSE, SHORT, MASKED = "dense", "dense, fewer epochs", "masked zeros"
SPARSE_PRODUCTS, SMALLER_LAYERS = "sparse products", "smaller layers"


def _row(part: str, label: str, strategy: str, scales: tuple[str, ...], seeds: int | None,
         **settings: Any) -> Row:  # fmt: skip
    artifact, optimizer = f"{part}: {settings['network']}", settings["optimizer"]
    return Row(label, artifact, strategy, optimizer, settings, scales=scales, seeds=seeds)


def _whole_run(network: str, method: str, optimizer: str, scales: tuple[str, ...],
               **settings: Any) -> Row:  # fmt: skip
    # masked zeros are there for their time
    seeds = 1 if method == MASKED else None
    settings |= {"network": network, "optimizer": optimizer}
    return _row(WHOLE_RUNS, f"{method} ({network})", method, scales, seeds, **settings)


def _densities(
    network: str, scales: dict[int, tuple[str, ...]], dense: tuple[str, ...], seeds: int | None
) -> tuple[Row, ...]:
    """A dense run, and one of each method at each density in percent."""
    return (
        _row(DENSITY, f"{network}, {DENSE}", DENSE, dense, seeds, network=network, optimizer="SGD"),
        *(
            _row(DENSITY, f"{network}, {method} at {percent} %", method, chosen, seeds,
                 network=network, **settings, target=percent / 100)
            for method, settings in METHODS.items()
            for percent, chosen in scales.items()
        ),
    )  # fmt: skip


# The learning rates of the wide MLP are about the largest without divergence. In trials dense
# training diverged at 0.4 with two of three seeds, smaller layers at smoke scale.
WIDE_LR = {"lr": 0.3}
WIDE_ENTRIES = {"lam": 0.2, "lr": 0.5, "frozen_steps": 29}
# One full step per epoch and no catch-up, so few neurons and filters enter: in trials those that
# came late made the networks slower and hardly better. A small lambda, since the larger it is the
# longer a group takes to turn.
STEADY = {"neurons": True, "frozen_steps": 429, "catch_up": False}
WIDE_NEURONS = {**WIDE_LR, "lam": 0.02, "density": 0.25, **STEADY}
AUTOENCODER_NEURONS = {"lam": 0.01, "density": 0.23, **STEADY}
# the gain of notebook 07's Adam, for dense and sparse alike
CNN_GAIN = {"gain": 0.4}
# with fewer filters it learns a little slower, and a larger learning rate asks for a larger lambda
CNN_FILTERS = {
    **CNN_GAIN, "lr": 1.5e-3, "lam": 0.0075, "density": 0.5, "epochs": 11, **STEADY
}  # fmt: skip

ROWS = (
    *(
        _row(TARGET, f"{network}, {optimizer} to {percent} %", "Bregman", scales, 1,
             network=network, optimizer=optimizer, target=percent / 100)
        for network, optimizer, scales_by_percent in (
            ("MLP", "LinBreg", (ALL, LARGE, ALL, ALL)),
            ("MLP", "AdaBreg", (LARGE, PAPER, LARGE, PAPER)),
            ("CNN", "LinBreg", (PAPER, PAPER, LARGE, PAPER)),
            ("ResNet-18", "LinBreg", (PAPER, LARGE, PAPER, PAPER)),
        )
        for percent, scales in zip((25, 10, 5, 1), scales_by_percent, strict=True)
    ),
    *_densities("MLP", {10: LARGE, 5: ALL, 2: PAPER, 1: ALL}, ALL, None),
    *_densities("CNN", {5: PAPER, 1: PAPER}, PAPER, 1),
    *(
        _row(FROZEN, f"m = {m}, λ = {lam}", "Bregman", scales if lam in (0.05, 0.2) else PAPER,
             1, network="MLP", optimizer="LinBreg", lam=lam, frozen_steps=m, turnover=True)
        for lam in (0.02, 0.05, 0.1, 0.2)
        for m, scales in ((0, ALL), (4, ALL), (9, PAPER), (19, LARGE), (49, PAPER), (99, PAPER))
    ),
    _whole_run("wide MLP", DENSE, "SGD", ALL, **WIDE_LR),
    _whole_run("wide MLP", SHORT, "SGD", PAPER, **WIDE_LR, epochs=3),
    _whole_run("wide MLP", MASKED, "LinBreg", ALL, **WIDE_ENTRIES, path="masked"),
    _whole_run("wide MLP", SPARSE_PRODUCTS, "LinBreg", ALL, **WIDE_ENTRIES, path="csr",
               keep=True),
    _whole_run("wide MLP", SMALLER_LAYERS, "LinBreg", ALL, **WIDE_NEURONS, path="gathered",
               keep=True),
    _whole_run("autoencoder", DENSE, "Adam", LARGE, gain=0.5),
    _whole_run("autoencoder", SHORT, "Adam", PAPER, gain=0.5, epochs=7),
    _whole_run("autoencoder", MASKED, "AdaBreg", PAPER, **AUTOENCODER_NEURONS, path="masked"),
    _whole_run("autoencoder", SMALLER_LAYERS, "AdaBreg", LARGE, **AUTOENCODER_NEURONS,
               path="gathered"),
    _whole_run("CNN", DENSE, "Adam", PAPER, **CNN_GAIN),
    _whole_run("CNN", SHORT, "Adam", PAPER, **CNN_GAIN, epochs=6),
    _whole_run("CNN", MASKED, "AdaBreg", PAPER, **CNN_FILTERS, path="masked"),
    _whole_run("CNN", SMALLER_LAYERS, "AdaBreg", PAPER, **CNN_FILTERS, path="gathered"),
)  # fmt: skip

EXPERIMENT = Experiment("what_sparsity_buys", "MNIST, Fashion-MNIST, CIFAR-10",
                        "MLP, CNN, ResNet-18, autoencoder", SCALES, ROWS, config)  # fmt: skip
