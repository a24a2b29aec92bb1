"""What kept a job from starting, told apart by the words of Docker, of registries and of NVIDIA's tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from dstack.commands.doctor import gpus_fail
from dstack.model.runner import Finding


class Failure(Struct, frozen=True, kw_only=True):
    """`what` went wrong, for a sentence that ends with the words that said so; `hint` is what to type. `finding` is
    set where the machine itself is at fault, and other jobs would fail as well; `silent`: Docker did not
    answer, which may change."""

    what: str
    hint: str | None = None
    finding: Finding | None = None
    silent: bool = False


class Kind(Struct, frozen=True):
    """A failure that is known by its words. `what` and `hint` may hold {runner} and {image}."""

    words: str
    what: str
    hint: str


FULL = Kind(
    r"no space left on device|disk quota exceeded|not enough space",
    "the disk of {runner} is full",
    "see what fills it: dstack runners check {runner}; remove what is not needed: dstack prune",
)
SILENT = Kind(
    r"cannot connect to the docker daemon|is the docker daemon running|error during connect",
    "Docker on {runner} does not answer",
    "dstack runners check {runner}",
)
PULLING: tuple[Kind, ...] = (
    FULL,
    SILENT,
    Kind(
        r"toomanyrequests|rate limit|too many requests",
        "the registry limits how often it is asked",
        "try again later, or log in: give the workflow 'registry-auth'",
    ),
    Kind(
        r"manifest unknown|manifest for .* not found|name unknown|repository name not known|: not found",
        "the registry has no such image",
        "check 'image' in .dstack/workflows.yaml",
    ),
    Kind(
        r"no matching manifest for|image operating system .* cannot be used|no image found in .* for architecture",
        "the image is not made for machines like {runner}",
        "choose an image for the machine's architecture",
    ),
    Kind(
        r"x509|certificate|http response to https client",
        "{runner} does not trust the registry",
        "put its certificate into /etc/docker/certs.d on {runner}, or list it in insecure-registries",
    ),
    Kind(
        r"dial tcp|no such host|connection refused|no route to host|network is unreachable|i/o timeout"
        r"|tls handshake timeout|temporary failure|client\.timeout|connection reset|unexpected eof",
        "{runner} can't reach the registry",
        "try it there: docker pull {image}",
    ),
)
REFUSED = re.compile(
    r"unauthorized|denied|no basic auth|authentication required|incorrect username or password|\b40[13]\b"
)
DEVICES = re.compile(
    r"could not select device driver|nvidia-container|nvidia container|nvml|unresolvable cdi|driver rpc error"
    r"|no devices were found|unknown device|error gathering device information"
)
LAYERS = re.compile(
    r"^(docker: |Error response from daemon: |Error: |failed to create (shim|task)[a-z ]*: |OCI runtime create failed: "
    r"|runc create failed: |container_linux\.go:\d+: |starting container process caused: |process_linux\.go:\d+: "
    r"|unable to start container process: |container init caused: |error during container init: "
    r"|[Rr]unning hook #\d+:+ |error running hook #?\d*: |error running (prestart )?hook: "
    r"|exit status \d+, stdout: , stderr: )+"
)
ADVICE = re.compile(r"(: unknown)?[.]?( (Run|See) 'docker [a-z ]*--help'.*)?$")
STARTING: tuple[Kind, ...] = (
    FULL,
    SILENT,
    Kind(
        r'exec: "/bin/sh"|/bin/sh: no such file|executable file not found|exec format error',
        "the image {image} can't run /bin/sh",
        "choose an image that has it, for the machine's architecture",
    ),
    Kind(
        r"unable to find user|no matching entries in passwd|looking up user|unable to find group",
        "the image {image} does not know the user",
        "give 'user' as a number, or leave it out",
    ),
    Kind(
        r"no such image|image not known",
        "the image {image} was removed from {runner} meanwhile",
        "submit it again; it is pulled then",
    ),
)


def bare(words: str) -> str:
    """The words in one line, without those of the layers of Docker that passed them on."""
    return ADVICE.sub("", LAYERS.sub("", " ".join(words.split())))


def pulling(words: str, *, runner: str, image: str, username: str = "", secret: str = "") -> Failure:
    """Why an image could not be fetched. `username` and `secret` are those of the workflow's `registry-auth`."""
    found = _known(PULLING, words, runner, image)
    if found is None and REFUSED.search(words.lower()):
        return _refused(username, secret)
    return found or Failure(what="")


def starting(words: str, *, runner: str, image: str, gpus: Sequence[int] = ()) -> Failure:
    """Why Docker did not start the container."""
    if gpus and DEVICES.search(words.lower()):
        finding = gpus_fail(words)
        return Failure(what=f"the GPUs of {runner} can't be given to containers", hint=finding.fix, finding=finding)
    return _known(STARTING, words, runner, image) or Failure(what="")


def _refused(username: str, secret: str) -> Failure:
    if secret:
        what = f"the registry does not let '{username}' in with the secret {secret}"
        return Failure(what=what, hint=f"set the password anew: dstack secrets set {secret}")
    hint = "check 'image'; for a private one give the workflow 'registry-auth: {username: NAME, password: SECRET}'"
    return Failure(what="the registry wants a login, or has no such image", hint=hint)


def _known(kinds: Sequence[Kind], words: str, runner: str, image: str) -> Failure | None:
    said = words.lower()
    for kind in kinds:
        if re.search(kind.words, said):
            values = {"runner": runner, "image": image}
            what, hint = kind.what.format(**values), kind.hint.format(**values)
            return Failure(what=what, hint=hint, silent=kind is SILENT)
    return None
