"""Reads stored files: straight from object storage if possible, else through the server."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from dstack import __version__
from dstack.client.client import Client
from dstack.client.connection import BrokenAnswerError
from dstack.errors import DstackError, ErrorCode, NotFoundError
from dstack.model.api.artifacts import ArtifactView

BLOCK = 1 << 18
BATCH = 1000
"""How many URLs are requested at once."""
CONNECT = 10.0
"""Seconds to wait for a connection to object storage before the server is used instead."""
SILENCE = 60.0
"""Seconds without a byte after which a connection counts as broken."""
OK, PARTIAL, GONE, WHO, TROUBLE = 200, 206, 404, 407, 500


@dataclass(frozen=True)
class StorageConnection:
    """A connection that is not open yet. Requests put `prefix` before the path and send `headers`. `proxy` is the
    proxy's URL, or None without one."""

    connection: http.client.HTTPConnection
    proxy: str | None = None
    prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def connection_to(scheme: str, netloc: str, timeout: float) -> StorageConnection:
    """Return a connection to object storage: direct, or through the proxy in HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as
    curl does. `timeout` in seconds. Raises OSError for a proxy that is not an HTTP proxy."""
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


class UnreachableError(DstackError):
    """Object storage can't be reached from this machine."""

    code = ErrorCode.DOWNLOAD


class RefusedError(DstackError):
    """Object storage refused the file: the URL has expired, or the file no longer exists."""

    code = ErrorCode.DOWNLOAD

    def __init__(self, status: int) -> None:
        super().__init__(f"the storage refused the download with status {status}")
        self.status = status


class ArtifactSources:
    """Reads the files of one download. Thread-safe; each thread keeps its own connection."""

    def __init__(self, client: Client, views: Sequence[ArtifactView], warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._client = client
        self._views = [view for view in views if view.link is None]
        self._at = {(view.job, view.path): index for index, view in enumerate(self._views)}
        self._urls: dict[tuple[str, str], str] = {}
        self._asking = threading.Lock()
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._straight = True
        self._reached = False

    def close(self) -> None:
        """Close the connections to object storage."""
        for connection in self._opened:
            connection.close()

    def read(self, view: ArtifactView, offset: int) -> Iterator[bytes]:
        """Yield the file's bytes from `offset` on. Raises BrokenAnswerError if the connection breaks."""
        for again in (False, True):
            url = self._url(view)
            if url is None:
                break
            try:
                yield from self._get(url, offset, view.size - offset)
                return
            except RefusedError as error:
                self._forget(view, url)
                if again and error.status != GONE:
                    self._give_up(error)
            except UnreachableError as error:
                if self._reached:
                    raise BrokenAnswerError(error.message, hint=error.hint) from error
                self._give_up(error)
        yield from self._client.artifact(view.job, view.path, offset)

    def _url(self, view: ArtifactView) -> str | None:
        """Return the file's URL, or None if the storage gives none. Requests the URLs of the files after it, too."""
        name = (view.job, view.path)
        with self._asking:
            if self._straight and name not in self._urls:
                at = self._at[name]
                batch = [each for each in self._views[at : at + BATCH] if each.job == view.job]
                try:
                    made = self._client.artifact_urls(view.job, [each.path for each in batch]).urls
                except NotFoundError:  # an older server has no such route
                    made = []
                self._straight = bool(made)
                self._urls.update(zip([(each.job, each.path) for each in batch], made, strict=False))
            return self._urls.get(name) if self._straight else None

    def _forget(self, view: ArtifactView, url: str) -> None:
        with self._asking:
            if self._urls.get((view.job, view.path)) == url:
                self._urls.clear()  # URLs that were requested together expire together

    def _give_up(self, error: DstackError) -> None:
        with self._asking:
            if self._straight:
                self._straight = False
                self._warn(f"{error.message}; downloading through the server instead")

    def _get(self, url: str, offset: int, left: int) -> Iterator[bytes]:
        """Yield the `left` bytes from `offset` on. Closes the connection if the response was not read to its end."""
        response, connection = self._answer(url, {"Range": f"bytes={offset}-"} if offset else {})
        try:
            if response.status >= TROUBLE:
                raise BrokenAnswerError(f"the storage answered with status {response.status}")
            if response.status not in (OK, PARTIAL):
                raise RefusedError(response.status)
            # Some stores ignore Range and send the whole file; one sends the part with status 200.
            skip = max(0, (response.length or left) - left)
            while block := response.read(BLOCK):
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))
        except (OSError, http.client.HTTPException) as error:
            raise BrokenAnswerError(f"the connection to the storage broke: {error}") from error
        finally:
            if not response.isclosed():
                connection.close()

    def _answer(self, url: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Send the request over the thread's connection. If that was closed meanwhile, try once more with a new one."""
        address = urlsplit(url)
        for fresh in (False, True):
            storage = self._connected(address.scheme, address.netloc, fresh=fresh)
            connection = storage.connection
            sent = {"Host": address.netloc, "User-Agent": f"dstack/{__version__}", **storage.headers, **headers}
            try:
                connection.request("GET", f"{storage.prefix}{address.path}?{address.query}", headers=sent)
                response = connection.getresponse()
                if response.status == WHO and storage.proxy:
                    connection.close()
                    raise UnreachableError(f"the proxy {storage.proxy} requires a user name and password")
                return response, connection
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                broken = error
        raise BrokenAnswerError(f"the connection to the storage broke: {broken}") from broken

    def _connected(self, scheme: str, netloc: str, *, fresh: bool) -> StorageConnection:
        kept: StorageConnection | None = getattr(self._local, "storage", None)
        if kept is not None and kept.connection.sock is not None and not fresh:
            return kept
        storage, through = None, ""
        try:
            storage = connection_to(scheme, netloc, CONNECT)
            through = f" through the proxy {storage.proxy}" if storage.proxy else ""
            storage.connection.connect()
        except (OSError, ValueError, http.client.HTTPException) as error:
            if storage is not None:
                storage.connection.close()
            message = f"the storage at {netloc} can't be reached from this machine{through}: {error}"
            raise UnreachableError(message) from error
        storage.connection.sock.settimeout(SILENCE)
        with self._asking:
            self._reached = True
            self._opened.append(storage.connection)
        self._local.storage = storage
        return storage
