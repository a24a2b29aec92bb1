"""The progress of a pull from Docker's API, from its client and from podman."""

from __future__ import annotations

import base64
import json

import pytest

from dstack.commands.machine.pull import Login, PullProgress, named, pull
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from dstack.model.text.image_reference import registry

CONTEXT = HostContext(HostLayout("/root", "m", "s"))
LOGIN = Login("$oauthtoken", "it's ünï")

API = """HTTP/1.0 200 OK\r
Content-Type: application/json\r
\r
{"status":"Pulling from life/big","id":"1"}
{"status":"Already exists","progressDetail":{},"id":"f1480a81e77c"}
{"status":"Pulling fs layer","progressDetail":{},"id":"46e7b653f8ab"}
{"status":"Pulling fs layer","progressDetail":{},"id":"0f26ea8a1bba"}
{"status":"Downloading","progressDetail":{"current":513024,"total":50015447},"id":"0f26ea8a1bba"}
"""
REST = """{"status":"Downloading","progressDetail":{"current":19287040,"total":30009352},"id":"46e7b653f8ab"}
{"status":"Download complete","progressDetail":{},"id":"46e7b653f8ab"}
{"status":"Verifying Checksum","progressDetail":{},"id":"0f26ea8a1bba"}
{"status":"Extracting","progressDetail":{"current":65536,"total":50015447},"id":"0f26ea8a1bba"}
{"status":"Pull complete","progressDetail":{},"id":"0f26ea8a1bba"}
{"status":"Digest: sha256:afdb"}
{"status":"Status: Downloaded newer image for life/big:1"}
"""
CLIENT = """1: Pulling from life/big
f1480a81e77c: Already exists
46e7b653f8ab: Pulling fs layer
0f26ea8a1bba: Waiting
46e7b653f8ab: Verifying Checksum
46e7b653f8ab: Pull complete
"""
PODMAN = """Trying to pull 127.0.0.1:5000/life/none:1...
Getting image source signatures
Copying blob sha256:f1480a81e77cee5eeda4856f26c613d09f178a1d80987fc8f2f36cfb8f6c0fad
Copying blob 0f26ea8a1bba skipped: already exists
"""
MISSING = """HTTP/1.0 404 Not Found
Content-Length: 100

{"message":"manifest for life/big:2 not found: manifest unknown: manifest unknown"}"""


def heard(*pieces: str) -> PullProgress:
    progress = PullProgress()
    for piece in pieces:
        progress.feed(piece.encode())
    progress.end()
    return progress


def test_the_words_of_the_api_however_it_is_cut() -> None:
    every = [*API]

    assert heard(API).words == heard(*every).words == "1 of 3 layers, 513 kB so far"
    assert heard(API, REST[:106]).words == "1 of 3 layers, 19.8 MB of 80 MB"
    assert heard(API, REST).words == "2 of 3 layers unpacked, 80 MB downloaded"
    assert heard(API, REST).trouble == ""


def test_the_words_of_clients() -> None:
    assert heard(CLIENT).words == "2 of 3 layers"
    assert heard(PODMAN).words == "1 of 2 layers"
    assert heard("").words == ""
    assert heard(CLIENT, PODMAN).trouble == ""


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (MISSING, "manifest for life/big:2 not found: manifest unknown: manifest unknown"),
        (API + '{"errorDetail":{"message":"no space"},"error":"no space"}\n', "no space"),
        (CLIENT + "Error response from daemon: toomanyrequests: slow down\n", "toomanyrequests: slow down"),
        (PODMAN + "Error: initializing source: manifest unknown\n", "initializing source: manifest unknown"),
        ("Cannot connect to the Docker daemon", "Cannot connect to the Docker daemon"),
        ('{"cut', '{"cut'),
    ],
)
def test_what_went_wrong(said: str, trouble: str) -> None:
    assert heard(said).trouble == trouble


def test_a_login_is_in_the_script_and_in_no_message() -> None:
    command = pull(CONTEXT, "nvcr.io/nvidia/pytorch:24.01", LOGIN)
    header = command.secret[0]

    assert json.loads(base64.urlsafe_b64decode(header)) == {
        "username": "$oauthtoken",
        "password": "it's ünï",
        "serveraddress": "nvcr.io",
    }
    assert header in command.script
    assert header not in str(command)
    podman = pull(HostContext(CONTEXT.layout, "sudo -n podman"), "ubuntu", LOGIN)
    assert '"docker.io"' in podman.script
    assert '"auth"' not in str(podman)


@pytest.mark.parametrize(
    ("image", "host", "has"),
    [
        ("ubuntu", "docker.io", False),
        ("team/box:1", "docker.io", True),
        ("lab:5000/box", "lab:5000", False),
        ("lab:5000/box@sha256:0", "lab:5000", True),
        ("localhost/box:2", "localhost", True),
        ("ghcr.io/a/b", "ghcr.io", False),
        ("LAB/box", "LAB", False),
        ("[::1]:5000/box:1", "[::1]:5000", True),
    ],
)
def test_what_an_image_is_called(image: str, host: str, has: bool) -> None:
    assert (registry(image), named(image)) == (host, has)
