"""Parameters that FSDP2 shards over two processes: the numbers of one process, or words."""

import os
import warnings

import pytest
import torch
from torch import nn

from bregman import (
    L1,
    AdaBreg,
    ElasticNet,
    GroupL12,
    LinBreg,
    Multilevel,
    ProxGD,
    sparse_init_,
    sparsity_summary,
)
from bregman.compact import compact
from bregman.flops import layer_densities
from bregman.steering import SparsityTarget
from bregman.thresholding import largest_threshold, threshold_

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="torch without distributed"
)

OPTIMIZERS = {
    "LinBreg": lambda groups: LinBreg(groups, lr=0.3),
    "LinBreg momentum": lambda groups: LinBreg(groups, lr=0.3, momentum=0.9, delta=2.0),
    "AdaBreg": lambda groups: AdaBreg(groups, lr=0.02, weight_decay=0.1),
    "ProxGD": lambda groups: ProxGD(groups, lr=0.1),
}
# of the linear and the convolution weight
REGULARIZERS = {
    "l1": (L1(0.1), L1(0.1)),
    "elastic net": (ElasticNet(0.1, 0.5), ElasticNet(0.1, 0.5)),
    "rows and kernels": (GroupL12(0.05, dim=1), GroupL12(0.05, dim=(2, 3))),
}


def make_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4))
        model.double()
        with torch.no_grad():
            model[0].weight[0] = 0
            model[3].weight[1:3] = 0
    return model


def train(model, optimizer, steps=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 2, 3, 3, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x.flatten(1)[:, :4].sin()).square().mean().backward()
        optimizer.step()


def groups(model, linear, conv=None):
    return [
        {"params": [model[3].weight], "reg": linear},
        {"params": [model[0].weight], "reg": conv},
        {"params": [model[0].bias, model[3].bias]},
    ]


def measures(model):
    """What is measured, and what is found or left by thresholds."""
    found = [sparsity_summary(model), layer_densities(model)]
    found.append(largest_threshold(model, lambda m: sparsity_summary(m)["n_total"], 0.2))
    threshold_(model, 0.2)
    threshold_(model, 0.3, conv="kernel")
    return [*found, sparsity_summary(model)]


REFUSED = {
    "sparse_init_": lambda model: sparse_init_(model, 0.1),
    "SparsityTarget": lambda model: SparsityTarget(LinBreg(model.parameters(), reg=L1(1)), 0.1),
    "compact": compact,
}


def worker(rank, folder):
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    warnings.filterwarnings("error", message=".*changed from outside")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    results = {}
    for name, make in OPTIMIZERS.items():
        for kind, regs in REGULARIZERS.items():
            model = make_model()
            fully_shard(model, mesh=mesh)
            train(model, make(groups(model, *regs)))
            results[name, kind] = [p.full_tensor() for p in model.parameters()]
    model = make_model()
    fully_shard(model, mesh=mesh)
    try:
        LinBreg(groups(model, GroupL12(0.05, dim=0)), lr=0.3)
    except ValueError as error:
        results["columns"] = str(error)
    results["measures"] = measures(model)
    for name, act in REFUSED.items():
        try:
            act(model)
        except ValueError as error:
            results[name] = str(error)
    model = make_model()
    fully_shard(model, mesh=mesh)
    optimizer = LinBreg(groups(model, L1(0.1), L1(0.1)), lr=0.3)
    cycle = Multilevel(model, optimizer, frozen_steps=2)
    train(model, optimizer)
    results["cycle"] = [p.full_tensor() for p in model.parameters()]
    results["paths"] = cycle.paths
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_do_as_one(tmp_path):
    torch.multiprocessing.spawn(worker, args=(os.fspath(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    sparse = set()
    for name, make in OPTIMIZERS.items():
        for kind, regs in REGULARIZERS.items():
            model = make_model()
            train(model, make(groups(model, *regs)))
            expected = [p.detach() for p in model.parameters()]
            for found in (first[name, kind], second[name, kind]):
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
                assert all(map(torch.equal, [p == 0 for p in found], [p == 0 for p in expected]))
            sparse |= {kind} if any((p == 0).any() for p in expected) else set()
    assert sparse == set(REGULARIZERS)
    assert "sharded" in first["columns"]
    assert "dim=(0,)" in first["columns"]
    assert first["columns"] == second["columns"]
    assert first["measures"] == second["measures"] == measures(make_model())
    for found in (first, second):
        # no cycle: nothing waits, and it is said
        torch.testing.assert_close(found["cycle"], first["LinBreg", "l1"], rtol=0, atol=0)
        assert found["paths"] == dict.fromkeys("03", "dense: its weight is a DTensor")
        assert "layer '0' must be real, and drawn before it is sharded" in found["sparse_init_"]
        assert "regularized parameters are whole, got [(3, 2, 2, 2)" in found["SparsityTarget"]
        assert "has a forward hook, FSDPState" in found["compact"]
