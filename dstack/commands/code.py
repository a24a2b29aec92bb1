"""Code on a host: packs go into the mirror; the launch checks the tree out of it (templates/_checkout.sh.j2)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from msgspec.structs import asdict

from dstack import render
from dstack.commands.answer import values
from dstack.commands.command import Command, Result, Stdin
from dstack.commands.place import Place
from dstack.errors import CommandError
from dstack.model.snapshot import PLAIN, Snapshot


class Received(Enum):
    """What became of a pack: it is in, or all of the snapshot must be sent, because a base is missing or damaged."""

    OK = "ok"
    NEED_FULL = "full"


def receive(place: Place, snapshot: Snapshot, pack: Stdin = b"") -> Command[Received]:
    """Take a pack of the snapshot into the host's mirror, which is made or mended as needed. Safe to repeat."""
    return Command("receive code", render.script("receive", place, **checkout_values(snapshot)), _received, stdin=pack)


SPARE = 10**9
"""Bytes of the largest tree of which a machine keeps one more."""


def spare(place: Place, snapshot: Snapshot) -> Command[None]:
    """Check the tree out once more, for the next job to take. Safe to repeat, and to cut off."""

    def made(result: Result) -> None:
        values("keeping a tree ready", result)

    body = render.script("spare", place, most=SPARE, **checkout_values(snapshot))
    return Command("keeping a tree ready", body, made)


def checkout_values(snapshot: Snapshot, depth: int | None = None) -> dict[str, object]:
    """Return the values for `_checkout.sh.j2`: the snapshot's fields, None as "". `depth` is how many commits of
    history the job asked for (0: all), None for all that the snapshot has."""
    fields = {name: "" if value is None else value for name, value in asdict(snapshot).items()}
    return {
        **fields,
        "history": snapshot.history or "",
        "shallow": lines(snapshot.cut),
        "end": lines(snapshot.cut if depth is None else snapshot.cut_at(depth)),
        "umask": unusual(snapshot.umask),
    }


def unusual(umask: str) -> str:
    """A umask as scripts have it: "" for the usual one."""
    return "" if umask == PLAIN else umask


def lines(oids: Iterable[str]) -> str:
    """As a file of ids has them."""
    return "".join(f"{oid}\n" for oid in oids)


def _received(result: Result) -> Received:
    answer = values("receive code", result)
    if answer.get("received") == "ok":
        return Received.OK
    if answer.get("need") == "full":
        return Received.NEED_FULL
    raise CommandError("receive code", result.exit_status, f"the host answered {result.stdout[:200]!r}")
