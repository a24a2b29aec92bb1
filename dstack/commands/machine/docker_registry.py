"""The registry of an image, and the login for it."""

from __future__ import annotations

from msgspec import Struct

HUB = "docker.io"


class Login(Struct, frozen=True):
    """A registry login. `secret` is the name of the secret that holds the password."""

    username: str
    password: str
    secret: str = ""


def registry(image: str) -> str:
    """Return the registry of an image by Docker's rule: Docker Hub unless the name starts with a host."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else HUB


def named(image: str) -> bool:
    """Whether the image's name has a tag or a digest."""
    return ":" in image.rpartition("/")[2]
