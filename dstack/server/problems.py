"""The server's errors, as the exceptions that they were there."""

from __future__ import annotations

import msgspec

from dstack import errors
from dstack.errors import DstackError, MissingBaseError, UnknownHostKeyError, UsageError
from dstack.model.api.server import Problem


def problem(status: int, body: bytes) -> DstackError:
    """The server's error as the exception it was there."""
    try:
        told = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return DstackError(f"the server answered with status {status}: {body[:200].decode(errors='replace').strip()}")
    error = _error(told)
    error.exit_code = told.exit_code
    return error


def _error(told: Problem) -> DstackError:
    if told.kind == "host-key":
        return UnknownHostKeyError(told.message, hint=told.hint, fingerprint=told.fingerprint or "")
    if told.kind == "missing-base":
        missing = MissingBaseError(told.message, hint=told.hint)
        missing.known = told.known
        return missing
    if told.kind == "ProjectError":
        return errors.ProjectError(told.message.splitlines(), hint=told.hint)
    kind = getattr(errors, told.kind, None)
    if isinstance(kind, type) and issubclass(kind, DstackError) and kind is not errors.CommandError:
        return kind(told.message, hint=told.hint)
    return (UsageError if told.exit_code == 2 else DstackError)(told.message, hint=told.hint)
