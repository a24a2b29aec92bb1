"""What a failing command prints: one line, a hint and an exit code, but no traceback."""

from __future__ import annotations

import os
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import click

from dstack import __version__
from dstack.cli.output import show
from dstack.client import embedded
from dstack.errors import DstackError, ErrorCode, ProjectError
from dstack.model.api import wire

INTERRUPTED = 130
CLICK_WORDS = {"a valid integer range": "a whole number", ". Did you mean": "; did you mean"}
"""What click says, and what dstack says instead."""


@dataclass(frozen=True)
class Complaint:
    """What is printed about an error. `problems` are lines that come before the message."""

    code: str
    message: str
    hint: str | None
    exit_code: int
    problems: tuple[str, ...] = ()


def report(error: BaseException, *, as_json: bool = False) -> int:
    """Print the error, for people or as one line of JSON, and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, BrokenPipeError):
        return show.leave_closed_output()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    complaint = _complaint(error)
    if as_json:
        _print_json(complaint)
    else:
        for line in complaint.problems:
            show.say(line)
        complain(complaint.message, complaint.hint)
    return complaint.exit_code


def _complaint(error: BaseException) -> Complaint:
    if isinstance(error, DstackError):
        return _expected(error)
    if isinstance(error, click.ClickException):
        return _usage(error)
    return _unexpected(error)


def _expected(error: DstackError) -> Complaint:
    message, problems = error.message, tuple[str, ...]()
    if isinstance(error, ProjectError):
        count, problems = len(error.problems), error.problems
        message = f"the project has {count} {'error' if count == 1 else 'errors'}; nothing was submitted"
    return Complaint(error.code, message, error.hint, error.exit_code, problems)


def _usage(error: click.ClickException) -> Complaint:
    message = error.format_message().rstrip(".")
    for theirs, ours in CLICK_WORDS.items():
        message = message.replace(theirs, ours)
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help"
    return Complaint(ErrorCode.USAGE, message[:1].lower() + message[1:], hint, error.exit_code)


def _unexpected(error: BaseException) -> Complaint:
    """Report a bug in dstack, or a full disk: write the traceback to a file."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        path = _keep(error)
    except OSError as full:
        message, hint = f"unexpected {what}; the traceback could not be saved ({full})", None
    else:
        message = f"unexpected {what}"
        hint = f"this may be a bug in dstack; please report it, with the traceback in {path}"
    return Complaint(ErrorCode.INTERNAL, message, hint, DstackError.exit_code)


def _print_json(complaint: Complaint) -> None:
    """Print the error as one line on stderr. The problems of a project are the lines of its message."""
    error = {
        "code": complaint.code,
        "message": "\n".join(complaint.problems) or complaint.message,
        "hint": complaint.hint,
        "exit_code": complaint.exit_code,
    }
    print(wire.encode({"error": error}).decode(), file=sys.stderr, flush=True)


def _keep(error: BaseException) -> Path:
    folder = embedded.home() / "crashes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    head = f"dstack {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n{sys.argv}\n"
    path.write_text(head + text, encoding="utf-8", errors="backslashreplace")
    return path


def complain(message: str, hint: str | None) -> None:
    """Print `dstack: error: ...` and the hint."""
    show.say(f"dstack: error: {message}", style="red")
    if hint:
        show.say(f"hint: {hint}")
