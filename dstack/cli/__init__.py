"""Floor 5: the `dstack` command. A file a command; each is imported only when it is called."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from dstack import __version__

        print(f"dstack {__version__}")
        return
    from dstack.cli.root import run

    sys.exit(run(sys.argv[1:]))
