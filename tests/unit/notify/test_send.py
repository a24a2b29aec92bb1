"""Messages that are really sent, to servers on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from pathlib import Path

import pytest

from dstack.model.notify.message import Message, MessageFacts
from dstack.model.notify.target import parse
from dstack.notify import addresses, limit
from dstack.notify.addresses import Allowed
from dstack.notify.send import Delivery, deliver
from tests.environment.certificates import Authority
from tests.environment.sinks import MailSink, WebSink

MESSAGE = Message(
    id="msg_1",
    type="run.failed",
    timestamp="2026-01-01T00:00:00.000Z",
    data=MessageFacts(text="train (r) failed", command="dstack logs r", run="r", reason="ä & <b>", user="ann"),
)
KEY = base64.b64encode(bytes(range(32))).decode()


def send(url: str, password: str = "", allowed: Allowed = None) -> Delivery:
    return deliver(MESSAGE, parse(url), password, allowed)


def verified(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a signature as a receiver does, from the specification alone (https://www.standardwebhooks.com)."""
    key = base64.b64decode(secret.split("_", 1)[1])
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body])
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and any(each == f"v1,{wanted}" for each in headers["webhook-signature"].split(" "))


def test_a_webhook_is_signed() -> None:
    sink = WebSink()
    with sink.serving() as address:
        answer = send(f"http://{address}/hook?a=1#whsec_{KEY}")

    (got,) = sink.got
    assert answer == Delivery(True, "200 OK: ok")
    assert (got.path, got.headers["content-type"], got.headers["host"]) == ("/hook?a=1", "application/json", address)
    assert verified(f"whsec_{KEY}", got.headers, got.body)
    assert not verified(f"whsec_{KEY}", got.headers, got.body.replace(b"failed", b"passed"))
    assert json.loads(got.body)["data"]["reason"] == "ä & <b>"


@pytest.mark.parametrize(
    ("status", "refused", "gone"),
    [(500, False, False), (404, True, False), (410, True, True), (429, False, False), (302, True, False)],
)
def test_what_an_answer_means(status: int, refused: bool, gone: bool) -> None:
    sink = WebSink(moods=[status], headers={"Location": "http://127.0.0.1:1/", "Retry-After": "17"})
    with sink.serving() as address:
        answer = send(f"http://{address}/hook")

    assert not answer.ok
    assert (answer.refused, answer.gone) == (refused, gone)
    assert str(status) in answer.words
    assert len(sink.got) == 1, "a redirect was followed"
    assert answer.again == (None if status == 302 else 17)


def test_an_answer_is_shown_in_one_line_without_the_urls_secrets() -> None:
    sink = WebSink(moods=[403], answer=b"\x1b[31mno /hooks/s3cr3t here" + b"x" * 9000)
    with sink.serving() as address:
        answer = send(f"http://{address}/hooks/s3cr3t")

    assert answer.words.startswith("403 Forbidden: no *** here")
    assert len(answer.words) <= 300


def test_a_connection_that_is_cut_or_refused_is_an_answer() -> None:
    sink = WebSink(moods=["cut"])
    with sink.serving() as address:
        cut = send(f"http://{address}/")
    refused = send(f"http://{address}/")

    assert not cut.ok
    assert cut.words
    assert not refused.ok
    assert refused.words == "connection refused"


def test_an_answer_that_comes_byte_by_byte_for_ever_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "WHOLE", 0.5)
    sink = WebSink(moods=["slow"])
    with sink.serving() as address:
        answer = send(f"http://{address}/")

    assert answer == Delivery(False, "it did not answer in time")


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    sink = WebSink(certificate=authority.issue("127.0.0.1"))
    with sink.serving() as address:
        unknown = send(f"https://{address}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        known = send(f"https://{address}/")

    assert "certificate can't be verified" in unknown.words
    assert known.ok
    assert len(sink.got) == 1


def test_a_slow_answer_over_tls_is_cut_off_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "WHOLE", 1.0)
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    sink = WebSink(moods=["slow"], certificate=authority.issue("127.0.0.1"))
    with sink.serving() as address:
        answer = send(f"https://{address}/")

    assert answer == Delivery(False, "it did not answer in time")


def test_a_mail_arrives() -> None:
    sink = MailSink()
    with sink.serving() as address:
        answer = send(f"smtp://{address}?to=a@x.org,b@x.org&from=d@x.org")

    (got,) = sink.got
    assert answer == Delivery(True, "250 taken as 4711")
    assert (got.mail_from, got.rcpt_tos) == ("d@x.org", ["a@x.org", "b@x.org"])
    assert isinstance(got.content, bytes)
    assert b"Message-ID: <msg_1@dstack>" in got.content


def test_a_password_is_sent_over_tls_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    sink = MailSink(login=("ann", "pw"), certificate=authority.issue("127.0.0.1"))
    plain = MailSink()
    with sink.serving() as address, plain.serving() as other:
        right = send(f"smtp://ann:PASS@{address}?to=a@x.org", "pw")
        wrong = send(f"smtp://ann:PASS@{address}?to=a@x.org", "pW")
        clear = send(f"smtp://ann:PASS@{other}?to=a@x.org", "pw")

    assert right.ok
    assert not wrong.ok
    assert "535" in wrong.words
    assert "the password was not sent" in clear.words
    assert (len(sink.got), len(plain.got)) == (1, 0)


def test_a_mail_server_that_refuses_is_told() -> None:
    sink = MailSink(refusal="554 not today")
    with sink.serving() as address:
        answer = send(f"smtp://{address}?to=a@x.org")

    assert answer == Delivery(False, "554 not today", refused=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "100.64.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ],
)
def test_an_address_that_only_the_server_may_reach_is_not_public(address: str) -> None:
    assert not addresses.public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_public_address(address: str) -> None:
    assert addresses.public(address)


def test_a_members_messages_go_to_public_addresses_and_where_an_admins_go() -> None:
    sink = WebSink()
    with sink.serving() as address:
        host, _, port = address.partition(":")
        refused = send(f"http://{address}/", allowed=set())
        named = send(f"http://localhost:{port}/", allowed={(host, int(port))})
        let = send(f"http://{address}/", allowed={(host, int(port))})

    assert "not a public address" in refused.words
    assert "not a public address" in named.words
    assert let.ok
    assert len(sink.got) == 1


def test_no_thread_is_left_behind() -> None:
    before = threading.active_count()
    sink = WebSink()
    with sink.serving() as address:
        send(f"http://{address}/")
    assert threading.active_count() <= before
