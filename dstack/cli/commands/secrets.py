"""`dstack secrets`: values that jobs get in their environment and that are never shown."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import SECRET, Noun, json_option, read_secret
from dstack.errors import UsageError
from dstack.model.api.server import SetSecret
from dstack.model.job.log_mask import SHORTEST


@click.group("secrets", cls=Noun)
def command() -> None:
    """Set, list and delete secrets.

    Jobs get the secrets that their workflow lists under `secrets` as environment variables. The server encrypts secrets
    and masks them in logs.
    """


@command.command("set")
@click.argument("name", type=SECRET)
def set_secret(name: str) -> None:
    """Set a secret.

    The value is read from stdin, or from a prompt on a terminal, never from the command line.
    """
    if not (name.isidentifier() and name.isascii()):
        raise UsageError(
            f"'{name}' is not a valid name for a secret; use letters, digits and '_', and don't begin with a digit"
        )
    value = read_secret(name)
    if "\0" in value:
        raise UsageError(
            "the value contains a NUL character, which environment variables can't hold; the secret was not set"
        )
    if not value:
        raise UsageError("the value is empty; the secret was not set")
    connect.connect().set_secret(SetSecret(name=name, value=value))
    show.say(f"{name}: set")
    if len(value.encode("utf-8", "surrogateescape")) < SHORTEST:
        show.say(f"warning: values shorter than {SHORTEST} bytes are not masked in logs")


@command.command("list")
@json_option
def list_secrets(as_json: bool) -> None:
    """List the names of the secrets. Values are never shown."""
    show.list_table(
        connect.connect().secrets(),
        ("NAME", "SET"),
        lambda secret: (secret.name, words.ago(secret.set_at)),
        "no secrets yet; set one with `dstack secrets set NAME`",
        as_json=as_json,
    )


@command.command("delete")
@click.argument("name", type=SECRET)
def delete_secret(name: str) -> None:
    """Delete a secret.

    Running jobs keep it, and their logs stay masked. Jobs that need it and have not started will fail, unless you
    set it again.
    """
    deleted = connect.connect().delete_secret(name)
    show.say(f"{name}: deleted")
    for job in deleted.missed_by:
        show.say(f"warning: {job} needs it to start; set it again, or stop the run")
