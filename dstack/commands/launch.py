"""Launching a job: everything that may be repeated, then the container, in one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, ValidationError, convert

from dstack.commands import answer
from dstack.commands.command import Command, Result, Stdin
from dstack.commands.place import Place, folder_name
from dstack.errors import CommandError
from dstack.model.job import Launch
from dstack.model.paths import TAR_COMPLETE, container
from dstack.render import quote, script, text

NAME = "launching the job"


class Order(Struct, frozen=True, kw_only=True):
    """What to launch.

    `commit`, `index` and `branch` are "" for none; `project` is the folder below the git root that commands start in,
    "" for the root itself; `user` is a uid, a name, or `image` for the image's own; `environment` maps names to
    values, None to unset one; `cpu` in CPUs, `memory` and the `shm` of /dev/shm in bytes, 0 for no limit (of /dev/shm:
    half of the machine's memory). With `artifacts`, a tar of the dependencies' files, with paths below `project`,
    comes on stdin, unless they were `gathered` on the host.
    """

    job: str
    attempt: str
    image: str
    repo: str
    commit: str = ""
    tree: str
    index: str = ""
    branch: str = ""
    object_format: str = "sha1"
    git: bool = True
    project: str = ""
    user: str = "root"
    gpus: tuple[int, ...] = ()
    cpu: float = 0
    memory: int = 0
    shm: int = 0
    script: str
    environment: dict[str, str | None] = {}
    artifacts: bool = False
    gathered: bool = False


class Launched(Struct, frozen=True):
    """`started`: it was begun now. `exists`: it was begun before, or has ended. `fenced`: it must not begin.
    `need-code`, `need-image`: nothing was done, for want of it.

    `launch` and `digest` (of the image: `name@sha256:...`, or its id where it never came from a registry) are there
    for the first two. `commits` and `trees` are, for need-code, what the host has to build a pack on.
    """

    outcome: Literal["started", "exists", "need-code", "need-image", "fenced"]
    launch: Launch | None = None
    digest: str | None = None
    commits: tuple[str, ...] = ()
    trees: tuple[str, ...] = ()


def launch(place: Place, order: Order, artifacts: Stdin = b"") -> Command[Launched]:
    """Prepare the job's folder and start its container, unless it was begun before. Safe to repeat at any point.

    Raises CommandError with Docker's own words where the container can't be started: then there is none.
    """
    environment = exports(order.environment)
    body = script(
        "launch",
        place,
        order=order,
        folder=place.layout.job(folder_name(order.attempt)),
        mirror=place.layout.mirror(folder_name(order.repo)),
        name=container(order.attempt),
        labels=(f"dstack.job={order.job}", f"dstack.server={place.layout.server}"),
        gpus=_gpus(place, order.gpus),
        limits=_limits(order),
        entry=entry(order.project),
        complete=TAR_COMPLETE,
        server=place.layout.server,
        environment=environment,
    )
    return Command(NAME, body, _launched, artifacts, secret=(quote(environment),) if environment else ())


def pull(place: Place, image: str) -> Command[None]:
    """Fetch the image from its registry. Takes as long as it takes. Raises CommandError with the registry's words."""
    name = f"pulling {image}"

    def pulled(result: Result) -> None:
        answer.lines(name, result)

    return Command(name, script("pull", place, image=image), pulled)


def entry(project: str) -> str:
    """The script that is the container's PID 1."""
    return text("entry", project=project)


def exports(environment: Mapping[str, str | None]) -> str:
    """sh that sets and unsets the variables. Raises ValueError for what is no name of a variable."""
    for name in environment:
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(f"{name!r} can't name an environment variable")
    return "".join(
        f"unset {name}\n" if value is None else f"export {name}={quote(value)}\n" for name, value in environment.items()
    )


def _gpus(place: Place, indexes: tuple[int, ...]) -> tuple[str, ...]:
    """The options that give a container these GPUs."""
    if not indexes:
        # An image may ask for all of them by itself, where NVIDIA's runtime is Docker's default one.
        return ("--env", "NVIDIA_VISIBLE_DEVICES=void")
    if place.podman:
        return tuple(word for index in indexes for word in ("--device", f"nvidia.com/gpu={index}"))
    return ("--gpus", '"device={}"'.format(",".join(str(index) for index in indexes)))


def _limits(order: Order) -> tuple[str, ...]:
    """The options that hold a container to its share. Without swap beyond its memory: what is too much is killed."""
    cpus = ("--cpus", f"{order.cpu:g}") if order.cpu else ()
    memory = ("--memory", str(order.memory), "--memory-swap", str(order.memory)) if order.memory else ()
    return (*cpus, *memory)


def _launched(result: Result) -> Launched:
    said = answer.values(NAME, result)
    outcome = f"need-{said['need']}" if "need" in said else said.get("outcome")
    begun = outcome in ("started", "exists")
    fields = {
        "outcome": outcome,
        "launch": Launch(said.get("boot", ""), said.get("docker", "")) if begun else None,
        "digest": said.get("digest") or None,
        "commits": tuple(said.get("commits", "").split()),
        "trees": tuple(said.get("trees", "").split()),
    }
    try:
        return convert(fields, Launched)
    except ValidationError as problem:
        raise CommandError(NAME, result.exit_status, f"the host's answer is not understood: {problem}") from problem
