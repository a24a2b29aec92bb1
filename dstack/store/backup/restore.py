"""Puts a backup back. Whatever interrupts it, the state is the old one or the restored one."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from dstack.errors import ErrorCode, UsageError
from dstack.model.paths import ServerLayout
from dstack.store.backup.make import COMPLETE, DATABASE, VERSION, files, folders
from dstack.store.database import Database
from dstack.store.restored import restored
from dstack.store.tables.events import EventLog
from dstack.store.tables.identity import EPOCH, HOME, put, read
from dstack.store.tables.settings import SERVER_ID, Settings


def restore(layout: ServerLayout, source: Path) -> None:
    """Put the state back as it was. No server may be running. Logs, code and artifacts that came later stay: they are
    never wrong, and the machines may tell whose they are. Raises UsageError for a file that is no complete backup."""
    shutil.rmtree(layout.restoring, ignore_errors=True)
    layout.restoring.mkdir(mode=0o700, parents=True)
    try:
        unpack(source, layout)
        raise_epoch(source, layout)
        sync(layout.restoring)
        finish_restore(layout)
        layout.restoring.rename(layout.restored)
    except OSError as trouble:
        message = f"{source} can't be restored: {trouble.strerror or trouble}; the state is unchanged"
        raise UsageError(message, hint="see that the file can be read, and that the disk has enough space") from trouble
    finally:
        shutil.rmtree(layout.restoring, ignore_errors=True)
    finish_restore(layout)


def finish_restore(layout: ServerLayout) -> None:
    """Put in place what was restored, if anything was. May be interrupted and repeated; the database comes last."""
    if not layout.restored.exists():
        return
    for name, folder in folders(layout).items():
        merge(layout.restored / name, folder, longer=folder == layout.logs)
    for name, path in files(layout).items():
        new = layout.restored / name
        if new.exists() and not (path == layout.config and path.exists()):
            new.replace(path)
    new = layout.restored / DATABASE
    if new.exists():
        for left in ("-wal", "-shm"):
            layout.database.with_name(layout.database.name + left).unlink(missing_ok=True)
        new.replace(layout.database)
    layout.newest.unlink(missing_ok=True)
    sync(layout.state)
    shutil.rmtree(layout.restored)


def unpack(source: Path, layout: ServerLayout) -> None:
    """Write the members into `layout.restoring`. Nothing else is written, whatever the file contains."""
    try:
        with tarfile.open(source, "r:*") as tar:
            names = [unpack_member(tar, member, layout) for member in tar]
            assert tar.fileobj is not None
            while tar.fileobj.read(1 << 20):  # to the end, where the checksum is
                continue
    except (tarfile.TarError, EOFError, zlib.error) as trouble:
        what = str(trouble).partition(":\n")[0]  # tarfile lists what each kind of compression says
        raise invalid(source, f"it is not a backup, or it is damaged: {what}") from trouble
    if names[:1] != [VERSION]:
        raise invalid(source, "it is not a backup that this version of dstack can read")
    if names[-1] != COMPLETE:
        raise invalid(source, "its end is missing")


def unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, layout: ServerLayout) -> str:
    parts = member.name.split("/")
    single = member.name in (DATABASE, *files(layout))
    placed = single or (".." not in parts and parts[0] in folders(layout))
    if member.name in (VERSION, COMPLETE):
        return member.name
    if not placed or not (member.isfile() or member.isdir() or member.islnk()):
        raise tarfile.TarError(f"it contains {member.name!r}")
    target = layout.restoring / member.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if member.isdir():
        target.mkdir(mode=0o700, exist_ok=True)
    elif member.islnk():
        if ".." in member.linkname.split("/") or member.linkname.startswith("/"):
            raise tarfile.TarError(f"it contains a link to {member.linkname!r}")
        os.link(layout.restoring / member.linkname, target)
    else:
        content = tar.extractfile(member)
        assert content is not None
        with content, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(member.mode & 0o700 | 0o600 if not single else 0o600)
        os.utime(target, (member.mtime, member.mtime))
    return member.name


def raise_epoch(source: Path, layout: ServerLayout) -> None:
    """Make the restored state the newest one for all machines, which are asked before anything old is launched."""
    path = layout.restoring / DATABASE
    try:
        with closing(sqlite3.connect(path)) as raw:
            found = raw.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.DatabaseError as trouble:
        found = str(trouble)
    if found != "ok":
        raise invalid(source, f"its database is damaged: {found}")
    database = Database(path)
    settings = Settings(database, EventLog(database))
    server = settings.server_id
    later = [read(each) for each in (layout.server_id, layout.restoring / layout.server_id.name)]
    epoch = 1 + max([int(settings.get(EPOCH) or 1), *(epoch for known, epoch in later if known == server)])
    with database.transaction():
        settings.set(SERVER_ID, server)
        settings.set(HOME, "")
        restored(database, settings, epoch)
    database.close()
    put(layout.restoring / layout.server_id.name, server, epoch)


def merge(source: Path, target: Path, *, longer: bool) -> None:
    """Move the files that the target lacks; with `longer`, also those of which it has less."""
    for parent, below, names in os.walk(source):
        here = target / Path(parent).relative_to(source)
        here.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in below:
            (here / name).mkdir(mode=0o700, exist_ok=True)
        for name in names:
            new, old = Path(parent) / name, here / name
            if not old.exists() or (longer and old.stat().st_size < new.stat().st_size):
                new.replace(old)


def sync(folder: Path) -> None:
    """Bring the files and folders below a folder to the disk, and then the folder."""
    for path in [*regular(folder), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def regular(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if (path.is_file() or path.is_dir()) and not path.is_symlink())


def invalid(source: Path, why: str) -> UsageError:
    message = f"{source.name} can't be restored: {why}; the state is unchanged"
    return UsageError(message, hint="name a file that `dstack server backup FILE` wrote", code=ErrorCode.BACKUP_INVALID)
