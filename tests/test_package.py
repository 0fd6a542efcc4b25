"""The package as a whole: what importing it needs, and what it offers."""

import subprocess
import sys

import bregman

ALONE = """
import sys
from importlib.machinery import PathFinder

ABSENT = {"IPython", "ipywidgets", "matplotlib", "numpy", "pandas", "papermill", "scipy", "seaborn",
          "skimage", "torchvision", "tqdm", "typer", "yaml"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in ABSENT else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
import torch
from bregman import L1, LinBreg, param_groups, sparse_init_, sparsity_summary
from bregman.flops import forward_flops, layer_densities, sparse_share
from bregman.thresholding import largest_threshold, refresh_batch_norm_
from bregman.suite.models import MLP
from bregman.suite import convex

model = MLP((4, 3, 2))
sparse_init_(model, 0.9)
LinBreg(param_groups(model, linear=L1(0.1))).step()
sparse_share(forward_flops(model, torch.randn(5, 4)), layer_densities(model))
largest_threshold(model, lambda m: 1.0, 0.1)
refresh_batch_norm_(torch.nn.BatchNorm1d(4), torch.randn(5, 4).split(2))
print(sparsity_summary(model)["n_total"] > 0)
"""


def test_the_core_needs_torch_alone():
    command = [sys.executable, "-W", "ignore", "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr[-2000:]


def test_everything_that_is_offered_exists():
    assert {"LinBreg", "AdaBreg", "ProxGD", "L1", "GroupL12", "Zero"} <= set(bregman.__all__)
    assert all(hasattr(bregman, name) for name in bregman.__all__)
