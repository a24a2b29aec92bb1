"""What a failing command prints: one line, a hint and an exit code, but no traceback."""

from __future__ import annotations

import os
import sys
import time
import traceback
from pathlib import Path

import click

from dstack import __version__
from dstack.cli.output import show
from dstack.client import embedded
from dstack.errors import DstackError, ProjectError

INTERRUPTED = 130


def report(error: BaseException) -> int:
    """Print the error and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, BrokenPipeError):
        return show.leave_closed_output()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, DstackError):
        return _expected(error)
    if isinstance(error, click.ClickException):
        return _usage(error)
    return _unexpected(error)


def _expected(error: DstackError) -> int:
    if isinstance(error, ProjectError):
        for line in error.problems:
            show.say(line)
        count = len(error.problems)
        complain(f"the project has {count} {'error' if count == 1 else 'errors'}; nothing was submitted", error.hint)
    else:
        complain(error.message, error.hint)
    return error.exit_code


def _usage(error: click.ClickException) -> int:
    message = error.format_message().rstrip(".")
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"{error.ctx.command_path} --help"
    complain(message[:1].lower() + message[1:], hint)
    return error.exit_code


def _unexpected(error: BaseException) -> int:
    """Report a bug in dstack, or a full disk: write the traceback to a file."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    try:
        path = _keep(error)
    except OSError as full:
        complain(f"unexpected {what}; the traceback could not be saved ({full})", None)
    else:
        complain(f"unexpected {what}", f"this may be a bug in dstack; please report it, with the traceback in {path}")
    return DstackError.exit_code


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
