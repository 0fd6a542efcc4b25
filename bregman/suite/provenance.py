"""What made a result: versions, device, threads, commit and date."""

import datetime
import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from bregman.suite.paths import ROOT


def environment(device: str) -> dict[str, Any]:
    """What made a result: versions, device, threads, commit and date."""
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "device": accelerator or f"CPU ({_cpu_name()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "bregman")),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


@functools.cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


@functools.cache
def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
