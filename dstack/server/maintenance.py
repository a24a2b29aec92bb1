"""Work on a home that needs no server, or must have none: `python -m dstack.server.maintenance backup|restore`.

It prints nothing if it worked, else the problem as JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dstack.errors import DstackError
from dstack.model.api import wire
from dstack.model.paths import ServerLayout
from dstack.plumbing.file_errors import plain_errors
from dstack.server.endpoints import problem_of
from dstack.server.lock import owned
from dstack.store.backup.make import back_up
from dstack.store.backup.restore import restore


def main() -> None:
    """Do it; exit with the problem's exit code."""
    parser = argparse.ArgumentParser(prog="python -m dstack.server.maintenance")
    parser.add_argument("what", choices=("backup", "restore"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--artifacts", action="store_true")
    arguments = parser.parse_args()
    layout = ServerLayout(arguments.home.absolute())
    os.umask(0o077)
    try:
        with plain_errors():
            maintain(arguments.what, layout, arguments.file, artifacts=arguments.artifacts)
    except DstackError as error:
        sys.stdout.buffer.write(wire.encode(problem_of(error)[0]))
        sys.exit(error.exit_code)


def maintain(what: str, layout: ServerLayout, file: Path, *, artifacts: bool) -> None:
    if what == "backup":
        back_up(layout, file, artifacts=artifacts)
        return
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned(layout):
        restore(layout, file)


if __name__ == "__main__":
    main()
