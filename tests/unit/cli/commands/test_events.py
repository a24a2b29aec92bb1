"""`dstack events` against a fake server."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import BEGAN, State, event_view

JOB = "0123456789ab"


@pytest.fixture(autouse=True)
def events(state: State) -> None:
    job = {"run": "brave-otter-7", "job": JOB, "actor": "server"}
    state.events = [
        event_view(1, "run.submitted", run="brave-otter-7", data={"workflow": "train"}),
        event_view(2, "job.placed", runner="lab1", data={"workflow": "train", "attempt": 2, "gpus": [0, 1]}, **job),
        event_view(3, "job.failed", runner="lab1", data={"workflow": "train", "exit_code": 3, "reason": "x\ny"}, **job),
        event_view(4, "config.changed", data={"name": "storage", "value": "/srv"}),
        event_view(5, "runner.changed", runner="lab1", data={"changed": ["labels", "gpus"]}),
    ]


def test_a_table_says_what_happened(cli: Cli) -> None:
    shown = cli("events").stdout.decode().splitlines()

    assert [line.split(None, 4) for line in shown] == [
        ["TIME", "EVENT", "SUBJECT", "BY", "DETAILS"],
        [BEGAN, "run.submitted", "brave-otter-7", "ada"],
        [BEGAN, "job.placed", "brave-otter-7/train", "server", "on lab1, GPU 0 1, attempt 2"],
        [BEGAN, "job.failed", "brave-otter-7/train", "server", "on lab1, exit code 3, x y"],
        [BEGAN, "config.changed", "-", "ada", "storage: /srv"],
        [BEGAN, "runner.changed", "lab1", "ada", "changed: labels gpus"],
    ]


def test_json_is_a_bare_array_and_one_object_a_line_when_it_follows(cli: Cli) -> None:
    array = json.loads(cli("events", "--json").stdout)
    lines = [json.loads(line) for line in cli("events", "-f", "--json").stdout.splitlines()]

    assert array == lines
    assert [event["id"] for event in array] == [1, 2, 3, 4, 5]
    assert array[0].keys() == {"id", "time", "actor", "kind", "run", "job", "runner", "data"}


def test_following_prints_a_line_as_soon_as_it_happens(cli: Cli) -> None:
    lines = cli("events", "--follow").stdout.decode().splitlines()

    assert [line.split()[1] for line in lines] == [
        "run.submitted",
        "job.placed",
        "job.failed",
        "config.changed",
        "runner.changed",
    ]


def test_the_server_gets_what_is_asked_for(cli: Cli, state: State) -> None:
    cli("events", "brave", "--runner", "lab1", "--since", "2026-01-31T12:00:00Z", "-n", "5")

    assert state.event_queries == [{"ref": "brave", "runner": "lab1", "since": BEGAN, "limit": "5"}]


def test_nothing_happened(cli: Cli, state: State) -> None:
    state.events = []

    assert cli("events").stderr == b"no events\n"
    assert cli("events", "--json").stdout == b"[]\n"
    assert cli("events", "--since", "yesterday").returncode == 2
