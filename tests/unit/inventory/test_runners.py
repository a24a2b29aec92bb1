"""What an inventory means for dstack, and the errors for one that can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.cli.commands.runners.import_inventory import difference
from dstack.errors import UsageError
from dstack.hosts.ssh.failures import ssh_command
from dstack.inventory import ini, yaml_file
from dstack.inventory.groups import expand_hosts
from dstack.inventory.read import read
from dstack.inventory.runners import Machines, machines
from dstack.model.api.runners import DROPPED, AddRunner, RunnerView
from dstack.model.runner.runner import Address
from tests.unit.inventory import generated

ROOT = Path(__file__).parents[3]


def one(**variables: Any) -> AddRunner:
    groups = ini.read("m", "hosts")
    groups.hosts["m"].update(variables)
    (found,) = machines(groups, "/hosts").requests
    return found


def trouble(**variables: Any) -> str:
    groups = ini.read("m", "hosts")
    groups.hosts["m"].update(variables)
    return machines(groups, "/hosts").skipped["m"]


def test_the_example_of_a_lab() -> None:
    found = {request.name: request for request in machines(read(ROOT / "inventory" / "lab.yaml"), "/lab.yaml").requests}

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
    found = {
        request.name: request for request in machines(read(ROOT / "inventory" / "team" / "hosts"), "/hosts").requests
    }

    gpus = ["gpua.example.org", "gpub.example.org", "gpuc.example.org", "big"]
    assert list(found) == [*gpus, "worker-1", "worker-5", "worker-9", "fd00-7"]
    jump = "hop@bastion.example.org:2022"
    assert found["gpuc.example.org"].address == Address(host="gpuc.example.org", user="ml", port=2222, jump=jump)
    assert found["big"].address == Address(host="10.1.0.9", user="ml")
    assert (found["big"].labels, found["big"].gpus) == (("team", "gpu", "h100", "big"), 4)
    assert found["worker-5"].address.user == "batch"
    assert found["fd00-7"].address == Address(host="fd00::7", user="nobody-in-particular", port=2200, jump=jump)


def test_the_example_of_a_program() -> None:
    found = machines(read(ROOT / "inventory" / "cloud"), "/cloud").requests

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
        ("-o ForwardX11=no -o StrictHostKeyChecking=accept-new", None),
        ("-o ProxyCommand='ssh -i ~/.ssh/k -o StrictHostKeyChecking=no -W %h:%p me@hop'", "me@hop"),
        ("-o ProxyCommand='ssh -qCo BatchMode=yes -o User=me -o Port=7 hop -W %h:%p'", "me@hop:7"),
        ("-o ProxyCommand='ssh -J a,b -W %h:%p hop'", "a,b,hop"),
        ("""-o ProxyCommand="ssh -o ProxyCommand='ssh -W %h:%p a' -W %h:%p hop\"""", "a,hop"),
        ("-o ProxyCommand='ssh hop nc %h %p'", "hop"),
        ("-o ProxyCommand='ssh -q me@hop nc -w 5 %h %p'", "me@hop"),
        ("-o ProxyCommand=none", None),
        ("-o ProxyJump=none", None),
        ("-J first -J second", "first"),
        ("-vvv -4 -o ConnectTimeout=3 -c aes128-ctr", None),
    ],
)
def test_arguments_for_ssh(arguments: str, jump: str | None) -> None:
    assert one(ansible_ssh_common_args=arguments).address.jump == jump


def test_the_key_for_the_jump_host() -> None:
    through = "-o ProxyCommand='ssh -i ~/.ssh/hop -W %h:%p me@hop' -i /keys/other"
    address = one(ansible_ssh_common_args=through, ansible_ssh_private_key_file="/keys/box").address

    assert address.jump_identity == str(Path("~/.ssh/hop").expanduser())
    assert (address.jump, address.identity) == ("me@hop", "/keys/box")
    assert ssh_command(address).endswith(
        f" -i /keys/box -o 'ProxyCommand=ssh -i {address.jump_identity} -W %h:%p me@hop' m"
    )
    assert (
        one(ansible_ssh_common_args="-o ProxyCommand='ssh -o IdentityFile=/k -W %h:%p hop'").address.jump_identity
        == "/k"
    )


def test_the_key_of_a_jump_host_that_does_not_count_is_left_out() -> None:
    through = "-o ProxyCommand='ssh -i /k -W %h:%p second'"

    assert one(ansible_ssh_common_args=f"-J first {through}").address == Address(host="m", jump="first")
    assert one(ansible_ssh_args="-J first", ansible_ssh_extra_args=through).address == Address(host="m", jump="first")


def test_the_first_value_counts_in_the_order_in_which_ansible_passes_them() -> None:
    address = one(
        ansible_ssh_args="-o User=first",
        ansible_user="second",
        ansible_ssh_common_args="-l third -p 7 -o HostName=10.0.0.9",
        ansible_ssh_extra_args="-p 8",
    ).address

    assert address == Address(host="10.0.0.9", user="first", port=7)


@pytest.mark.parametrize(
    "connection", ["ssh", "smart", "paramiko", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh"]
)
def test_connections_over_ssh(connection: str) -> None:
    assert one(ansible_connection=connection).address.host == "m"


def test_a_host_that_can_not_be_used_does_not_keep_the_others_out() -> None:
    text = "a ansible_user={{me}}\nb\nc ansible_connection=winrm\nd:e\nd-e\n--\nf\n"

    found = machines(ini.read(text, "hosts"), "/hosts")

    assert [request.name for request in found.requests] == ["b", "d-e", "f"]
    assert found.skipped == {
        "a": "ansible_user is the template '{{me}}', which dstack can't expand; write the value itself",
        "c": "ansible_connection is 'winrm', but dstack needs ssh or local",
        "d-e": "another host is the runner d-e, too; rename one of them",
        "--": "the name has neither letters nor digits; rename it, and set ansible_host",
    }


def test_this_machine() -> None:
    assert one(ansible_connection="local").address.local


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"dstack_gpu": 1}, "unknown variable 'dstack_gpu'; did you mean 'dstack_gpus'?"),
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
        ({"ansible_port": 70000}, "ansible_port must be a whole number up to 65535, not '70000'"),
        ({"ansible_ssh_common_args": "-p x"}, "x is not a valid port"),
        ({"ansible_ssh_common_args": "-o ForwardX12=no"}, "the option ForwardX12, which dstack does not support"),
        ({"ansible_ssh_common_args": "-z"}, "ansible_ssh_common_args can't be read: option -z not recognized"),
        ({"ansible_ssh_common_args": "lab"}, "ansible_ssh_common_args has 'lab', which dstack does not support"),
        ({"ansible_ssh_common_args": "-F cfg"}, "has '-F', which dstack does not support; set it in ~/.ssh/config"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='ssh -W x:1 hop'"}, "the ProxyCommand 'ssh -W x:1 hop'"),
        ({"ansible_ssh_common_args": "-o ProxyCommand='ssh -F c -W %h:%p hop'"}, "has '-F', which dstack does not"),
        ({"ansible_ssh_common_args": "-J 'a"}, "No closing quotation"),
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
        ("[a:vars]\nk=1\n", "hosts:1: no group 'a'; add the section [a], or remove this line"),
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

    assert "contains itself" in machines(groups, "/hosts").skipped["x"]


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


def test_a_program_that_can_not_be_started(tmp_path: Path) -> None:
    generated.write(tmp_path, {"x:hosts": "#!/nowhere/sh\n"})

    with pytest.raises(UsageError, match=r"can't run .*/hosts: No such file or directory"):
        read(tmp_path / "hosts")


@pytest.mark.parametrize("tag", ["!vault", "!vault-encrypted"])
def test_an_encrypted_value_concerns_only_who_needs_it(tmp_path: Path, tag: str) -> None:
    secret = f"{{ansible_user: {tag} 'x'}}"
    generated.write(tmp_path, {"hosts.yml": f"all: {{hosts: {{a: {secret}, b: {{secret: {tag} 'x'}}}}}}\n"})

    found = machines(read(tmp_path / "hosts.yml"), "hosts")

    assert [request.name for request in found.requests] == ["b"]
    assert "ansible_user is encrypted with Ansible Vault" in found.skipped["a"]


def test_files_that_are_encrypted_as_a_whole(tmp_path: Path) -> None:
    vault = "$ANSIBLE_VAULT;1.1;AES256\n3133\n"
    generated.write(tmp_path, {"hosts": "[g]\na\n", "group_vars/g/vault.yml": vault, "group_vars/g/v.yml": "k: 1\n"})
    generated.write(tmp_path, {"locked.yml": vault})

    groups = read(tmp_path / "hosts")

    assert groups.variables("a") == {"k": 1}
    assert groups.notes == [
        f"{tmp_path}/group_vars/g/vault.yml is encrypted with Ansible Vault; its variables are not read"
    ]
    with pytest.raises(UsageError, match="is encrypted with Ansible Vault, which dstack can't read") as caught:
        read(tmp_path / "locked.yml")
    assert caught.value.hint == f"ansible-vault view {tmp_path}/locked.yml > hosts.yml; dstack runners import hosts.yml"


def test_what_only_ansible_can_read_is_named(tmp_path: Path) -> None:
    generated.write(tmp_path, {"aws.yml": "plugin: aws_ec2\nregions: [a]\n", "hosts.toml": "[web]\n"})

    with pytest.raises(UsageError, match="configures Ansible's plugin aws_ec2, which only Ansible can run") as it:
        read(tmp_path / "aws.yml")
    assert f"exec ansible-inventory -i {tmp_path}/aws.yml --list" in (it.value.hint or "")
    with pytest.raises(UsageError, match="is TOML, which dstack doesn't read"):
        read(tmp_path / "hosts.toml")


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    """Ansible keeps them in INI files, and refuses them in YAML; dstack reads on if they are in a comment."""
    generated.write(tmp_path, {"hosts": b"# caf\xe9\na x=\xe9\nb ansible_user=\xe9\nc\xe9\n[\xe9]\nd\n"})
    generated.write(tmp_path, {"hosts.yml": b"all: # \xe9\n  # caf\xe9\n  hosts: {a: }\n"})
    generated.write(tmp_path, {"bad.yml": b"all:\n  hosts: {a: {k: '#\xe9'}}\n"})

    found = machines(read(tmp_path / "hosts"), "hosts")

    assert [request.name for request in found.requests] == ["a"]
    assert found.skipped["b"] == "ansible_user is not UTF-8 text; save the file as UTF-8"
    assert found.skipped["c?"] == found.skipped["d"]
    assert [request.name for request in machines(read(tmp_path / "hosts.yml"), "hosts").requests] == ["a"]
    with pytest.raises(UsageError, match=r"bad.yml:2: the line is not UTF-8 text; save the file as UTF-8"):
        read(tmp_path / "bad.yml")


def test_a_program_that_answers_for_each_host(tmp_path: Path) -> None:
    program = tmp_path / "inventory"
    program.write_text(
        """#!/bin/sh
        case $1 in --list) echo '{"g": ["a", "b"]}' ;; *) echo "{\\"ansible_user\\": \\"u-$2\\"}" ;; esac
        """
    )
    program.chmod(0o755)

    assert [each.address.user for each in machines(read(program), "/i").requests] == ["u-a", "u-b"]


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
    found = Machines([request("new"), request("same"), old], {"skipped:1": "no such user"})
    steps = difference(found, [*known, view(request("skipped-1"))], "/f")

    assert [(step.do, step.name, step.differences) for step in steps] == [
        ("add", "new", ()),
        ("keep", "same", ()),
        ("change", "old", ("labels: none -> x", "mounts: none -> /data")),
        ("remove", "gone", ()),
    ]


def test_what_an_import_drained_is_resumed_when_it_is_in_the_file_again() -> None:
    def request(name: str) -> AddRunner:
        return AddRunner(address=Address(host=name), name=name, source="/f")

    known = [view(request(name)) for name in ("back", "by-hand", "moved")]
    for runner, reason in zip(known, (DROPPED, "maintenance", DROPPED), strict=True):
        runner.drained = reason
    found = Machines([request("back"), request("by-hand"), replace(request("moved"), labels=("x",))], {})

    steps = difference(found, known, "/f")

    assert [(step.do, step.name, step.differences, step.resume) for step in steps] == [
        ("change", "back", ("drained: no longer in the inventory -> no",), True),
        ("keep", "by-hand", (), False),
        ("change", "moved", ("labels: none -> x", "drained: no longer in the inventory -> no"), True),
    ]


def test_a_machine_that_lets_the_servers_key_in_keeps_doing_so() -> None:
    here = AddRunner(address=Address(host="m"), name="m", source="/f", authorized=True)
    wanted = AddRunner(address=Address(host="m", identity="/k"), name="m", source="/f", labels=("a",))

    (step,) = difference(Machines([wanted], {}), [view(here)], "/f")

    assert step.wanted.authorized
    assert step.differences == ("labels: none -> a",)
