"""What it takes to store trained networks, and to use them."""

import io
import statistics
import time
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn


def inference_table(models: Mapping[str, nn.Module], images: Tensor) -> pd.DataFrame:
    """What it takes to store networks, and to use them.

    Args:
        models: by name, in eval mode.
        images: as the models take them, at least 128.

    Returns:
        Per model the size of its file in kilobytes, and the median time in milliseconds for one
        image and for 128 at once.
    """
    rows = {}
    for name, model in models.items():
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        times = {f"{n} at once [ms]": 1e3 * _seconds(model, images[:n]) for n in (1, 128)}
        rows[name] = {"file [kB]": file.tell() / 1000, **times}
    return pd.DataFrame(rows).T


@torch.inference_mode()
def _seconds(model: nn.Module, images: Tensor) -> float:
    times: list[float] = []
    while sum(times) < 0.2:
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
