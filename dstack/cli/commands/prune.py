"""`dstack prune`: remove old runs and unused data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from msgspec import convert
from msgspec.structs import replace

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import AGE, json_option, yes_option
from dstack.client.client import Client
from dstack.errors import UsageError
from dstack.model.api.retention import (
    CacheFolder,
    Leftover,
    PruneCachesRequest,
    PruneRequest,
    PruneRestRequest,
    Removed,
)
from dstack.model.text.units import size_words


@click.command("prune")
@click.option(
    "--keep-last", type=click.IntRange(0, 10**9), metavar="N", help="Keep the newest N runs of each workflow."
)
@click.option(
    "--older-than",
    type=AGE,
    metavar="SPAN",
    help="Remove runs that ended longer ago than this, such as 30d, 12h or 90m.",
)
@click.option("--caches", is_flag=True, help="Also remove `cache:` folders on runners that no job is using.")
@click.option("--images", is_flag=True, help="Also remove images that dstack pulled and no run needs.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@yes_option
@json_option
def command(caches: bool, dry_run: bool, yes: bool, as_json: bool, **rule: Any) -> None:
    """Remove old runs and unused data.

    Runs are removed with their logs and artifacts. Without --keep-last and --older-than, no run is removed, only data
    that no run needs: copies of repositories and leftovers of interrupted uploads. With both, a run must match both
    rules. Unfinished runs, tagged runs, and results that other runs reuse are always kept.

    --older-than also removes `cache:` folders that no job has used for that long; --caches removes all that no job is
    using. --images removes images that dstack pulled, unless a remaining run or a container needs them.
    """
    wish = PruneRestRequest(**rule, dry_run=True)
    client = connect.connect()
    pruned = prune(client, wish, caches=caches)
    if pruned.all and not dry_run:
        if not yes and show.interactive():
            pruned.print()
            if not show.confirm(f"Remove {pruned.count}?"):
                raise UsageError("nothing was removed")
        pruned = prune(client, replace(wish, dry_run=False), caches=caches)
    if as_json:
        show.document(pruned.all)
        return
    pruned.print()
    done = "would be removed" if dry_run else "removed"
    show.say(f"{pruned.count} {done}, {size_words(pruned.bytes)}" if pruned.all else "nothing to remove")
    for runner in client.runners():
        if runner.state == "unreachable":
            show.say(f"runner '{runner.name}' is unreachable; its unused data is kept until the next `dstack prune`")
    if wish.keep_last is None and wish.older_than is None:
        show.say("all runs are kept; to remove old ones, add --keep-last N, --older-than 30d or both")


@dataclass(frozen=True)
class Removals:
    """What was or would be removed."""

    runs: Sequence[Removed]
    folders: Sequence[CacheFolder] = ()
    rest: Sequence[Leftover] = ()

    @property
    def all(self) -> list[Removed | CacheFolder | Leftover]:
        return [*self.runs, *self.folders, *self.rest]

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.all)

    @property
    def count(self) -> str:
        """How much of each kind there is: `2 runs and 1 cache`."""
        kinds = [(len(self.runs), "run"), (len(self.folders), "cache"), (len(self.rest), "other item")]
        *others, last = [words.count(number, what) for number, what in kinds if number] or [""]
        return f"{', '.join(others)} and {last}" if others else last

    def print(self) -> None:
        """Print one line per run, per cache folder and per other item."""
        runs = [
            (each.run, each.workflow, words.ago(each.submitted_at), size_words(each.bytes), ", ".join(each.kept))
            for each in self.runs
        ]
        folders = [
            (each.cache, each.runner, each.repo, words.ago(each.used_at), size_words(each.bytes))
            for each in self.folders
        ]
        rest = [(each.what, each.name, each.runner or "-", size_words(each.bytes)) for each in self.rest]
        if runs:
            show.table(("RUN", "WORKFLOW", "SUBMITTED", "FREES", "STILL USED"), runs)
        for each in self.runs:
            for stays in each.stays:
                connect.warn(f"warning: {stays}; remove it there by hand")
        if folders:
            show.table(("CACHE", "RUNNER", "REPOSITORY", "USED", "FREES"), folders)
        if rest:
            show.table(("UNUSED", "NAME", "RUNNER", "FREES"), rest)


def prune(client: Client, wish: PruneRestRequest, *, caches: bool) -> Removals:
    """Remove what the user wants to remove, or with `dry_run` ask what would be removed."""
    runs = client.prune(convert(wish, PruneRequest, from_attributes=True))
    request = PruneCachesRequest(unused_for=0 if caches else wish.older_than or 0, dry_run=wish.dry_run)
    folders = client.prune_caches(request) if caches or wish.older_than is not None else []
    return Removals(runs, folders, client.prune_rest(wish))
