"""The Bregman optimizers of section 2, and proximal gradient descent to compare them with.

LinBreg is stochastic gradient descent, AdaBreg is Adam, on the subgradient variable v; the weights
follow from v by one prox. So torch's own kernels take the step on v (``fused`` means what it means
to torch), and with ``reg=None, delta=1`` LinBreg is ``torch.optim.SGD`` and AdaBreg is
``torch.optim.Adam``, bit for bit where the kernel is the same.

    paper      here              paper       here
    tau        lr                m, m1       momentum_buffer, exp_avg
    beta       momentum          m2          exp_avg_sq
    beta1, 2   betas             v           subgrad
    lambda     reg.lam           J           reg
"""

from bregman.optim.algorithms import AdaBreg, LinBreg, ProxGD
from bregman.optim.mirror import BregmanOptimizer

__all__ = ["AdaBreg", "BregmanOptimizer", "LinBreg", "ProxGD"]
