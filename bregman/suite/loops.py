"""Two small tasks for training loops of every kind, and what of these can't stand in a notebook.

Lightning wants a class of its own, and torchrun a program that it starts in each process:
``python -m torch.distributed.run --nproc-per-node 2 -m bregman.suite.loops FOLDER SEED``.
"""

import sys
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from bregman import L1, AdaBreg, LinBreg, param_groups, sparse_init_
from bregman.layers import weights
from bregman.multilevel import Multilevel
from bregman.suite.data import load
from bregman.suite.models import MLP

STEPS, EPOCHS, BATCH, FROZEN_STEPS = 20, 2, 50, 5
LENGTH = 16


class Transformer(nn.Module):
    """A causal transformer of two layers that predicts the next byte of a text.

    Shape:
        Input: (batch, length) bytes, int64. Output: (batch, length, 128), scores of ASCII.
    """

    def __init__(self, length: int = LENGTH, width: int = 32) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 2, 4 * width, dropout=0.0, batch_first=True)
        self.token, self.position = nn.Embedding(128, width), nn.Embedding(length, width)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.token(x) + self.position.weight
        mask = embedded.new_full((x.shape[1],) * 2, -torch.inf).triu(1)
        return self.head(self.layers(embedded, mask=mask))


def digits(seed: int) -> TensorDataset:
    """Images and labels of MNIST's small subset in the package, in an order of their own."""
    data, generator = load("mnist", mini=True), torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.train_images), generator=generator)[: STEPS * BATCH]
    return TensorDataset(data.normalize(data.train_images[chosen]), data.train_labels[chosen])


def text(seed: int) -> TensorDataset:
    """Pieces of the text behind Python's ``help``, and the same one byte later."""
    whole = "".join(topics.values()).encode("ascii", "replace")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(len(whole) - LENGTH, (STEPS * BATCH, 1), generator=generator)
    pieces = torch.frombuffer(bytearray(whole), dtype=torch.uint8)[
        start + torch.arange(LENGTH + 1)
    ].long()
    return TensorDataset(pieces[:, :-1], pieces[:, 1:])


def mlp(seed: int) -> MLP:
    """A network for the digits, with one weight in twenty."""
    model = MLP((784, 100, 50, 10))
    sparse_init_(model, 0.05, generator=torch.Generator().manual_seed(seed))
    return model


def transformer(seed: int) -> Transformer:
    """A network for the text, with one weight in five.

    In double precision: AdaBreg divides small gradients by their size, and rounding with them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Transformer()
    sparse_init_(model, 0.2, generator=torch.Generator().manual_seed(seed))
    return model.double()


def linbreg(model: nn.Module) -> LinBreg:
    """LinBreg with momentum for the digits."""
    return LinBreg(param_groups(model, linear=L1(0.02)), lr=0.1, momentum=0.9)


def adabreg(model: nn.Module) -> AdaBreg:
    """AdaBreg for the text; tables of embeddings are regularized as well, by less."""
    return AdaBreg(param_groups(model, linear=L1(0.1), embedding=L1(0.02)), lr=0.005)


def loss_of(scores: Tensor, labels: Tensor, **_: Any) -> Tensor:
    """The cross entropy of scores (..., classes) for labels (...)."""
    return F.cross_entropy(scores.flatten(0, -2), labels.flatten())


def train(model: nn.Module, optimizer: Optimizer, loader: DataLoader[Any], epochs: int) -> None:
    """The plain loop."""
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()


def record(model: nn.Module, optimizer: Optimizer) -> list[float]:
    """The share of non-zero weights after each step, a list that grows in whatever loop."""
    parameters = [weight.parameter for weight in weights(model)]
    density: list[float] = []

    def measure(*_: Any) -> None:
        counts = [int(p.count_nonzero()) for p in parameters]
        density.append(sum(counts) / sum(p.numel() for p in parameters))

    optimizer.register_step_post_hook(measure)
    return density


def lightning_module(model: nn.Module, optimizer: Optimizer) -> Any:
    """A model and its optimizer as Lightning wants them."""
    from lightning import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return loss_of(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            return optimizer

    return Module()


def ddp(seed: int, frozen_steps: int = 0) -> list[Tensor]:
    """The digits in several processes, each with its share of every batch."""
    from torch.distributed import get_world_size
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data.distributed import DistributedSampler

    data, model = digits(seed), mlp(seed)
    optimizer = linbreg(model)
    if frozen_steps:
        Multilevel(model, optimizer, frozen_steps)
    mine: Any = DistributedSampler(data, shuffle=False)
    loader = DataLoader(data, BATCH // get_world_size(), sampler=mine)
    train(DistributedDataParallel(model), optimizer, loader, EPOCHS)
    return [*model.state_dict().values()]


def fsdp(seed: int) -> list[Tensor]:
    """The text with weights and states that are sharded over the processes."""
    from torch.distributed import get_world_size
    from torch.distributed.fsdp import fully_shard
    from torch.utils.data.distributed import DistributedSampler

    data, model = text(seed), transformer(seed)
    for part in (*model.layers.layers, model):
        fully_shard(part)
    # of the sharded parameters, so it is made after them
    optimizer = adabreg(model)
    mine: Any = DistributedSampler(data, shuffle=False)
    train(model, optimizer, DataLoader(data, BATCH // get_world_size(), sampler=mine), EPOCHS)
    return [value.full_tensor() for value in model.state_dict().values()]


def main(output: str, seed: int) -> None:
    """What torchrun starts in each process: train in both ways and store the weights."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = {
        "digits": ddp(seed),
        "digits, Multilevel": ddp(seed, FROZEN_STEPS),
        "text": fsdp(seed),
    }
    torch.save(found, f"{output}/{torch.distributed.get_rank()}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
