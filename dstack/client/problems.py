"""Turns the server's error responses back into exceptions."""

from __future__ import annotations

import msgspec

from dstack import errors
from dstack.errors import DstackError, MissingBaseError, UnknownHostKeyError, UsageError
from dstack.model.api.server import Problem


def problem(status: int, body: bytes) -> DstackError:
    """Return the exception for an error response."""
    try:
        decoded = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return DstackError(f"the server answered with status {status}: {body[:200].decode(errors='replace').strip()}")
    error = _error(decoded)
    error.exit_code, error.code = decoded.exit_code, decoded.code
    return error


def _error(problem: Problem) -> DstackError:
    if problem.kind == "host-key":
        return UnknownHostKeyError(problem.message, hint=problem.hint, fingerprint=problem.fingerprint or "")
    if problem.kind == "missing-base":
        missing = MissingBaseError(problem.message, hint=problem.hint)
        missing.known = problem.known
        return missing
    if problem.kind == "ProjectError":
        return errors.ProjectError(problem.message.splitlines(), hint=problem.hint)
    kind = getattr(errors, problem.kind, None)
    if isinstance(kind, type) and issubclass(kind, DstackError) and kind is not errors.CommandError:
        return kind(problem.message, hint=problem.hint)
    return (UsageError if problem.exit_code == 2 else DstackError)(problem.message, hint=problem.hint)
