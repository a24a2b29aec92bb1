"""The way to object storage: straight, or through the proxy that the environment names, as for curl and Python itself
(HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""

from __future__ import annotations

import base64
import http.client
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Way:
    """A connection to be made. A request's path has `prefix` in front, and the request has `headers`; `name` is the
    proxy's, None where there is none."""

    connection: http.client.HTTPConnection
    name: str | None = None
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def way(scheme: str, netloc: str, timeout: float) -> Way:
    """To a server. `timeout` in seconds. Raises OSError for a proxy of a kind that dstack does not speak to."""
    from urllib.request import getproxies, proxy_bypass  # 20 ms

    make = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    named = None if proxy_bypass(netloc) else getproxies().get(scheme)
    if not named:
        return Way(make(netloc, timeout=timeout))
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    name = f"{proxy.scheme}://{proxy.hostname}:{proxy.port or 80}"
    if proxy.scheme != "http" or not proxy.hostname:
        raise OSError(f"{name} is no HTTP proxy")
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
