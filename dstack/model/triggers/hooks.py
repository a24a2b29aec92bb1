"""Webhooks as GitHub, Gitea, Forgejo and GitLab send them.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
https://docs.gitea.com/usage/webhooks and https://forgejo.org/docs/latest/user/webhooks/
https://docs.gitlab.com/user/project/integrations/webhooks/ (the signed form is that of standardwebhooks.com)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

import msgspec
from msgspec import Struct

PUSHES = {"push", "push hook"}
"""What the forges call a push, in lower case."""
STALE = 300.0
"""Seconds by which the time in a signed message may differ from the server's."""
IDS = ("x-github-delivery", "x-gitea-delivery", "x-forgejo-delivery", "webhook-id", "x-gitlab-event-uuid")
EVENTS = ("x-github-event", "x-gitea-event", "x-forgejo-event", "x-gitlab-event")
LONGEST_ID = 200


class PushPayload(Struct):
    """The part of a push's body that all forges share."""

    ref: str = ""
    before: str = ""
    after: str = ""


def authentic(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> bool:
    """Whether someone who knows the secret sent this body. The names of the headers are in lower case. All comparisons
    take the same time whatever they compare."""
    key = secret.encode()
    hexed = hmac.new(key, body, hashlib.sha256).hexdigest()
    if (given := headers.get("x-hub-signature-256")) is not None:
        return same(given, f"sha256={hexed}")
    for name in ("x-gitea-signature", "x-forgejo-signature"):
        if (given := headers.get(name)) is not None:
            return same(given, hexed)
    if "webhook-signature" in headers:
        return _standard(headers, body, secret, now)
    given = headers.get("x-gitlab-token")
    return given is not None and same(given, secret)


def _standard(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> bool:
    sent = headers.get("webhook-timestamp", "")
    if not sent.isascii() or not sent.isdigit() or len(sent) > 12 or abs(now - int(sent)) > STALE:
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent}.".encode() + body
    digest = base64.b64encode(hmac.new(_standard_key(secret), signed, hashlib.sha256).digest()).decode()
    return max(same(given, f"v1,{digest}") for given in headers["webhook-signature"].split() or [""])


def _standard_key(secret: str) -> bytes:
    """The key in a secret such as `whsec_...`; any other is the key itself."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return secret.encode()


def same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape"))


def delivery(headers: Mapping[str, str], body: bytes) -> str:
    """Return what is the same for a message that is sent again: its id, or a hash of its body."""
    found = next((headers[name] for name in IDS if headers.get(name)), None)
    return found[:LONGEST_ID] if found else hashlib.sha256(body).hexdigest()


def pushed(headers: Mapping[str, str], body: bytes) -> PushPayload | None:
    """Return what was pushed; None for a message about something else. Raises ValueError for a body that is none."""
    event = next((headers[name] for name in EVENTS if name in headers), "push")
    if event.lower() not in PUSHES:
        return None
    try:
        found = msgspec.json.decode(body, type=PushPayload)
    except msgspec.DecodeError as error:
        raise ValueError(f"the body is not a push in JSON: {error}") from error
    if not all(
        len(commit) in (40, 64) and set(commit) <= set("0123456789abcdef") for commit in (found.before, found.after)
    ):
        raise ValueError("the body's `before` and `after` are not commits")
    return found
