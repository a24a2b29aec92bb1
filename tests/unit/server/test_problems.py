"""An error of the server is the same error for the client."""

from __future__ import annotations

import pytest

from dstack import errors
from dstack.client.connection import problem
from dstack.errors import DstackError, ErrorCode
from dstack.model.api import wire
from dstack.model.job.reasons import ReasonCode
from dstack.server.endpoints import problem_of


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("no", hint="try"),
        errors.UsageError("train can't run", code=ReasonCode.NO_RUNNER_KNOWN),
        errors.ProjectError(["one", "two"]),
        errors.NotFoundError("several", code=ErrorCode.AMBIGUOUS),
        errors.ConflictError("taken"),
        errors.UnauthorizedError("no token"),
        errors.TryAgainError("later"),
        errors.HostUnreachableError("gone", code=ErrorCode.CONNECTION_REFUSED),
        errors.UnknownHostKeyError("who?", fingerprint="SHA256:x"),
        errors.MissingBaseError("what?"),
        errors.StorageError("full"),
        errors.DstackError("a bug", code=ErrorCode.INTERNAL),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_arrives_as_it_was(error: DstackError) -> None:
    sent, status = problem_of(error)
    arrived = problem(status, wire.encode(sent))

    assert type(arrived) is type(error)
    assert (arrived.code, arrived.message, arrived.hint) == (error.code, error.message, error.hint)
    assert arrived.exit_code == error.exit_code


def test_an_older_server_sends_no_code() -> None:
    assert problem(404, b'{"kind": "NotFoundError", "message": "no"}').code == "error"
