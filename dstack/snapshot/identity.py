"""Identifies a project's repository, to name its mirror on the server and on hosts."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from pathlib import Path

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_SCP = re.compile(r"(?P<user>[^/@]*)@(?P<rest>[^/]*:.*)", re.DOTALL)
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def clean_url(url: str) -> str:
    """Return the URL without password and token. Only SSH URLs keep the user name, which is the login."""
    url = url.strip()
    parts = _URL.fullmatch(url)
    if parts is None:
        scp = _SCP.fullmatch(url)
        return f"{scp['user'].partition(':')[0]}@{scp['rest']}" if scp else url
    userinfo, _, host = parts["authority"].rpartition("@")
    rest = parts["rest"]
    if "ssh" in parts["scheme"].lower():
        user = userinfo.partition(":")[0]
        return f"{parts['scheme']}://{user}{'@' if user else ''}{host}{rest}"
    return f"{parts['scheme']}://{host}{re.split('[?#]', rest, maxsplit=1)[0]}"


def repo_id(url: str | None, root: Path, object_format: str = "sha1", *, machine: str | None = None) -> str:
    """Return a short hash of the cleaned remote URL, so that everyone who works on a repository shares its objects.
    Without a remote, or with one on this machine's disk, it is a hash of machine and path."""
    identity = _normal(clean_url(url)) if url else ""
    if not identity or _is_local(identity):
        identity = f"{machine or machine_name()}:{identity or os.path.abspath(root)}"
    if object_format != "sha1":
        identity = f"{object_format}:{identity}"
    return hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]


def machine_name() -> str:
    """Return an id that is unique to this machine."""
    for file in _MACHINE_IDS:
        if file.is_file() and (name := file.read_text().strip()):
            return name
    return platform.node()


def _normal(url: str) -> str:
    return url.rstrip("/").removesuffix(".git").rstrip("/")


def _is_local(url: str) -> bool:
    if parts := _URL.fullmatch(url):
        return parts["scheme"].lower() == "file"
    return ":" not in url.partition("/")[0]
