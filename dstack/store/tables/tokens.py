"""The tokens with which people reach the server over TCP, stored as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model.api.tokens import CreatedToken, Role, TokenView
from dstack.model.text.units import rfc3339, seconds
from dstack.store.database import Database
from dstack.store.tables.events import SERVER, EventLog, RecordedTable

SHARED = "shared"
"""The name of the token in DSTACK_TOKEN. Everybody may hold it, so it proves no name."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
USE_RECORDED = 60.0
"""Seconds within which a second use of a token is not recorded."""
COLUMNS = "name, role, created_at, used_at"


def hashed(token: str) -> str:
    """Return the hash that is stored in place of a token. A token is random, so a plain hash can't be guessed back."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Tokens(RecordedTable):
    """The tokens by name. `revoked` is called with the name of each token that is revoked or replaced."""

    def __init__(self, database: Database, events: EventLog) -> None:
        super().__init__(database, events)
        self.revoked: Callable[[str], None] = lambda name: None

    def create(self, name: str, role: Role) -> CreatedToken:
        """Make a token. Raises UsageError for an invalid name, ConflictError for one that is taken."""
        if not NAME.fullmatch(name) or name in (SHARED, SERVER):
            hint = "use up to 64 letters, digits, '.', '_', '@', '+' and '-'; 'shared' and 'server' are reserved"
            raise UsageError(f"'{name}' is not a valid name for a token", hint=hint)
        if any(token.name == name for token in self.all()):
            hint = f"to replace it: dstack server token revoke {name}, then create it again"
            raise ConflictError(f"a token named '{name}' already exists", hint=hint)
        token = secrets.token_urlsafe(32)
        return CreatedToken(name=name, role=role, created_at=self._add(name, role, token), token=token)

    def share(self, token: str) -> None:
        """Make this the shared token, which is an admin's. It replaces the one before, and stays if it is the same."""
        known = self.find(token)
        if known is None or known.name != SHARED:
            self._remove(SHARED)
            self._add(SHARED, Role.ADMIN, token)

    def all(self) -> list[TokenView]:
        """Return all tokens, sorted by name."""
        rows = self.database.rows(f"SELECT {COLUMNS} FROM tokens ORDER BY name")
        return [TokenView(name=name, role=Role(role), created_at=at, used_at=used) for name, role, at, used in rows]

    def find(self, token: str) -> TokenView | None:
        """Return whose token this is, or None. All hashes are compared, in constant time."""
        given, found = hashed(token), None
        for hash_, name, role, at, used in self.database.rows(f"SELECT hash, {COLUMNS} FROM tokens"):
            if hmac.compare_digest(hash_, given):
                found = TokenView(name=name, role=Role(role), created_at=at, used_at=used)
        return found

    def use(self, token: TokenView) -> None:
        """Record that a token is used now, unless that was recorded within the last minute."""
        now = time.time()
        if token.used_at is None or now - seconds(token.used_at) >= USE_RECORDED:
            self.database.execute("UPDATE tokens SET used_at = ? WHERE name = ?", (rfc3339(now), token.name))

    def revoke(self, name: str) -> None:
        """Forget a token and its notify URLs: it is refused from now on. Raises NotFoundError if there is none."""
        if not self._remove(name):
            raise NotFoundError(f"no token '{name}'", hint="dstack server token list")

    def _add(self, name: str, role: Role, token: str) -> str:
        now = rfc3339(time.time())
        with self.database.transaction():
            row = {"name": name, "hash": hashed(token), "role": role.value, "created_at": now, "used_at": None}
            self.database.table("tokens").insert(row)
            self.events.add("token.created", data={"name": name, "role": role.value})
        return now

    def _remove(self, name: str) -> bool:
        with self.database.transaction():
            if not self.database.execute("DELETE FROM tokens WHERE name = ?", [name]).rowcount:
                return False
            self.database.execute("DELETE FROM sessions WHERE token = ?", [name])
            self.database.execute("DELETE FROM notify_targets WHERE owner = ?", [name])
            self.events.add("token.revoked", data={"name": name})
        self.revoked(name)
        return True
