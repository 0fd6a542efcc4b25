"""Figure 3: LinBreg, LinBreg with momentum and AdaBreg against SGD on MNIST, section 4.3."""

from bregman.suite.experiments.experiment import Experiment, Row
from bregman.suite.experiments.mnist_comparison import FIGURE_2, SCALES, config

FIGURE_3 = "Figure 3 (read off the plot)"
MOMENTUM, ADABREG = "LinBreg (beta = 0.9) lam=1e-1", "AdaBreg lam=1e-1"

LINBREG = {"optimizer": "LinBreg", "lam": 0.1}
ADA = {"optimizer": "AdaBreg", "lr": 1e-3}

ROWS = (
    # the first two are runs of Figure 2
    Row("SGD", FIGURE_2, "Vanilla", "SGD", {"optimizer": "SGD"}),
    Row("LinBreg", FIGURE_2, "Bregman", "LinBreg lam=1e-1", LINBREG),
    Row("LinBreg with momentum", FIGURE_3, "Bregman", MOMENTUM, {**LINBREG, "momentum": 0.9}),
    Row("AdaBreg (λ=0.1)", FIGURE_3, "Bregman", ADABREG, {**ADA, "lam": 0.1}),
    Row("AdaBreg (λ=0.5)", FIGURE_3, "Bregman", ADABREG, {**ADA, "lam": 0.5}),
)

EXPERIMENT = Experiment("mnist_acceleration", "MNIST", "MLP 784-200-80-10", SCALES, ROWS, config)
