"""`dstack tag`: name results."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.names import REF
from dstack.cli.output import show, words
from dstack.errors import UsageError
from dstack.model.text.tag import name_of


@click.command("tag")
@click.argument("ref", metavar="[RUN_OR_JOB", required=False, type=REF)
@click.argument("name", metavar="NAME]", required=False)
@click.option("--force", is_flag=True, help="Move the tag if another run has it.")
@click.option("--delete", metavar="NAME", help="Delete a tag; the run is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ref: str | None, name: str | None, force: bool, delete: str | None, as_json: bool) -> None:
    """Tag a run or job, or list the tags.

    Use `:NAME` wherever a run or job is expected. With `depends-on: {workflows: [":NAME"]}`, a workflow gets the
    artifacts of the tagged job; for a run, that is the job of the workflow that the run was started with.
    """
    if delete is not None:
        if ref is not None:
            raise UsageError("--delete can't be used with a run or job", hint=f"dstack tag --delete {delete}")
        connect.connect().delete_tag(name_of(delete))
        return
    if ref is not None:
        if name is None:
            raise UsageError("the tag's name is missing", hint=f"dstack tag {ref} NAME")
        found = [connect.connect().tag(ref, name_of(name), force=force)]
    else:
        found = connect.connect().tags()
    if as_json:
        show.document(found if ref is None else found[0])
    elif found:
        rows = [(f":{tag.name}", tag.run, tag.workflow, words.ago(tag.created_at)) for tag in found]
        show.table(("TAG", "RUN", "WORKFLOW", "CREATED"), rows)
    else:
        show.say("no tags yet; create one with `dstack tag RUN NAME`")
