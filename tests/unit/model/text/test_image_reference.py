"""Names of images: what Docker can't take is refused, and nothing else. `docker pull` gives the same verdict."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from dstack.model.text.image_reference import trouble
from tests.environment import needs

HEX = "0123456789abcdef" * 4

VALID = [
    "ubuntu",
    "ubuntu:22.04",
    "u",
    "1",
    "library/ubuntu",
    "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
    "docker.io/library/ubuntu",
    "nvcr.io/nvidia/pytorch:23.10-py3",
    "ghcr.io/a/b/c/d:latest",
    "localhost/box",
    "localhost:5000/box:1",
    "lab:5000/box",
    "lab:5000",
    "LAB/box",
    "Registry.Example.COM/team/box:V1",
    "10.0.0.9:5000/box",
    "[::1]/box",
    "[::1]:5000/box:1",
    "[2001:DB8::1]:5000/team/box",
    "a-b.example.org/x",
    "a__b/c--d",
    "a.b_c-d",
    "x/y---z",
    "box:A_b.c-d",
    f"box:{'t' * 128}",
    f"box@sha256:{HEX}",
    f"box:1@sha256:{HEX}",
    f"lab:5000/team/box:1@sha256:{HEX}",
    f"box@sha512:{HEX}{HEX}",
    f"sha256:{HEX}",
    "a" * 247,
    f"team/{'a' * 250}",
    "a_b.example/x",
    "example.org:65535/box",
    "example.org/deep/er/and/deep/er",
    "xn--e1afmkfd.example/box",
]

INVALID = [
    ("", "is empty; name a Docker image"),
    ("-x", "starts with '-': '-x'; write the name of a Docker image"),
    ("a b", "contains a space or a control character; remove it from 'a b'"),
    ("Lab/Py", "is 'Lab/Py', which can't be the name of an image: names are in lower case; write 'lab/py'"),
    ("Ubuntu", "names are in lower case; write 'ubuntu'"),
    ("lab:5000/Py:Tag", "names are in lower case; write 'lab:5000/py:tag'"),
    ("docker://x", "starts with 'docker://': 'docker://x'; write the image's name alone, such as x"),
    ("https://lab:5000/x", "write the image's name alone, such as lab:5000/x"),
    ("docker-archive://", "such as python:3.12"),
    ("a;b", "'a;b' must be lower-case letters and digits, with single '.', '_' or '-' between them"),
    ("a$b", "'a$b' must be lower-case letters and digits"),
    ("a..b", "'a..b' must be"),
    ("a___b", "'a___b' must be"),
    ("a.-b", "'a.-b' must be"),
    ("a-", "'a-' must be"),
    (".a", "'.a' must be"),
    ("_a/b", "'_a' must be"),
    ("é", "'é' must be"),
    ("/a", "its name begins or ends with '/', or has '//' in it"),
    ("a/", "its name begins or ends with '/', or has '//' in it"),
    ("a//b", "its name begins or ends with '/', or has '//' in it"),
    ("a/b/", "its name begins or ends with '/', or has '//' in it"),
    ("lab:5000/", "it has no name; write NAME, NAME:TAG or REGISTRY/NAME:TAG"),
    (":1", "it has no name"),
    (f"@sha256:{HEX}", "it has no name"),
    ("a:", "its tag is empty; remove ':'"),
    ("a:-1", "'-1' is not a tag; use letters, digits, '_', '.' and '-'"),
    ("a:b:c", "'b:c' is not a tag"),
    ("a:b/c", "'a:b' is not a registry; write a host name or an address, with its port after ':'"),
    (f"a:{'t' * 129}", "is not a tag"),
    ("a:$tag", "'$tag' is not a tag"),
    ("-a.example/x", "starts with '-'"),
    ("a-.example/x", "'a-.example' is not a registry"),
    ("a_b:5000/x", "'a_b:5000' is not a registry"),
    ("[::1/x", "'[::1' is not a registry"),
    ("[::1%25eth0]/x", "'[::1%25eth0]' is not a registry"),
    ("::1/x", "'::1' is not a registry"),
    ("./x", "'.' is not a registry"),
    ("../x", "'..' is not a registry"),
    ("a@b", "'b' is not a digest; write sha256: and 64 hexadecimal digits"),
    ("a@", "'' is not a digest"),
    ("a@sha256:abc", "a digest of sha256 has 64 digits, 0-9 and a-f"),
    (f"a@sha256:{HEX.upper()}", "a digest of sha256 has 64 digits, 0-9 and a-f"),
    (f"a@sha256:{HEX}0", "a digest of sha256 has 64 digits, 0-9 and a-f"),
    (f"a@md5:{HEX}", "Docker knows no digest 'md5'; write sha256: and 64 hexadecimal digits"),
    (f"a@sha256:{HEX}:1", "a digest of sha256"),
    ("b" * 248, "the name has 256 characters; it may have 255"),
    (f"lab:5000/{'b' * 256}", "the name has 256 characters; it may have 255"),
    ("a\\b", "must be"),
    ("a,b", "must be"),
    ("user@host/x", "'host/x' is not a digest"),
]


@pytest.mark.parametrize("image", VALID)
def test_what_docker_takes_is_valid(image: str) -> None:
    assert trouble(image) is None


@pytest.mark.parametrize(("image", "why"), INVALID)
def test_what_can_be_no_image_is_refused(image: str, why: str) -> None:
    assert why in (trouble(image) or "valid")


def test_docker_gives_the_same_verdict() -> None:
    """The client looks at the name before it connects to anything."""
    if not shutil.which("docker"):
        needs.missing("docker is not installed; install it: apt-get install docker.io")
    nobody = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    different = {}
    for image in [*VALID, *(image for image, _ in INVALID if image and not image.startswith("-"))]:
        done = subprocess.run(["docker", "pull", image], capture_output=True, text=True, env=nobody, check=False)
        taken = "Cannot connect to the Docker daemon" in done.stderr
        if taken is not (trouble(image) is None):
            different[image] = done.stderr

    assert different == {}
