"""All errors. Each says what happened, what it means, and what to type next."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar

from dstack.model.text.code import Code
from dstack.model.text.untrusted import MESSAGE, shorten

LINE, WHOLE, PROBLEM = MESSAGE + 1000, 50_000, 600
"""Characters of a line of a message, of the message, and of one problem in a project's files: what they quote may be of
any length."""
MOST_PROBLEMS = 200


class ErrorCode(Code):
    """The `code` of every error that is shown to users."""

    ERROR = "error", "Something failed that has no code of its own."
    INTERNAL = "internal", "A bug in dstack, or the machine that it runs on failed."
    USAGE = "usage", "The command line or the request is invalid."
    PROJECT = "invalid-project", "The project's files are invalid; the message has one problem per line."
    NOT_FOUND = "not-found", "Nothing has this name."
    AMBIGUOUS = "ambiguous-name", "A prefix matches several runs or jobs."
    CONFLICT = "conflict", "The name is taken, or the current state forbids the request."
    UNAUTHORIZED = "unauthorized", "The token that the server requires is missing or wrong."
    TOO_LARGE = "too-large", "The request is larger than the server accepts."
    TOO_SLOW = "too-slow", "The request did not arrive in time, or was cut off."
    TOO_MANY = "too-many", "Too many connections are open, or too many wrong tokens came from this address."
    FOREIGN_HOST = "foreign-host", "The request names a host that the server does not know as its own."
    FOREIGN_ORIGIN = "foreign-origin", "The request comes from a page of another web site."
    FORBIDDEN = "forbidden", "The token is valid, but its role or the server's settings don't allow this over TCP."
    NOT_RUNNING = "not-running", "The job has no running container to look into."
    PORT_CLOSED = "port-closed", "Nothing listens on the forwarded port in the container, or nothing can connect to it."
    TRY_AGAIN = "try-again", "Nothing was started, and the same command may work later."
    SERVER_UNREACHABLE = "server-unreachable", "The server can't be reached."
    STATE_BUSY = "state-busy", "Another program keeps the server's state locked; nothing was done."
    SERVER_DISK_FULL = "server-disk-full", "The server's disk is full, or too full for what was sent; nothing was done."
    STATE_DAMAGED = "state-damaged", "The server's state can't be read: it is damaged."
    SERVER_FAILED = "server-failed", "The server's machine failed: its disk, its memory, or a limit of its system."
    CONNECTION_BROKE = "connection-broke", "The connection to the server broke; the request may have been carried out."
    CERTIFICATE = "certificate", "The server's certificate can't be verified, or does not belong to its name."
    WRONG_SCHEME = "wrong-scheme", "The URL starts with http:// but the server uses TLS, or the other way round."
    SERVER_NOT_STARTED = "server-not-started", "The user's own server did not start."
    BACKUP_INVALID = "backup-invalid", "The file is no complete backup, or one that this version can't read."
    GIT = "git", "git failed on this machine or on the server."
    REMOTE = "remote", "The remote repository of a trigger can't be read; the message has git's words."
    NO_BRANCH = "no-branch", "The remote repository has no such branch."
    FILES_CHANGED = "files-changed", "Files changed while they were read."
    MISSING_BASE = "missing-base", "The server lacks commits that the sent code builds on."
    DOWNLOAD = "download", "An artifact could not be downloaded from where it is stored."
    HOST = "host", "A host failed."
    HOST_UNREACHABLE = "host-unreachable", "There is no connection to the host, or it broke."
    CONNECTION_REFUSED = "connection-refused", "The host answers, but nothing accepts SSH connections there."
    HOST_KEY = "host-key", "The host's key differs from the pinned one, or can't be verified."
    HOST_KEY_UNKNOWN = "host-key-unknown", "Nobody has vouched for the host's key yet."
    HOST_LOGIN = "host-login", "The host accepted none of the keys that were tried."
    SERVER_COPIED = (
        "server-copied",
        "Another server with the same id uses the machine: one home is a copy of the other.",
    )
    HOST_COMMAND = "host-command", "A command on the host failed."
    HOST_FLOOD = "host-flood", "The host sent more than dstack reads."
    NOTIFY = "notify", "A message to a notify URL did not arrive."
    FILE = "file", "A file, a folder or an output of this machine can't be used, for instance because its disk is full."
    STORAGE = "storage", "The artifact store refused a request, or lacks a file."


class DstackError(Exception):
    """An error that is shown to the user in one line.

    `message` says what happened and what it means; `hint` is what to type next. `exit_code` is the exit code of the
    command (see docs/exit-codes.md), `code` what programs compare: an ErrorCode or the code of a reason.
    """

    exit_code = 125
    code: str = ErrorCode.ERROR

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        self.message = shorten("\n".join(shorten(line, LINE) for line in message.split("\n")), WHOLE)
        super().__init__(self.message)
        self.hint = hint and shorten(hint, LINE)
        self.code = code or self.code


class UsageError(DstackError):
    """The command line, a project file or the request is invalid. Nothing was done."""

    code = ErrorCode.USAGE
    exit_code = 2


class ProjectError(UsageError):
    """All problems in the project's files, or in an inventory, one per line, each with file and line number. `what` has
    them; `consequence` follows in the line that counts them, and says what was not done because of them."""

    code = ErrorCode.PROJECT

    def __init__(
        self,
        problems: Sequence[str],
        *,
        hint: str | None = None,
        what: str = "the project",
        consequence: str = "",
    ) -> None:
        shown = [shorten(problem, PROBLEM) for problem in problems[:MOST_PROBLEMS]]
        more = len(problems) - len(shown)
        super().__init__("\n".join([*shown, f"and {more:,} more"] if more else shown), hint=hint)
        self.problems = tuple(problems)
        self.what, self.consequence = what, consequence


class NotFoundError(UsageError):
    """No run, job, runner or path has this name, or a prefix matches several."""

    code = ErrorCode.NOT_FOUND


class ConflictError(UsageError):
    """The name is taken, or the current state forbids the request."""

    code = ErrorCode.CONFLICT


class UnauthorizedError(UsageError):
    """The token that the server requires is missing or wrong."""

    code = ErrorCode.UNAUTHORIZED


class ForbiddenError(UsageError):
    """The token is valid, but its role or the server's settings don't allow this over TCP. Nothing was done."""

    code = ErrorCode.FORBIDDEN


class NotRunningError(DstackError):
    """The job has no running container to look into."""

    code = ErrorCode.NOT_RUNNING


class TryAgainError(DstackError):
    """Nothing was started, and the same command may work later (EX_TEMPFAIL)."""

    code = ErrorCode.TRY_AGAIN
    exit_code = 75


class ServerTroubleError(TryAgainError):
    """The server's machine can't do it now. Nothing was done, and it is no job's fault: whatever met it is tried again.
    `again` is the number of seconds after which that makes sense."""

    code = ErrorCode.SERVER_FAILED
    again: ClassVar[int] = 60


class StateBusyError(ServerTroubleError):
    """Another program has locked the server's state."""

    code = ErrorCode.STATE_BUSY
    again = 1


class DiskFullError(ServerTroubleError):
    """A disk of the server is full, or would be."""

    code = ErrorCode.SERVER_DISK_FULL


class StateDamagedError(ServerTroubleError):
    """The server's state is damaged, and trying again does not help."""

    code = ErrorCode.STATE_DAMAGED
    exit_code = 125


class HostError(DstackError):
    """A host or the connection to it failed. `sent` is False if the command was certainly not sent."""

    code = ErrorCode.HOST
    sent = True


class HostUnreachableError(HostError):
    """There is no connection, or it broke: the command may or may not have run. Never the result of a job."""

    code = ErrorCode.HOST_UNREACHABLE


class EngineSilentError(HostUnreachableError):
    """The host answers, but the engine that holds its containers does not. `engine` is its name, `words` what its
    client said."""

    def __init__(self, engine: str, runner: str, words: str) -> None:
        hint = f"dstack runners check {runner}"
        super().__init__(f"{engine} on {runner} does not answer: {words or 'no error message'}", hint=hint)
        self.engine = engine
        self.words = words or "no error message"


class HostKeyError(HostError):
    """The host's key differs from the pinned one. Nothing was sent to it."""

    code = ErrorCode.HOST_KEY
    sent = False


class UnknownHostKeyError(HostKeyError):
    """Nobody has vouched for the host's key yet. `fingerprint` is the one that the host shows."""

    code = ErrorCode.HOST_KEY_UNKNOWN

    def __init__(self, message: str, *, hint: str | None = None, fingerprint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fingerprint = fingerprint


class HostAuthError(HostError):
    """The host accepted none of the keys that were tried."""

    code = ErrorCode.HOST_LOGIN
    sent = False


class OtherServerError(HostError):
    """Another server with this server's id owns its folder on the host. Nothing was done there."""

    code = ErrorCode.SERVER_COPIED


class CommandError(HostError):
    """A command ran on the host and failed, or its output could not be parsed."""

    code = ErrorCode.HOST_COMMAND

    def __init__(self, name: str, exit_status: int, stderr: str, *, hint: str | None = None) -> None:
        detail = stderr.strip() or "it printed nothing"
        super().__init__(f"{name} failed with exit status {exit_status}: {detail}", hint=hint)
        self.name = name
        self.exit_status = exit_status
        self.stderr = stderr


class MissingBaseError(DstackError):
    """A pack builds on commits that the server lacks. `known` names the commits that a pack may build on."""

    code = ErrorCode.MISSING_BASE
    known: tuple[str, ...] = ()


class StorageError(DstackError):
    """The artifact store refused a request, or lacks a file that its manifest lists."""

    code = ErrorCode.STORAGE


class StorageUnavailableError(StorageError):
    """The artifact store does not answer, or refuses what it has to do now. Trying again later may work."""


class FileError(DstackError):
    """A file, a folder or an output of this machine can't be used."""

    code = ErrorCode.FILE


FULL = {errno.ENOSPC, errno.EDQUOT}
FAILING = {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


def server_trouble(error: Exception) -> ServerTroubleError | None:
    """Return what an error of the system means if it is the server's machine that fails; None for any other."""
    if isinstance(error, OSError) and error.errno in FULL:
        return disk_full(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in FAILING):
        what = error.strerror if isinstance(error, OSError) else "it has no memory left"
        message = f"the server's machine fails: {what}; what is in progress goes on once that is mended"
        return ServerTroubleError(message, hint="dstack server logs")
    return None


def disk_full(what: str) -> DiskFullError:
    """Return the error of a disk that is full, in the words of whoever met it."""
    message = f"the server's disk is full ({what}); what is in progress goes on once there is space"
    return DiskFullError(message, hint="free space on the server, for instance with: dstack prune")


def reason(error: Exception) -> str:
    """Return an error's message without its number, beginning in lower case."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
