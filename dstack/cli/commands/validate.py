"""`dstack validate`: check a project's files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.project import find_root, load
from dstack.errors import DstackError, ProjectError

if TYPE_CHECKING:
    from dstack.model.project.project import Project


@click.command("validate")
def command() -> None:
    """Check the project's files without submitting anything."""
    project = load()
    for note in project.notes:
        connect.warn(f"warning: {note}")
    if project.problems:
        raise ProjectError(
            project.problems, hint="change the value in configs.yaml, or give another one to `dstack run`"
        )
    check_against_files(project)
    workflows = project.workflows
    show.line(f"valid: {words.count(len(workflows), 'workflow')} ({', '.join(workflows)})")


def check_against_files(project: Project) -> None:
    """Warn of entries of `include` that match no file. Raises UsageError for an artifact that a link is in the way of.
    What depends on a variable without a value is left to `dstack run`."""
    from dstack.model.code.selection import select, unmatched_warnings
    from dstack.model.job.script import expanded
    from dstack.model.project.artifact_links import inside, refuse_links
    from dstack.model.project.workflow import Variables
    from dstack.snapshot.take import list_files

    each = project.workflows.values()
    if not any(workflow.depends_on.include or workflow.artifacts for workflow in each):
        return
    try:
        where, files = list_files(find_root())
    except DstackError as error:
        connect.warn(f"warning: artifacts and include were not compared with the project's files: {error.message}")
        return
    links = inside((file.path for file in files if file.is_link), where)
    known = {}
    for workflow in each:
        variables = Variables(shared=project.shared, own=project.own.get(workflow.name, {}))
        try:
            known[workflow.name] = expanded(workflow, variables, "job", "run")
        except DstackError:
            continue
    for workflow in known.values():
        include = workflow.depends_on.repo.include if workflow.depends_on.repo else None
        unmatched = select(files, where, include)[1]
        for warning in unmatched_warnings(workflow.name, unmatched, files, where):
            connect.warn(f"warning: {warning}")
        refuse_links(workflow, [known[name] for name in workflow.depends_on.names if name in known], links)
