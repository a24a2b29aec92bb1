"""`dstack prune`: remove what retention allows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from dstack.cli import settings, show, words
from dstack.errors import UsageError
from dstack.model.api import PruneRequest, Removed
from dstack.model.quantities import SPAN, span


@click.command("prune")
@click.option("--keep-last", type=click.IntRange(0), metavar="N", help="Keep the newest N runs of each workflow.")
@click.option("--older-than", metavar="SPAN", help="Only runs that ended longer ago, such as 30d.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(keep_last: int | None, older_than: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove old runs with their logs and artifacts.

    Unfinished runs, runs with a tag, and results that other runs took from the cache stay.
    """
    if keep_last is None and older_than is None:
        raise UsageError("say what to keep: --keep-last N, --older-than 30d, or both", hint="--dry-run removes nothing")
    if older_than is not None and not re.fullmatch(SPAN, older_than):
        raise UsageError(f"'{older_than}' is no span of time", hint="write it like 30d, 12h or 90m")
    age = None if older_than is None else span(older_than)
    client = settings.connect()
    wish = PruneRequest(keep_last=keep_last, older_than=age, dry_run=True)
    found = client.prune(wish)
    if found and not dry_run:
        if not yes and show.interactive():
            table(found)
            if not show.confirm(f"Remove {count(found)}?"):
                raise UsageError("nothing was removed")
        found = client.prune(PruneRequest(keep_last=keep_last, older_than=age))
    if as_json:
        show.document(found)
        return
    table(found)
    freed = words.size(sum(each.bytes for each in found))
    show.say(f"{count(found)} {'would go' if dry_run else 'removed'}, {freed}" if found else "nothing to remove")


def table(found: Sequence[Removed]) -> None:
    """One line a run."""
    if found:
        rows = [
            (each.run, each.workflow, words.ago(each.submitted_at), words.size(each.bytes), ", ".join(each.kept))
            for each in found
        ]
        show.table(("RUN", "WORKFLOW", "SUBMITTED", "FREES", "STILL USED"), rows)


def count(found: Sequence[Removed]) -> str:
    return f"{len(found)} run" if len(found) == 1 else f"{len(found)} runs"
