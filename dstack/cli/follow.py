"""Following a run: its frames to whoever shows them, and what Ctrl-C means."""

from __future__ import annotations

import signal
from typing import Protocol

from dstack.cli import show
from dstack.cli.signals import Interruption, Interrupts
from dstack.model.api.runs import Event, JobView, RunView, StopRequest
from dstack.server.client import Client

DETACHED = 130


class Display(Protocol):
    """Shows frames."""

    def job(self, job: JobView) -> None: ...

    def log(self, event: Event, data: bytes) -> None: ...

    def finish(self, job: str, workflow: str) -> None: ...

    def run(self, run: RunView) -> None: ...


def stream(
    client: Client,
    ref: str,
    display: Display,
    interrupts: Interrupts,
    offsets: dict[str, int],
    *,
    follow: bool = True,
    logs: bool = True,
) -> RunView | None:
    """Show the frames of a run or job, counting log bytes in `offsets`; the run if its end was among them. Raises
    Interruption between frames only, so that it can be called again and goes on where it was."""
    for frame in client.follow(ref, offsets, follow=follow, logs=logs):
        event = frame.event
        with interrupts.held():
            if event.event == "log" and event.id is not None:
                display.log(event, frame.data)
                offsets[event.id] = (event.offset or 0) + len(frame.data)
            elif event.job is not None:
                display.job(event.job)
            elif event.run is not None:
                for job in event.run.jobs:
                    display.finish(job.id, job.workflow)
                display.run(event.run)
                return event.run
    return None


def to_the_end(client: Client, name: str, display: Display, *, logs: bool = True, asks: bool = True) -> RunView | None:
    """Follow a run until it ends; None when the user looks away. `asks`: Ctrl-C on a terminal offers to stop it."""
    offsets: dict[str, int] = {}
    with Interrupts() as interrupts:
        while True:
            try:
                return stream(client, name, display, interrupts, offsets, logs=logs) or client.run(name)
            except Interruption as interruption:
                if not (asks and interruption.number == signal.SIGINT and show.interactive()):
                    break
            if not _goes_on(client, name, display):
                break
    _close(display)
    show.say(f"detached: {name} goes on; look again with `dstack logs -f {name}`, end it with `dstack stop {name}`")
    return None


def _goes_on(client: Client, name: str, display: Display) -> bool:
    """Ask what Ctrl-C meant. False: detach."""
    _close(display)
    try:
        while True:
            answer = show.ask(f"\n{name}: [s]top it, [d]etach or [c]ontinue?")
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


def _close(display: Display) -> None:
    close = getattr(display, "close", None)
    if close is not None:
        close()
