"""The ``bregman`` command, also as ``python -m bregman``; it belongs to the suite."""

import sys


def main() -> None:
    """Run the command, or say what it needs."""
    try:
        from bregman.suite.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "bregman":
            raise
        sys.exit(
            f"the bregman command needs the suite's packages, {error.name} is missing: "
            "pip install -e '.[suite]' in the repository"
        )
    app()


if __name__ == "__main__":
    main()
