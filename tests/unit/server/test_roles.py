"""What each role may do: the table of routes, and the rules that depend on what is asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from dstack.errors import ForbiddenError, UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.api.tokens import Role
from dstack.model.runner.runner import Address, Runner
from dstack.server import roles
from dstack.server.access import OPEN
from dstack.server.endpoints import problem_response
from dstack.server.roles import NOBODY, OWNER, Caller, calling, check_runner, check_storage, guarded, owns
from tests.unit.server.test_endpoints import routes
from tests.unit.server.world import World
from tests.unit.store.test_store import run

ANN = Caller(Role.MEMBER, "ann")
BOB = Caller(Role.MEMBER, "bob")
BOSS = Caller(Role.ADMIN, "boss")
LAB = Address(host="lab1")
KEY = Path("/home/server/.dstack/server/id_ed25519")


def test_every_route_needs_a_role(tmp_path: Path) -> None:
    with routes(tmp_path) as every:
        named = {f"{method} {path}" for method, path, _ in every}

    assert named == roles.NEEDED.keys()
    for route, need in roles.NEEDED.items():
        method, _, path = route.partition(" ")
        example = f"{method} /v1{path.replace('{name}', 'lab1')}"
        assert (need.role is None) == bool(OPEN.fullmatch(example)), route
        assert bool(need.act) == (need.role is Role.ADMIN), route


def asked(route: str, caller: Caller) -> tuple[int, dict[str, str]]:
    """The answer of a guarded route, which says who the caller is."""

    async def answer(request: Request) -> Response:
        return Response(json.dumps({"name": str(roles.caller().name)}))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []} | (
        {"dstack.caller": caller} if caller else {}
    )
    response = asyncio.run(guarded(route, answer, problem_response)(Request(scope)))
    return response.status_code, json.loads(bytes(response.body))


@pytest.mark.parametrize(
    ("route", "caller", "status"),
    [
        ("GET /runs", ANN, 200),
        ("POST /runners", ANN, 403),
        ("POST /runners", BOSS, 200),
        ("POST /runners", OWNER, 200),
        ("POST /runners", NOBODY, 403),
        ("POST /registrations", NOBODY, 200),
        ("POST /not/in/the/table", ANN, 403),
        ("POST /not/in/the/table", BOSS, 200),
    ],
)
def test_a_route_is_open_to_its_role(route: str, caller: Caller, status: int) -> None:
    assert asked(route, caller)[0] == status
    assert roles.caller() is OWNER


def test_a_refusal_says_who_may_and_whom_to_ask() -> None:
    status, problem = asked("POST /secrets", ANN)

    assert (status, problem["code"], problem["exit_code"]) == (403, "forbidden", 2)
    assert problem["message"] == "the token 'ann' is a member's, and only an admin may set secrets"
    assert "dstack server token create NAME --role admin" in problem["hint"]


@pytest.mark.parametrize(("caller", "own"), [(ANN, True), (BOSS, True), (OWNER, True), (BOB, False)])
def test_a_member_changes_only_own_runs(caller: Caller, own: bool) -> None:
    with calling(caller):
        assert owns(run("brave-otter-7", user="ann")) is own


COMMANDS = [
    AddRunner(address=Address()),
    AddRunner(address=LAB, docker="sh -c 'touch /tmp/mark'"),
    AddRunner(address=LAB, docker="docker -H ssh://elsewhere"),
    AddRunner(address=LAB, docker="sudo -u root docker"),
    AddRunner(address=LAB, docker="docker\nid"),
    AddRunner(address=LAB, docker=""),
    AddRunner(address=Address(host="lab1", identity="/home/server/.ssh/id_rsa")),
]
HARMLESS = [
    AddRunner(address=LAB),
    AddRunner(address=Address(host="lab1", user="ann", port=22, jump="ann@bastion:2222,inner"), docker="podman"),
    AddRunner(address=Address(host="::1", user="LAB\\ann")),
    AddRunner(address=Address(host="fe80::1%eth0", user="ann@LAB.EXAMPLE")),
    AddRunner(address=Address(host="lab1", identity=str(KEY)), docker="sudo docker"),
    AddRunner(address=LAB, docker="sudo -n podman"),
    AddRunner(address=LAB, docker="docker -H unix:///run/user/1000/docker.sock"),
    AddRunner(address=Address(host="lab1", identity="/ignored"), authorized=True),
]


@pytest.mark.parametrize("wanted", COMMANDS)
def test_a_command_as_the_servers_user_must_be_allowed(wanted: AddRunner) -> None:
    with calling(BOSS), pytest.raises(ForbiddenError) as refused:
        check_runner(wanted, KEY)
    with calling(replace(BOSS, commands=True)):
        check_runner(wanted, KEY)
    with calling(ANN), pytest.raises(ForbiddenError, match="only an admin"):
        check_runner(wanted, KEY)
    check_runner(wanted, KEY)  # the owner

    assert "--allow-server-commands" in (refused.value.hint or "")


@pytest.mark.parametrize("wanted", HARMLESS)
def test_other_runners_may_be_added_over_tcp(wanted: AddRunner) -> None:
    with calling(BOSS):
        check_runner(wanted, KEY)


@pytest.mark.parametrize(
    "address",
    [
        Address(host="$(touch /tmp/mark)"),
        Address(host="lab`id`"),
        Address(host="-oProxyCommand=id"),
        Address(host="lab1", user="ann;id"),
        Address(host="lab1", user="-lroot"),
        Address(host="lab1", user="ann\\"),
        Address(host="lab1", jump="a|b"),
        Address(host="lab1\nProxyCommand id"),
    ],
)
def test_a_name_is_never_a_command_whoever_asks(address: Address) -> None:
    with pytest.raises(UsageError, match="not a valid host or user name"):
        check_runner(AddRunner(address=address), KEY)


def test_what_a_runner_has_already_may_stay() -> None:
    local = Runner(name="local", address=Address())
    before = Runner(name="lab1", address=Address(host="lab1", identity="/k"), docker="docker -H ssh://x")

    with calling(BOSS):
        check_runner(AddRunner(address=before.address, docker=before.docker, labels=("new",)), KEY, before)
        check_runner(AddRunner(address=Address(), labels=("new",)), KEY, local)


@pytest.mark.parametrize("change", [{"allow_mounts": ("/",)}, {"root": "/etc"}, {"docker": "podman"}])
def test_the_servers_own_machine_is_not_opened_further(change: dict[str, Any]) -> None:
    with calling(BOSS), pytest.raises(ForbiddenError):
        check_runner(AddRunner(address=Address(), **change), KEY, Runner(name="local", address=Address()))


def test_artifacts_go_only_below_allowed_folders_over_tcp(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    here = replace(BOSS, storage=(tmp_path,))

    with calling(here):
        check_storage(str(tmp_path / "a" / "b"))
        check_storage("s3://bucket/prefix")
        for outside in ("/", "/etc", str(tmp_path / ".."), str(tmp_path / "link" / "etc"), f"{tmp_path}-beside"):
            with pytest.raises(ForbiddenError, match="outside"):
                check_storage(outside)
    check_storage("/")  # the owner


@pytest.mark.parametrize("endpoint", ["", "https://s3.example:9000/x@y", "http://[::1]:9000"])
def test_a_login_in_a_stored_endpoint_is_shown_to_nobody(tmp_path: Path, endpoint: str) -> None:
    world = World(tmp_path)
    world.store.settings.set("storage", "s3://bucket")
    world.store.settings.set("endpoint_url", endpoint.replace("://", "://ann:secret@"))

    status, config = world.call("GET", "/config")
    world.store.close()

    assert (status, config["endpoint_url"]) == (200, endpoint or None)
