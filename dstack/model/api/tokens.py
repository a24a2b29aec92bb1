"""Tokens and roles, in the API and in `--json`."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Role(str, Enum):
    """What the holder of a token may do. An admin may do everything; a member reads everything, submits runs, and
    changes only their own."""

    ADMIN = "admin"
    MEMBER = "member"


class NewToken(Struct, kw_only=True):
    """The body of `POST /tokens`."""

    name: str
    role: Role = Role.MEMBER


class TokenView(Struct, kw_only=True):
    """A token as admins see it, without its value. `used_at` is when it was last used, up to a minute off."""

    name: str
    role: Role
    created_at: str
    used_at: str | None = None


class CreatedToken(TokenView, kw_only=True):
    """The response of `POST /tokens`: the only time that the token itself is shown."""

    token: str
