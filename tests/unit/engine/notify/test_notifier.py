"""From events to messages that arrived: once each, whatever fails or is killed in between."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dstack.engine.context import Context, Events
from dstack.engine.fleet.runners import Fleet
from dstack.engine.notify import messages, notifier
from dstack.engine.notify.notifier import Notifier
from dstack.hosts.pool import Pool
from dstack.model.api.tokens import Role
from dstack.model.job.status import Status
from dstack.model.notify.message import Message
from dstack.model.notify.target import Target, parse
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import LongWait, Workflow
from dstack.model.text.units import seconds
from dstack.notify.addresses import Allowed
from dstack.notify.send import Delivery
from dstack.store.store import Store
from dstack.store.tables import notify
from tests.unit.store.test_store import WORKFLOW, job, run

URL = "https://example.org/hook#whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
START = seconds("2026-01-01T00:00:00.000Z")


@dataclass
class Receiver:
    """Stands for the other side: notes each message, and answers with the next mood, or accepts it."""

    moods: list[Delivery] = field(default_factory=list)
    got: list[tuple[str, Message]] = field(default_factory=list)
    allowed: list[Allowed] = field(default_factory=list)

    def __call__(self, message: Message, target: Target, password: str, allowed: Allowed) -> Delivery:
        self.got.append((target.masked, message))
        self.allowed.append(allowed)
        return self.moods.pop(0) if self.moods else Delivery(True, "200 OK")

    @property
    def told(self) -> list[tuple[str, str | None]]:
        return [(message.type, message.data.run) for _, message in self.got]


class Server:
    """What of a server takes part: its store, and the notifier. `now` is the time of day."""

    def __init__(self, folder: Path, receiver: Receiver) -> None:
        layout = ServerLayout(folder)
        self.store, self.now = Store(layout), START
        fleet = Fleet(self.store, Pool(), lambda: None)
        self.context = Context(layout=layout, store=self.store, fleet=fleet, events=Events())
        self.notifier = Notifier(self.context, receiver, lambda: self.now)

    def add(self, url: str = URL, owner: str = notify.EVERYBODY) -> int:
        return self.store.notify_targets.add(url, parse(url), owner).number

    def submit(self, name: str, *, user: str = "ann", workflow: Workflow = WORKFLOW, jobs: int = 1) -> None:
        self.store.runs.add(replace(run(name, user=user), workflows=(workflow,)))
        for number in range(jobs):
            self.store.jobs.add(job(f"{name}{number}", name))

    def end(self, name: str, status: Status = Status.FAILED, number: int = 0) -> None:
        self.store.jobs.change(f"{name}{number}", status=status, exit_code=3)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run the notifier until a condition holds."""
        self.context.events.events.clear()  # their bells belong to the event loop of the call before
        task = asyncio.create_task(self.notifier.run())
        end = time.monotonic() + 20
        try:
            while not condition():
                assert not task.done(), task
                assert time.monotonic() < end, self.context.tasks.troubles
                await asyncio.sleep(0.001)
        finally:
            for each in (task, *self.context.tasks.running):
                each.cancel()
            await asyncio.gather(task, *self.context.tasks.running, return_exceptions=True)

    def settle(self) -> None:
        """Run the notifier until all events are looked at and nothing waits to be sent."""
        asyncio.run(self.until(self.settled))

    def settled(self) -> bool:
        done = self.notifier.messages.after == self.store.events.last
        return done and not any(target.waiting for target in self.store.notify_targets.all())

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event.data for event in self.store.events.select() if event.kind == kind]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def server(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(notifier, "LOOK", 0.01)
    monkeypatch.setattr(messages, "LOOK", 0.0)
    opened = Server(tmp_path, receiver)
    yield opened
    opened.store.close()


def test_a_run_that_failed_is_told_once(server: Server, receiver: Receiver) -> None:
    server.add()
    server.submit("r")
    server.end("r")

    server.settle()
    server.submit("other")
    server.settle()

    assert receiver.told == [("run.failed", "r")]
    assert receiver.got[0][1].data.exit_code == 3
    assert [data["type"] for data in server.events("notify.sent")] == ["run.failed"]


def test_a_run_is_told_when_its_last_job_ends(server: Server, receiver: Receiver) -> None:
    server.add()
    server.submit("r", jobs=3)
    server.end("r", number=0)
    server.settle()
    assert receiver.told == []

    server.end("r", Status.DONE, number=1)
    server.end("r", Status.STOPPED, number=2)
    server.settle()

    assert receiver.told == [("run.failed", "r")]


def test_without_notify_a_run_that_is_done_or_stopped_is_not_told(server: Server, receiver: Receiver) -> None:
    server.add()
    for name, status in (("a", Status.DONE), ("b", Status.STOPPED), ("c", Status.LOST)):
        server.submit(name)
        server.end(name, status)

    server.settle()

    assert receiver.told == [("run.lost", "c")]


def test_a_workflow_says_what_is_told(server: Server, receiver: Receiver) -> None:
    server.add()
    for name, told in (("a", ("done",)), ("b", ())):
        for status in (Status.DONE, Status.FAILED):
            server.submit(f"{name}-{status.value}", workflow=replace(WORKFLOW, notify=told))
            server.end(f"{name}-{status.value}", status)

    server.settle()

    assert receiver.told == [("run.done", "a-done")]


def test_what_was_before_a_url_was_added_is_not_told(server: Server, receiver: Receiver) -> None:
    server.submit("r")
    server.end("r")
    server.add()
    server.submit("q")
    server.end("q")

    server.settle()

    assert receiver.told == [("run.failed", "q")]


def test_a_second_url_gets_only_what_comes_after_it_even_from_a_new_server(
    server: Server, receiver: Receiver, tmp_path: Path
) -> None:
    server.add("https://bob.example.org/", "bob")
    server.submit("r")
    server.end("r")
    server.settle()
    server.add()

    again = Server(tmp_path, receiver)
    again.settle()
    again.store.close()

    assert receiver.told == []


def test_a_members_url_gets_messages_about_their_runs(server: Server, receiver: Receiver) -> None:
    server.add("https://all.example.org:444/")
    server.add("https://ann.example.org/", "ann")
    for name, user in (("r", "ann"), ("q", "bob")):
        server.submit(name, user=user)
        server.end(name)

    server.settle()

    told = {(url, message.data.run) for url, message in receiver.got}
    assert told == {("https://all.example.org:444", "r"), ("https://all.example.org:444", "q")} | {
        ("https://ann.example.org", "r")
    }
    assert {frozenset(each) for each in receiver.allowed if each is not None} == {frozenset({("all.example.org", 444)})}


def test_the_urls_of_a_revoked_token_get_nothing(server: Server, receiver: Receiver) -> None:
    server.store.tokens.create("ann", Role.MEMBER)
    server.add("https://ann.example.org/", "ann")
    server.submit("r")
    server.end("r")
    server.notifier.messages.derive()

    server.store.tokens.revoke("ann")

    asyncio.run(server.until(lambda: not server.store.notify_targets.any()))
    assert receiver.got == []
    assert server.store.database.value("SELECT count(*) FROM notify_messages") == 0


def test_a_failed_try_is_repeated_after_growing_pauses_with_the_same_id(server: Server, receiver: Receiver) -> None:
    number = server.add()
    server.submit("r")
    server.end("r")
    receiver.moods = [Delivery(False, "503")] * 3
    pauses = []

    for tries in (1, 2, 3):
        asyncio.run(server.until(lambda wanted=tries: failures(server, number) == wanted))  # type: ignore[misc]
        again = server.store.notify_targets.all()[0].again_at
        assert again is not None
        pauses.append(seconds(again) - server.now)
        server.now = seconds(again)
    server.settle()

    assert pauses == [5, 30, 120]
    assert len({message.id for _, message in receiver.got}) == 1
    assert len(receiver.got) == 4
    assert server.events("notify.failing") == []


def failures(server: Server, number: int) -> int:
    target = server.store.notify_targets.get(number)
    return target.failures if target else -1


def test_a_target_may_ask_for_a_longer_pause(server: Server, receiver: Receiver) -> None:
    number = server.add()
    server.submit("r")
    server.end("r")
    receiver.moods = [Delivery(False, "429", again=600.0)]

    asyncio.run(server.until(lambda: failures(server, number) == 1))

    assert server.store.notify_targets.all()[0].again_at == "2026-01-01T00:10:00.000Z"


def fail_until_dead(server: Server, receiver: Receiver, number: int, tries: int = 5) -> None:
    receiver.moods = [Delivery(False, "connection refused")] * tries
    for count in range(1, tries + 1):
        asyncio.run(server.until(lambda wanted=count: failures(server, number) == wanted))  # type: ignore[misc]
        server.now += 4000


def test_a_dead_target_is_told_once_and_so_is_its_recovery(server: Server, receiver: Receiver) -> None:
    number = server.add()
    server.submit("r")
    server.end("r")

    fail_until_dead(server, receiver, number, 8)

    (failing,) = server.events("notify.failing")
    assert failing == {"number": number, "url": "https://example.org/***", "trouble": "connection refused"}
    assert server.store.notify_targets.all()[0].dead
    assert not server.store.outbox.pending()

    server.settle()
    assert len(server.events("notify.recovered")) == 1
    assert not server.store.notify_targets.all()[0].dead
    assert receiver.told[-1] == ("run.failed", "r")


def test_a_target_that_wants_no_more_is_dead_at_once(server: Server, receiver: Receiver) -> None:
    server.add()
    server.submit("r")
    server.end("r")
    receiver.moods = [Delivery(False, "410 Gone", gone=True, refused=True)]

    server.settle()

    assert server.store.notify_targets.all()[0].dead
    assert [data["reason"] for data in server.events("notify.dropped")] == ["410 Gone"]


def test_a_message_that_is_refused_again_and_again_makes_way_for_the_next(server: Server, receiver: Receiver) -> None:
    number = server.add()
    for name in ("r", "q"):
        server.submit(name)
        server.end(name)
    receiver.moods = [Delivery(False, "400", refused=True)] * 5
    for count in range(1, 6):
        asyncio.run(server.until(lambda wanted=count: failures(server, number) == wanted))  # type: ignore[misc]
        server.now += 4000

    server.settle()

    assert receiver.told == [("run.failed", "r")] * 5 + [("run.failed", "q")]
    assert server.store.notify_targets.all()[0].dropped == 1


def test_a_message_that_is_too_old_is_given_up_after_another_try(server: Server, receiver: Receiver) -> None:
    number = server.add()
    server.submit("r")
    server.end("r")
    server.notifier.messages.derive()
    receiver.moods = [Delivery(False, "503")]
    server.now = seconds(server.store.events.select()[-1].time) + 90_000

    asyncio.run(server.until(lambda: failures(server, number) == 1))

    assert len(receiver.got) == 1
    assert [data["type"] for data in server.events("notify.dropped")] == ["run.failed"]


def test_the_oldest_of_too_many_messages_give_way(
    server: Server, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "MOST_MESSAGES", 3)
    server.add()
    for number in range(5):
        server.submit(f"r{number}")
        server.end(f"r{number}")

    server.settle()

    assert [name for _, name in receiver.told] == ["r2", "r3", "r4"]
    assert server.store.notify_targets.all()[0].dropped == 2


def test_one_dead_target_does_not_delay_another(server: Server, receiver: Receiver) -> None:
    class Picky(Receiver):
        def __call__(self, message: Message, target: Target, password: str, allowed: Allowed) -> Delivery:
            super().__call__(message, target, password, allowed)
            return Delivery(target.host == "good.example.org", "")

    server.notifier.send = picky = Picky()
    server.add("https://bad.example.org/")
    good = server.add("https://good.example.org/")
    server.submit("r")
    server.end("r")

    asyncio.run(server.until(lambda: {url for url, _ in picky.got} >= {"https://good.example.org"}))
    asyncio.run(server.until(lambda: not (server.store.notify_targets.get(good) or failing()).waiting))


def failing() -> Any:
    raise AssertionError("the target is gone")


def test_a_clock_that_was_set_back_delays_no_message_for_long(server: Server, receiver: Receiver) -> None:
    number = server.add()
    server.submit("r")
    server.end("r")
    receiver.moods = [Delivery(False, "503")]
    asyncio.run(server.until(lambda: failures(server, number) == 1))

    server.now -= 1_000_000
    server.settle()

    assert len(receiver.got) == 2


def test_a_run_that_waits_for_too_long_is_told_once_per_wait(server: Server, receiver: Receiver) -> None:
    server.add()
    patient = replace(WORKFLOW, notify=(LongWait(waiting="1h"), "failed"))
    server.submit("r", workflow=patient)
    server.submit("other")
    server.now = START + 3599
    server.settle()
    assert receiver.told == []

    server.now = START + 3600
    asyncio.run(server.until(lambda: bool(receiver.got) and not server.store.outbox.pending()))
    server.now += 3600
    server.settle()

    assert receiver.told == [("run.waiting", "r")]
    assert receiver.got[0][1].data.waited == 3600
    assert server.events("run.waiting") == [{"since": "2026-01-01T00:00:00.000Z"}]


def test_a_secret_that_is_missing_is_told_as_the_trouble(server: Server, receiver: Receiver) -> None:
    number = server.add("smtp://ann:PASS@mail.lab?to=a@x.org")
    server.submit("r")
    server.end("r")

    asyncio.run(server.until(lambda: failures(server, number) == 1))

    assert server.store.notify_targets.all()[0].trouble == "no secret 'PASS'"
    assert receiver.got == []


def test_mail_goes_through_the_mail_server_that_an_admin_named(server: Server, receiver: Receiver) -> None:
    routes: list[Target] = []

    def send(message: Message, target: Target, password: str, allowed: Allowed) -> Delivery:
        routes.append(target)
        return receiver(message, target, password, allowed)

    server.notifier.send = send
    server.add("mailto:a@x.org")
    server.submit("r")
    server.end("r")
    server.settle()
    server.add("smtp://mail.lab:2525?from=dstack@x.org")
    server.submit("q")
    server.end("q")
    server.settle()

    assert [(route.host, route.port, route.to) for route in routes] == [
        ("localhost", 25, ("a@x.org",)),
        ("mail.lab", 2525, ("a@x.org",)),
    ]
    assert routes[1].sender == "dstack@x.org"


def test_the_url_is_encrypted_in_the_database_and_masked_in_events(server: Server, tmp_path: Path) -> None:
    server.add("https://example.org/s3cr3t-path?k=s3cr3t-key")
    server.store.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "secret.key"]
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]
    assert server.events("notify.added") == [{"number": 1, "url": "https://example.org/***"}]


class Killed(BaseException):
    """Stands for `kill -9`: nothing of the process happens after it."""


class Kill:
    """Kills a server at the nth statement or commit of its database, before or after it."""

    def __init__(self, server: Server, countdown: int, *, after: bool) -> None:
        self.left, self.after, self.dead = countdown, after, False
        database = server.store.database
        for name in ("execute", "commit"):
            setattr(database, name, self.around(getattr(database, name)))

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*values: Any) -> Any:
            self.left -= 1
            if self.dead or (self.left <= 0 and not self.after):
                self.dead = True
                raise Killed
            result = real(*values)
            if self.left <= 0:
                self.dead = True
                raise Killed
            return result

        return wrapped


def live_until_killed(server: Server, countdown: int, *, after: bool) -> None:
    """Let the server run until it is killed, or has nothing left to do."""
    kill = Kill(server, countdown, after=after)
    with suppress(Killed, AssertionError):  # the second one says that the notifier was killed
        asyncio.run(server.until(lambda: kill.dead or server.settled()))
    server.store.database.conn.close()


KILLS = st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=4)
MOODS = st.lists(st.sampled_from([Delivery(False, "503"), Delivery(False, "lost its way", again=1.0)]), max_size=3)


@settings(max_examples=40, deadline=None)
@given(KILLS, MOODS, st.lists(st.sampled_from([Status.FAILED, Status.LOST]), min_size=1, max_size=4))
def test_any_order_of_kills_tells_each_run_once_to_who_deduplicates(
    kills: list[tuple[int, bool]], moods: list[Delivery], ends: list[Status]
) -> None:
    receiver = Receiver(moods=list(moods))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(notifier, "LOOK", 0.001)
        patch.setattr(notifier, "PAUSES", (0.0,))
        server = Server(Path(folder), receiver)
        server.add()
        for number, status in enumerate(ends):
            server.submit(f"r{number}")
            server.end(f"r{number}", status)
        for countdown, after in kills:
            live_until_killed(server, countdown, after=after)
            server = Server(Path(folder), receiver)
        server.settle()
        sent = len(server.events("notify.sent"))
        server.store.close()

    told = {message.id: (message.type, message.data.run) for _, message in receiver.got}
    wanted = sorted((f"run.{status.value}", f"r{number}") for number, status in enumerate(ends))
    assert sorted(told.values()) == wanted  # type: ignore[type-var]
    assert sent == len(ends)
    assert len(receiver.got) <= len(ends) + len(moods) + len(kills)
    bodies = {(message.id, message) for _, message in receiver.got}
    assert len(bodies) == len(told), "the same id with another message"
