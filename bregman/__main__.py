"""The ``bregman`` command, also as ``python -m bregman`` where the package is not installed."""

import os
import sys
import threading


def main() -> None:
    """Run the command; say in one sentence what it lacks."""
    try:
        from bregman.suite.cli import app
        from bregman.suite.workers.executors import InThread
    except ModuleNotFoundError as error:
        if str(error.name).startswith("bregman"):
            raise
        sys.exit(
            f"error: the command needs the suite's packages, {error.name} is missing: "
            "pip install -e '.[suite]' in the repository"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        app()
    except SystemExit as end:
        if end.code == 130 and any(t.name == InThread.NAME for t in threading.enumerate()):
            # stopped in the middle of something long, whose result nobody waits for
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


if __name__ == "__main__":
    main()
