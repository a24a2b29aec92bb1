"""The user's keys: those in files, and those that the agent holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh


@dataclass
class Keys:
    """What the key files are good for. `public` holds the public halves as ssh sends them, of `locked` ones (those
    with a passphrase) too where the file shows it; `unusable` says in words what is wrong with a file.
    """

    pairs: list[asyncssh.SSHKeyPair] = field(default_factory=list)
    public: list[bytes] = field(default_factory=list)
    locked: list[Path] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path], certificates: Iterable[Path]) -> Keys:
        """Read private keys, and public ones that stand for a key in the agent. Blocks."""
        keys = cls()
        certlist = [str(path) for path in certificates if path.exists()]
        for path in paths:
            keys._load(path, certlist)
        return keys

    def _load(self, path: Path, certlist: list[str]) -> None:
        public = _public(path)
        try:
            self.pairs += asyncssh.load_keypairs(str(path), certlist=certlist)
        except OSError as error:
            self.unusable.append(f"the key {path} can't be read: {error.strerror}")
            return
        except asyncssh.KeyImportError as error:
            if "passphrase" in str(error).lower():
                self.locked.append(path)
            elif public is None:
                self.unusable.append(f"{path} is not a key that can be used: {error}")
        if public is not None:
            self.public.append(public)


@asynccontextmanager
async def agent_keys(path: str | None, only: list[bytes] | None) -> AsyncIterator[list[asyncssh.SSHKeyPair]]:
    """The keys of the agent that listens at this socket, usable within the body; `only` these if given. An agent that
    does not answer has none, as for ssh."""
    if path is None or only == []:
        yield []
        return
    agent = asyncssh.SSHAgentClient(path)
    try:
        try:
            found = list(await agent.get_keys(only))
        except ValueError:
            found = []
        yield found
    finally:
        agent.close()


def key_name(key: asyncssh.SSHKeyPair) -> str:
    """What a person calls the key: its comment or file, else its fingerprint."""
    return key.get_comment(errors="replace") or key.get_algorithm()


def _public(path: Path) -> bytes | None:
    """The public half; None for a file that hides it, or has none."""
    try:
        return asyncssh.read_public_key(str(path)).public_data
    except (OSError, asyncssh.KeyImportError):
        return None
