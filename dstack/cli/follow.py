"""Follows a run: passes its frames to a display, and handles Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from queue import Queue
from types import FrameType
from typing import Any

from dstack.cli.output import show
from dstack.cli.output.displays import Display
from dstack.cli.output.screen import SCREEN
from dstack.client.client import Client
from dstack.client.frames import Frame
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
        self.callback(signal.signal, signal.SIGCONT, signal.signal(signal.SIGCONT, lambda *_: SCREEN.resumed()))
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
    frames: Iterable[Frame],
    display: Display,
    interrupts: Interrupts,
    offsets: dict[str, int],
    *,
    part: Callable[[Event, bytes], bytes] = lambda event, data: data,
) -> RunView | None:
    """Show the frames, of logs only what `part` returns, counting log bytes in `offsets`. Return the last run that
    ended, or None. Raises Interruption between frames only, so frames from `offsets` on continue where it stopped."""
    ended = None
    for frame in frames:
        event = frame.event
        with interrupts.held():
            if event.event == "log" and event.id is not None:
                if shown := part(event, frame.data):
                    display.log(event, shown)
                _count(offsets, frame)
            elif event.job is not None:
                display.job(event.job)
            elif event.run is not None:
                ended = event.run
                for job in ended.jobs:
                    display.finish(job.id, job.workflow)
                display.run(ended)
    return ended


def frames_of(
    client: Client, refs: Sequence[str], offsets: dict[str, int], *, follow: bool = True, **wanted: Any
) -> Iterator[Frame]:
    """Yield the frames of runs and jobs from `offsets` on, which the caller counts: one after the other or, with
    `follow`, as they arrive from all of them until the last one ends. `wanted` goes to `Client.follow`."""
    if len(refs) == 1 or not follow:
        for ref in refs:
            yield from _until_the_end(client.follow(ref, offsets, follow=follow, **wanted))
        return
    arrived: Queue[Frame | BaseException | None] = Queue(maxsize=len(refs))
    for ref in refs:
        threading.Thread(target=_pass_on, args=(client, ref, dict(offsets), arrived, wanted), daemon=True).start()
    left = len(refs)
    while left:
        item = arrived.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            left -= 1
        else:
            yield item


def _pass_on(
    client: Client,
    ref: str,
    offsets: dict[str, int],
    arrived: Queue[Frame | BaseException | None],
    wanted: Mapping[str, Any],
) -> None:
    """Follow one run or job for `frames_of`, and count what was passed on. None is its end."""
    try:
        for frame in _until_the_end(client.follow(ref, offsets, **wanted)):
            arrived.put(frame)
            _count(offsets, frame)
        arrived.put(None)
    except BaseException as error:
        arrived.put(error)


def _until_the_end(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield frames until a run has ended: a connection that breaks after that is of no interest."""
    for frame in frames:
        yield frame
        if frame.event.run is not None:
            return


def _count(offsets: dict[str, int], frame: Frame) -> None:
    event = frame.event
    if event.event == "log" and event.id is not None:
        offsets[event.id] = (event.offset or 0) + len(frame.data)


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
                frames = frames_of(client, [name], offsets, logs=logs)
                return exit_code(stream(frames, display, interrupts, offsets) or client.run(name))
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
