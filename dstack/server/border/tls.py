"""The server's certificate. A renewed one is used from the next connection on, without a restart."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from dstack.errors import UsageError

LOOK = 10.0
"""Seconds between two looks at the files."""

log = logging.getLogger("dstack.server")


class Certificate:
    """A certificate with its chain, and its key, in PEM files. The key may be in the same file. Raises UsageError if
    they can't be used."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self.certificate, self.key = certificate.absolute(), (key or certificate).absolute()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.seen = self.state()
        self.load(self.context)

    def state(self) -> list[tuple[int, int, int]]:
        """Return what changes when the files do. Raises UsageError if one is missing."""
        try:
            found = [path.stat() for path in (self.certificate, self.key)]
        except OSError as error:
            raise UsageError(f"{error.filename} can't be read: {error.strerror}", hint="check --tls-cert") from error
        return [(status.st_ino, status.st_mtime_ns, status.st_size) for status in found]

    def load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key, password=no_password)
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"the certificate {self.certificate} can't be used with the key {self.key}: {why}",
                hint="both must be in PEM format and belong together, and the key must have no password",
            ) from error

    def renew(self) -> None:
        """Use the files if they have changed. Ones that can't be used are logged once, and the old ones stay in use."""
        try:
            now = self.state()
            if now == self.seen:
                return
            self.seen = now
            self.load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
            self.load(self.context)
            log.info("the certificate %s was renewed", self.certificate)
        except UsageError as error:
            log.warning("the renewed certificate is not used: %s", error.message)

    async def watch(self) -> None:
        """Renew the certificate whenever its files change."""
        while True:
            await asyncio.sleep(LOOK)
            self.renew()


def no_password() -> str:
    """Stop OpenSSL from asking on the terminal."""
    raise ValueError("the key has a password")
