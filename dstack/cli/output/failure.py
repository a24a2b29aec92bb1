"""What a failing command prints: one line, a hint and an exit code, but no traceback."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from dstack import __version__
from dstack.cli.output import again, show, words
from dstack.client import embedded
from dstack.errors import DstackError, ErrorCode, ProjectError, UsageError
from dstack.model.api import wire
from dstack.plumbing.file_errors import file_trouble

INTERRUPTED = 130
CLICK_WORDS = {"a valid integer range": "a whole number", ". Did you mean": "; did you mean"}
"""What click says, and what dstack says instead."""


def report(error: BaseException, *, as_json: bool = False, arguments: Sequence[str] = ()) -> int:
    """Print the error, for people or as one line of JSON, and return its exit code. `arguments` are what was typed:
    hints repeat it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, BrokenPipeError):
        return show.leave_closed_output()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, OSError) and error.filename == show.STDOUT:
        show.leave_closed_output()
    known = _known(error)
    if known.hint and arguments:
        known.hint = again.whole(known.hint, arguments)
    if as_json:
        fields = {"code": known.code, "message": known.message, "hint": known.hint, "exit_code": known.exit_code}
        print(wire.encode({"error": fields}).decode(), file=sys.stderr, flush=True)
        return known.exit_code
    message = known.message
    if isinstance(known, ProjectError):
        show.say(message)
        message = f"{known.what} has {words.count(len(known.problems), 'error')}{known.consequence}"
    show.say(f"dstack: error: {message}", style="red")
    if known.hint:
        show.say(f"hint: {known.hint}")
    return known.exit_code


def _known(error: BaseException) -> DstackError:
    """Return the error as one of dstack's own."""
    if isinstance(error, DstackError):
        return error
    if isinstance(error, click.ClickException):
        message = " ".join(error.format_message().split()).rstrip(".")  # click puts choices on lines of their own
        for theirs, ours in CLICK_WORDS.items():
            message = message.replace(theirs, ours)
        ctx = error.ctx if isinstance(error, click.UsageError) else None
        return UsageError(message[:1].lower() + message[1:], hint=f"{ctx.command_path} --help" if ctx else None)
    return (_of_this_machine(error) if isinstance(error, OSError) else None) or _unexpected(error)


def _of_this_machine(error: OSError) -> DstackError | None:
    """Return what an error of the system means, or None if it is none of a file."""
    if isinstance(error, FileNotFoundError) and _folder_is_gone():
        return UsageError("the current folder was removed", hint="cd ~", code=ErrorCode.FILE)
    return file_trouble(error)


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _unexpected(error: BaseException) -> DstackError:
    """Report a bug in dstack, or a full disk: write the traceback to a file."""
    message = f"unexpected {type(error).__name__}: {error}" if str(error) else f"unexpected {type(error).__name__}"
    try:
        hint = f"this may be a bug in dstack; please report it, with the traceback in {_keep(error)}"
    except OSError as full:
        return DstackError(f"{message}; the traceback could not be saved ({full})", code=ErrorCode.INTERNAL)
    return DstackError(message, hint=hint, code=ErrorCode.INTERNAL)


def _without_values(words: Sequence[str]) -> str:
    """Return a command line to report: the command and its options, without values, which may be secret."""
    shown = [
        word if at < 2 or re.fullmatch("--[a-z-]{1,30}|-[A-Za-z]", word) else "..."
        for at, word in enumerate(word.partition("=")[0] for word in words)
    ]
    return " ".join(shown)


def _keep(error: BaseException) -> Path:
    import traceback

    folder = embedded.home() / "crashes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    head = f"dstack {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n{_without_values(sys.argv)}\n"
    path.write_text(head + text, encoding="utf-8", errors="backslashreplace")
    return path
