"""Many small inventories, read by Ansible and by dstack: the same hosts, groups and variables, or both refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dstack.errors import UsageError
from dstack.inventory.read import read
from dstack.inventory.runners import machines
from tests.environment import needs
from tests.unit.inventory import generated

RECORDED = Path(__file__).parents[2] / "data" / "inventories" / "generated.json"
"""What ansible_reads.py, with ansible-core 2.19.14, says of each; made anew with UPDATE_GOLDEN=1."""
INVENTORIES = generated.inventories()


def read_by_dstack(path: Path) -> Any:
    """Return what ansible_reads.py prints, from dstack."""
    try:
        groups = read(path)
        found = {
            host: {
                "groups": sorted(set(groups.of(host)) - {"all", "ungrouped"}),
                "variables": {str(key): value for key, value in groups.variables(host).items()},
            }
            for host in groups.hosts
        }
    except (UsageError, ValueError):  # ValueError: a group contains itself
        return None
    return json.loads(json.dumps(found, default=str))


@pytest.mark.parametrize("name", INVENTORIES)
def test_dstack_reads_what_ansible_read(name: str, tmp_path: Path) -> None:
    path = generated.write(tmp_path, INVENTORIES[name])

    assert read_by_dstack(path) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("name", generated.STRICTER)
def test_what_ansible_reads_in_part_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        machines(read(generated.write(tmp_path, generated.STRICTER[name])), "hosts")


def test_the_record_is_what_ansible_says(tmp_path: Path) -> None:
    if find_spec("ansible") is None:
        needs.missing("ansible-core is not installed; install the checkout: pip install -e '.[dev]'")
    paths = {name: generated.write(tmp_path / name, files) for name, files in INVENTORIES.items()}
    program = [sys.executable, str(Path(__file__).with_name("ansible_reads.py"))]
    done = subprocess.run(
        [*program, *map(str, paths.values())],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "LC_ALL": "C.UTF-8"},
        cwd=tmp_path,
    )
    answers = json.loads(done.stdout)
    found = {name: answers[str(path)] for name, path in paths.items()}
    if os.environ.get("UPDATE_GOLDEN"):
        RECORDED.write_text(json.dumps(found, sort_keys=True).replace('}, "', '},\n"') + "\n")

    assert len(found) >= 60
    assert found == json.loads(RECORDED.read_text())
