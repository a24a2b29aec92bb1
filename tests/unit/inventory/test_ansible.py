"""The same inventories, read by Ansible and by dstack: hosts, groups, addresses, users, ports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.inventory.groups import Groups
from dstack.inventory.read import read
from dstack.inventory.runners import machines
from tests.environment import needs

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "inventories"
FILES = [
    ROOT / "inventory" / "lab.yaml",
    ROOT / "inventory" / "team" / "hosts",
    ROOT / "inventory" / "cloud",
    DATA / "mixed" / "tree.yml",
    DATA / "plain.ini",
]
RECORDED = DATA / "ansible-inventory.json"
"""What ansible-core 2.19 says of them, in the shape of `shape`; made anew with UPDATE_GOLDEN=1."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def of_ansible(answer: dict[str, Any]) -> dict[str, Any]:
    """Return each host's groups, with their parents, and its connection, from `ansible-inventory --list`."""
    above: dict[str, set[str]] = {}
    for group, body in answer.items():
        for child in body.get("children", []):
            above.setdefault(child, set()).add(group)

    def up(group: str) -> Iterator[str]:
        yield group
        for parent in above.get(group, ()):
            yield from up(parent)

    hosts: dict[str, set[str]] = {}
    for group, body in answer.items():
        for host in body.get("hosts", []):
            hosts.setdefault(host, set()).update(up(group))
    known = answer["_meta"]["hostvars"]
    return {host: shape(groups, known.get(host, {})) for host, groups in sorted(hosts.items())}


def of_dstack(groups: Groups) -> dict[str, Any]:
    return {host: shape(set(groups.of(host)), groups.variables(host)) for host in sorted(groups.hosts)}


def shape(groups: set[str], variables: dict[str, Any]) -> dict[str, Any]:
    return {"groups": sorted(groups - {"ungrouped", "all"}), "variables": dict(sorted(variables.items()))}


def program() -> str | None:
    beside = Path(sysconfig.get_path("scripts")) / "ansible-inventory"
    return str(beside) if beside.exists() else shutil.which("ansible-inventory")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_dstack_reads_what_ansible_read(path: Path) -> None:
    assert of_dstack(read(path)) == json.loads(RECORDED.read_text())[name(path)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_import_goes_where_ansible_goes(path: Path) -> None:
    """Address, user, port and groups of what `dstack runners import` would add."""
    ansible = json.loads(RECORDED.read_text())[name(path)]
    skipped = {host for host, said in ansible.items() if said["variables"].get("dstack_skip")}

    found = {str(request.name): request for request in machines(read(path), str(path)).requests}

    assert set(found) == {re.sub(r":+", "-", host) for host in set(ansible) - skipped}
    for host in set(ansible) - skipped:
        variables, request = ansible[host]["variables"], found[re.sub(r":+", "-", host)]
        local = variables.get("ansible_connection") == "local"
        assert request.address.host == (None if local else str(variables.get("ansible_host", host)))
        assert request.address.user == (None if local else variables.get("ansible_user"))
        assert request.address.port == (None if local else variables.get("ansible_port"))
        assert set(ansible[host]["groups"]) <= set(request.labels)


def test_the_record_is_what_ansible_says(tmp_path: Path) -> None:
    if program() is None:
        needs.missing("ansible-inventory is not installed; install the checkout: pip install -e '.[dev]'")
    found = {}
    for path in FILES:
        words = [str(program()), "-i", str(path), "--list"]
        quiet = {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, env={**os.environ, **quiet}, cwd=tmp_path
        )
        found[name(path)] = of_ansible(json.loads(done.stdout))
    if os.environ.get("UPDATE_GOLDEN"):
        RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")

    assert found == json.loads(RECORDED.read_text())
