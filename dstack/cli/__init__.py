"""Floor 5: the `dstack` command. A command's file is imported only when the command is called."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `dstack` console script."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from dstack import __version__

        print(f"dstack {__version__}")
        return
    from dstack.cli.root import run

    sys.exit(run(sys.argv[1:]))
