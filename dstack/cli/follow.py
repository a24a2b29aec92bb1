"""Follows a run: passes its frames to a display, and handles Ctrl-C."""

from __future__ import annotations

import signal
from typing import Protocol

from dstack.cli.output import show
from dstack.cli.signals import Interruption, Interrupts
from dstack.client.client import Client
from dstack.model.api.runs import Event, JobView, RunView, StopRequest

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
    """Show the frames of a run or job, counting log bytes in `offsets`. Return the run if it ended, else None. Raises
    Interruption between frames only, so it can be called again and resumes where it stopped."""
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
    """Follow a run until it ends; return None if the user detaches. `asks`: on a terminal, Ctrl-C asks what to do."""
    offsets: dict[str, int] = {}
    with Interrupts() as interrupts:
        while True:
            try:
                return stream(client, name, display, interrupts, offsets, logs=logs) or client.run(name)
            except Interruption as interruption:
                if not (asks and interruption.number == signal.SIGINT and show.interactive()):
                    break
            if not _keep_following(client, name, display):
                break
    _close(display)
    show.say(
        f"detached; {name} keeps running: follow it with `dstack logs -f {name}`, stop it with `dstack stop {name}`"
    )
    return None


def _keep_following(client: Client, name: str, display: Display) -> bool:
    """Ask what to do on Ctrl-C. Return False to detach."""
    _close(display)
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


def _close(display: Display) -> None:
    close = getattr(display, "close", None)
    if close is not None:
        close()
