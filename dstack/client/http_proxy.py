"""Connects to object storage: directly, or through the proxy in HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as curl does."""

from __future__ import annotations

import base64
import http.client
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Way:
    """A connection that is not open yet. Requests put `prefix` before the path and send `headers`. `name` is the URL
    of the proxy, or None without one."""

    connection: http.client.HTTPConnection
    name: str | None = None
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def way(scheme: str, netloc: str, timeout: float) -> Way:
    """Return the way to a server. `timeout` in seconds. Raises OSError for a proxy that is not an HTTP proxy."""
    from urllib.request import getproxies, proxy_bypass  # 20 ms

    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    named = None if proxy_bypass(netloc) else getproxies().get(scheme)
    if not named:
        return Way(make(netloc, timeout=timeout))
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    name = f"{proxy.scheme}://{proxy.hostname}:{proxy.port or 80}"
    if proxy.scheme != "http" or not proxy.hostname:
        raise OSError(f"{name} is not an HTTP proxy")
    headers = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection = make(proxy.hostname, proxy.port or 80, timeout=timeout)
    if scheme == "http":
        return Way(connection, name, f"http://{netloc}", headers)
    server = urlsplit(f"//{netloc}")
    connection.set_tunnel(server.hostname or "", server.port or 443, headers)
    return Way(connection, name)
