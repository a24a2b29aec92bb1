"""How the answers about a running job are read."""

from __future__ import annotations

import json

import pytest

from dstack.commands.command import Result
from dstack.commands.job.observe import follow, observe, read_log
from dstack.commands.job.stop import stop
from dstack.decide import Claim, Container, ContainerState, Observed, Recorded, decide
from dstack.errors import CommandError
from dstack.model.job.execution import Stopped
from dstack.model.job.job import Origin
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext

CONTEXT = HostContext(HostLayout(root="/r", machine="m", server="s"))
STATE = {"Status": "exited", "ExitCode": 137, "OOMKilled": True, "Error": "two\nlines", "Pid": 0}


def observed(**changes: str) -> Observed:
    said = {"container": "none", "claim": "none", "boot": "b", "docker": "1:2", "log_size": "0", "exit": "", **changes}
    text = "".join(f"{key}={value}\n" for key, value in said.items())
    return observe(CONTEXT, "j").parse(Result(0, text.encode(), b""))


def test_nothing_there() -> None:
    assert observed() == Observed(engine="Docker", origin=Origin("b", "1:2"))


def test_the_name_of_the_engine() -> None:
    for docker, name in {"podman": "podman", "sudo -n /usr/bin/podman": "podman", "sudo docker": "Docker"}.items():
        context = HostContext(HostLayout(root="/r", machine="m", server="s"), docker)
        answer = b"exit=\nclaim=claimed\ncontainer=silent\nboot=b\ndocker=\nlog_size=0\nsilence=no answer\n"

        seen = observe(context, "j").parse(Result(0, answer, b""))

        assert decide(Recorded(), seen).reason == Reason(
            ReasonCode.RUNNER_UNREACHABLE, f"{name} on this runner does not answer: no answer"
        )


@pytest.mark.parametrize(("written", "code"), [("0", 0), ("255", 255), ("256", 255), ("9" * 15, 255)])
def test_an_exit_code_that_the_system_would_cut(written: str, code: int) -> None:
    container = json.dumps({"Status": "exited", "ExitCode": int(written)})

    assert observed(exit=written).exit_code == code
    assert observed(container=container).container == Container(state=ContainerState.EXITED, exit_code=code)


def test_a_negative_exit_code() -> None:
    container = observed(container='{"Status": "exited", "ExitCode": -1}').container

    assert container == Container(state=ContainerState.EXITED, exit_code=255)


def test_everything_there() -> None:
    said = observed(container=json.dumps(STATE), claim="claimed", log_size="12", exit="0")

    container = Container(state=ContainerState.EXITED, exit_code=137, out_of_memory=True, error="two lines")
    assert said == Observed(
        exit_code=0,
        claim=Claim.CLAIMED,
        container=container,
        engine="Docker",
        origin=Origin("b", "1:2"),
        log_size=12,
    )


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("created", ContainerState.CREATED),
        ("configured", ContainerState.CREATED),
        ("initialized", ContainerState.CREATED),
        ("running", ContainerState.RUNNING),
        ("paused", ContainerState.RUNNING),
        ("restarting", ContainerState.RUNNING),
        ("stopping", ContainerState.RUNNING),
        ("removing", ContainerState.REMOVING),
        ("exited", ContainerState.EXITED),
        ("stopped", ContainerState.EXITED),
        ("dead", ContainerState.EXITED),
    ],
)
def test_the_states_of_docker_and_podman(said: str, state: ContainerState) -> None:
    container = Container(state=state, paused=said == "paused")
    assert observed(container=json.dumps({"Status": said})).container == container


def test_who_told_it_to_end() -> None:
    said = observed(told="812.55", asked="yes", uptime="900.1", exit="143")

    assert (said.told, said.asked, said.exit_code) == (True, True, 143)
    assert said.origin == Origin("b", "1:2", 900.1)
    assert Origin("b", "1:1", 800.0).until(said.origin) == pytest.approx(100.1)
    assert Origin("another boot", "1:1", 800.0).until(said.origin) is None
    assert not observed(told="").told


@pytest.mark.parametrize(
    ("free", "least"), [({}, None), ({"disk_free": "7"}, 7168), ({"disk_free": "7", "docker_disk_free": "2"}, 2048)]
)
def test_the_fuller_disk_counts(free: dict[str, str], least: int | None) -> None:
    assert observed(**free).disk_free == least


def test_docker_is_silent() -> None:
    said = observed(container="silent", silence="Cannot connect to x=y")

    assert (said.silent, said.silence, said.container) == (True, "Cannot connect to x=y", None)


@pytest.mark.parametrize(
    "changes", [{"exit": "x"}, {"claim": "odd"}, {"container": "{"}, {"container": "{}"}, {"container": "[]"}]
)
def test_an_answer_that_is_not_understood(changes: dict[str, str]) -> None:
    with pytest.raises(CommandError, match="the host's answer can't be parsed"):
        observed(**changes)


def test_an_answer_that_was_cut() -> None:
    with pytest.raises(CommandError, match="lacks exit, claim, boot, docker, log_size"):
        observe(CONTEXT, "j").parse(Result(0, b"container=none\n", b""))


@pytest.mark.parametrize("outcome", ["fenced", "stopping", "ended"])
def test_stopped(outcome: str) -> None:
    said = stop(CONTEXT, "j", 3).parse(Result(0, f"outcome={outcome}\n".encode(), b""))

    assert said == Stopped(outcome)  # type: ignore[arg-type]


def test_stopping_fails() -> None:
    with pytest.raises(CommandError, match="the host's answer can't be parsed"):
        stop(CONTEXT, "j", 3).parse(Result(0, b"outcome=odd\n", b""))
    with pytest.raises(CommandError, match="stopping the job failed with exit status 1: Cannot connect"):
        stop(CONTEXT, "j", 3).parse(Result(1, b"", b"Cannot connect"))
    with pytest.raises(ValueError, match="grace"):
        stop(CONTEXT, "j", -1)


def test_a_log_is_bytes() -> None:
    for ask in (follow, read_log):
        assert ask(CONTEXT, "j", 0).parse(Result(0, b"\xff\0\n", b"")) == b"\xff\0\n"
        with pytest.raises(CommandError, match="gone"):
            ask(CONTEXT, "j", 0).parse(Result(1, b"", b"gone"))
        with pytest.raises(ValueError, match="-1"):
            ask(CONTEXT, "j", -1)
