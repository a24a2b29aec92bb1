"""`dstack exec`: a command in a running job's container."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import IO

import click

from dstack.cli import connect
from dstack.cli.output import show
from dstack.cli.parameters import REF
from dstack.cli.raw_terminal import lent_terminal, own_terminal, terminal_size
from dstack.client.connection import problem_error
from dstack.client.stream import PIECE, Stream
from dstack.model.api import wire
from dstack.model.api.streams import ExecRequest, FrameKind, StreamEnd, size_frame


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("run_or_job", type=REF)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(run_or_job: str, words: tuple[str, ...]) -> int:
    """Run a command, or a shell, in a running job.

    It runs in the job's container, as the job's user and in the job's folder, with the job's environment but without
    its secrets. If stdin and stdout are a terminal, so are the command's; otherwise every byte passes unchanged, so
    that pipes work. The exit code is the command's, or 125 if the job is not running or the connection breaks.

    \b
    dstack exec brave-otter-7
    dstack exec brave-otter-7 -- nvidia-smi
    dstack exec brave-otter-7 -- tar -cf - checkpoint | tar -xf -
    """
    terminal = own_terminal()
    asked = ExecRequest(command=words[1:] if words[:1] == ("--",) else words, terminal=terminal)
    with closing(connect.connect().enter(run_or_job, asked)) as stream:
        if terminal is None:
            return _pass(stream, None)
        with lent_terminal() as resized:
            stream.write(size_frame(*terminal_size()))  # it may have changed meanwhile
            return _pass(stream, resized)


def _pass(stream: Stream, resized: int | None) -> int:
    """Pass bytes in both directions until the command ends, and return its exit code."""
    stdin = sys.stdin.fileno() if sys.stdin is not None else None
    if stdin is None:
        stream.send(FrameKind.END)
    while True:
        inputs = [stdin] if stdin is not None and stream.has_room else []
        ready = stream.wait([*inputs, *([resized] if resized is not None else [])])
        if stdin in ready and stdin is not None:
            data = os.read(stdin, PIECE)
            stream.send(FrameKind.DATA, data) if data else stream.send(FrameKind.END)
            stdin = stdin if data else None
        if resized in ready and resized is not None:
            os.read(resized, PIECE)
            stream.write(size_frame(*terminal_size()))
        if (code := _show(stream)) is not None:
            return code


def _show(stream: Stream) -> int | None:
    """Write what has arrived. Return the exit code if the command has ended."""
    for kind, payload in stream.receive():
        if kind is FrameKind.DATA:
            _write(show.out(), payload)
        elif kind is FrameKind.ERRORS:
            _write(sys.stderr.buffer, payload)
        elif kind is FrameKind.EXIT:
            end = wire.decode(payload, StreamEnd)
            if end.problem is not None:
                raise problem_error(end.problem)
            return end.exit_code
    return None


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)
    stream.flush()
