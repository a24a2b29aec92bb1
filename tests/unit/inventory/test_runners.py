"""What an inventory means for dstack, and the errors for one that can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dstack.cli.commands.runners.import_inventory import difference
from dstack.errors import ProjectError, UsageError
from dstack.inventory import ini, yaml_file
from dstack.inventory.groups import expand_hosts
from dstack.inventory.read import read
from dstack.inventory.runners import machines
from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.runner.runner import Address

ROOT = Path(__file__).parents[3]


def one(**variables: Any) -> AddRunner:
    groups = ini.read("m", "hosts")
    groups.hosts["m"].update(variables)
    (found,) = machines(groups, "/hosts")
    return found


def trouble(**variables: Any) -> str:
    with pytest.raises(ProjectError) as caught:
        one(**variables)
    return caught.value.message


def test_the_example_of_a_lab() -> None:
    found = {request.name: request for request in machines(read(ROOT / "inventory" / "lab.yaml"), "/lab.yaml")}

    assert len(found) == 23
    identity = str(Path("~/.ssh/lab_ed25519").expanduser())
    assert found["gpu2"] == AddRunner(
        address=Address(host="10.0.0.12", user="ml", port=2222, identity=identity),
        name="gpu2",
        labels=("a100",),
        root="/data/dstack",
        source="/lab.yaml",
    )
    node = found["node07.rack.example.org"]
    assert node.address.jump == "bastion.example.org"
    assert node.labels == ("rack", "cpu", "spot")
    desk = found["under-the-desk"]
    assert (desk.gpus, desk.docker, desk.fingerprint) == (1, "sudo -n docker", f"SHA256:{'A' * 43}")
    assert "nas1" not in found


def test_the_example_of_a_team() -> None:
    found = {request.name: request for request in machines(read(ROOT / "inventory" / "team" / "hosts"), "/hosts")}

    gpus = ["gpua.example.org", "gpub.example.org", "gpuc.example.org", "big"]
    assert list(found) == [*gpus, "worker-1", "worker-5", "worker-9", "fd00-7"]
    jump = "hop@bastion.example.org:2022"
    assert found["gpuc.example.org"].address == Address(host="gpuc.example.org", user="ml", port=2222, jump=jump)
    assert found["big"].address == Address(host="10.1.0.9", user="ml")
    assert (found["big"].labels, found["big"].gpus) == (("team", "gpu", "h100", "big"), 4)
    assert found["worker-5"].address.user == "batch"
    assert found["fd00-7"].address == Address(host="fd00::7", user="nobody-in-particular", port=2200, jump=jump)


def test_the_example_of_a_program() -> None:
    found = machines(read(ROOT / "inventory" / "cloud"), "/cloud")

    assert [(str(each.address), each.labels) for each in found] == [
        ("ubuntu@203.0.113.11", ("cloud", "spot")),
        ("ubuntu@203.0.113.12:22022", ("cloud", "spot")),
    ]


@pytest.mark.parametrize(
    ("arguments", "jump"),
    [
        ("-J hop", "hop"),
        ("-Ja,b@c:2 -q", "a,b@c:2"),
        ("-o ProxyJump=hop -o StrictHostKeyChecking=no", "hop"),
        ("-oProxyJump=hop", "hop"),
        ('-o "ProxyJump hop"', "hop"),
        ("-o ProxyCommand='ssh -p 2222 -W %h:%p -q me@hop'", "me@hop:2222"),
        ("-o ProxyCommand='/usr/bin/ssh -l me hop -W [%h]:%p'", "me@hop"),
        ("-C -o ControlMaster=auto -o ControlPersist=60s", None),
    ],
)
def test_arguments_for_ssh(arguments: str, jump: str | None) -> None:
    assert one(ansible_ssh_common_args=arguments).address.jump == jump


def test_this_machine() -> None:
    assert one(ansible_connection="local").address.local


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"dstack_gpu": 1}, "/hosts: m: unknown variable 'dstack_gpu'; did you mean 'dstack_gpus'?"),
        ({"dstack_gpus": "many"}, "dstack_gpus must be a whole number up to 1024, not 'many'"),
        ({"dstack_labels": 3}, "dstack_labels must be a list, or text separated by commas"),
        (
            {"ansible_user": "{{ me }}"},
            "ansible_user is the template '{{ me }}', which dstack can't expand; write the value itself",
        ),
        (
            {"ansible_user": yaml_file.Locked()},
            "ansible_user is encrypted with Ansible Vault, which dstack can't read; write the value unencrypted",
        ),
        ({"ansible_host": ["a"]}, "ansible_host must be text or a number, not ['a']"),
        ({"ansible_connection": "winrm"}, "ansible_connection is 'winrm', but dstack needs ssh or local"),
        ({"ansible_ssh_common_args": "-o Tunnel=yes"}, "the option Tunnel, which dstack does not support"),
        ({"ansible_ssh_common_args": "-D 1080"}, "has '-D', which dstack does not support; set it in ~/.ssh/config"),
        (
            {"ansible_ssh_common_args": "-o ProxyCommand='nc %h %p'"},
            "the ProxyCommand 'nc %h %p', which dstack does not",
        ),
    ],
)
def test_what_can_not_be_followed_is_said(variables: dict[str, Any], said: str) -> None:
    assert said in trouble(**variables)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a b]\nx", "hosts:1: '[a b]' is not valid; write [GROUP], [GROUP:vars] or [GROUP:children]"),
        ("[a:b]\n", "hosts:1: '[a:b]' is not valid; write [GROUP], [GROUP:vars] or [GROUP:children]"),
        ("x y\n", "hosts:1: 'y' is not a variable; write NAME=VALUE"),
        ("ok\n[a:children]\nnone\n", "hosts:3: no group 'none'; add the section [none], or remove this line"),
        ("x[3:1]\n", "hosts:1: '[3:1]' runs backwards; write the smaller end first"),
        ("[lab\nx\n", "hosts:1: '[lab' has a bracket but no range; write a range such as [1:9] or [a:c]"),
        ("x[01:100]\n", "hosts:1: '[01:100]' starts with a zero, so both ends need the same number of digits"),
        ("x 'a=b\n", "hosts:1: No closing quotation"),
    ],
)
def test_a_broken_ini_file(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ini.read(text, "hosts")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all: [", "f.yml:2: "),
        ("all:\n  host: {}\n", "f.yml: the group 'all' has the key 'host'; only hosts, vars and children are allowed"),
        ("- a\n", "f.yml: the file must be a map, not a list"),
        ("all: {vars: {since: 2026-13-01}}\n", "f.yml: month must be in 1..12"),
    ],
)
def test_a_broken_yaml_file(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        yaml_file.read(text, "f.yml")
    assert said in caught.value.message


def test_a_group_in_itself() -> None:
    groups = ini.read("[a]\nx\n[a:children]\nb\n[b:children]\na\n", "hosts")

    with pytest.raises(ProjectError, match="contains itself"):
        machines(groups, "/hosts")


def test_a_program_that_fails(tmp_path: Path) -> None:
    program = tmp_path / "inventory"
    for body, said in (
        ("echo no cloud >&2; exit 3", "failed with exit code 3: no cloud"),
        ("echo hello", "did not print valid JSON"),
        ("echo '{\"g\": 5}'", "JSON that is not an Ansible inventory"),
    ):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        with pytest.raises(UsageError, match=said):
            read(program)


def test_a_program_that_answers_for_each_host(tmp_path: Path) -> None:
    program = tmp_path / "inventory"
    program.write_text(
        """#!/bin/sh
        case $1 in --list) echo '{"g": ["a", "b"]}' ;; *) echo "{\\"ansible_user\\": \\"u-$2\\"}" ;; esac
        """
    )
    program.chmod(0o755)

    assert [each.address.user for each in machines(read(program), "/i")] == ["u-a", "u-b"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("a[1:3]", ["a1", "a2", "a3"]),
        ("a[08:10].x", ["a08.x", "a09.x", "a10.x"]),
        ("[a:c][1:2]", ["a1", "a2", "b1", "b2", "c1", "c2"]),
        ("n[0:10:5]", ["n0", "n5", "n10"]),
        ("n[:1]", ["n0", "n1"]),
    ],
)
def test_ranges(pattern: str, names: list[str]) -> None:
    assert expand_hosts(pattern) == (names, None)
    assert expand_hosts(f"{pattern}:22") == (names, 22)


@pytest.mark.parametrize("value", ["/data, /scratch/", "/data /scratch", ["/data", "/scratch"]])
def test_folders_that_jobs_may_mount(value: Any) -> None:
    assert one(dstack_allow_mount=value).allow_mounts == ("/data", "/scratch")


def test_folders_that_jobs_may_not_mount() -> None:
    assert "dstack_allow_mount can't be /: any job could then become root on the machine; name a folder" in trouble(
        dstack_allow_mount="/"
    )
    assert "dstack_allow_mount has a path that is not absolute: 'data'; start it with /" in trouble(
        dstack_allow_mount=["data"]
    )
    assert "dstack_allow_mount must be a list, or text separated by commas" in trouble(dstack_allow_mount=7)


def view(request: AddRunner) -> RunnerView:
    return RunnerView(
        name=request.name or "",
        address=str(request.address),
        state="ready",
        reason=None,
        fix=None,
        labels=[],
        cpus=1,
        memory=1,
        gpus=[],
        disk_free=1,
        jobs=[],
        latency_ms=None,
        definition=request,
    )


def test_the_difference() -> None:
    def request(name: str, source: str | None = "/f", **more: Any) -> AddRunner:
        return AddRunner(address=Address(host=name), name=name, source=source, **more)

    known = [view(request("same", root="~/.dstack-host", docker="docker")), view(request("gone")), view(request("old"))]
    known += [view(request("hand", None)), view(request("other", "/g"))]

    old = request("old", labels=("x",), allow_mounts=("/data",))
    steps = difference([request("new"), request("same"), old], known, "/f")

    assert [(step.do, step.name, step.differences) for step in steps] == [
        ("add", "new", ()),
        ("keep", "same", ()),
        ("change", "old", ("labels: none -> x", "mounts: none -> /data")),
        ("remove", "gone", ()),
    ]


def test_a_machine_that_lets_the_servers_key_in_keeps_doing_so() -> None:
    here = AddRunner(address=Address(host="m"), name="m", source="/f", authorized=True)
    wanted = AddRunner(address=Address(host="m", identity="/k"), name="m", source="/f", labels=("a",))

    (step,) = difference([wanted], [view(here)], "/f")

    assert step.wanted.authorized
    assert step.differences == ("labels: none -> a",)
