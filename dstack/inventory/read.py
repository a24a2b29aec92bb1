"""Reads an inventory of any format, and the variable files next to it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from dstack.errors import UsageError
from dstack.inventory import ini, listing, yaml_file
from dstack.inventory.groups import Groups, Variables

LARGEST = 5 * 10**6
"""Bytes of a file."""
LONGEST_FILE = 250
"""Bytes of a name that can be a file's, with its ending (NAME_MAX in limits.h(0P) is 255)."""
VAULT = "$ANSIBLE_VAULT;"
"""The beginning of a file that is encrypted as a whole."""
_ENDINGS = ("", ".yml", ".yaml", ".json")
_IGNORED = re.compile(
    r"\..*|group_vars|host_vars|vars_plugins|.*(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)"
)
"""What Ansible leaves out of a folder: hidden files, variables, and the endings in INVENTORY_IGNORE_EXTS."""


def read(path: Path) -> Groups:
    """Read a file, run a program, or do so with everything in a folder. Raises UsageError, with file and line, for what
    can't be read."""
    groups = Groups()
    for file in _files(path):
        _add(file, groups)
    beside = path if path.is_dir() else path.parent
    for name in groups.groups:
        groups.beside_groups[name] = _beside(beside / "group_vars", name, groups)
    for name in groups.hosts:
        groups.beside_hosts[name] = _beside(beside / "host_vars", name, groups)
    return groups


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of an inventory in Ansible's order."""
    if not path.is_dir():
        yield path
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    for name in names:
        if not _IGNORED.fullmatch(name):
            yield from _files(path / name)


def _add(path: Path, groups: Groups) -> None:
    if os.access(path, os.X_OK) and _ran(path, groups):
        return
    content = _content(path)
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if text.startswith(VAULT):
        hint = f"ansible-vault view {path} > hosts.yml; dstack runners import hosts.yml"
        raise UsageError(f"{path} is encrypted with Ansible Vault, which dstack can't read", hint=hint)
    if path.suffix == ".toml":
        raise UsageError(f"{path} is TOML, which dstack doesn't read; write the inventory as YAML or INI")
    if path.suffix in (".yml", ".yaml", ".json") or (path.suffix != ".ini" and _is_yaml(text)):
        yaml_file.read(_text(content, path), str(path), groups)
    else:
        ini.read(text, str(path), groups)


def _ran(path: Path, groups: Groups) -> bool:
    """Whether the file is a program, and was run. On some file systems every file may be run; a file that the system
    can't start is text."""
    try:
        listing.read(path, groups)
    except OSError as error:
        with path.open("rb") as file:
            if file.read(2) == b"#!":
                raise UsageError(f"can't run {path}: {error.strerror}") from error
        return False
    return True


def _is_yaml(text: str) -> bool:
    """Whether a file without a known suffix is YAML: its first line of content is `---` or a key."""
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    return first == "---" or first.startswith("{") or (first.endswith(":") and not first.startswith("["))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise UsageError(f"{path} has more than {LARGEST:,} bytes; split it into several files")
    return content


def _text(content: bytes, path: Path) -> str:
    """Decode YAML."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        lines = content.split(b"\n")
    return "\n".join(_line(line, f"{path}:{number}") for number, line in enumerate(lines, 1))


def _line(content: bytes, where: str) -> str:
    """Decode a line. Only in a comment does another encoding not matter."""
    outside = re.split(rb"(?:^|(?<=\s))[#;]", content, maxsplit=1)[0]
    try:
        outside.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: the line is not UTF-8 text; save the file as UTF-8") from error
    return content.decode(errors="replace")


def _beside(folder: Path, name: str, groups: Groups) -> Variables:
    """Return the variables of a group or host from the file, or the folder of files, with its name."""
    merged: Variables = {}
    if "/" in name or len(os.fsencode(name)) > LONGEST_FILE:
        return merged
    found = next((path for ending in _ENDINGS if (path := folder / f"{name}{ending}").exists()), None)
    for file in _variable_files(found) if found else ():
        text = _text(_content(file), file)
        if text.startswith(VAULT):
            groups.notes.append(f"{file} is encrypted with Ansible Vault; its variables are not read")
        else:
            merged.update(yaml_file.variables(text, str(file)))
    return merged


def _variable_files(path: Path) -> Iterator[Path]:
    """Yield the file, or the files in a folder in Ansible's order."""
    if not path.is_dir():
        yield path
        return
    for inner in sorted(path.iterdir()):
        if inner.name.startswith(".") or inner.name.endswith("~"):
            continue
        if inner.is_dir() and not inner.suffix:
            yield from _variable_files(inner)
        elif inner.is_file() and inner.suffix in _ENDINGS:
            yield inner
