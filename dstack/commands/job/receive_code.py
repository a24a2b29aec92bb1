"""Code on a host: packs go into the mirror, and a launch checks out the tree (templates/host/code/_checkout.sh.j2)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import asdict

from dstack import render
from dstack.commands.command import Command, Result, Stdin, done
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.job.execution import Received
from dstack.model.runner.host_context import HostContext

SPARE = 10**9
"""The largest tree, in bytes, of which a host keeps one more checkout."""


def receive(context: HostContext, snapshot: Snapshot, pack: Stdin = b"") -> Command[Received]:
    """Take a pack of the snapshot into the host's mirror, which is created or repaired as needed. Safe to repeat."""
    body = render.script("code/receive", context, None, **checkout_values(snapshot))
    return Command("receiving the code", body, _received, pack)


def spare(context: HostContext, snapshot: Snapshot) -> Command[None]:
    """Check out the tree once more, for the next job to take. Safe to repeat and to interrupt."""
    body = render.script("code/spare", context, None, most=SPARE, **checkout_values(snapshot))
    return Command("preparing a spare checkout", body, done)


def checkout_values(snapshot: Snapshot, depth: int | None = None) -> dict[str, object]:
    """Return the values for `_checkout.sh.j2`: the snapshot's fields, None as "". `depth` is how many commits of
    history the job asked for (0: all), None for all that the snapshot has."""
    return {
        **{name: "" if value is None else value for name, value in asdict(snapshot).items()},
        "history": snapshot.history or "",
        "shallow": _lines(snapshot.cut),
        "end": _lines(snapshot.cut if depth is None else snapshot.ends.get(depth, snapshot.cut)),
        "umask": "" if snapshot.umask == PLAIN else snapshot.umask,
    }


def _lines(oids: Iterable[str]) -> str:
    return "".join(f"{oid}\n" for oid in oids)


def _received(result: Result) -> Received:
    said = result.values()
    return Received(said.get("received") or said.get("need"))
