"""`dstack prune`: remove old runs and unused data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from dstack.cli import connect
from dstack.cli.options import SPAN, json_option
from dstack.cli.output import show, words
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
@click.option("--keep-last", type=click.IntRange(0), metavar="N", help="Keep the newest N runs of each workflow.")
@click.option(
    "--older-than",
    type=SPAN,
    metavar="SPAN",
    help="Remove runs that ended longer ago than this, such as 30d, 12h or 90m.",
)
@click.option("--caches", is_flag=True, help="Also remove `cache:` folders on runners that no job is using.")
@click.option("--images", is_flag=True, help="Also remove images that dstack pulled and no run needs.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask for confirmation.")
@json_option
def command(
    keep_last: int | None,
    older_than: float | None,
    caches: bool,
    images: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove old runs and unused data.

    Runs are removed with their logs and artifacts. Without --keep-last and --older-than, no run is removed, only data
    that no run needs: copies of repositories and leftovers of interrupted uploads. With both, a run must match both
    rules. Unfinished runs, tagged runs, and results that other runs reuse are always kept.

    --older-than also removes `cache:` folders that no job has used for that long; --caches removes all that no job is
    using. --images removes images that dstack pulled, unless a remaining run or a container needs them.
    """
    wish = Wish(keep_last, older_than, caches, images)
    client = connect.connect()
    preview = wish.ask(client, dry_run=True)
    if preview.any and not dry_run:
        if not yes and show.interactive():
            table(preview)
            if not show.confirm(f"Remove {count(preview)}?"):
                raise UsageError("nothing was removed")
        preview = wish.ask(client, dry_run=False)
    if as_json:
        show.document([*preview.runs, *preview.folders, *preview.rest])
        return
    table(preview)
    done = "would be removed" if dry_run else "removed"
    show.say(f"{count(preview)} {done}, {size_words(preview.bytes)}" if preview.any else "nothing to remove")
    for runner in client.runners():
        if runner.state == "unreachable":
            show.say(f"runner '{runner.name}' is unreachable; its unused data is kept until the next `dstack prune`")
    if keep_last is None and older_than is None:
        show.say("all runs are kept; to remove old ones, add --keep-last N, --older-than 30d or both")


@dataclass(frozen=True)
class PrunePreview:
    """What was or would be removed."""

    runs: Sequence[Removed]
    folders: Sequence[CacheFolder] = ()
    rest: Sequence[Leftover] = ()

    @property
    def any(self) -> bool:
        return bool(self.runs or self.folders or self.rest)

    @property
    def bytes(self) -> int:
        kinds: tuple[Sequence[Removed | CacheFolder | Leftover], ...] = (self.runs, self.folders, self.rest)
        return sum(each.bytes for kind in kinds for each in kind)


@dataclass(frozen=True)
class Wish:
    """What the user wants to remove. `older_than` in seconds."""

    keep_last: int | None
    older_than: float | None
    caches: bool
    images: bool

    def ask(self, client: Client, *, dry_run: bool) -> PrunePreview:
        """Remove it, or with `dry_run` ask what would be removed."""
        last, age = self.keep_last, self.older_than
        folders: list[CacheFolder] = []
        runs = client.prune(PruneRequest(keep_last=last, older_than=age, dry_run=dry_run))
        if self.caches or age is not None:
            unused = 0 if self.caches else age or 0
            folders = client.prune_caches(PruneCachesRequest(unused_for=unused, dry_run=dry_run))
        rest = PruneRestRequest(keep_last=last, older_than=age, images=self.images, dry_run=dry_run)
        return PrunePreview(runs, folders, client.prune_rest(rest))


def table(preview: PrunePreview) -> None:
    """Print one line per run, per cache folder and per other item."""
    if preview.runs:
        rows = [
            (each.run, each.workflow, words.ago(each.submitted_at), size_words(each.bytes), ", ".join(each.kept))
            for each in preview.runs
        ]
        show.table(("RUN", "WORKFLOW", "SUBMITTED", "FREES", "STILL USED"), rows)
        for kept in (kept for each in preview.runs for kept in each.stays):
            connect.warn(f"warning: {kept}; remove it there by hand")
    if preview.folders:
        lines = [
            (each.cache, each.runner, each.repo, words.ago(each.used_at), size_words(each.bytes))
            for each in preview.folders
        ]
        show.table(("CACHE", "RUNNER", "REPOSITORY", "USED", "FREES"), lines)
    if preview.rest:
        left = [(each.what, each.name, each.runner or "-", size_words(each.bytes)) for each in preview.rest]
        show.table(("UNUSED", "NAME", "RUNNER", "FREES"), left)


def count(preview: PrunePreview) -> str:
    """Say how much of each kind there is: `2 runs and 1 cache`."""
    kinds = [(len(preview.runs), "run"), (len(preview.folders), "cache"), (len(preview.rest), "other item")]
    parts = [f"{number} {what}" + ("" if number == 1 else "s") for number, what in kinds if number]
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
