"""The table of observations on a host, and what they mean."""

from __future__ import annotations

import itertools

import pytest

from dstack.decide import (
    Claim,
    Container,
    ContainerState,
    Decision,
    Failed,
    Finished,
    LaunchAgain,
    Lost,
    Observed,
    Recorded,
    Running,
    Unknown,
    Wait,
    decide,
)
from dstack.model.job.job import Origin

ORIGIN = Origin(boot="b1", engine="10:100")
REBOOTED = Origin(boot="b2", engine="11:50")
DOCKER_RESTARTED = Origin(boot="b1", engine="30:300")
DOCKER_STOPPED = Origin(boot="b1", engine="")
PODMAN = Origin(boot="b1", engine="")
OLDER = Recorded(launch=Origin(boot="b1", engine="10:100 20:200"))
"""Launched by a version that noted all daemons of the machine."""

RUNNING = Container(state=ContainerState.RUNNING)
CREATED = Container(state=ContainerState.CREATED)
EXITED = Container(state=ContainerState.EXITED, exit_code=17)
KILLED = Container(state=ContainerState.EXITED, exit_code=137)
OOM = Container(state=ContainerState.EXITED, exit_code=137, out_of_memory=True)
ZERO = Container(state=ContainerState.EXITED, exit_code=0)

CONTAINERS = [
    None,
    OOM,
    *(Container(state=state, exit_code=code) for state in ContainerState for code in (0, 17, 137)),
]


def seen(**changes: object) -> Observed:
    return Observed(**{"origin": ORIGIN, "engine": "Docker", **changes})  # type: ignore[arg-type]


def claimed(**changes: object) -> Observed:
    return seen(claim=Claim.CLAIMED, **changes)


def told(code: int, **changes: object) -> Observed:
    return claimed(**{"exit_code": code, "told": True, "container": EXITED, **changes})


KNOWN = Recorded(launch=ORIGIN)
STOPPING = Recorded(launch=ORIGIN, stop=True)

TABLE: list[tuple[str, Recorded, Observed, type[Decision], int | None, str]] = [
    ("exit", KNOWN, claimed(exit_code=0, container=RUNNING), Finished, 0, ""),
    ("exit, Docker silent", KNOWN, claimed(exit_code=3, silent=True), Finished, 3, ""),
    ("exit, host restarted", KNOWN, claimed(exit_code=3, origin=REBOOTED), Finished, 3, ""),
    ("running", KNOWN, claimed(container=RUNNING), Running, None, ""),
    ("running, not claimed yet", KNOWN, seen(container=RUNNING), Running, None, ""),
    ("running, Docker restarted", KNOWN, claimed(container=RUNNING, origin=DOCKER_RESTARTED), Running, None, ""),
    ("created", Recorded(), seen(container=CREATED), Wait, None, ""),
    ("created for long", Recorded(waited=True), seen(container=CREATED), LaunchAgain, None, ""),
    ("nothing", Recorded(), seen(), LaunchAgain, None, ""),
    ("nothing, to be stopped", Recorded(stop=True), seen(), Wait, None, ""),
    ("created, to be stopped", Recorded(stop=True, waited=True), seen(container=CREATED), Wait, None, ""),
    ("exited unclaimed", KNOWN, seen(container=EXITED), Failed, 125, "code 17 before it could start"),
    (
        "exited without room to claim",
        KNOWN,
        seen(container=Container(state=ContainerState.EXITED, exit_code=125)),
        Failed,
        125,
        "disk may be full",
    ),
    ("exited unclaimed by a restart", KNOWN, seen(container=KILLED, origin=REBOOTED), LaunchAgain, None, ""),
    ("host restarted", KNOWN, claimed(container=KILLED, origin=REBOOTED), Lost, 125, "the runner restarted"),
    ("host restarted, gone", KNOWN, claimed(origin=REBOOTED), Lost, 125, "the runner restarted"),
    ("Docker restarted", KNOWN, claimed(container=KILLED, origin=DOCKER_RESTARTED), Lost, 125, "Docker restarted"),
    ("Docker restarted, gone", KNOWN, claimed(origin=DOCKER_RESTARTED), Lost, 125, "Docker restarted"),
    ("Docker stopped", KNOWN, claimed(container=KILLED, origin=DOCKER_STOPPED), Lost, 125, "Docker was stopped"),
    ("another Docker went", OLDER, claimed(container=EXITED), Failed, 17, "code 17"),
    ("Docker restarted, older", OLDER, claimed(origin=DOCKER_RESTARTED), Lost, 125, "Docker restarted"),
    ("told, Docker restarted", KNOWN, told(143, origin=DOCKER_RESTARTED), Lost, 125, "Docker restarted"),
    ("told, host restarted", KNOWN, told(143, origin=REBOOTED), Lost, 125, "the runner restarted"),
    ("told, Docker goes", KNOWN, told(143, silent=True), Lost, 125, "Docker or the runner is stopping"),
    ("told by somebody", KNOWN, told(143), Lost, 125, "told to end, but not by dstack: by a docker stop"),
    ("told, with a code of its own", KNOWN, told(3), Lost, 125, "not by dstack"),
    ("told, and says that all is well", KNOWN, told(0), Lost, 125, "not by dstack"),
    ("told, killed after a while", KNOWN, claimed(told=True, container=KILLED), Lost, 125, "not by dstack"),
    ("told by dstack", KNOWN, told(143, asked=True), Finished, 143, ""),
    ("told, to be stopped", STOPPING, told(143), Finished, 143, ""),
    ("143 of its own", KNOWN, claimed(exit_code=143, container=EXITED), Finished, 143, ""),
    ("143, Docker restarted", KNOWN, claimed(exit_code=143, origin=DOCKER_RESTARTED), Lost, 125, "Docker restarted"),
    ("143 of a launch unrecorded", Recorded(), claimed(exit_code=143, origin=REBOOTED), Finished, 143, ""),
    ("OOM", KNOWN, claimed(container=OOM), Failed, 137, "out of memory"),
    ("exited", KNOWN, claimed(container=EXITED), Failed, 17, "code 17"),
    ("exited 0, no result", KNOWN, claimed(container=ZERO), Failed, 125, "disk may be full"),
    ("killed", KNOWN, claimed(container=KILLED), Failed, 137, "signal 9"),
    ("killed, launch unrecorded", Recorded(), claimed(container=KILLED, origin=REBOOTED), Failed, 137, "signal 9"),
    ("killed, podman", Recorded(launch=PODMAN), claimed(container=KILLED, origin=PODMAN), Failed, 137, "signal 9"),
    ("gone", KNOWN, claimed(), Lost, 125, "removed while it was running, but not by dstack"),
    ("gone with its folder", KNOWN, seen(claim=Claim.GONE), Lost, 125, "folder was removed"),
    ("ended, its folder gone", KNOWN, seen(claim=Claim.GONE, container=EXITED), Lost, 125, "folder was removed"),
    ("running, its folder gone", KNOWN, seen(claim=Claim.GONE, container=RUNNING), Running, None, ""),
    ("no folder yet", Recorded(), seen(claim=Claim.GONE), LaunchAgain, None, ""),
    ("stopped, its folder gone", STOPPING, seen(claim=Claim.GONE), Failed, 143, "folder was removed"),
    ("stopped, killed", STOPPING, claimed(asked=True, container=KILLED), Failed, 143, "grace"),
    ("killed before its stop arrived", STOPPING, claimed(container=OOM), Failed, 137, "out of memory"),
    ("stopped, gone", STOPPING, claimed(), Failed, 143, "removed"),
    ("stopped, ended", STOPPING, claimed(exit_code=143, container=EXITED), Finished, 143, ""),
    ("fenced", KNOWN, seen(claim=Claim.FENCED), Lost, 125, "before its commands started"),
    (
        "fenced and stopped",
        STOPPING,
        seen(claim=Claim.FENCED, container=CREATED),
        Failed,
        143,
        "before its commands started",
    ),
    ("silent", KNOWN, claimed(silent=True, silence="Cannot connect"), Unknown, None, "Cannot connect"),
    ("silent, not begun", Recorded(), seen(silent=True), Unknown, None, "Docker on this runner does not answer"),
]


@pytest.mark.parametrize(
    ("recorded", "observed", "kind", "code", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_table(recorded: Recorded, observed: Observed, kind: type[Decision], code: int | None, words: str) -> None:
    decision = decide(recorded, observed)

    assert type(decision) is kind
    assert decision.exit_code == code
    assert words in (decision.reason.text if decision.reason else "")


def every() -> list[tuple[Recorded, Observed, Decision]]:
    """Return all combinations with their decision."""
    found = []
    for launch, stop, waited in itertools.product((None, ORIGIN, PODMAN), (False, True), (False, True)):
        for code, claim, container, silent, origin, (told, asked) in itertools.product(
            *((None, 0, 9, 143), Claim, CONTAINERS, (False, True), (ORIGIN, REBOOTED, DOCKER_RESTARTED, PODMAN)),
            ((False, False), (True, False), (True, True)),
        ):
            recorded = Recorded(launch, stop, waited)
            state = {"exit_code": code, "claim": claim, "container": container, "told": told, "asked": asked}
            observed = seen(silent=silent, origin=origin, **state)
            found.append((recorded, observed, decide(recorded, observed)))
    return found


def test_what_holds_in_every_combination() -> None:
    for recorded, observed, decision in every():
        case = (recorded, observed, decision)
        assert decision.asked == (observed.asked and decision.ended), case
        if observed.exit_code is not None:
            foreign = not (recorded.stop or observed.asked) and (observed.told or observed.exit_code == 143)
            assert isinstance(decision, Finished) or (foreign and decision.lost), case
            if decision.lost:
                continue
            assert not (foreign and observed.told), case
            assert decision.exit_code == observed.exit_code, case
            killed = bool(observed.exit_code and observed.container and observed.container.out_of_memory)
            assert (decision.cause == "out-of-memory") == killed, case
            continue
        assert not isinstance(decision, Finished), case
        if decision.launch:
            assert observed.claim is Claim.NONE or (observed.claim is Claim.GONE and recorded.launch is None), case
            assert not recorded.stop, case
            assert not observed.silent, case
        if observed.silent:
            assert decision.unknown == (observed.claim is not Claim.FENCED), case
        if decision.ended:
            assert decision.exit_code not in (None, 0), case
            assert decision.reason, case
            assert not decision.reason.text.endswith("."), case
            assert decision.lost == isinstance(decision, Lost), case
        if observed.container == RUNNING and observed.claim is not Claim.FENCED:
            assert isinstance(decision, (Running, Unknown)), case
