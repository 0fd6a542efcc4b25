"""Figure 2: SGD, LinBreg and ProxGD on MNIST, section 4.2."""

from bregman.suite.experiments.classification import Classification, train
from bregman.suite.experiments.experiment import Experiment, Row, Scale

SCALES = {
    "smoke": Scale(epochs=10, mini=True),
    "quick": Scale(epochs=15),
    "paper": Scale(epochs=100, seeds=3),
}


def config(
    scale: Scale,
    seed: int,
    optimizer: str,
    lr: float = 0.1,
    lam: float = 0.0,
    momentum: float = 0.0,
) -> Classification:
    """The set-up of section 4.2; the gain is that of the authors' public notebook."""
    return Classification(
        dataset="mnist",
        mini=scale.mini,
        train_size=scale.train_size,
        density=0.01,
        gain=0.7,
        optimizer=optimizer,
        lr=lr,
        lam=lam,
        momentum=momentum,
        epochs=scale.epochs,
        batch_size=128,
        patience=10,
        seed=seed,
    )


FIGURE_2 = "Figure 2 (read off the plot)"

EXPERIMENT = Experiment(
    name="mnist_comparison",
    dataset="MNIST",
    model="MLP 784-200-80-10",
    scales=SCALES,
    rows=(
        Row("SGD", FIGURE_2, "Vanilla", "SGD", {"optimizer": "SGD"}),
        *(
            Row(
                f"{name} (λ={lam}{mark})",
                FIGURE_2,
                strategy,
                f"{name} lam={lam}",
                {"optimizer": name, "lam": float(lam), "lr": lr},
            )
            for name, strategy, lams, lr, mark in (
                ("LinBreg", "Bregman", ("1e-3", "1e-2", "1e-1"), 0.1, ""),
                ("ProxGD", "Lasso", ("1e-5", "1e-4", "1e-3"), 0.1, ""),
                # the text says tau = 0.1 for all; the paper's curves of ProxGD fit this one
                ("ProxGD", "Lasso", ("1e-5", "1e-4", "1e-3"), 0.3, ", τ=0.3"),
            )
            for lam in lams
        ),
    ),
    config=config,
    train=train,
)
