"""`dstack validate`: check a project's files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from dstack.cli import project as project_files
from dstack.cli.output import show, words
from dstack.cli.parameters import json_option
from dstack.errors import DstackError, ProjectError

if TYPE_CHECKING:
    from dstack.model.project.project import Project


@click.command("validate")
@json_option
def command(as_json: bool) -> None:
    """Check the project's files without submitting anything."""
    found: list[str] = []
    say = found.append if as_json else project_files.warn
    project = project_files.load(say)
    for note in project.notes:
        say(note)
    if project.problems:
        hint = "change the value in configs.yaml, or give another one to `dstack run`"
        raise ProjectError(project.problems, hint=hint)
    for warning in against_files(project):
        say(warning)
    workflows = project.workflows
    if as_json:
        show.document({"valid": True, "workflows": list(workflows), "warnings": found})
        return
    show.line(f"valid: {words.count(len(workflows), 'workflow')} ({', '.join(workflows)})")


def against_files(project: Project) -> Iterator[str]:
    """Yield a warning for each entry of `include` that matches no file. Raises UsageError for an artifact that a link
    is in the way of. What depends on a variable without a value is left to `dstack run`."""
    from dstack.model.code.selection import select, unmatched_warnings
    from dstack.model.job.script import expanded
    from dstack.model.project.artifact_links import inside, refuse_links
    from dstack.model.project.workflow import Variables
    from dstack.snapshot.take import list_files

    each = project.workflows.values()
    if not any(workflow.needs.include or workflow.artifacts for workflow in each):
        return
    try:
        where, files = list_files(project_files.find_root())
    except DstackError as error:
        yield f"artifacts and include were not compared with the project's files: {error.message}"
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
        include = workflow.needs.repo.include if workflow.needs.repo else None
        unmatched = select(files, where, include)[1]
        yield from unmatched_warnings(workflow.name, unmatched, files, where)
        refuse_links(workflow, [known[name] for name in workflow.needs.names if name in known], links)
