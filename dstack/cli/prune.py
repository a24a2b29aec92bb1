"""`dstack prune`: remove what retention allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import click

from dstack.cli import settings, show, words
from dstack.errors import UsageError
from dstack.model.api import CacheFolder, PruneCachesRequest, PruneRequest, Removed
from dstack.model.quantities import SPAN, span
from dstack.server.client import Client


@click.command("prune")
@click.option("--keep-last", type=click.IntRange(0), metavar="N", help="Keep the newest N runs of each workflow.")
@click.option("--older-than", metavar="SPAN", help="Only runs that ended longer ago, such as 30d.")
@click.option("--caches", is_flag=True, help="Also the folders of `cache:` on runners that no job uses now.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    keep_last: int | None, older_than: str | None, caches: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove old runs with what they left, and unused caches.

    Unfinished runs, runs with a tag, and results that other runs took from the cache stay. A folder of `cache:` goes
    when no job used it for --older-than; with --caches, however long ago that was.
    """
    if keep_last is None and older_than is None and not caches:
        hint = "--dry-run removes nothing"
        raise UsageError("say what to keep: --keep-last N, --older-than 30d, or both; or name --caches", hint=hint)
    if older_than is not None and not re.fullmatch(SPAN, older_than):
        raise UsageError(f"'{older_than}' is no span of time", hint="write it like 30d, 12h or 90m")
    wish = Wish(keep_last, None if older_than is None else span(older_than), caches)
    client = settings.connect()
    found = wish.ask(client, dry_run=True)
    if any(found) and not dry_run:
        if not yes and show.interactive():
            table(*found)
            if not show.confirm(f"Remove {count(*found)}?"):
                raise UsageError("nothing was removed")
        found = wish.ask(client, dry_run=False)
    if as_json:
        show.document([*found[0], *found[1]])
        return
    table(*found)
    freed = words.size(sum(run.bytes for run in found[0]) + sum(folder.bytes for folder in found[1]))
    done = "would go" if dry_run else "removed"
    show.say(f"{count(*found)} {done}, {freed}" if any(found) else "nothing to remove")


@dataclass(frozen=True)
class Wish:
    """What a user lets go. `older_than` in seconds."""

    keep_last: int | None
    older_than: float | None
    caches: bool

    def ask(self, client: Client, *, dry_run: bool) -> tuple[list[Removed], list[CacheFolder]]:
        """Remove it, or ask what would go."""
        runs: list[Removed] = []
        folders: list[CacheFolder] = []
        if self.keep_last is not None or self.older_than is not None:
            runs = client.prune(PruneRequest(keep_last=self.keep_last, older_than=self.older_than, dry_run=dry_run))
        if self.caches or self.older_than is not None:
            unused = 0 if self.caches else self.older_than or 0
            folders = client.prune_caches(PruneCachesRequest(unused_for=unused, dry_run=dry_run))
        return runs, folders


def table(runs: Sequence[Removed], folders: Sequence[CacheFolder] = ()) -> None:
    """One line a run, and one a folder."""
    if runs:
        rows = [
            (each.run, each.workflow, words.ago(each.submitted_at), words.size(each.bytes), ", ".join(each.kept))
            for each in runs
        ]
        show.table(("RUN", "WORKFLOW", "SUBMITTED", "FREES", "STILL USED"), rows)
    if folders:
        lines = [
            (each.cache, each.runner, each.repo, words.ago(each.used_at), words.size(each.bytes)) for each in folders
        ]
        show.table(("CACHE", "RUNNER", "REPOSITORY", "USED", "FREES"), lines)


def count(runs: Sequence[Removed], folders: Sequence[CacheFolder] = ()) -> str:
    """How many of which there are."""
    told = [(len(runs), "run"), (len(folders), "cache")]
    return " and ".join(f"{number} {what}" + ("" if number == 1 else "s") for number, what in told if number)
