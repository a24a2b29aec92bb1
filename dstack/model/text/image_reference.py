"""The names of Docker images, by the grammar of distribution/reference, which Docker and podman share."""

from __future__ import annotations

import re

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
ALGORITHM = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*")
DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}
"""How many hexadecimal digits a digest has."""
LONGEST = 255
"""Characters of a name without its registry, but with Docker Hub's `library/`."""
HUB = "docker.io"


def registry(image: str) -> str:
    """Return the registry of an image: Docker Hub unless the name starts with a host, by Docker's rule."""
    first, slash, _ = image.partition("/")
    named = slash and (set(first) & set(".:") or first == "localhost" or first != first.lower())
    return first if named else HUB


def trouble(image: str) -> str | None:
    """Why no image can have this name, as the end of a sentence; None if it is valid."""
    if not image:
        return "is empty; name a Docker image"
    if any(letter.isspace() or not letter.isprintable() for letter in image):
        return f"contains a space or a control character; remove it from '{image}'"
    if image.startswith("-"):
        return f"starts with '-': '{image}'; write the name of a Docker image"
    scheme, found, rest = image.partition("://")
    if found:
        return f"starts with '{scheme}://': '{image}'; write the image's name alone, such as {rest or 'python:3.12'}"
    why = _trouble(image)
    return why and f"is '{image}', which can't be the name of an image: {why}"


def _trouble(image: str) -> str | None:
    named, at, digest = image.partition("@")
    host = registry(named)
    path = named.removeprefix(f"{host}/")
    path, colon, tag = path.partition(":")
    if host != HUB and not REGISTRY.fullmatch(host) and not PART.fullmatch(host):
        return f"'{host}' is not a registry; write a host name or an address, with its port after ':'"
    if not path:
        return "it has no name; write NAME, NAME:TAG or REGISTRY/NAME:TAG"
    if why := next(filter(None, map(_part_trouble, path.split("/"))), None):
        lower = named.lower()
        return f"names are in lower case; write '{lower}'" if named != lower and not _trouble(lower) else why
    full = f"library/{path}" if host == HUB and "/" not in path else path
    if len(full) > LONGEST:
        return f"the name has {len(full)} characters; it may have {LONGEST}"
    if colon and not TAG.fullmatch(tag):
        return f"'{tag}' is not a tag; use letters, digits, '_', '.' and '-'" if tag else "its tag is empty; remove ':'"
    return _digest_trouble(digest) if at else None


def _part_trouble(part: str) -> str | None:
    if PART.fullmatch(part):
        return None
    if not part:
        return "its name begins or ends with '/', or has '//' in it"
    return f"'{part}' must be lower-case letters and digits, with single '.', '_' or '-' between them"


def _digest_trouble(digest: str) -> str | None:
    algorithm, colon, text = digest.partition(":")
    if not colon or not ALGORITHM.fullmatch(algorithm):
        return f"'{digest}' is not a digest; write sha256: and 64 hexadecimal digits"
    count = DIGITS.get(algorithm)
    if count is None:
        return f"Docker knows no digest '{algorithm}'; write sha256: and 64 hexadecimal digits"
    if re.fullmatch(f"[0-9a-f]{{{count}}}", text):
        return None
    return f"a digest of {algorithm} has {count} digits, 0-9 and a-f"
