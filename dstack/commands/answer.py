"""Reads the answers of host scripts: lines of `key=value`."""

from __future__ import annotations

from dstack.commands.command import Result
from dstack.errors import CommandError, HostError
from dstack.model.runner.host_context import OTHER_MACHINE


def lines(name: str, result: Result) -> list[tuple[str, str]]:
    """Return the pairs in order. Raises CommandError if the script failed, HostError if another machine answered."""
    if result.exit_status not in (0, OTHER_MACHINE):
        raise CommandError(name, result.exit_status, result.stderr.decode(errors="replace"))
    text = result.stdout.decode(errors="surrogateescape")
    pairs = [_pair(name, line) for line in text.split("\n") if line]
    if result.exit_status == OTHER_MACHINE:
        found = dict(pairs).get("machine", "an unknown one")
        raise HostError(
            f"a different machine answers at this address (machine id {found}); dstack changed nothing there",
            hint="if the machine was replaced, run: dstack runners remove NAME, then dstack runners add HOST",
        )
    return pairs


def values(name: str, result: Result, *wanted: str) -> dict[str, str]:
    """Return the pairs by key. Raises CommandError if a wanted key is missing."""
    answered = dict(lines(name, result))
    missing = [key for key in wanted if key not in answered]
    if missing:
        raise CommandError(name, result.exit_status, f"the host's answer lacks {', '.join(missing)}")
    return answered


def _pair(name: str, line: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    if not equals:
        raise CommandError(name, 0, f"the host's answer can't be parsed: {line[:200]!r}")
    return key, value
