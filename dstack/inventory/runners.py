"""Converts the hosts of an inventory into requests to add runners."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dstack.inventory import ssh_arguments
from dstack.inventory.groups import ALL, UNGROUPED, Groups, Variables
from dstack.inventory.yaml_file import Locked
from dstack.model.api.runners import AddRunner
from dstack.model.runner import mounts
from dstack.model.runner.runner import Address
from dstack.model.text.suggest import did_you_mean

OWN = (
    *(
        "dstack_labels",
        "dstack_gpus",
        "dstack_max_jobs",
        "dstack_root",
        "dstack_docker",
        "dstack_allow_mount",
        "dstack_fingerprint",
    ),
    "dstack_skip",
)
_SURROGATE = re.compile("[\ud800-\udfff]")
"""What stands for a byte that is not UTF-8."""
_CONNECTIONS = ("ssh", "smart", "paramiko", "paramiko_ssh")


PORTS = 65535


@dataclass(frozen=True)
class Machines:
    """The hosts of an inventory: a request for each that dstack can use, in file order, and why it can't use the
    others, by name."""

    requests: list[AddRunner]
    skipped: dict[str, str]


def machines(groups: Groups, source: str) -> Machines:
    """Return what the inventory means for dstack. A host that can't be used does not keep the others from it."""
    found: dict[str, AddRunner] = {}
    skipped = {}
    for host in groups.hosts:
        try:
            own = groups.variables(host)
            if own.get("dstack_skip") not in (True, "true", "True", "yes"):
                request = _machine(host, own, groups.of(host), source)
                if not request.name:
                    raise ValueError("the name has neither letters nor digits; rename it, and set ansible_host")
                if request.name in found:
                    raise ValueError(f"another host is the runner {request.name}, too; rename one of them")
                found[str(request.name)] = request
        except ValueError as error:
            skipped[host.encode(errors="replace").decode()] = str(error)
    return Machines(list(found.values()), skipped)


def runner_name(host: str) -> str:
    """Return the name of the runner that a host becomes; "" if nothing of the host's name can be used."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-._")


def _machine(host: str, own: Variables, groups: list[str], source: str) -> AddRunner:
    for name in own:
        if name.startswith("dstack_") and name not in OWN:
            raise ValueError(f"unknown variable '{name}'{did_you_mean(name, OWN)}")
    if _SURROGATE.search(host + "".join(groups)):
        raise ValueError("its name or the name of a group is not UTF-8 text; save the file as UTF-8")
    labels = [name for name in groups if name not in (ALL, UNGROUPED)] + _words(own, "dstack_labels")
    return AddRunner(
        address=_address(host, own),
        name=runner_name(host),
        labels=tuple(dict.fromkeys(labels)),
        gpus=_number(own, 1024, "dstack_gpus"),
        max_jobs=_number(own, 10**6, "dstack_max_jobs"),
        root=_text(own, "dstack_root"),
        docker=_text(own, "dstack_docker"),
        fingerprint=_text(own, "dstack_fingerprint"),
        source=source,
        allow_mounts=_folders(own),
    )


def _address(host: str, own: Variables) -> Address:
    connection = _text(own, "ansible_connection") or "ssh"
    if connection.removeprefix("ansible.builtin.") == "local":
        return Address()
    if connection.removeprefix("ansible.builtin.") not in _CONNECTIONS:
        raise ValueError(f"ansible_connection is '{connection}', but dstack needs ssh or local")
    settings = _settings(own)
    return Address(
        host=settings.get("host") or _text(own, "ansible_host", "ansible_ssh_host") or host,
        user=settings.get("user"),
        port=_port(own, settings),
        identity=_file(settings.get("identity")),
        jump=settings.get("jump"),
        jump_identity=_file(settings.get("jump_identity")),
    )


def _settings(own: Variables) -> ssh_arguments.Settings:
    """Return what says how to log in. Ansible passes it to ssh in this order, and for ssh the first value counts."""
    identity = _text(own, "ansible_ssh_private_key_file", "ansible_private_key_file")
    variables = {"user": _text(own, "ansible_user", "ansible_ssh_user"), "identity": identity}
    settings = _arguments(own, "ansible_ssh_args")
    settings = {**{name: value for name, value in variables.items() if value}, **settings}
    for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        settings = {**_arguments(own, name), **settings}
    return settings


def _arguments(own: Variables, name: str) -> ssh_arguments.Settings:
    text = _text(own, name)
    return ssh_arguments.read(text, name) if text else {}


def is_whole(text: str, most: int) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None and int(text) <= most


def _port(own: Variables, settings: ssh_arguments.Settings) -> int | None:
    number = _number(own, PORTS, "ansible_port", "ansible_ssh_port")
    text = settings.get("port", "")
    if number is None and text:
        number = int(text) if is_whole(text, PORTS) else 0
    if number is not None and not 0 < number <= PORTS:
        raise ValueError(f"{text or number} is not a valid port; write a number from 1 to 65535")
    return number


def _file(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None


def _folders(own: Variables) -> tuple[str, ...]:
    """Return the folders that jobs may mount."""
    try:
        return tuple(dict.fromkeys(mounts.folder(path) for path in _words(own, "dstack_allow_mount")))
    except ValueError as trouble:
        raise ValueError(f"dstack_allow_mount {trouble}") from trouble


def _words(own: Variables, name: str) -> list[str]:
    """Return the words of a list, or of a text separated by commas or spaces."""
    value = own.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        return [word for word in re.split(r"[,\s]+", value) if word]
    if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
        return list(value)
    raise ValueError(f"{name} must be a list, or text separated by commas")


def _number(own: Variables, most: int, *names: str) -> int | None:
    text = _text(own, *names)
    if text is None:
        return None
    if not is_whole(text, most):
        raise ValueError(f"{names[0]} must be a whole number up to {most}, not '{text}'")
    return int(text)


def _text(own: Variables, *names: str) -> str | None:
    """Return the first of these variables that is set, as text."""
    for name in names:
        value = own.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, Locked):
            raise ValueError(
                f"{name} is encrypted with Ansible Vault, which dstack can't read; write the value unencrypted"
            )
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError(f"{name} must be text or a number, not {value!r}")
        if _SURROGATE.search(str(value)):
            raise ValueError(f"{name} is not UTF-8 text; save the file as UTF-8")
        if "{{" in str(value) or "{%" in str(value):
            raise ValueError(f"{name} is the template '{value}', which dstack can't expand; write the value itself")
        return str(value)
    return None
