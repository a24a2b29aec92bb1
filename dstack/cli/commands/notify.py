"""`dstack notify`: who gets messages about runs, and whether they arrive."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from dstack.cli import connect
from dstack.cli.output import show, words
from dstack.cli.parameters import KnownName, Noun, json_option
from dstack.errors import DstackError, ErrorCode, UsageError
from dstack.model.api.notify import NotifyTarget, TestNotify

NUMBER = KnownName(
    "number", lambda client: [CompletionItem(str(target.number), help=target.url) for target in client.notify_targets()]
)


@click.group("notify", cls=Noun)
def command() -> None:
    """List, test and remove the URLs that get messages about runs.

    `dstack config --notify URL` adds one. An admin's URLs get messages about all runs, a member's about their own.
    """


@command.command("test")
@click.argument("target", metavar="[URL_OR_NUMBER]", required=False, type=NUMBER)
@json_option
def test(target: str | None, as_json: bool) -> int:
    """Send a test message, and print the answer.

    Without an argument, all of your URLs get one. A URL that is not set yet can be tried. Exits with 125 if a message
    did not arrive.
    """
    number = _number(target) if target is not None and target.isdecimal() else None
    results = connect.connect().test_notify(TestNotify(url=None if number else target, number=number))
    failed = [result for result in results if not result.ok]
    if as_json:
        show.document(results)
        return DstackError.exit_code if failed else 0
    for result in results:
        show.line(f"{result.url}: {'sent' if result.ok else 'not sent'}: {result.answer}")
    if failed:
        message = f"{words.count(len(failed), 'test message')} did not arrive"
        raise DstackError(message, hint="dstack notify list", code=ErrorCode.NOTIFY)
    return 0


@command.command("list")
@json_option
def list_targets(as_json: bool) -> None:
    """List the URLs, masked, and whether messages get there."""
    show.list_table(
        connect.connect().notify_targets(),
        ("NUMBER", "KIND", "URL", "RUNS", "WAITING", "STATE"),
        lambda each: (str(each.number), each.kind, each.url, each.owner or "all", str(each.waiting), state(each)),
        "no notify URLs yet; add one with `dstack config --notify URL`",
        as_json=as_json,
    )


def state(target: NotifyTarget) -> str:
    """Say whether messages get to a target."""
    dropped = f"; {words.count(target.dropped, 'message')} given up" if target.dropped else ""
    if target.trouble and target.failing_since:
        tries = words.count(target.failures, "failed try", "failed tries")
        return f"{tries} since {words.local(target.failing_since)}: {target.trouble}{dropped}"
    return (f"last sent {words.ago(target.sent_at)}" if target.sent_at else "nothing sent yet") + dropped


@command.command("remove")
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True, type=NUMBER)
def remove(numbers: tuple[str, ...]) -> None:
    """Remove URLs, and what waits to be sent there. `dstack notify list` shows the numbers."""
    client = connect.connect()
    for number in numbers:
        removed = client.remove_notify(_number(number))
        show.say(f"{removed.url}: removed")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise UsageError(f"'{text}' is not the number of a notify URL", hint="dstack notify list")
    return int(text)
