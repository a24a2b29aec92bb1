"""Code on a host: packs go into the mirror, and a launch checks out the tree (templates/host/code/_checkout.sh.j2)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import asdict

from dstack import render
from dstack.commands.answer import values
from dstack.commands.command import Command, Result, Stdin
from dstack.errors import CommandError
from dstack.model.code.snapshot import PLAIN, Snapshot
from dstack.model.job.execution import Received
from dstack.model.runner.host_context import HostContext


def receive(context: HostContext, snapshot: Snapshot, pack: Stdin = b"") -> Command[Received]:
    """Take a pack of the snapshot into the host's mirror, which is created or repaired as needed. Safe to repeat."""
    body = render.script("code/receive", context, **checkout_values(snapshot))
    return Command("receiving the code", body, _received, stdin=pack)


SPARE = 10**9
"""The largest tree, in bytes, of which a host keeps one more checkout."""


def spare(context: HostContext, snapshot: Snapshot) -> Command[None]:
    """Check out the tree once more, for the next job to take. Safe to repeat and to interrupt."""

    def prepared(result: Result) -> None:
        values("preparing a spare checkout", result)

    body = render.script("code/spare", context, most=SPARE, **checkout_values(snapshot))
    return Command("preparing a spare checkout", body, prepared)


def checkout_values(snapshot: Snapshot, depth: int | None = None) -> dict[str, object]:
    """Return the values for `_checkout.sh.j2`: the snapshot's fields, None as "". `depth` is how many commits of
    history the job asked for (0: all), None for all that the snapshot has."""
    fields = {name: "" if value is None else value for name, value in asdict(snapshot).items()}
    return {
        **fields,
        "history": snapshot.history or "",
        "shallow": lines(snapshot.cut),
        "end": lines(snapshot.cut if depth is None else snapshot.ends.get(depth, snapshot.cut)),
        "umask": unusual(snapshot.umask),
    }


def unusual(umask: str) -> str:
    """Return the umask as scripts take it: "" for the usual one."""
    return "" if umask == PLAIN else umask


def lines(oids: Iterable[str]) -> str:
    """Return the ids one per line."""
    return "".join(f"{oid}\n" for oid in oids)


def _received(result: Result) -> Received:
    answer = values("receiving the code", result)
    if answer.get("received") == "ok":
        return Received.OK
    if answer.get("need") == "full":
        return Received.NEED_FULL
    raise CommandError("receiving the code", result.exit_status, f"the host answered {result.stdout[:200]!r}")
