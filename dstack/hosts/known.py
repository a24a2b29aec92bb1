"""Host keys that the user's known_hosts files have."""

from __future__ import annotations

import asyncssh

from dstack.hosts.settings import Settings


def read_known_hosts(settings: Settings) -> asyncssh.SSHKnownHosts:
    """All entries that can be read; blocks. As for ssh, a line that is not one is passed over, and a file may lack."""
    known = asyncssh.SSHKnownHosts()
    for path in settings.known_hosts:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            _load(known, line)
    return known


def known_keys(settings: Settings) -> list[asyncssh.SSHKey]:
    """The keys that are known for the machine, under its name and port; blocks."""
    port = settings.port if settings.port != 22 else None
    keys, _, revoked, *_ = read_known_hosts(settings).match(settings.alias or settings.host, "", port)
    return [key for key in keys if key not in revoked]


def authorities(settings: Settings) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """The authorities (`@cert-authority`) that may certify the machine's key, and what was revoked; blocks."""
    port = settings.port if settings.port != 22 else None
    _, certifying, revoked, *_ = read_known_hosts(settings).match(settings.alias or settings.host, "", port)
    return list(certifying), list(revoked)


def public_text(key: asyncssh.SSHKey) -> str:
    """A public key as OpenSSH writes it: type and base64."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _load(known: asyncssh.SSHKnownHosts, line: str) -> None:
    try:
        known.load(line)
    except ValueError:
        return  # not an entry: ssh passes over it too
