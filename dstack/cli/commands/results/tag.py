"""`dstack tag`: name results."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import REF, TAG, json_option
from dstack.errors import UsageError
from dstack.model.api.artifacts import TagView
from dstack.model.text.tag import name_of

COLUMNS = ("TAG", "RUN", "WORKFLOW", "CREATED")


@click.command("tag")
@click.argument("ref", metavar="[RUN_OR_JOB", required=False, type=REF)
@click.argument("name", metavar="NAME]", required=False, type=TAG)
@click.option("--force", is_flag=True, help="Move the tag if another run has it.")
@click.option("--delete", metavar="NAME", type=TAG, help="Delete a tag; the run is kept.")
@json_option
def command(ref: str | None, name: str | None, force: bool, delete: str | None, as_json: bool) -> None:
    """Tag a run or job, or list the tags.

    Use `:NAME` wherever a run or job is expected. With `depends-on: {workflows: [":NAME"]}`, a workflow gets the
    artifacts of the tagged job; for a run, that is the job of the workflow that the run was started with.
    """
    if delete is not None:
        if ref is not None:
            raise UsageError("--delete can't be used with a run or job", hint=f"dstack tag --delete {delete}")
        connect.connect().delete_tag(name_of(delete))
    elif ref is None:
        none = "no tags yet; create one with `dstack tag RUN NAME`"
        show.list_table(connect.connect().tags(), COLUMNS, _row, none, as_json=as_json)
    elif name is None:
        raise UsageError("the tag's name is missing", hint=f"dstack tag {ref} NAME")
    else:
        tag = connect.connect().tag(ref, name_of(name), force=force)
        if as_json:
            show.document(tag)
        else:
            show.table(COLUMNS, [_row(tag)])


def _row(tag: TagView) -> tuple[str, ...]:
    return f":{tag.name}", tag.run, tag.workflow, words.ago(tag.created_at)
