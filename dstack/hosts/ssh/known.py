"""Host keys in known_hosts files."""

from __future__ import annotations

import asyncssh

from dstack.hosts.ssh.settings import SshSettings


def read_known_hosts(settings: SshSettings) -> asyncssh.SSHKnownHosts:
    """Read all valid entries; blocks. Invalid lines and missing files are skipped, as ssh does."""
    known = asyncssh.SSHKnownHosts()
    for path in settings.known_hosts:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        for line in text.splitlines():
            _load(known, line)
    return known


def known_keys(settings: SshSettings) -> list[asyncssh.SSHKey]:
    """Return the keys listed for the machine's name and port; blocks."""
    port = settings.port if settings.port != 22 else None
    keys, _, revoked, *_ = read_known_hosts(settings).match(settings.alias or settings.host, "", port)
    return [key for key in keys if key not in revoked]


def authorities(settings: SshSettings) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
    """Return the keys of authorities (`@cert-authority`) for the machine, and the revoked keys; blocks."""
    port = settings.port if settings.port != 22 else None
    _, certifying, revoked, *_ = read_known_hosts(settings).match(settings.alias or settings.host, "", port)
    return list(certifying), list(revoked)


def public_text(key: asyncssh.SSHKey) -> str:
    """Return a public key in OpenSSH's format: type and base64."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def _load(known: asyncssh.SSHKnownHosts, line: str) -> None:
    try:
        known.load(line)
    except ValueError:
        return  # not an entry: ssh skips it too
