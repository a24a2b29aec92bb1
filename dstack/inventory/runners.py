"""Converts the hosts of an inventory into requests to add runners."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import Any

from dstack.errors import ProjectError
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
_IGNORED = frozenset(
    (
        *("controlmaster", "controlpersist", "controlpath", "serveraliveinterval", "serveralivecountmax", "loglevel"),
        *("stricthostkeychecking", "userknownhostsfile", "forwardagent", "identitiesonly", "connecttimeout"),
        *("batchmode", "preferredauthentications", "compression", "gssapiauthentication", "passwordauthentication"),
    )
)
"""Options that dstack can ignore, because it pins keys, keeps connections open and never prompts anyway."""


PORTS = 65535


def machines(groups: Groups, source: str) -> list[AddRunner]:
    """Return a request for each host that dstack should use, in file order. Raises ProjectError with all problems."""
    found, problems = [], []
    for host in groups.hosts:
        try:
            own = groups.variables(host)
            if own.get("dstack_skip") not in (True, "true", "True", "yes"):
                found.append(_machine(host, own, groups.of(host), source))
        except ValueError as error:
            problems.append(f"{source}: {host}: {error}")
    if problems:
        hint = "to leave a host out, set dstack_skip: true for it"
        raise ProjectError(problems, hint=hint, what="the inventory", consequence="; nothing was changed")
    return found


def _machine(host: str, own: Variables, groups: list[str], source: str) -> AddRunner:
    for name in own:
        if name.startswith("dstack_") and name not in OWN:
            raise ValueError(f"unknown variable '{name}'{did_you_mean(name, OWN)}")
    labels = [name for name in groups if name not in (ALL, UNGROUPED)] + _words(own, "dstack_labels")
    return AddRunner(
        address=_address(host, own),
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", host).strip("-."),
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
    if connection == "local":
        return Address()
    if connection not in ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"):
        raise ValueError(f"ansible_connection is '{connection}', but dstack needs ssh or local")
    words: dict[str, Any] = dict(_arguments(own))
    identity = _text(own, "ansible_ssh_private_key_file", "ansible_private_key_file") or words.get("identity")
    return Address(
        host=_text(own, "ansible_host", "ansible_ssh_host") or host,
        user=_text(own, "ansible_user", "ansible_ssh_user") or words.get("user"),
        port=_number(own, PORTS, "ansible_port", "ansible_ssh_port") or words.get("port"),
        identity=str(Path(identity).expanduser().absolute()) if identity else None,
        jump=words.get("jump"),
    )


def _arguments(own: Variables) -> Iterator[tuple[str, str | int]]:
    """Yield the settings in the arguments for ssh. Raises ValueError for an unsupported argument."""
    for name in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        yield from _options(shlex.split(_text(own, name) or ""), name)


def _options(words: list[str], name: str) -> Iterator[tuple[str, str | int]]:
    known = {"-J": "jump", "-i": "identity", "-p": "port", "-l": "user"}
    rest = iter(words)
    for word in rest:
        flag, value = word[:2], word[2:]
        if flag in known or flag == "-o":
            value = value or next(rest, "")
            yield from _option(value, name) if flag == "-o" else [(known[flag], _checked(flag, value, name))]
        elif word not in ("-C", "-q", "-4", "-6", "-A", "-T", "-x", "-a"):
            raise ValueError(f"{name} has '{word}', which dstack does not support; set it in ~/.ssh/config")


def _checked(flag: str, value: str, name: str) -> str | int:
    """Return the value of a flag: a number for -p."""
    if flag != "-p":
        return value
    if not is_whole(value, PORTS):
        raise ValueError(f"{name} has the port '{value}'; write a whole number up to {PORTS}")
    return int(value)


def is_whole(text: str, most: int) -> bool:
    return re.fullmatch("[0-9]{1,9}", text) is not None and int(text) <= most


def _option(text: str, name: str) -> Iterator[tuple[str, str | int]]:
    key, _, value = re.sub(r"^(\w+)\s*[= ]\s*", r"\1=", text).partition("=")
    if key.lower() == "proxyjump":
        yield "jump", value
    elif key.lower() == "proxycommand":
        yield "jump", _jump_host(value, name)
    elif key.lower() not in _IGNORED:
        raise ValueError(f"{name} has the option {key}, which dstack does not support; set it in ~/.ssh/config")


def _jump_host(command: str, name: str) -> str:
    """Return the jump host of `ssh -W %h:%p [-q] [-p PORT] [USER@]HOST`, the form shown in Ansible's docs."""
    words = shlex.split(command)
    try:
        options, hosts = gnu_getopt(words[1:], "W:p:l:qCA")
    except GetoptError:
        options, hosts = [], []
    given = dict(options)
    if words and words[0].rpartition("/")[2] == "ssh" and len(hosts) == 1 and given.get("-W") in ("%h:%p", "[%h]:%p"):
        user = f"{given['-l']}@" if "-l" in given and "@" not in hosts[0] else ""
        return user + hosts[0] + (f":{given['-p']}" if "-p" in given else "")
    raise ValueError(f"{name} has the ProxyCommand '{command}', which dstack does not support; set it in ~/.ssh/config")


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
        if "{{" in str(value) or "{%" in str(value):
            raise ValueError(f"{name} is the template '{value}', which dstack can't expand; write the value itself")
        return str(value)
    return None
