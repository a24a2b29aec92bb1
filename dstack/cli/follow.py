"""Follows a run: passes its frames to a display, and handles Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from dstack.cli.output import show
from dstack.cli.output.displays import Display
from dstack.client.client import Client
from dstack.model.api.jobs import StopRequest
from dstack.model.api.runs import Event, RunView
from dstack.model.job.status import Status

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DETACHED = 130


class Interruption(KeyboardInterrupt):
    """A signal to end the command. Its argument is the signal's number."""


class Interrupts(ExitStack):
    """While entered, SIGINT, SIGTERM and SIGHUP raise Interruption. Inside `held()`, the first signal waits for its
    end; a second one doesn't, because a write may block for ever. A signal that the caller ignores (nohup, a shell's
    `&`) stays ignored."""

    def __init__(self) -> None:
        super().__init__()
        self._held = False
        self._pending: int | None = None

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.callback(signal.signal, number, signal.signal(number, self._receive))
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._held and self._pending is None:
            self._pending = number
            return
        self._pending = None
        raise Interruption(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay the first signal until the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending is not None:
            number, self._pending = self._pending, None
            raise Interruption(number)


def stream(
    client: Client,
    ref: str,
    display: Display,
    interrupts: Interrupts,
    offsets: dict[str, int],
    *,
    follow: bool = True,
    logs: bool = True,
    part: Callable[[Event, bytes], bytes] = lambda event, data: data,
) -> RunView | None:
    """Show the frames of a run or job, of its logs only what `part` returns, counting log bytes in `offsets`. Return
    the run if it ended, else None. Raises Interruption between frames only, so it can be called again and resumes where
    it stopped."""
    for frame in client.follow(ref, offsets, follow=follow, logs=logs):
        event = frame.event
        with interrupts.held():
            if event.event == "log" and event.id is not None:
                if shown := part(event, frame.data):
                    display.log(event, shown)
                offsets[event.id] = (event.offset or 0) + len(frame.data)
            elif event.job is not None:
                display.job(event.job)
            elif event.run is not None:
                for job in event.run.jobs:
                    display.finish(job.id, job.workflow)
                display.run(event.run)
                return event.run
    return None


def exit_code(run: RunView) -> int:
    """Return the command's exit code for a run that ended (docs/exit-codes.md)."""
    if run.status is Status.DONE:
        return 0
    return run.exit_code or (143 if run.status is Status.STOPPED else 125)


def to_the_end(client: Client, name: str, display: Display, *, logs: bool = True, asks: bool = True) -> int:
    """Follow a run until it ends or the user detaches, and return the command's exit code. `asks`: on a terminal,
    Ctrl-C asks what to do."""
    offsets: dict[str, int] = {}
    with Interrupts() as interrupts:
        while True:
            try:
                return exit_code(stream(client, name, display, interrupts, offsets, logs=logs) or client.run(name))
            except Interruption as interruption:
                asks = asks and interruption.args == (signal.SIGINT,) and show.interactive()
            if not (asks and _keep_following(client, name, display)):
                break
    display.close()
    show.say(
        f"detached; {name} keeps running: follow it with `dstack logs -f {name}`, stop it with `dstack stop {name}`"
    )
    return DETACHED


def _keep_following(client: Client, name: str, display: Display) -> bool:
    """Ask what to do on Ctrl-C. Return False to detach."""
    display.close()
    try:
        while True:
            answer = show.ask(f"\n{name}: [s]top, [d]etach or [c]ontinue?")
            if answer in ("s", "stop"):
                client.stop(StopRequest(refs=(name,)))
                show.say(f"{name}: stopping")
                return True
            if answer in ("c", "continue"):
                return True
            if answer in ("d", "detach", ""):
                return False
    except Interruption:
        show.say("")
        return False
