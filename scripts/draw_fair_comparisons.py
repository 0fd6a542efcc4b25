"""Draw the figures of docs/fair-comparisons.md whose runs are in the store.

python scripts/draw_fair_comparisons.py
"""

from bregman.suite.experiments import table_seeds, tuned_rivals
from bregman.suite.experiments.tuned_rivals import TUNED
from bregman.suite.plots import fashion_mnist_cnn, what_sparsity_buys
from bregman.suite.plots.style import save

SCALE = "paper"
# of the three seeds the only one that begins with a kernel in the first convolution
FIGURE_1 = ("LinBreg (groups)", 2)
EPOCHS = (0, 5, 20, 100)

if __name__ == "__main__":
    study = tuned_rivals.EXPERIMENT
    networks = [f"{TUNED}: {network}" for network in tuned_rivals.CHOSEN]
    if networks and not study.forecast(SCALE).missing:
        tuned = study.run(SCALE, rows=[], make=False).where(artifact=networks)
        print(save(what_sparsity_buys.accuracy_at_density(tuned), study.name, SCALE))
    try:
        arrays = table_seeds.EXPERIMENT.arrays(SCALE, *FIGURE_1)
    except KeyError as error:
        print(error)
    else:
        for name, draw in (
            ("figure1_seed2", fashion_mnist_cnn.feature_maps),
            ("figure1_seed2_conv2", fashion_mnist_cnn.second_feature_maps),
        ):
            print(save(draw(arrays, EPOCHS), name, SCALE))
