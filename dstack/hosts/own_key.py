"""The server's own key, for machines that authorize it."""

from __future__ import annotations

import os
from pathlib import Path


def own_key(path: Path) -> str:
    """Return the public key (type and base64) of the private key in this file. Generates the key if it is missing."""
    import asyncssh

    if not path.exists():
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        key = asyncssh.generate_private_key("ssh-ed25519")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key.export_private_key())
        aside.replace(path)
    public = asyncssh.read_private_key(str(path)).export_public_key("openssh").decode()
    return " ".join(public.split()[:2])
