"""The events of a job on the command line, afterwards and live."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.project import single
from tests.environment.product import Home
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

STEPS = ["job.queued", "job.placed", "job.running", "job.uploading", "job.done"]


def events(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    listed = cli("events", *arguments, "--json")
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def steps(found: list[dict[str, Any]]) -> list[str]:
    """Return the kinds, without those that report progress."""
    return [event["kind"] for event in found if event["kind"] not in ("job.preparing", "job.reason")]


def test_the_events_of_a_run_and_of_a_runner(
    cli: Cli, dstack_home: Home, runner: str, tmp_path: Path, busybox: str
) -> None:
    folder = single(tmp_path / "p", busybox, "while [ ! -e /workflow/go ]; do sleep 0.1; done", "echo done")
    assert cli("run", "job", "--name", "otter", "-d", cwd=folder).returncode == 0
    following = dstack_home.popen("events", "otter", "-f", "--json")
    until(lambda: "job.running" in steps(events(cli, "otter")), "it runs", 60)
    job = next(event["job"] for event in events(cli, "otter") if event["job"])

    assert cli("stop", "otter", "--abort", "-y").returncode == 0
    output, errors = following.communicate(timeout=60)

    assert following.returncode == 0, errors
    frames = [json.loads(line) for line in output.splitlines()]
    assert steps(frames) == ["run.submitted", *STEPS[:3], "job.stop-requested", "job.uploading", "job.stopped"]
    assert frames == events(cli, "otter") == sorted(frames, key=lambda event: event["id"])
    assert {event["run"] for event in frames} == {"otter"}
    asked = {event["kind"]: event["actor"] for event in frames}
    me = pwd.getpwuid(os.getuid()).pw_name
    assert [asked[kind] for kind in ("run.submitted", "job.queued", "job.stop-requested")] == [me, me, me]
    assert {asked["job.placed"], asked["job.running"], asked["job.stopped"]} == {"server"}
    placed = next(event for event in frames if event["kind"] == "job.placed")
    assert (placed["runner"], placed["job"], placed["data"]["workflow"]) == (runner, job, "job")
    assert frames[-1]["data"]["exit_code"] == 143
    assert events(cli, job) == frames[1:]


def test_what_happens_later_and_elsewhere(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, "echo done")
    assert cli("run", "job", "--name", "otter", cwd=folder).returncode == 0
    assert steps(events(cli, "otter")) == ["run.submitted", *STEPS]
    assert cli("run", "job", "--name", "fox", cwd=folder).returncode == 0
    assert cli("tag", "otter", "base").returncode == 0
    assert cli("tag", "--delete", "base").returncode == 0
    assert cli("runners", "drain", runner, "--reason", "a new disk").returncode == 0
    assert cli("runners", "resume", runner).returncode == 0
    assert cli("runs", "delete", "fox", "-y").returncode == 0
    until(lambda: steps(events(cli, "fox")) == ["run.deleted"], "its other events are gone", 60)

    of_runner = events(cli, "--runner", runner)
    shown = cli("events", "-n", "3").stdout.splitlines()

    assert steps(of_runner) == ["runner.added", *STEPS[1:], "runner.drained", "runner.resumed"]
    assert steps(events(cli, "otter"))[-2:] == ["tag.set", "tag.deleted"]
    assert [line.split()[1] for line in shown] == ["EVENT", "runner.drained", "runner.resumed", "run.deleted"]
    assert shown[1].endswith("a new disk")
    assert events(cli, "--since", "2h") == events(cli, "-n", "1000")
