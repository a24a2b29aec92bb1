"""What messages say, to whom, and in which form."""

from __future__ import annotations

import json
from email import policy
from email.parser import BytesParser

import pytest
from msgspec.structs import replace

from dstack.model.job.job import Attempt, Job, Run
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.notify import forms
from dstack.model.notify.message import Message, MessageFacts, ended, patience, queued_since, waits, wanted
from dstack.model.notify.target import parse
from dstack.model.project.workflow import LongWait
from dstack.model.text.units import seconds
from tests.unit.store.test_store import WORKFLOW, job, run

HOSTILE = "`*<!channel>* @here & [x](http://evil) \x1b[31m\r\nBcc: all@x.org\ud800"


def told(*jobs: Job, of: Run | None = None) -> MessageFacts:
    return ended(of or run("brave-otter-7"), jobs)


def test_a_failed_run_says_what_failed_where_and_after_how_long() -> None:
    failed = job("j1", "brave-otter-7", status=Status.FAILED, exit_code=3, runner="lab1")
    failed = replace(failed, started_at="2026-01-01T01:00:00.000Z", finished_at="2026-01-01T03:10:00.000Z")

    facts = told(job("j0", "brave-otter-7", status=Status.DONE, workflow="prepare"), failed)

    assert facts.text == "train (brave-otter-7) failed with exit code 3 on lab1 after 2h 10m"
    assert facts.command == "dstack logs brave-otter-7"
    assert (facts.status, facts.exit_code, facts.reason_code, facts.runner) == ("failed", 3, "exit-code", "lab1")
    assert (facts.duration, facts.user, facts.job) == (7800.0, "ann", "j1")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [(Status.DONE, 0, "is done"), (Status.STOPPED, 143, "was stopped"), (Status.LOST, 125, "was lost")],
)
def test_other_ends(status: Status, code: int, words: str) -> None:
    facts = told(job("j1", "brave-otter-7", status=status, exit_code=code))

    assert facts.text == f"train (brave-otter-7) {words}"
    assert (facts.exit_code, facts.command) == (code, "dstack runs brave-otter-7")


def test_without_notify_failures_and_losses_are_told() -> None:
    assert {status for status in Status if wanted(WORKFLOW, status)} == {Status.FAILED, Status.LOST}
    assert {status for status in Status if wanted(None, status)} == {Status.FAILED, Status.LOST}


def test_notify_says_what_is_told() -> None:
    both = replace(WORKFLOW, notify=("done", LongWait(waiting="2h"), LongWait(waiting="1h")))

    assert {status for status in Status if wanted(both, status)} == {Status.DONE}
    assert patience(both) == 3600
    assert patience(WORKFLOW) is None
    assert not any(wanted(replace(WORKFLOW, notify=()), status) for status in Status)


def test_a_run_waits_while_nothing_of_it_goes_on() -> None:
    done = job("j0", "r", status=Status.DONE, finished_at="2026-01-01T05:00:00.000Z")
    queued = job("j1", "r")
    again = replace(queued, history=(attempt("2026-01-01T09:00:00.000Z"),))

    assert queued_since(run("r"), [queued]) == seconds("2026-01-01T00:00:00.000Z")
    assert queued_since(run("r"), [done, queued]) == seconds("2026-01-01T05:00:00.000Z")
    assert queued_since(run("r"), [done, again]) == seconds("2026-01-01T09:00:00.000Z")
    assert queued_since(run("r"), [queued, job("j2", "r", status=Status.RUNNING)]) is None
    assert queued_since(run("r"), [done]) is None


def attempt(finished: str) -> Attempt:
    return Attempt(
        number=1,
        status=Status.LOST,
        exit_code=None,
        reason=None,
        runner=None,
        gpus=(),
        started_at=None,
        finished_at=finished,
        log_start=0,
        log_end=0,
    )


def test_a_waiting_run_says_why_and_for_how_long() -> None:
    queued = job("j1", "r", reason=Reason(ReasonCode.RUNNER_BUSY, "lab1 has 0 of 8 GPUs free"))

    facts = waits(run("r"), [queued], since=0.0, now=3600.0)

    assert facts.text == "train (r) has been waiting in the queue for 1h 0m"
    assert (facts.reason, facts.reason_code, facts.waited) == ("train: lab1 has 0 of 8 GPUs free", "runner-busy", 3600)


def hostile() -> Message:
    lost = job("j1", "r", status=Status.LOST, exit_code=125, reason=Reason(ReasonCode.RUNNER_ERROR, HOSTILE))
    facts = told(lost, of=run("r", user=HOSTILE))
    return Message(id="msg_1", type="run.lost", timestamp="2026-01-01T00:00:00.000Z", data=facts)


def test_nothing_in_a_reason_is_markup_for_slack() -> None:
    target = parse("slack+https://chat.lab/hooks/x")

    sent = json.loads(forms.request(hostile(), target, 0.0).body)

    assert list(sent) == ["text"]
    assert "<" not in sent["text"]
    assert "&lt;!channel&gt;" in sent["text"]
    for line in sent["text"].split("\n"):
        assert (line[0], line[-1], line.count("`")) == ("`", "`", 2)
        assert line.isprintable()


def test_nothing_in_a_reason_is_a_header_of_a_mail() -> None:
    target = parse("smtp://mail.lab?to=a@x.org,b@x.org")
    named = replace(hostile(), data=replace(hostile().data, text=HOSTILE))

    letter = BytesParser(policy=policy.default).parsebytes(forms.mail(named, target, "dstack@x.org").as_bytes())

    assert letter["Bcc"] is None
    assert (letter["To"], letter["Message-ID"]) == ("a@x.org, b@x.org", "<msg_1@dstack>")
    assert "Bcc: all@x.org" in letter["Subject"]
    assert "\x1b" not in letter.get_content()  # type: ignore[attr-defined]
    assert "dstack runs r" in letter.get_content()  # type: ignore[attr-defined]


def test_an_ntfy_message_is_plain_text_for_its_topic() -> None:
    request = forms.request(hostile(), parse("ntfy://:tk_1@ntfy.sh/push/runs"), 0.0)

    sent = json.loads(request.body)
    assert (request.path, request.headers["Authorization"]) == ("/push/", "Bearer tk_1")
    assert (sent["topic"], sent["title"], sent["priority"]) == ("runs", "train (r) was lost", 4)
    assert set(sent) == {"topic", "title", "message", "priority"}


def test_a_webhooks_body_has_codes_and_is_valid_json() -> None:
    request = forms.request(hostile(), parse("https://ann:pw@example.org/hook"), 1700000000.5)

    sent = json.loads(request.body.decode("utf-8"))
    assert (sent["type"], sent["timestamp"], sent["id"]) == ("run.lost", "2026-01-01T00:00:00.000Z", "msg_1")
    assert (sent["data"]["status"], sent["data"]["reason_code"]) == ("lost", "runner-error")
    assert request.headers["webhook-timestamp"] == "1700000000"
    assert request.headers["Authorization"] == "Basic YW5uOnB3"
