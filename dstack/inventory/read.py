"""Reads an inventory of any format, and the variable files next to it."""

from __future__ import annotations

import os
from pathlib import Path

from dstack.errors import UsageError
from dstack.inventory import ini, listing, yaml_file
from dstack.inventory.groups import Groups, Variables

LARGEST = 5 * 10**6
"""Characters of a file."""
LONGEST_FILE = 250
"""Bytes of a name that can be a file's, with its ending (NAME_MAX in limits.h(0P) is 255)."""
_ENDINGS = ("", ".yml", ".yaml", ".json")


def read(path: Path) -> Groups:
    """Read a file or run a program. Raises UsageError, with file and line, for what can't be read."""
    groups = _file(path)
    for name in groups.groups:
        groups.beside_groups[name] = _beside(path.parent / "group_vars", name)
    for name in groups.hosts:
        groups.beside_hosts[name] = _beside(path.parent / "host_vars", name)
    return groups


def _file(path: Path) -> Groups:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name one of its files: dstack runners import {path}/FILE")
    if path.suffix not in (".yml", ".yaml", ".json", ".ini") and os.access(path, os.X_OK):
        return listing.read(path)
    text = _text(path)
    if path.suffix in (".yml", ".yaml", ".json") or (path.suffix != ".ini" and _is_yaml(text)):
        return yaml_file.read(text, str(path))
    return ini.read(text, str(path))


def _is_yaml(text: str) -> bool:
    """Whether a file without a known suffix is YAML: its first line of content is `---` or a key."""
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    first = next((line for line in lines if line and line[0] not in "#;"), "")
    return first == "---" or (first.endswith(":") and not first.startswith("["))


def _text(path: Path) -> str:
    try:
        with path.open() as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    if len(text) > LARGEST:
        raise UsageError(f"{path} has more than {LARGEST:,} characters; split it into several files")
    return text


def _beside(folder: Path, name: str) -> Variables:
    """Return the variables of a group or host from the file, or the folder of files, with its name."""
    if "/" in name or len(name.encode()) > LONGEST_FILE:
        return {}
    for ending in _ENDINGS:
        path = folder / f"{name}{ending}"
        if path.is_dir():
            merged: Variables = {}
            for file in sorted(path.rglob("*")):
                if file.is_file() and file.suffix in _ENDINGS and not file.name.startswith("."):
                    merged.update(yaml_file.variables(_text(file), str(file)))
            return merged
        if path.exists():
            return yaml_file.variables(_text(path), str(path))
    return {}
