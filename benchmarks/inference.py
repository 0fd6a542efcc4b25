"""Denoising with the autoencoder that training found: as trained, full of zeros, and compact."""

import io
from functools import partial

import torch
from common import Row, interleaved, ratio_rows, timed
from torch import nn

from bregman.compact import compact
from bregman.flops import forward_flops
from bregman.suite.analysis.trained import trained_model
from bregman.suite.experiments.denoising_autoencoder import EXPERIMENT

DENSE, COMPACT = "as trained", "compact"
# batch size: so many passes a measurement
REPEAT = {1: 50, 64: 10, 1024: 1}


def file_size(model: nn.Module) -> int:
    """The bytes of its saved weights."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def measure(rounds: int) -> list[Row]:
    """Time both networks on one thread; the speed-up should be at least 0.7 x the FLOPs saved.

    Raises:
        KeyError: the paper-scale run of the experiment was not made yet.
    """
    torch.set_num_threads(1)
    model = trained_model(EXPERIMENT.arrays("paper", "AdaBreg")).eval()
    models = {DENSE: model, COMPACT: compact(model)}
    image = torch.randn(1, 1, 28, 28)
    flops = {name: sum(forward_flops(net, image).values()) for name, net in models.items()}
    flop_ratio = flops[DENSE] / flops[COMPACT]
    rows = [
        Row("inference", "Autoencoder", name, 1, metric, value)
        for metric, values in (
            ("bytes", {name: file_size(net) for name, net in models.items()}),
            ("FLOPs per image", flops),
        )
        for name, value in values.items()
    ]
    for batch, repeat in REPEAT.items():
        case = f"Autoencoder, batch {batch}"
        images = torch.randn(batch, 1, 28, 28)
        with torch.inference_mode():
            candidates = {name: timed(partial(net, images), repeat) for name, net in models.items()}
            seconds = interleaved(candidates, rounds)
        made = ratio_rows("inference", case, 1, seconds, [(DENSE, COMPACT, "")])
        speed_up = next(row.value for row in made if row.metric == "ratio")
        share = speed_up / flop_ratio
        rows += [
            *made,
            Row("inference", case, COMPACT, 1, "speed-up / FLOP ratio", share, DENSE, ">= 0.7"),
        ]
    return rows
