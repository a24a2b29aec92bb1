"""Translates exceptions of asyncssh and the system into dstack's errors."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket

import asyncssh
from asyncssh import constants

from dstack.errors import ErrorCode, HostAuthError, HostError, HostKeyError, HostUnreachableError
from dstack.model.runner.runner import Address
from dstack.model.text.untrusted import MESSAGE, clean_line

TROUBLE = (asyncssh.Error, OSError, ValueError, RuntimeError, asyncio.TimeoutError)
"""What opening or using a connection may raise. ValueError: an invalid configuration, key or name."""


def ssh_command(address: Address) -> str:
    """Return the ssh command that tries the same connection."""
    first, _, hop = (address.jump or "").rpartition(",")
    before = ["-J", first] if first else []
    through = shlex.join(["ssh", "-i", address.jump_identity or "", *before, "-W", "%h:%p", hop])
    jump = ("-o", f"ProxyCommand={through}") if address.jump_identity else ("-J", address.jump)
    options = (("-p", address.port), ("-i", address.identity), jump)
    words = [str(word) for option in options if option[1] for word in option]
    return shlex.join(["ssh", *words, f"{address.user}@{address.host}" if address.user else f"{address.host}"])


def host_error(error: BaseException, address: Address) -> HostError:
    """Return the error for a session that could not be opened: no command was sent."""
    if isinstance(error, HostError):
        return error
    found = _no_session(error, address)
    found.sent = False
    return found


def no_terminal(error: BaseException) -> bool:
    """Whether the server refused to create a terminal."""
    return isinstance(error, asyncssh.ChannelOpenError) and error.code == constants.OPEN_REQUEST_PTY_FAILED


def _no_session(error: BaseException, address: Address) -> HostError:
    hint = ssh_command(address)
    if no_terminal(error):
        return HostError(
            f"{address}: the SSH server refuses to create a terminal",
            hint="set PermitTTY yes in sshd_config, and in authorized_keys write `restrict,pty` instead of `restrict`",
        )
    if isinstance(error, asyncssh.DisconnectError) and "Too many authentication failures" in error.reason:
        return HostAuthError(
            f"{address}: the server rejected too many keys and disconnected",
            hint="to name the right key, add --identity FILE",
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return HostKeyError(f"{address}: the host key can't be verified: {error.reason}", hint=hint)
    if isinstance(error, (ValueError, RuntimeError)):
        return HostError(f"{address}: SSH can't be set up: {error}", hint=hint)
    why = _reason(error)
    code = ErrorCode.CONNECTION_REFUSED if "refused" in why else ErrorCode.HOST_UNREACHABLE
    return HostUnreachableError(f"{address} can't be reached: {why}", hint=hint, code=code)


def broken(address: Address, error: BaseException | None = None) -> HostUnreachableError:
    """Return the error for a command whose connection broke while it ran."""
    why = f": {_reason(error)}" if error else ""
    return HostUnreachableError(f"{address}: the connection broke{why}; the command may or may not have finished")


def _reason(error: BaseException) -> str:
    if isinstance(error, (asyncssh.DisconnectError, asyncssh.ChannelOpenError)):
        return clean_line(error.reason, MESSAGE) or type(error).__name__
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)  # asyncio's own text names a call, not what happened
    return str(error) or type(error).__name__
