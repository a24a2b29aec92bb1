"""A runner as users see it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import convert
from msgspec.structs import replace

from dstack.engine.fleet.condition import Condition
from dstack.model.api.runners import AddRunner, OrphanView, RunnerView
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.runner.metrics import Use
from dstack.model.runner.runner import Facts, Runner
from dstack.scheduling.capacity import Capacity
from dstack.scheduling.types import Lease, Machine

NO_GPUS = {"gpu-toolkit": ReasonCode.NO_CONTAINER_TOOLKIT, "gpu-driver": ReasonCode.GPU_DRIVER}
"""Findings that keep jobs from the runner's GPUs."""


def runner_view(
    runner: Runner,
    condition: Condition,
    jobs: Sequence[Job],
    *,
    idle: str | None,
    use: Use | None,
    orphans: list[OrphanView],
    same_machine: list[str],
) -> RunnerView:
    """Return the view. `jobs` are the unfinished ones on its machine; `idle` says why it gets no new ones."""
    facts = runner.facts or Facts(machine="")
    machine = Machine(runner, foreign=facts.used, gpu_trouble=gpu_trouble(runner))
    leases = [Lease(job.id, job.runner or "", job.run, gpus=job.gpus) for job in jobs]
    drained = condition.state == "ready" and idle is not None
    address = replace(runner.address, identity=None) if runner.authorized else runner.address
    again = replace(convert(runner, AddRunner, from_attributes=True), address=address)
    return RunnerView(
        name=runner.name,
        address=str(runner.address),
        state="drained" if drained else condition.state,
        reason=idle if drained else condition.reason,
        fix=condition.fix,
        labels=list(runner.labels),
        cpus=facts.cpus,
        memory=facts.memory,
        gpus=list({gpu.index: gpu for gpu in (*machine.gpus, *facts.gpus)}.values()),
        disk_free=facts.disk_free,
        jobs=[job.id for job in jobs if job.runner == runner.name],
        gpus_free=len(Capacity(machine, 0, leases).free),
        latency_ms=round(condition.latency * 1000, 1) if condition.latency is not None else None,
        host_key=runner.host_key,
        findings=list(condition.findings),
        drained=runner.drained,
        definition=again,
        use=use,
        allow_mounts=list(runner.allow_mounts),
        orphans=orphans,
        same_machine=same_machine,
    )


def gpu_trouble(runner: Runner) -> Reason | None:
    """Why no job gets the runner's GPUs, if it has any."""
    findings = [found for found in (runner.facts.findings if runner.facts else ()) if found.name in NO_GPUS]
    return Reason(NO_GPUS[findings[0].name], f"{findings[0].what}; {findings[0].fix}") if findings else None
