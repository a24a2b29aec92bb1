"""Launches a job in one round trip: first everything that is safe to repeat, then the container."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from msgspec import convert
from msgspec.structs import replace

from dstack.commands.command import Command, Result, Stdin
from dstack.commands.job.receive_code import checkout_values
from dstack.model.job.execution import Launched, Order, origin
from dstack.model.paths import TAR_COMPLETE
from dstack.model.project.locations import cache_name
from dstack.model.runner.host_context import HostContext, folder_name
from dstack.render import quote, script, text

LAUNCHING = 75
"""The exit status of a launch that could not begin, because an earlier one of the same job goes on."""
PATIENCE = 60
"""Seconds for an earlier launch to end; then it is killed."""


def launch(context: HostContext, order: Order, artifacts: Stdin = b"", pack: bytes = b"") -> Command[Launched]:
    """Prepare the job's folder and start its container, unless it was started before. Safe to repeat at any point.
    Raises CommandError with Docker's message if the container can't be started: then there is none."""
    order = replace(order, pack=len(pack))
    environment = exports(order.environment)
    snapshot = order.snapshot
    body = script(
        "job/launch",
        context,
        order.attempt,
        order=order,
        mirror=context.layout.mirror(folder_name(snapshot.repo)),
        labels=(f"dstack.job={order.job}", f"dstack.server={context.layout.server}"),
        gpus=_gpus(context, order),
        limits=_limits(order),
        patience=PATIENCE,
        launching=LAUNCHING,
        caches=[(context.layout.cache(folder_name(snapshot.repo), cache_name(path)), path) for path in order.caches],
        entry=text("job/entry", project=snapshot.project),
        complete=TAR_COMPLETE,
        environment=environment,
        **checkout_values(snapshot, order.depth),
    )
    secret = (quote(environment),) if environment else ()
    return Command("launching the job", body, _launched, _behind(pack, artifacts), secret)


def _behind(pack: bytes, artifacts: Stdin) -> Stdin:
    if isinstance(artifacts, bytes):
        return pack + artifacts
    if not pack:
        return artifacts

    async def both() -> AsyncIterator[bytes]:
        yield pack
        async for data in artifacts():
            yield data

    return both


def exports(environment: Mapping[str, str | None]) -> str:
    """Return sh that sets and unsets the variables. Raises ValueError for an invalid name."""
    for name in environment:
        if not (name.isascii() and name.isidentifier()):
            raise ValueError(f"{name!r} is not a valid name for an environment variable")
    return "".join(
        f"unset {name}\n" if value is None else f"export {name}={quote(value)}\n" for name, value in environment.items()
    )


def _gpus(context: HostContext, order: Order) -> tuple[str, ...]:
    """Return the options that give a container its GPUs, and no others. The host adds the devices of AMD GPUs."""
    # If NVIDIA's runtime is Docker's default, an image can request all GPUs by itself.
    none = ("--env", "NVIDIA_VISIBLE_DEVICES=void")
    if order.nodes:
        seen = ",".join(str(number) for number in range(len(order.nodes)))
        return (*none, "--env", f"ROCR_VISIBLE_DEVICES={seen}", "--env", f"HIP_VISIBLE_DEVICES={seen}")
    if not order.gpus:
        return none
    if context.podman:
        return tuple(word for index in order.gpus for word in ("--device", f"nvidia.com/gpu={index}"))
    return ("--gpus", '"device={}"'.format(",".join(str(index) for index in order.gpus)))


def _limits(order: Order) -> tuple[str, ...]:
    """Return the options that limit CPUs and memory. No swap on top: a job that exceeds its memory is killed."""
    cpus = ("--cpus", f"{order.cpu:g}") if order.cpu else ()
    memory = ("--memory", str(order.memory), "--memory-swap", str(order.memory)) if order.memory else ()
    return (*cpus, *memory)


def _launched(result: Result) -> Launched:
    said = result.values()
    outcome = f"need-{said['need']}" if "need" in said else said.get("outcome")
    begun = outcome in ("started", "exists")
    fields = {
        "outcome": outcome,
        "origin": origin(said) if begun else None,
        "digest": said.get("digest") or None,
        "received": said.get("received") == "ok",
        "spare": "spare" in said,
        **{key: said.get(key, "").split() for key in ("commits", "trees", "histories")},
    }
    return convert(fields, Launched)
