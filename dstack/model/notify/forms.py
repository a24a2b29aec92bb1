"""Messages in the form that each kind of target wants. Names and reasons may come from a machine: nothing in them is
markup, a mention or a header."""

from __future__ import annotations

import base64
import hmac
import html
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate

import msgspec

from dstack.model.notify.message import Message
from dstack.model.notify.target import Kind, Target
from dstack.model.text.units import seconds
from dstack.model.text.untrusted import clean, clean_line

SUBJECT = 200
"""Characters of a subject or title."""


class Request(msgspec.Struct, frozen=True):
    """A POST request: its path, headers and body."""

    path: str
    headers: dict[str, str]
    body: bytes


def request(message: Message, target: Target, now: float) -> Request:
    """Return what to send to a target over HTTP at a time, in seconds since the epoch."""
    headers = {"Content-Type": "application/json", **_login(target)}
    if target.kind is Kind.SLACK:
        return Request(target.path, headers, _json({"text": slack(message)}))
    if target.kind is Kind.NTFY:
        root, _, topic = target.path.rpartition("/")
        return Request(f"{root}/", headers, _json({"topic": topic, **ntfy(message)}))
    body = _json(message)
    return Request(target.path, headers | signed(message.id, int(now), body, target.key), body)


def signed(number: str, timestamp: int, body: bytes, key: bytes) -> dict[str, str]:
    """Return the headers of a signed webhook (https://www.standardwebhooks.com)."""
    digest = hmac.digest(key, f"{number}.{timestamp}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": number, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def _login(target: Target) -> dict[str, str]:
    if target.password and not target.user:
        return {"Authorization": f"Bearer {target.password}"}
    pair = base64.b64encode(f"{target.user}:{target.password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"} if target.user else {}


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


def slack(message: Message) -> str:
    """Return the text for Slack and what understands its webhooks (Mattermost). Code is the one thing in which neither
    of them looks for mentions, links and other markup."""
    return "\n".join(code(line) for line in lines(message))


def code(text: str) -> str:
    """Return a text as inline code (https://api.slack.com/reference/surfaces/formatting#escaping)."""
    return f"`{html.escape(text.replace('`', chr(39)), quote=False)}`"


def ntfy(message: Message) -> dict[str, object]:
    """Return the fields of an ntfy message (https://docs.ntfy.sh/publish/#publish-as-json). They are plain text."""
    title, *rest = lines(message)
    priority = {"priority": 4} if message.urgent else {}
    return {"title": clean_line(title, SUBJECT), "message": "\n".join(rest), **priority}


def mail(message: Message, target: Target, sender: str) -> EmailMessage:
    """Return the mail. Its Message-ID is the same in each try, so that mail servers can drop a second copy."""
    letter = EmailMessage(policy=SMTP)
    letter["Subject"] = clean_line(message.data.text, SUBJECT)
    letter["From"] = sender
    letter["To"] = ", ".join(target.to)
    letter["Message-ID"] = f"<{message.id}@dstack>"
    letter["Date"] = formatdate(seconds(message.timestamp))
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content("\n".join(lines(message)) + "\n")
    return letter


def lines(message: Message) -> list[str]:
    """Return the message for people: what happened, why, who, and what to type."""
    facts = message.data
    more = [facts.reason, facts.user and f"submitted by {facts.user}", facts.command]
    return [clean(line).replace("\n", " ") for line in (facts.text, *more) if line]
