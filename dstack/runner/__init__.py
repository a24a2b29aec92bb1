"""`dstack-runner`: will register the machine on which it runs. Standard library only."""

from __future__ import annotations

import argparse
import sys


def main() -> None:
    """The console script."""
    from dstack import __version__

    parser = argparse.ArgumentParser(
        prog="dstack-runner",
        description="Registers this machine as a runner. Not there yet: add it from your own machine, "
        "with `dstack runners add HOST`.",
    )
    parser.add_argument("--version", action="version", version=f"dstack-runner {__version__}")
    parser.parse_args()
    print(
        "dstack-runner: error: registering a machine from itself does not work yet; nothing was done", file=sys.stderr
    )
    print("hint: on your own machine: dstack runners add HOST", file=sys.stderr)
    sys.exit(2)
