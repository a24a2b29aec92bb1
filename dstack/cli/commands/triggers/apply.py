"""`dstack triggers apply` and `add`: register triggers with the server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dstack.cli import connect, project
from dstack.cli.commands.run.code import send
from dstack.cli.commands.run.sent import warn_of_secrets
from dstack.cli.output import show
from dstack.cli.parameters import SECRET, WORKFLOW, json_option, yes_option
from dstack.client.client import Client
from dstack.client.settings import user
from dstack.errors import UsageError
from dstack.model.api.triggers import ApplyTriggers, TriggerChange

if TYPE_CHECKING:
    from dstack.model.project.project import Project
    from dstack.model.project.workflow import Trigger
    from dstack.snapshot.take import Taken

key_option = click.option(
    "--key", metavar="FILE", help="A private SSH key on the server's machine with which it fetches the code."
)
token_option = click.option(
    "--token", metavar="SECRET", type=SECRET, help="The secret with the token with which the server fetches over https."
)
remote_option = click.option("--remote", metavar="URL", help="Where the server fetches the code; default: as git does.")


@click.command("apply")
@remote_option
@key_option
@token_option
@yes_option
@json_option
@click.option("--dry-run", is_flag=True, help="Show the difference; change nothing.")
def apply(remote: str | None, key: str | None, token: str | None, yes: bool, as_json: bool, dry_run: bool) -> None:
    """Make the server's triggers those of this project.

    Shows the difference and, on a terminal, asks. Triggers that came from this file earlier and are no longer in it are
    removed.
    """
    found = project.load()
    _register(
        found, found.triggers, source=True, remote=(remote, key, token), ask=not yes, as_json=as_json, dry=dry_run
    )


@click.command("add")
@click.argument("name")
@click.argument("workflow", type=WORKFLOW)
@click.option("--cron", metavar="EXPRESSION", help="When to run: five fields as cron's, or @daily.")
@click.option("--timezone", metavar="ZONE", help="Time zone of --cron; default: the server's.")
@click.option("--push", metavar="BRANCH", help="Run when this branch of the remote gets new commits.")
@click.option("--path", "paths", metavar="PATH", multiple=True, help="Only pushes that change this path; repeatable.")
@click.option("--every", metavar="TIME", help="How often to ask the remote; default: 1m.")
@click.option("--secret", metavar="NAME", type=SECRET, help="The secret that signs webhooks.")
@click.option("--branch", metavar="BRANCH", help="Run this branch's newest commit; default: the code as it is now.")
@click.option("--set", "values", metavar="VARIABLE=VALUE", multiple=True, help="Set a variable; repeatable.")
@click.option("--overlap", metavar="RULE", help="skip, queue, replace or allow; default: skip.")
@click.option("--missed", metavar="RULE", help="last, skip or all; default: last.")
@click.option("--deadline", metavar="TIME", help="Don't make up for times that are longer ago.")
@click.option("--max-failures", type=click.IntRange(1, 1000), metavar="N", help="Pause after so many in a row.")
@remote_option
@key_option
@token_option
@json_option
def add(
    name: str,
    workflow: str,
    push: str | None,
    paths: Sequence[str],
    every: str | None,
    secret: str | None,
    branch: str | None,
    values: Sequence[str],
    remote: str | None,
    key: str | None,
    token: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a trigger by hand. It stays until `dstack triggers remove`."""
    import msgspec

    from dstack.model.project.checks.triggers import refusal
    from dstack.model.project.workflow import Trigger

    for text in values:
        if "=" not in text:
            raise UsageError(f"--set: '{text}' has no value; write --set VARIABLE=VALUE")
    if push is None and (paths or every or secret):
        raise UsageError("--path, --every and --secret need --push")
    pushes = {"branch": push, "paths": list(paths), "every": every, "secret": secret}
    given = {key.replace("_", "-"): value for key, value in options.items()}
    given |= {"push": {k: v for k, v in pushes.items() if v} if push else None}
    given |= {"code": {"branch": branch} if branch else None}
    given |= {"name": name, "workflow": workflow, "variables": dict(text.split("=", 1) for text in values)}
    try:
        trigger = msgspec.convert({key: value for key, value in given.items() if value is not None}, Trigger)
    except msgspec.ValidationError as error:
        raise UsageError(f"the trigger is not valid: {error}", hint="dstack triggers add --help") from error
    if trouble := refusal(trigger):
        raise UsageError(trouble)
    found = project.load()
    _register(found, [trigger], source=False, remote=(remote, key, token), ask=False, as_json=as_json, dry=False)


def _register(
    found: Project,
    triggers: Sequence[Trigger],
    *,
    source: bool,
    remote: tuple[str | None, str | None, str | None],
    ask: bool,
    as_json: bool,
    dry: bool,
) -> None:
    """Send the triggers, with the code of those that run a snapshot, once the user has agreed to what changes."""
    from dstack.model.project.graph import closure
    from dstack.model.project.variables import apply as with_overrides
    from dstack.snapshot.take import take

    client, root = connect.connect(), project.find_root()
    fixed = [trigger for trigger in triggers if trigger.branch is None]
    workflows = {trigger.name: closure(found.workflows, trigger.workflow) for trigger in triggers}
    variables = {
        trigger.name: with_overrides(found, trigger.workflow, [*trigger.variables.items()]) for trigger in triggers
    }
    depths = {each.fetch_depth for trigger in fixed for each in workflows[trigger.name]} or {1}
    with ExitStack() as stack:
        taken = stack.enter_context(take(root, depths=depths))
        snapshot = taken.snapshot
        url = remote[0] or _absolute(snapshot.url, root)
        wish = ApplyTriggers(
            triggers=tuple(triggers),
            user=user(),
            repo=snapshot.repo,
            source=f"{snapshot.url or root}:{snapshot.project or '.'}" if source else None,
            project=snapshot.project,
            object_format=snapshot.object_format,
            url=url,
            key=remote[1],
            token=remote[2],
            snapshot=snapshot if fixed else None,
            workflows={trigger.name: tuple(workflows[trigger.name]) for trigger in fixed},
            variables={trigger.name: variables[trigger.name] for trigger in fixed},
            dry_run=True,
        )
        changes = client.apply_triggers(wish)
        if not as_json:
            _tell(changes)
        if not dry and any(change.do != "keep" for change in changes):
            if ask and show.interactive() and not show.confirm("Apply this?"):
                raise UsageError("nothing was changed")
            wish.dry_run = False
            changes = _send(client, wish, taken, root, warn=not as_json)
    if as_json:
        show.document(changes)


def _send(client: Client, wish: ApplyTriggers, taken: Taken, root: Path, *, warn: bool) -> list[TriggerChange]:
    if wish.snapshot is None:
        return client.apply_triggers(wish)
    if warn:
        warn_of_secrets(taken, root)
    return send(taken, lambda pack: client.apply_triggers(wish, pack))


def _absolute(url: str | None, root: Path) -> str | None:
    """Return the remote's URL; a path is relative to the repository."""
    if url is None or ":" in url:
        return url
    return str((root / url).resolve())


def _tell(changes: Sequence[TriggerChange]) -> None:
    if not changes:
        show.say("the project has no triggers; write `triggers:` in .dstack/workflows.yaml")
    for change in changes:
        rest = f": {'; '.join(change.differences)}" if change.differences else ""
        verb = "unchanged" if change.do == "keep" else change.do
        show.say(f"{verb}  {change.name}{rest}")
