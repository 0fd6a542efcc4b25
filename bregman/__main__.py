"""``python -m bregman``: the command, where the package is not installed."""

from bregman.suite.cli import app

if __name__ == "__main__":
    app()
