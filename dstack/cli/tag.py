"""`dstack tag`: names for results."""

from __future__ import annotations

import click

from dstack.cli import settings, show, words
from dstack.cli.lookup import REF
from dstack.errors import UsageError
from dstack.model.tag import name_of


@click.command("tag")
@click.argument("ref", metavar="[RUN_OR_JOB", required=False, type=REF)
@click.argument("name", metavar="NAME]", required=False)
@click.option("--force", is_flag=True, help="Take the name from another run.")
@click.option("--delete", metavar="NAME", help="Take a name away; the run stays.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(ref: str | None, name: str | None, force: bool, delete: str | None, as_json: bool) -> None:
    """Name a run or job, or list the names.

    `:NAME` then stands for it wherever a run or job is expected, also in `depends-on: {workflows: [":NAME"]}`, which
    gives a workflow its artifacts. For a run, that is the job of the workflow that was named.
    """
    if delete is not None:
        if ref is not None:
            raise UsageError("--delete goes alone", hint=f"dstack tag --delete {delete}")
        settings.connect().delete_tag(name_of(delete))
        return
    if ref is not None:
        if name is None:
            raise UsageError("a name is missing", hint=f"dstack tag {ref} NAME")
        found = [settings.connect().tag(ref, name_of(name), force=force)]
    else:
        found = settings.connect().tags()
    if as_json:
        show.document(found if ref is None else found[0])
    elif found:
        rows = [(f":{tag.name}", tag.run, tag.workflow, words.ago(tag.created_at)) for tag in found]
        show.table(("TAG", "RUN", "WORKFLOW", "CREATED"), rows)
    else:
        show.say("no tags; make one with `dstack tag RUN NAME`")
