"""Reads arguments for ssh, as in `ansible_ssh_common_args` and in a ProxyCommand."""

from __future__ import annotations

import re
import shlex
from getopt import GetoptError, gnu_getopt

_SETTINGS = {"-i": "identity", "-J": "jump", "-l": "user", "-p": "port", "-W": "target"}
_HARMLESS = "46AaCgKkMnqTtvXxYyc:e:E:m:S:"
_REFUSED = "fGNsVB:b:D:F:I:L:O:Q:R:W:w:"
_OPTIONS = {
    **{"proxyjump": "jump", "proxycommand": "proxy", "user": "user", "port": "port"},
    **{"identityfile": "identity", "hostname": "host"},
}
_NAMES = """
addkeystoagent addressfamily batchmode canonicaldomains canonicalizefallbacklocal canonicalizehostname
canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms challengeresponseauthentication channeltimeout
checkhostip ciphers clearallforwardings compression compressionlevel connectionattempts connecttimeout controlmaster
controlpath controlpersist enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile
gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikeyexchange gssapirenewalforcesrekey
gssapiserveridentity gssapitrustdns hashknownhosts hostbasedacceptedalgorithms hostbasedauthentication
hostbasedkeytypes hostkeyalgorithms hostkeyalias identitiesonly ignoreunknown ipqos kbdinteractiveauthentication
kbdinteractivedevices kexalgorithms loglevel logverbose macs nohostauthenticationforlocalhost numberofpasswordprompts
obscurekeystroketiming passwordauthentication permitlocalcommand preferredauthentications protocol
pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit requesttty requiredrsasize
revokedhostkeys rsaauthentication sendenv serveralivecountmax serveraliveinterval setenv stdinnull streamlocalbindmask
streamlocalbindunlink stricthostkeychecking syslogfacility tcpkeepalive updatehostkeys useprivilegedport
userknownhostsfile verifyhostkeydns versionaddendum visualhostkey xauthlocation
"""
_IGNORED = frozenset(_NAMES.split())
"""Options of ssh_config(5) that decide neither which machine is reached nor by whom: dstack pins keys, keeps
connections open, never prompts and forwards nothing."""
_SUPPORT = "which dstack does not support; set it in ~/.ssh/config"

Settings = dict[str, str]
"""By name: user, port, identity, host, jump, and jump_identity, the key for the jump host."""


def read(text: str, name: str) -> Settings:
    """Return the settings in a variable with this name. The first of each counts, as for ssh. Raises ValueError for an
    argument that dstack can't follow."""
    settings, words = _read(shlex.split(text), name, _HARMLESS + _REFUSED)
    if words:
        raise ValueError(f"{name} has '{words[0]}', {_SUPPORT}")
    return settings


def _read(words: list[str], name: str, letters: str) -> tuple[Settings, list[str]]:
    """Return the settings and the words that are no options."""
    try:
        pairs, rest = gnu_getopt(words, letters + "i:J:l:p:o:")
    except GetoptError as error:
        raise ValueError(f"{name} can't be read: {error.msg}") from error
    settings: Settings = {}
    for flag, value in pairs:
        if flag[1] in _REFUSED and flag != "-W":
            raise ValueError(f"{name} has '{flag}', {_SUPPORT}")
        found = _option(value, name) if flag == "-o" else _setting(_SETTINGS.get(flag, ""), value)
        settings = {**found, **settings}
    return settings, rest


def _option(text: str, name: str) -> Settings:
    key, _, value = re.sub(r"^\s*(\w+)\s*[= ]\s*", r"\1=", text).partition("=")
    setting = _OPTIONS.get(key.lower())
    if setting == "proxy":
        return {} if value.lower() == "none" else _proxy(value, name)
    if not setting and key.lower() not in _IGNORED:
        raise ValueError(f"{name} has the option {key}, {_SUPPORT}")
    return {} if value.lower() == "none" else _setting(setting or "", value.strip('"'))


def _setting(setting: str, value: str) -> Settings:
    """Return a setting by its name; a jump host has no key of its own then."""
    jump = {"jump_identity": ""} if setting == "jump" else {}
    return {setting: value, **jump} if setting else {}


def _proxy(command: str, name: str) -> Settings:
    """Return the jump host of `ssh -W %h:%p [OPTIONS] [USER@]HOST`, or of the older `ssh HOST nc %h %p`."""
    unsupported = f"{name} has the ProxyCommand '{command}', {_SUPPORT}"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(unsupported) from error
    if not words or words[0].rpartition("/")[2] != "ssh":
        raise ValueError(unsupported)
    words, then = _without_nc(words)
    inner, rest = _read(words[1:], name, _HARMLESS + _REFUSED)
    if inner.get("target", then) not in ("%h:%p", "[%h]:%p") or len(rest) != 1 or inner.get("jump_identity"):
        raise ValueError(unsupported)
    user = f"{inner['user']}@" if "user" in inner and "@" not in rest[0] else ""
    hop = user + inner.get("host", rest[0]) + (f":{inner['port']}" if "port" in inner else "")
    jump = f"{inner['jump']},{hop}" if "jump" in inner else hop
    return {"jump": jump, "jump_identity": inner.get("identity", "")}


def _without_nc(words: list[str]) -> tuple[list[str], str | None]:
    """Return the words before a netcat that is run on the jump host, and what it connects to."""
    at = next((index for index, word in enumerate(words) if word in ("nc", "netcat", "ncat")), None)
    return (words, None) if at is None else (words[:at], ":".join(words[at + 1 :][-2:]))
