"""The routes for notify URLs: who may add, see, test and remove them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.model.api.tokens import Role
from dstack.model.notify.target import parse
from tests.environment.sinks import WebSink
from tests.unit.server.world import World

KEY = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def member(world: World, name: str) -> str:
    return world.store.tokens.create(name, Role.MEMBER).token


def test_a_webhook_gets_a_key_that_is_shown_once(world: World) -> None:
    status, added = world.call("POST", "/notify", {"url": "https://example.org/s3cr3t"})
    _, again = world.call("POST", "/notify", {"url": "https://example.org/s3cr3t"})

    assert status == 200
    assert added["target"]["url"] == "https://example.org/***"
    assert parse(world.store.notify_targets.url(1)).key == parse(f"https://x/#{added['key']}").key
    assert again["key"] is None
    assert again["target"]["number"] == added["target"]["number"]
    for path in ("/notify", "/config", "/events", "/status"):
        assert "s3cr3t" not in str(world.call("GET", path)), path
        assert added["key"] not in str(world.call("GET", path)), path


def test_a_key_may_be_given_and_is_not_repeated(world: World) -> None:
    _, added = world.call("POST", "/notify", {"url": f"https://example.org/#{KEY}"})

    assert added["key"] is None
    assert world.store.notify_targets.url(1) == f"https://example.org/#{KEY}"


def test_members_see_and_remove_their_own_only(world: World) -> None:
    ann, bob = member(world, "ann"), member(world, "bob")
    for token, host in ((ann, "ann"), (bob, "bob"), ("t", "all")):
        assert world.call("POST", "/notify", {"url": f"ntfy://ntfy.sh/{host}"}, token)[0] == 200

    assert [each["owner"] for each in world.call("GET", "/notify", token=ann)[1]] == ["ann"]
    assert [each["owner"] for each in world.call("GET", "/notify")[1]] == ["ann", "bob", None]
    assert world.call("DELETE", "/notify/2", token=ann)[0] == 404
    assert world.call("POST", "/notify/test", {"number": 2}, ann)[0] == 404
    assert world.call("POST", "/notify/clear", token=ann)[0] == 200
    assert [each["owner"] for each in world.call("GET", "/notify")[1]] == ["bob", None]
    assert world.call("DELETE", "/notify/2")[0] == 200
    assert world.call("DELETE", "/notify/2")[0] == 404


def test_a_member_can_not_have_the_server_ask_what_only_it_reaches(world: World) -> None:
    sink, ann = WebSink(), member(world, "ann")
    with sink.serving() as address:
        _, (refused,) = world.call("POST", "/notify/test", {"url": f"http://{address}/"}, ann)
        _, (mail,) = world.call("POST", "/notify/test", {"url": "mailto:a@x.org"}, ann)
        _, (sent,) = world.call("POST", "/notify/test", {"url": f"http://{address}/"})
        world.call("POST", "/notify", {"url": f"http://{address}/admins"})
        _, (let,) = world.call("POST", "/notify/test", {"url": f"http://{address}/anns"}, ann)

    assert "not a public address" in refused["answer"]
    assert "not a public address" in mail["answer"]
    assert sent == {"url": f"http://{address}", "kind": "webhook", "ok": True, "answer": "200 OK: ok"}
    assert let["ok"]
    assert [got.path for got in sink.got] == ["/", "/anns"]


def test_a_member_names_no_mail_server_for_all(world: World) -> None:
    status, problem = world.call("POST", "/notify", {"url": "smtp://mail.lab:25"}, member(world, "ann"))

    assert (status, problem["code"]) == (403, "forbidden")


def test_a_url_whose_secret_is_not_set_is_refused(world: World) -> None:
    status, problem = world.call("POST", "/notify", {"url": "smtp://ann:PASS@mail.lab?to=a@x.org"})

    assert (status, problem["code"], problem["hint"]) == (404, "secret-missing", "dstack secrets set PASS")


def test_what_is_not_a_url_is_refused_without_repeating_it(world: World) -> None:
    status, problem = world.call("POST", "/notify", {"url": "https://s3cr3t:s3cr3t@/"})

    assert (status, problem["exit_code"]) == (400, 2)
    assert "s3cr3t" not in str(problem)


def test_a_member_has_a_bounded_number_of_urls(world: World) -> None:
    ann = member(world, "ann")
    answers = [world.call("POST", "/notify", {"url": f"ntfy://ntfy.sh/t{n}"}, ann)[0] for n in range(11)]

    assert answers == [200] * 10 + [409]


def test_a_test_without_urls_says_what_to_type(world: World) -> None:
    status, problem = world.call("POST", "/notify/test", {})

    assert (status, problem["hint"]) == (400, "dstack config --notify URL")


def test_a_dead_url_is_in_the_status(world: World) -> None:
    world.call("POST", "/notify", {"url": "https://example.org/"})
    assert world.call("GET", "/status")[1]["notify"] == []

    world.store.outbox.failed(1, "connection refused", 0.0, 5.0, dead=True)

    (dead,) = world.call("GET", "/status")[1]["notify"]
    assert (dead["number"], dead["trouble"]) == (1, "connection refused")
