"""All errors. Each says what happened, what it means, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence


class DstackError(Exception):
    """An error that is shown to the user in one line.

    `message` says what happened and what it means; `hint` is what to type next. `exit_code` is the exit code of the
    command (see docs/exit-codes.md).
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DstackError):
    """The command line, a project file or the request is invalid. Nothing was done."""

    exit_code = 2


class ProjectError(UsageError):
    """All problems in the project's files, one per line, each with file and line number."""

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class NotFoundError(UsageError):
    """No run, job, runner or path has this name, or a prefix matches several."""


class ConflictError(UsageError):
    """The name is taken, or the current state forbids the request."""


class UnauthorizedError(UsageError):
    """The token that the server requires is missing or wrong."""


class TryAgainError(DstackError):
    """Nothing was started, and the same command may work later (EX_TEMPFAIL)."""

    exit_code = 75


class HostError(DstackError):
    """A host or the connection to it failed. `sent` is False if the command was certainly not sent."""

    sent = True


class HostUnreachableError(HostError):
    """There is no connection, or it broke: the command may or may not have run. Never the result of a job."""


class HostKeyError(HostError):
    """The host's key differs from the pinned one. Nothing was sent to it."""

    sent = False


class UnknownHostKeyError(HostKeyError):
    """Nobody has vouched for the host's key yet. `fingerprint` is the one that the host shows."""

    def __init__(self, message: str, *, hint: str | None = None, fingerprint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class HostAuthError(HostError):
    """The host accepted none of the keys that were tried."""

    sent = False


class CommandError(HostError):
    """A command ran on the host and failed, or its output could not be parsed."""

    def __init__(self, name: str, exit_status: int, stderr: str, *, hint: str | None = None) -> None:
        detail = stderr.strip() or "it printed nothing"
        super().__init__(f"{name} failed with exit status {exit_status}: {detail}", hint=hint)
        self.name = name
        self.exit_status = exit_status
        self.stderr = stderr


class MissingBaseError(DstackError):
    """A pack builds on commits that the server lacks. `known` names the commits that a pack may build on."""

    known: tuple[str, ...] = ()


class StorageError(DstackError):
    """The artifact store refused a request, or lacks a file that its manifest lists."""
