"""Give runs their sums that were stored before there were any, once; nothing else changes.

    python scripts/add_sums.py              all of results/
    python scripts/add_sums.py FOLDER ...   the runs in some folders

A run file gets the SHA-256 sum of its arrays' file, if it has one, and of all that it says. Files
that have their sums are left alone, so sums do not hide what was damaged since.
"""

import argparse
import hashlib
import json
from pathlib import Path

from bregman.suite.paths import replacing, results_dir
from bregman.suite.runs import sum_of


def add_sum(path: Path) -> bool:
    """Add a run file's sums.

    Args:
        path: of the JSON file.

    Returns:
        Whether it had none.
    """
    text = path.read_text()
    stored = json.loads(text)
    if "sum" in stored:
        return False
    arrays = path.with_suffix(".npz")
    stored["arrays"] = hashlib.sha256(arrays.read_bytes()).hexdigest() if arrays.exists() else None
    stored["sum"] = sum_of(stored)
    # what stood there stays as it stood, byte for byte
    added = json.dumps({name: stored[name] for name in ("arrays", "sum")})
    with replacing(path) as temporary:
        temporary.write_text(
            text.rstrip().removesuffix("}") + ", " + added.removeprefix("{") + "\n"
        )
    return True


def main() -> None:
    """Read the command line and add what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, help="of run files")
    folders = parser.parse_args().folders or sorted(results_dir().glob("*/runs"))
    for folder in folders:
        added = [add_sum(path) for path in sorted(folder.glob("*.json"))]
        print(f"{folder}: {sum(added)} of {len(added)} runs were given their sums")


if __name__ == "__main__":
    main()
