"""Whatever an inventory holds, in each of its formats: it is read, or refused with its name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from dstack.cli.commands.runners.add import parse_host
from dstack.inventory import ini, listing, yaml_file
from dstack.inventory.groups import Groups, expand_hosts
from dstack.inventory.read import read
from dstack.inventory.runners import OWN, machines
from dstack.model.api import wire
from dstack.model.api.runners import AddRunner
from dstack.server.border.values import sound
from tests.fuzz import fuzz, in_time, outcome

NAMES = (
    "all",
    "ungrouped",
    "a",
    "b",
    "x",
    "x[1:3]",
    "x[a:c:2]",
    "u@x:22",
    "[::1]:22",
    "::1",
    "local",
    "-oProxy",
    " ",
    "",
)
VARIABLES = (
    *OWN,
    *("ansible_host", "ansible_user", "ansible_port", "ansible_connection", "ansible_ssh_private_key_file", "dstack_x"),
    *("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_group_priority"),
)
VALUES = (
    *(
        "x",
        "22",
        "-1",
        "0",
        "65536",
        "9" * 19,
        "9" * 5000,
        "1.5",
        "True",
        "yes",
        "local",
        "ssh",
        "winrm",
        "{{ x }}",
        "~/id",
    ),
    *(
        "-J a,b",
        "-p x",
        "-p " + "9" * 50,
        "-o ProxyCommand='ssh -W %h:%p b'",
        "-oProxyCommand=nc",
        "-o",
        "-p",
        "-i '",
    ),
    *("'", '"', "\\", "[1, 2]", "{[]: 1}", "/data", "a,b c", "", "\u202e", "\x1b[2J", "x" * 300, "٣", "²", "~nobody2"),
)
values = st.sampled_from(VALUES) | st.text(max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | values
anything = scalars | st.lists(scalars, max_size=2) | st.dictionaries(values, scalars, max_size=2)


def mapped(keys: Sequence[str], inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(st.tuples(st.sampled_from(keys), inner), max_size=3).map(dict)


variables = mapped(VARIABLES, anything)
hosts = mapped(NAMES, variables | anything)
leaves = mapped(("hosts", "vars", "other"), hosts | variables | anything)
bodies = anything | st.fixed_dictionaries(
    {}, optional={"hosts": hosts, "vars": variables, "children": mapped(NAMES, leaves | anything)}
)
groups = mapped(NAMES, bodies)
lines = st.lists(
    st.sampled_from((*NAMES, *VARIABLES, *VALUES, "\n", "=", " ", "[", "]", ":vars]", ":children]", "[a]\n", "#")),
    max_size=25,
).map("".join)
INI, YAML = "hosts", "h.yaml"


def requests(found: Groups, source: str) -> list[AddRunner]:
    """Do what an import does: the requests must be ones that the server can read."""
    wanted = machines(found, source)
    for each in wanted.requests:
        sound(wire.decode(wire.encode(each), AddRunner))
    for why in wanted.skipped.values():
        sound(why)
    return wanted.requests


@fuzz
@given(lines | st.text(max_size=60))
@example("x ansible_port=" + "9" * 5000)
@example("x ansible_port=²")
@example("x ansible_ssh_args='-p x'")
def test_any_ini_file(text: str) -> None:
    outcome(lambda: requests(ini.read(text, INI), INI), f"{INI}:", size=len(text))


@fuzz
@given(
    groups.map(lambda document: json.dumps(document))
    | st.lists(
        st.sampled_from(
            (*NAMES, ":", " ", "\n", "\n  ", "&a", "*a", "<<", "!!", "!vault", "[", "]", "{", "}", "- ", ",")
        )
    ).map("".join)
)
def test_any_yaml_file(text: str) -> None:
    outcome(lambda: requests(yaml_file.read(text, YAML), YAML), f"{YAML}:", size=len(text))


def listed_by(program: Path) -> Groups:
    groups = Groups()
    listing.read(program, groups)
    return groups


@fuzz
@given(
    mapped((*NAMES, "_meta"), bodies | st.fixed_dictionaries({"hostvars": hosts | anything})),
    mapped(NAMES, anything),
)
def test_any_program(listed: dict[str, Any], own: dict[str, Any]) -> None:
    def printed(path: Path, *arguments: str) -> dict[str, Any]:
        return json.loads(json.dumps(own if arguments[0] == "--host" else listed))

    with mock.patch.object(listing, "_run", printed):
        outcome(lambda: requests(listed_by(Path("prog")), "prog"), "prog", "prog:")


@fuzz
@given(
    st.sampled_from(("hosts", "h.ini", "h.yaml", "h.json")),
    st.binary(max_size=80) | lines.map(str.encode),
    st.dictionaries(
        st.sampled_from(("group_vars/all", "group_vars/a.yml", "host_vars/x", "host_vars/x/1.yml", "host_vars/b.json")),
        st.binary(max_size=30) | variables.map(json.dumps).map(str.encode),
        max_size=2,
    ),
)
def test_any_files(name: str, data: bytes, beside: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as top:
        for path, content in {name: data, **beside}.items():
            file = Path(top) / path
            with suppress(FileExistsError, IsADirectoryError, NotADirectoryError):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        outcome(lambda: requests(read(Path(top) / name), name), top, f"can't read {top}", f"{name}:")


@fuzz
@given(st.text(alphabet="[]:az019", max_size=40))
def test_any_pattern(pattern: str) -> None:
    with in_time(len(pattern)):
        try:
            names, _ = expand_hosts(pattern)
        except ValueError as refused:
            assert "'" in str(refused)  # noqa: PT017
        else:
            assert names


@fuzz
@given(st.sampled_from(NAMES) | st.text(max_size=30) | st.text(alphabet="u@x:[]1.%/-", max_size=20))
def test_any_address(text: str) -> None:
    address = outcome(lambda: parse_host(text, user=None, port=None, identity=None, jump=None), "'", "no ", '"')

    if address and not address.local:
        assert parse_host(str(address), user=None, port=None, identity=None, jump=None) == address
