"""Checks for whom a request is meant: the server's names, against DNS rebinding; its base path; other web sites."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from dstack.errors import DstackError, ErrorCode, NotFoundError, UsageError
from dstack.server.border.bodies import Bodies
from dstack.server.endpoints import problem_response

NAME = re.compile(r"[a-z0-9._-]{1,253}")
BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


class OwnNames:
    """The names under which the server may be addressed. IP addresses always fit: no rebinding is possible with them.
    `allowed` are names that the server was started with; `*` allows every name."""

    def __init__(self, allowed: Iterable[str] = (), restart: str = "dstack server start") -> None:
        self.allowed = {name.lower() for name in allowed}
        self.restart = restart
        self.machine = {"localhost", socket.gethostname().lower()}

    def look_up(self) -> None:
        """Learn this machine's full name in the background: the name service may take long to answer."""
        threading.Thread(target=lambda: self.machine.add(socket.getfqdn().lower()), daemon=True).start()

    def fits(self, host: str) -> bool:
        """Whether the server has this name: that of a Host header, without its port."""
        if "*" in self.allowed or host in self.allowed or host in self.machine or host.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def check(self, host: str, origin: str | None) -> None:
        """Raise UsageError if a request is for another name, or comes from a page of another web site."""
        name = without_port(host)
        if host and not self.fits(name):
            shown = name if NAME.fullmatch(name) else "NAME"
            raise UsageError(
                f"the server does not know the name '{shown}', so it refuses requests to it",
                hint=f"use its IP address, or restart it: dstack server stop; {self.restart} --allow-host {shown}",
                code=ErrorCode.FOREIGN_HOST,
            )
        if origin is not None:
            site = urlsplit(origin).netloc.lower()
            if not site or (site != host and without_port(site) not in self.allowed):
                message = "the request comes from a page of another web site, so it was refused"
                raise UsageError(message, code=ErrorCode.FOREIGN_ORIGIN)


def without_port(host: str) -> str:
    """Return the name in a Host header: `name:8000`, `10.0.0.1`, `[::1]:8000`."""
    inside = re.match(r"\[([^]]*)\]", host)
    return inside[1] if inside else host.partition(":")[0].rstrip(".")


def base_path(text: str) -> str:
    """Return the prefix of all routes, without a slash at its end. Raises UsageError if it can't be one."""
    path = "/" + text.strip("/") if text.strip("/") else ""
    if not BASE_PATH.fullmatch(path):
        raise UsageError(f"--base-path: '{text}' is not a path", hint="write it as in a URL, for example /dstack")
    return path


@dataclass
class Addressed:
    """Lets requests through that are meant for this server. Over TCP, their paths begin with the base path."""

    app: ASGIApp
    names: OwnNames
    base: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                scope = self.checked(scope)
            except DstackError as error:
                await Bodies(problem_response(error))(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def checked(self, scope: Scope) -> Scope:
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        self.names.check(headers.get(b"host", ""), headers.get(b"origin"))
        over_tcp = scope.get("server") is not None and scope["server"][1] is not None
        if not self.base or not over_tcp:
            return scope
        path = scope["path"]
        if not path.startswith(f"{self.base}/"):
            url = f"{scope['scheme']}://{headers.get(b'host', 'HOST')}{self.base}"
            message = f"the server has no route {path}: all of its routes begin with {self.base}"
            raise NotFoundError(message, hint=f"dstack config --url {url}")
        return {**scope, "path": path[len(self.base) :], "dstack.base_path": self.base}
