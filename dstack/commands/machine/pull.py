"""Pulls an image from its registry, and reads the progress."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from dstack.commands.command import Command, done
from dstack.model.job.status import Progress
from dstack.model.runner.host_context import HostContext
from dstack.model.text.image_reference import registry
from dstack.model.text.units import size_words
from dstack.model.text.untrusted import MESSAGE, NAME, clean_line
from dstack.render import quote, script

SAID = re.compile(
    r"[^:]+: Pulling from |Pulling from |Digest: |Status: |Using default tag|Trying to pull |Getting image source|"
    r"Copying config |Writing manifest|Storing signatures|[0-9a-f]{64}$"
)
"""Lines of Docker and podman that concern neither a layer nor an error."""
LAYER = re.compile(r"([0-9a-f]{12}): (.+)|Copying blob (?:sha256:)?([0-9a-f]{12})[0-9a-f]*(.*)")
FINISHED = ("Pull complete", "Already exists", "done", "skipped: already exists")
ARRIVED = ("Download complete", "Verifying Checksum", "Extracting", *FINISHED)
KEPT = 3
"""How many lines of an error to report."""
LINE = 64 * 1024
"""Bytes of a line that are read."""
LAYERS = 1000
"""More layers than an image can have."""
LARGEST = 10**15
"""The largest layer, in bytes, that is believed."""


class Login(Struct, frozen=True):
    """A registry login. `secret` is the name of the secret that holds the password."""

    username: str
    password: str
    secret: str = ""


def named(image: str) -> bool:
    """Whether the image's name has a tag or a digest."""
    return ":" in image.rpartition("/")[2]


def pull(context: HostContext, image: str, login: Login | None = None) -> Command[None]:
    """Pull the image. Run this with `stream`: it ends when its reader leaves. It prints what `Progress` reads, and has
    no time limit. The login is used only for this image, and is not stored on the host."""
    # With sudo, the script can't tell whether the user has logins of their own.
    api = not context.podman and (login is not None or context.words[0].rpartition("/")[2] != "sudo")
    header = _header(image, login) if login and api else ""
    config = _config(image, login) if login and not api else ""
    query = urlencode({"fromImage": image} if named(image) else {"fromImage": image, "tag": "latest"})
    body = script("machine/pull", context, image=image, api=api, header=header, config=config, query=query)
    secret = tuple(text for text in (header, quote(config) if config else "") if text)
    return Command(f"pulling {image}", body, done, secret=secret)


def _header(image: str, login: Login) -> str:
    """Return the login for Docker's API: URL-safe base64 of JSON."""
    given = {"username": login.username, "password": login.password, "serveraddress": registry(image)}
    return base64.urlsafe_b64encode(json.dumps(given).encode()).decode()


def _config(image: str, login: Login) -> str:
    """Return the login in the format of containers-auth.json(5)."""
    both = base64.b64encode(f"{login.username}:{login.password}".encode("utf-8", "surrogateescape")).decode()
    return json.dumps({"auths": {registry(image): {"auth": both}}})


@dataclass
class Layer:
    """A layer of an image: its size and how much of it was downloaded, in bytes; 0 for unknown."""

    total: int = 0
    came: int = 0
    arrived: bool = False
    finished: bool = False


@dataclass
class PullProgress:
    """Reads the output of a pull."""

    layers: dict[str, Layer] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    _cut: bytes = b""
    _head: bool = False

    def feed(self, data: bytes) -> None:
        """Read the next piece of the output."""
        *lines, cut = (self._cut + data).split(b"\n")
        self._cut = cut[:LINE]
        for line in lines:
            self._line(clean_line(line, LINE).strip())

    def end(self) -> None:
        """End the output."""
        self.feed(b"\n")

    @property
    def words(self) -> str:
        """The progress: `3 of 8 layers, 1.2 GB of 3.4 GB`; "" while nothing is known."""
        layers = self.layers.values()
        if not layers:
            return ""
        finished, came = sum(layer.finished for layer in layers), sum(layer.came for layer in layers)
        done = f"{finished} of {len(layers)} layers"
        if not came:
            return done if finished else f"{len(layers)} layers"
        total = sum(layer.total for layer in layers)
        if not all(layer.total or layer.arrived for layer in layers):
            return f"{done}, {size_words(came)} so far"
        if came < total:
            return f"{done}, {size_words(came)} of {size_words(total)}"
        return f"{done} unpacked, {size_words(total)} downloaded"

    @property
    def progress(self) -> Progress | None:
        """The bytes downloaded or, while their total is unknown or they are unpacked, the finished layers."""
        layers = self.layers.values()
        if not layers:
            return None
        came, total = sum(layer.came for layer in layers), sum(layer.total for layer in layers)
        if 0 < came < total and all(layer.total or layer.arrived for layer in layers):
            return Progress(came, total)
        return Progress(sum(layer.finished for layer in layers), len(layers), "layers")

    @property
    def trouble(self) -> str:
        """The error messages of the registry or Docker, in one line."""
        said = " ".join(dict.fromkeys(self.troubles))
        return said.removeprefix("Error response from daemon: ").removeprefix("Error: ")

    def _line(self, line: str) -> None:
        if line.startswith("HTTP/1."):
            self._head = True
        elif self._head:
            self._head = bool(line)
        elif line.startswith("{"):
            self._message(line)
        elif found := LAYER.fullmatch(line):
            self._layer(found[1] or found[3], (found[2] or found[4]).strip(), {})
        elif line and not SAID.match(line):
            self._complain(line)

    def _message(self, line: str) -> None:
        """Read one of the API's messages."""
        try:
            said: dict[str, Any] = json.loads(line)
        except (ValueError, RecursionError):
            self._complain(line)
            return
        trouble = said.get("error") or said.get("message")
        if trouble:
            self._complain(trouble if isinstance(trouble, str) else line)
        elif "progressDetail" in said and "id" in said:
            detail = said["progressDetail"]
            self._layer(str(said["id"])[:NAME], str(said.get("status", "")), detail if isinstance(detail, dict) else {})

    def _complain(self, words: str) -> None:
        self.troubles = [*self.troubles, clean_line(words, MESSAGE)][-KEPT:]

    def _layer(self, name: str, status: str, detail: dict[str, Any]) -> None:
        if name not in self.layers and len(self.layers) >= LAYERS:
            return
        layer = self.layers.setdefault(name, Layer())
        if status == "Downloading":
            layer.total = max(layer.total, _bytes(detail.get("total")))
            layer.came = _bytes(detail.get("current"))
        layer.arrived = layer.arrived or status in ARRIVED
        layer.finished = layer.finished or status in FINISHED
        if layer.arrived:
            layer.came = layer.total


def _bytes(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= LARGEST else 0
