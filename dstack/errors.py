"""One tree of errors. Each says what happened, what follows from it, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence


class DstackError(Exception):
    """Something that a person is told in one line.

    `message` says what happened and what it means; `hint` is what to type next.
    `exit_code` is that of the command which fails with it (see docs/exit-codes.md).
    """

    exit_code = 125

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DstackError):
    """The command line, a project file or the request can't be carried out as it stands. Nothing was done."""

    exit_code = 2


class ProjectError(UsageError):
    """All that is wrong in the project's files, one line a problem, each with file and line."""

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class NotFoundError(UsageError):
    """No run, job, runner or path of that name; or a prefix that fits several."""


class ConflictError(UsageError):
    """The name is taken, or the thing is in a state that forbids the request."""


class UnauthorizedError(UsageError):
    """The server wants a token, and got none or a wrong one."""


class TryAgainError(DstackError):
    """Nothing is running because of this command, and the same command may work later (EX_TEMPFAIL)."""

    exit_code = 75


class HostError(DstackError):
    """A host, or the way to it, failed. `sent` is False when it is certain that the command never went out."""

    sent = True


class HostUnreachableError(HostError):
    """No connection, or it broke: what was asked may or may not have happened. A condition, never a result."""


class HostKeyError(HostError):
    """The host shows another key than the one that was pinned. Nothing was sent to it."""

    sent = False


class UnknownHostKeyError(HostKeyError):
    """Nobody has vouched for the host's key yet. `fingerprint` is the one that the host shows."""

    def __init__(self, message: str, *, hint: str | None = None, fingerprint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class HostAuthError(HostError):
    """The host lets none of the keys in that were tried."""

    sent = False


class CommandError(HostError):
    """A command ran on the host and failed, or answered what its parser does not understand."""

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
    """The artifact store refused, or lacks what its manifest names."""
