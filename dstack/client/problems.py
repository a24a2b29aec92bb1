"""Turns the server's error responses back into exceptions."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack import errors
from dstack.errors import DstackError, UsageError
from dstack.model.api.server import Problem


def problem(status: int, body: bytes) -> DstackError:
    """Return the exception that the server met, from its error response."""
    try:
        met = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return DstackError(f"the server answered with status {status}: {body[:200].decode(errors='replace').strip()}")
    special: dict[str, Any] = {"host-key": errors.UnknownHostKeyError, "missing-base": errors.MissingBaseError}
    kind = special.get(met.kind) or getattr(errors, met.kind, None)
    if kind is errors.ProjectError:
        error: DstackError = errors.ProjectError(met.message.splitlines(), hint=met.hint)
    elif isinstance(kind, type) and issubclass(kind, DstackError) and kind is not errors.CommandError:
        error = kind(met.message, hint=met.hint)
    else:
        error = (UsageError if met.exit_code == 2 else DstackError)(met.message, hint=met.hint)
    if isinstance(error, errors.UnknownHostKeyError):
        error.fingerprint = met.fingerprint or ""
    if isinstance(error, errors.MissingBaseError):
        error.known = met.known
    error.exit_code, error.code = met.exit_code, met.code
    return error
