"""Which registry an image comes from, and who may fetch it there."""

from __future__ import annotations

from msgspec import Struct

HUB = "docker.io"


class Login(Struct, frozen=True):
    """Who fetches an image."""

    username: str
    password: str


def registry(image: str) -> str:
    """The registry of an image, as Docker finds it in the name: Docker Hub unless the first part is a host's."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else HUB


def named(image: str) -> bool:
    """Whether the image's name says which of its versions is meant: it has a tag or a digest."""
    return ":" in image.rpartition("/")[2]
