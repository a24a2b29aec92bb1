"""The user's keys, from files and from the SSH agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh


@dataclass
class UserKeys:
    """The keys in key files. `public` holds public keys as ssh sends them, including those of `locked` files (with a
    passphrase) if readable; `unusable` holds one sentence per file that can't be used.
    """

    pairs: list[asyncssh.SSHKeyPair] = field(default_factory=list)
    public: list[bytes] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path], certificates: Iterable[Path]) -> UserKeys:
        """Read private keys, and public keys that select one in the agent. Blocks."""
        keys = cls()
        certlist = [str(path) for path in certificates if path.exists()]
        for path in paths:
            keys._load(path, certlist)
        return keys

    def _load(self, path: Path, certlist: list[str]) -> None:
        public = _public(path)
        try:
            pairs = asyncssh.load_keypairs(str(path), certlist=certlist)
            # a security key waits for a touch: it is used only if the agent holds it
            self.pairs += [pair for pair in pairs if not pair.get_algorithm().startswith("sk-")]
        except OSError as error:
            self.unusable.append(f"the key {path} can't be read: {error.strerror}")
            return
        except asyncssh.KeyImportError as error:
            if "passphrase" in str(error).lower():
                self.locked.append(path)
            elif public is None:
                self.unusable.append(f"{path} is not a usable key: {error}")
        if public is not None:
            self.public.append(public)


@asynccontextmanager
async def agent_keys(path: str | None, only: list[bytes] | None) -> AsyncIterator[list[asyncssh.SSHKeyPair]]:
    """Yield the keys of the agent at this socket, usable within the body; `only` these if given. As with ssh, an agent
    that does not answer has no keys."""
    if path is None or only == []:
        yield []
        return
    found: list[asyncssh.SSHKeyPair] = []
    with closing(asyncssh.SSHAgentClient(path)) as agent:
        with suppress(ValueError):
            found += await agent.get_keys(only)
        yield found


def public_text(key: asyncssh.SSHKey) -> str:
    """Return a public key in OpenSSH's format: type and base64."""
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def key_name(key: asyncssh.SSHKeyPair) -> str:
    """Return the key's comment (often its file), else its algorithm."""
    return key.get_comment(errors="replace") or key.get_algorithm()


def _public(path: Path) -> bytes | None:
    """Return the public key in the file, or None if it can't be read without a passphrase."""
    try:
        return asyncssh.read_public_key(str(path)).public_data
    except (OSError, asyncssh.KeyImportError):
        return None
