"""Floor 5: the `dstack` command. A command's file is imported only when the command is called."""

from __future__ import annotations

import sys
from contextlib import suppress


def main() -> None:
    """Run the `dstack` console script."""
    if sys.argv[1:] in (["--version"], ["-V"]) and sys.stdout is not None:
        from dstack import __version__

        with suppress(OSError):  # is reported below
            print(f"dstack {__version__}", flush=True)
            return
        sys.argv[1:] = ["--version"]
    try:
        from dstack.cli.root import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:  # before there was anything to interrupt
        sys.exit(130)
