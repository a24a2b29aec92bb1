"""`dstack server token`: who may use a team's server, and as what."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import KnownName, Noun, json_option
from dstack.model.api.tokens import NewToken, Role

TOKEN = KnownName("name", lambda client: [CompletionItem(each.name) for each in client.tokens()])


@click.group("token", cls=Noun)
def token() -> None:
    """Create, list and revoke the tokens of a team's server.

    Each person gets a token of their own. An admin may do everything. A member reads everything, submits runs, and
    changes only their own runs. The token's name is shown as the user of the runs that it submits.
    """


@token.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.MEMBER.value,
    help="What it allows; default: member.",
)
def create(name: str, role: str) -> None:
    """Create a token and print it. It can't be shown again."""
    created = connect.connect().create_token(NewToken(name=name, role=Role(role)))
    show.line(created.token)
    show.say(
        f"{created.name}: {created.role.value}; on the machine that uses it, type: dstack config --url URL --token"
    )


@token.command("list")
@json_option
def list_tokens(as_json: bool) -> None:
    """List the tokens: name, role, age and last use. `shared` is the one in DSTACK_TOKEN."""
    show.list_table(
        connect.connect().tokens(),
        ("NAME", "ROLE", "CREATED", "LAST USE"),
        lambda each: (
            each.name,
            each.role.value,
            words.ago(each.created_at),
            words.ago(each.used_at) if each.used_at else "never",
        ),
        "no tokens yet; create one with `dstack server token create NAME`",
        as_json=as_json,
    )


@token.command("revoke")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=TOKEN)
def revoke(names: tuple[str, ...]) -> None:
    """Revoke tokens. They are refused at once, and what they are following ends."""
    client = connect.connect()
    for name in names:
        client.revoke_token(name)
        show.say(f"{name}: revoked")
        if name == "shared":
            show.say("warning: it comes back if the server is started with DSTACK_TOKEN again")
