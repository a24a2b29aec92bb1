"""Says what of the working tree is sent beyond the commit, and warns of what looks like a secret."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.cli import connect
from dstack.cli.output import show

if TYPE_CHECKING:
    from dstack.snapshot.take import Taken

SHOWN = 3
"""How many files are named."""


def say_what_is_sent(taken: Taken, root: Path) -> None:
    """Print how many files differ from the commit, and which are untracked; nothing if there are none or no git."""
    if taken.snapshot.git and (taken.changed or taken.untracked):
        changed = [f"{len(taken.changed)} changed"] if taken.changed else []
        names = _named(taken, taken.untracked, root)
        untracked = [f"{len(taken.untracked)} untracked: {names}"] if taken.untracked else []
        show.say(f"sent {', '.join([*changed, *untracked])}")


def warn_of_secrets(taken: Taken, root: Path) -> None:
    """Print one warning about all files that are not in the commit and look like secrets."""
    from dstack.model.code.secret_names import looks_secret

    found = [path for path in taken.new if looks_secret(path)]
    if not found:
        return
    ignored = shlex.quote(os.path.relpath(taken.root.resolve() / ".dstackignore"))
    patterns = " ".join(shlex.quote("/" + re.sub(r"([\\*?\[ ])", r"\\\1", path)) for path in found)
    them = "it" if len(found) == 1 else "them"
    what = "may hold a secret and is sent" if len(found) == 1 else "may hold secrets and are sent"
    out = f"printf '%s\\n' {patterns} >> {ignored}" if len(found) <= SHOWN else f"add {them} to {ignored}"
    connect.warn(f"warning: {_named(taken, found, root)} {what} to the runner; to leave {them} out: {out}")


def _named(taken: Taken, paths: Sequence[str], root: Path) -> str:
    """The first of these paths of the snapshot, as seen from the project's folder `root`."""
    named = (os.path.relpath(taken.root.resolve() / path, root.resolve()) for path in paths[:SHOWN])
    shown = ", ".join(show.clean(name).replace("\n", "\N{REPLACEMENT CHARACTER}") for name in named)
    return shown if len(paths) <= SHOWN else f"{shown} and {len(paths) - SHOWN} more"
