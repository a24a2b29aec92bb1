"""Connects to object storage: directly, or through the proxy in HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as curl does."""

from __future__ import annotations

import base64
import http.client
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class StorageConnection:
    """A connection that is not open yet. Requests put `prefix` before the path and send `headers`. `proxy` is the
    proxy's URL, or None without one."""

    connection: http.client.HTTPConnection
    proxy: str | None = None
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def connection_to(scheme: str, netloc: str, timeout: float) -> StorageConnection:
    """Return a connection to a server. `timeout` in seconds. Raises OSError for a proxy that is not an HTTP proxy."""
    from urllib.request import getproxies, proxy_bypass  # 20 ms

    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    setting = None if proxy_bypass(netloc) else getproxies().get(scheme)
    if not setting:
        return StorageConnection(make(netloc, timeout=timeout))
    proxy = urlsplit(setting if "://" in setting else f"http://{setting}")
    url = f"{proxy.scheme}://{proxy.hostname}:{proxy.port or 80}"
    if proxy.scheme != "http" or not proxy.hostname:
        raise OSError(f"{url} is not an HTTP proxy")
    headers = {}
    if proxy.username is not None:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    connection = make(proxy.hostname, proxy.port or 80, timeout=timeout)
    if scheme == "http":
        return StorageConnection(connection, url, f"http://{netloc}", headers)
    server = urlsplit(f"//{netloc}")
    connection.set_tunnel(server.hostname or "", server.port or 443, headers)
    return StorageConnection(connection, url)
