"""Triggers and webhooks over HTTP, without an engine that runs. The forges' requests are made after their public
documentation."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.model.api.tokens import Role
from tests.unit.server.world import TOKEN, World

SECRET = "It's a Secret to Everybody"
BEFORE, AFTER = "a" * 40, "b" * 40
WORKFLOW = {"name": "train", "image": "busybox", "commands": ["true"]}
PUSH = {"name": "pushed", "workflow": "train", "push": {"branch": "main", "secret": "HOOK"}}
CRON = {"name": "nightly", "workflow": "train", "cron": "0 2 * * *", "code": {"branch": "main"}}
URL = "https://git.example.org/team/project.git"


class Server(World):
    """The server's HTTP API."""

    def wish(self, *triggers: Any, token: str = TOKEN, **changes: Any) -> tuple[int, Any]:
        body = {"triggers": triggers, "user": "ann", "repo": "r", "source": "here", "url": URL, **changes}
        return self.call("POST", "/triggers", json.dumps(body).encode() + b"\n", token=token)

    def hook(self, body: bytes, name: str = "pushed", **headers: str) -> tuple[int, Any]:
        given = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
        given += [(key.replace("_", "-").lower().encode(), value.encode()) for key, value in headers.items()]
        status, answer = asyncio.run(self.ask("POST", f"/hooks/{name}".encode(), b"", given, body))
        return status, json.loads(answer)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.store.secrets.set("HOOK", SECRET, "now")
    yield made
    made.store.close()


@pytest.fixture
def hooked(server: Server) -> Server:
    assert server.wish(PUSH) == (200, [{"name": "pushed", "do": "add", "differences": []}])
    return server


def body(after: str = AFTER, ref: str = "refs/heads/main") -> bytes:
    return json.dumps({"ref": ref, "before": BEFORE, "after": after, "repository": {"full_name": "t/p"}}).encode()


def hexed(data: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def github(data: bytes, secret: str = SECRET, delivery: str = "72d3162e-cc78-11e3-81ab-4c9367dc0958") -> dict[str, str]:
    return {
        "X_GitHub_Delivery": delivery,
        "X_GitHub_Event": "push",
        "X_Hub_Signature": "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6",
        "X_Hub_Signature_256": f"sha256={hexed(data, secret)}",
        "Content_Type": "application/json",
        "User_Agent": "GitHub-Hookshot/044aadd",
    }


def gitea(data: bytes, secret: str = SECRET) -> dict[str, str]:
    signed = {"X_Gitea_Signature": hexed(data, secret)}
    return {"X_Gitea_Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead473", "X_Gitea_Event": "push", **signed}


def forgejo(data: bytes, secret: str = SECRET) -> dict[str, str]:
    signed = {"X_Forgejo_Signature": hexed(data, secret)}
    return {"X_Forgejo_Delivery": "f6266f16-1bf3-46a5-9ea4-602e06ead474", "X_Forgejo_Event": "push", **signed}


def gitlab(data: bytes, secret: str = SECRET) -> dict[str, str]:
    uuid = "13792a34-cac6-4fda-95a8-c58e00a3954e"
    return {"X_Gitlab_Event": "Push Hook", "X_Gitlab_Token": secret, "X_Gitlab_Event_UUID": uuid}


def gitlab_signed(data: bytes, secret: str = SECRET, sent: float | None = None) -> dict[str, str]:
    stamp = str(int(sent or time.time()))
    digest = hmac.new(secret.encode(), f"msg_1.{stamp}.".encode() + data, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    ids = {"webhook_id": "msg_1", "webhook_timestamp": stamp, "webhook_signature": signature}
    return {"X_Gitlab_Event": "Push Hook", **ids}


FORGES = [github, gitea, forgejo, gitlab, gitlab_signed]


@pytest.mark.parametrize("forge", FORGES)
def test_a_push_is_taken_in_once(hooked: Server, forge: Any) -> None:
    data = body()

    assert hooked.hook(data, **forge(data)) == (200, {"accepted": True, "why": None})

    status, again = hooked.hook(data, **forge(data))
    assert (status, again["code"]) == (409, "conflict")
    (tick,) = hooked.store.triggers.ticks("pushed", 9)
    assert (tick.commit, tick.before, tick.key) == (AFTER, BEFORE, f"push {AFTER}")
    assert hooked.store.triggers.require("pushed").seen == AFTER


@pytest.mark.parametrize("forge", FORGES)
def test_a_wrong_signature_is_refused_and_recorded_once(hooked: Server, forge: Any) -> None:
    data = body()
    for _ in range(2):
        status, problem = hooked.hook(data, **forge(data, secret="guessed"))
        assert (status, problem["code"]) == (401, "unauthorized")

    assert hooked.store.triggers.ticks("pushed", 9) == []
    kinds = [event.kind for event in hooked.store.events.select()]
    assert kinds.count("trigger.refused") == 1


def test_a_changed_body_an_old_message_and_none_at_all_are_refused(hooked: Server) -> None:
    data = body()

    assert hooked.hook(data + b" ", **github(data))[0] == 401
    assert hooked.hook(data, **gitlab_signed(data, sent=time.time() - 3600))[0] == 401
    assert hooked.hook(data)[0] == 401
    assert hooked.hook(data, "nobody", **github(data))[0] == 401


def test_guesses_are_slowed_down(hooked: Server) -> None:
    data = body()
    statuses = [hooked.hook(data, **gitlab(data, secret=f"guess{number}"))[0] for number in range(25)]

    assert statuses[:20] == [401] * 20
    assert 429 in statuses


def test_a_large_body_is_refused_before_it_is_read(hooked: Server) -> None:
    headers = {"Content_Length": str(100 << 20)}
    status, answer = asyncio.run(
        hooked.ask(
            "POST",
            b"/hooks/pushed",
            b"",
            [(k.replace("_", "-").lower().encode(), v.encode()) for k, v in headers.items()],
            b"",
        )
    )

    assert (status, json.loads(answer)["code"]) == (413, "too-large")


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (body(ref="refs/heads/other"), {}),
        (body(ref="refs/tags/main"), {}),
        (body(after="0" * 40), {}),
        (b'{"zen": "Keep it logically awesome."}', {"X_GitHub_Event": "ping"}),
    ],
)
def test_other_messages_start_nothing(hooked: Server, data: bytes, headers: dict[str, str]) -> None:
    status, answer = hooked.hook(data, **{**github(data), **headers})

    assert (status, answer["accepted"]) == (200, False)
    assert hooked.store.triggers.ticks("pushed", 9) == []


@pytest.mark.parametrize("data", [b"", b"payload=%7B%7D", b"[]", b'{"ref": "refs/heads/main"}'])
def test_a_body_that_is_no_push_is_a_usage_error(hooked: Server, data: bytes) -> None:
    assert hooked.hook(data, **github(data))[0] == 400


def test_applying_is_declarative(server: Server) -> None:
    assert [change["do"] for change in server.wish(PUSH, CRON)[1]] == ["add", "add"]
    assert [change["do"] for change in server.wish(PUSH, CRON)[1]] == ["keep", "keep"]
    changed = {**CRON, "cron": "0 3 * * *"}

    status, changes = server.wish(changed, dry_run=True)

    expected = {"name": "nightly", "do": "change", "differences": ["cron: 0 2 * * * -> 0 3 * * *"]}
    assert (status, changes) == (200, [expected, {"name": "pushed", "do": "remove", "differences": []}])
    assert len(server.call("GET", "/triggers")[1]) == 2
    server.wish(changed)
    (view,) = server.call("GET", "/triggers")[1]
    assert (view["name"], view["cron"], view["state"], view["last"]) == ("nightly", "0 3 * * *", "active", None)
    assert view["next"].endswith(":00:00.000Z")
    assert [change["do"] for change in server.wish(source="elsewhere")[1]] == []
    assert server.wish(changed, source="elsewhere")[0] == 409


def test_pause_run_resume_and_remove(server: Server) -> None:
    server.wish(CRON)
    assert server.call("POST", "/triggers/nightly/resume")[0] == 409
    paused = server.call("POST", "/triggers/nightly/pause")[1]
    assert (paused["state"], paused["reason_code"], paused["next"]) == ("paused", "by-hand", None)
    assert not server.store.triggers.active
    assert server.call("POST", "/triggers/nightly/run")[1]["result"] == "due"
    assert server.call("POST", "/triggers/nightly/resume")[1]["state"] == "active"
    assert server.call("DELETE", "/triggers/nightly")[0] == 200
    assert server.call("GET", "/triggers/nightly")[0] == 404
    kinds = [event.kind for event in server.store.events.select() if event.kind.startswith("trigger.")]
    assert kinds == [f"trigger.{verb}" for verb in ("added", "paused", "due", "resumed", "removed")]


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (URL, 200),
        ("git@git.example.org:team/project.git", 200),
        ("ssh://git@git.example.org:2222/team/project.git", 200),
        ("ext::sh -c touch% /tmp/x", 400),
        ("--upload-pack=touch /tmp/x", 400),
        ("-oProxyCommand=x:y", 400),
        ("ssh://-oProxyCommand=x/y", 400),
        ("relative/path", 400),
        ("ftp://x/y", 400),
        ("https://x/\ny", 400),
        ("/etc", 403),
        ("file:///etc", 403),
        ("http://localhost:8000/x", 403),
        ("http://user@127.0.0.1/x", 403),
        ("http://[::1]:80/x", 403),
        ("http://[::ffff:127.0.0.1]/x", 403),
        ("http://2130706433/x", 403),
        ("http://169.254.169.254/x", 403),
        ("git@localhost:x", 403),
    ],
)
def test_a_remote_is_no_command_and_not_the_server_itself(server: Server, url: str, status: int) -> None:
    found, answer = server.wish(CRON, url=url)

    assert found == status, answer


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ({**CRON, "cron": "0 0 30 2 *"}, "never fires"),
        ({**CRON, "timezone": "Mars/Base"}, "not a known time zone"),
        ({"name": "x", "workflow": "train"}, "needs either 'cron' or 'push'"),
        ({**CRON, "code": "snapshot"}, "lacks the code"),
        ({**CRON, "code": "other"}, "the triggers can't be read"),
        ({**PUSH, "push": {"branch": "--x"}}, "the triggers can't be read"),
        ({**CRON, "name": "../x"}, "the triggers can't be read"),
    ],
)
def test_a_request_is_checked_like_a_file(server: Server, trigger: dict[str, Any], words: str) -> None:
    status, problem = server.wish(trigger)

    assert (status, words in problem["message"]) == (400, True), problem


def test_members_change_their_own_triggers_and_use_no_login_of_the_server(server: Server) -> None:
    ann, bob = (server.store.tokens.create(name, Role.MEMBER).token for name in ("ann", "bob"))

    assert server.wish(CRON, token=ann)[0] == 200

    record = server.store.triggers.require("nightly")
    assert record.owner == "ann"
    assert record.remote
    assert not record.remote.trusted
    assert server.wish({**CRON, "cron": "@daily"}, token=bob)[0] == 403
    for method, path in (("POST", "/run"), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
        assert server.call(method, f"/triggers/nightly{path}", token=bob)[0] == 403
    assert server.call("GET", "/triggers", token=bob)[0] == 200
    assert server.wish({**CRON, "name": "x"}, token=ann, source="s", url="git@git.example.org:a/b.git")[0] == 403
    assert server.wish({**CRON, "name": "x"}, token=ann, source="s", key="/root/.ssh/id")[0] == 403
