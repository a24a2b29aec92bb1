"""Prints the plan of `dstack run --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.cli.output import show
from dstack.model.api.runs import Plan
from dstack.model.text.units import size_words

LARGEST = 10
"""How many of the largest files are listed."""
SHOWN = 20
"""How many changes, modes and empty folders are listed."""


def print_plan(plan: Plan) -> None:
    """Print for each job whether it is cached, why, and where it would run, then the changes since the commit."""
    rows = [
        (
            job.workflow,
            "cached" if job.cache.hit else "run",
            job.runner or "-",
            f"{job.cache.why}; {job.reason}" if job.reason else job.cache.why,
        )
        for job in plan.jobs
    ]
    show.table(("WORKFLOW", "PLAN", "RUNNER", "WHY"), rows)
    repo = plan.repo
    commit = f"commit {repo.commit[:12]}" if repo.commit else "no commit"
    branch = f" on {repo.branch}" if repo.branch else ""
    show.line("")
    show.line(f"code: {commit}{branch}, {plan.files} files, {size_words(plan.bytes)}")
    for file in plan.largest[:LARGEST]:
        show.line(f"  {size_words(file.size):>8}  {show.clean(file.path)}")
    show.line(f"changes since the commit: {len(plan.changes) or 'none'}" if repo.commit else f"files: {plan.files}")
    _list([f"{size_words(change.size):>8}  {change.change:<8}  {show.clean(change.path)}" for change in plan.changes])
    if plan.modes:
        show.line(f"file modes that differ from umask {plan.umask}: {len(plan.modes)}")
    _list([f"{each.mode:>8}  {show.clean(each.path)}" for each in plan.modes])
    if plan.empty_folders:
        show.line(f"empty folders: {len(plan.empty_folders)}")
    _list([f"{'':8}  {show.clean(path)}/" for path in plan.empty_folders])


def _list(lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        show.line(f"  {line}")
    if len(lines) > SHOWN:
        show.line(f"  and {len(lines) - SHOWN} more (--json lists all)")
