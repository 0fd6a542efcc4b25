"""What made a result: versions, device, threads, commit and date."""

import datetime
import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from bregman.suite.paths import ROOT


def environment(device: str) -> dict[str, Any]:
    """What made a result: versions, device, threads, commit and date; None is unknown."""
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    commit, changed = _commit(ROOT)
    return {
        "device": accelerator or f"CPU ({_cpu_name()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "commit": commit,
        "uncommitted_changes": changed,
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
def _commit(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the package's own repository, and whether the package was changed since."""
    # installed inside of somebody else's repository, that one's commit says nothing
    tracked = _git(root, "ls-files", "--error-unmatch", "bregman/suite/provenance.py")
    if not tracked or _git(root, "rev-parse", "--show-prefix") != "":
        return None, None
    changes = _git(root, "status", "--porcelain", "--", "bregman")
    return _git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(root: Path, *words: str) -> str | None:
    # a hook of another repository points git to that one
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *words], cwd=root, env=plain, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
