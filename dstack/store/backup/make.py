"""Makes a backup: a tar file with a consistent copy of the database, and what lies beside it. A server may run."""

from __future__ import annotations

import io
import os
import sqlite3
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from dstack.errors import UsageError, reason
from dstack.model.paths import ServerLayout
from dstack.plumbing.packs import LEFTOVERS
from dstack.store.database import DAMAGES, damaged

VERSION = "dstack-backup-1"
"""The first member of every backup of this format. `complete` is the last."""
COMPLETE = "complete"
UNFINISHED = {"mirrors": ("*.lock", *(f"*.git/{pattern}" for pattern in LEFTOVERS)), "artifacts": (".incoming",)}
"""What is left out of a folder. A pack that is being received or sent may be as large as all of the code."""
DATABASE = "state.db"


def files(layout: ServerLayout) -> dict[str, Path]:
    """Return the single files of a backup besides the database, by their names in it."""
    return {path.name: path for path in (layout.server_id, layout.secret_key, layout.identity, layout.config)}


def folders(layout: ServerLayout) -> dict[str, Path]:
    """Return the folders of a backup by their names in it."""
    return {path.name: path for path in (layout.logs, layout.mirrors, layout.artifacts)}


def back_up(layout: ServerLayout, target: Path, *, artifacts: bool) -> None:
    """Write the backup: aside, and as a whole. With `artifacts`, it has those that are stored in the server's folder.
    Raises UsageError if it can't be written, and StateDamagedError if the database can't be read."""
    aside = target.with_name(f"{target.name}.{os.getpid()}.new")
    copied = aside.with_suffix(".db")
    if not layout.database.exists():
        raise UsageError(f"there is no server's state in {layout.home}", hint="set DSTACK_HOME to the server's home")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            copy_database(layout.database, copied)
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
                fill(tar, layout, copied, artifacts=artifacts)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as trouble:
        where = trouble.filename if trouble.filename != str(aside) else None
        message = f"the backup can't be written to {target}: {f'{where}: ' if where else ''}{reason(trouble)}"
        hint = "choose a file in a folder that exists, on a disk with enough space"
        raise UsageError(message, hint=None if where else hint) from trouble
    finally:
        for path in (aside, copied):
            path.unlink(missing_ok=True)


def copy_database(source: Path, target: Path) -> None:
    """Copy the database as of one moment (https://sqlite.org/backup.html). Raises StateDamagedError, or OSError."""
    target.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(source, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
            target.chmod(0o600)
            old.backup(new)
    except sqlite3.DatabaseError as trouble:
        if str(trouble) in DAMAGES:
            raise damaged(source, trouble) from trouble
        raise OSError(None, str(trouble), str(source)) from trouble


def fill(tar: tarfile.TarFile, layout: ServerLayout, database: Path, *, artifacts: bool) -> None:
    """Add everything. The database comes first: all that it knows of is in the folders by then."""
    mark(tar, VERSION)
    tar.add(database, DATABASE)
    for name, path in files(layout).items():
        if path.exists():
            tar.add(path, name)
    for name, folder in folders(layout).items():
        if folder != layout.artifacts or artifacts:
            add_folder(tar, name, folder)
    mark(tar, COMPLETE)


def add_folder(tar: tarfile.TarFile, name: str, folder: Path) -> None:
    """Add a folder that may change meanwhile. What a mirror replaces (packs) is complete in the files that appear, so
    look again until there are none."""
    known: set[Path] = set()
    while fresh := [path for path in tree(folder, UNFINISHED.get(name, ())) if path not in known]:
        for path in fresh:
            known.add(path)
            try:
                tar.add(path, f"{name}/{path.relative_to(folder)}", recursive=False)
            except FileNotFoundError:
                continue


def tree(folder: Path, unfinished: Sequence[str]) -> Iterator[Path]:
    """Yield all files and folders below a folder, but none that match one of these patterns, nor what they hold."""
    for parent, below, names in os.walk(folder):
        here = Path(parent)
        left = {path for pattern in unfinished for path in folder.glob(pattern)}
        below[:] = [name for name in sorted(below) if here / name not in left]
        for each in sorted([*below, *names]):
            if here / each not in left:
                yield here / each


def mark(tar: tarfile.TarFile, name: str) -> None:
    tar.addfile(tarfile.TarInfo(name), io.BytesIO())
