"""Checks across the parts of a project, beyond what their types check."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from dstack.errors import UsageError
from dstack.model.metrics.reader import MOST_SERIES
from dstack.model.project import environment, interpolation, locations
from dstack.model.project.checks import sweeps as sweep_checks
from dstack.model.project.graph import walk
from dstack.model.project.locations import artifact_trouble, cache_path, cache_trouble, overlap, pattern_trouble
from dstack.model.project.nodes import FieldPath, Report
from dstack.model.project.workflow import Artifact, GpuRequest, LongWait, Resources, Values, Workflow
from dstack.model.runner import mounts
from dstack.model.text import image_reference
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.tag import is_tag
from dstack.model.text.tag import trouble as tag_trouble
from dstack.model.text.units import LARGEST_SIZE, LONGEST_SPAN, is_size, is_span, lacks_unit, memory_bytes, span

LEAST_MEMORY = 6 * 1024**2
"""Docker refuses to start a container with fewer bytes of memory."""
GLOBAL = "global"
"""The section of the configs that applies to every workflow."""


def configs(report: Report, sections: Mapping[str, Values], names: Sequence[str]) -> None:
    """Check that every section names a workflow, and that no two variables differ only in case. `names` is empty if
    the workflows could not be read."""
    known = set(names)
    shared = {name.upper(): name for name in sections.get(GLOBAL, {})}
    for section, values in sections.items():
        where = FieldPath(("configs", section))
        if section != GLOBAL and names and section not in known:
            near = did_you_mean(section, [*names, GLOBAL])
            report.add(where, f"no workflow is named '{section}'{near}")
        seen: dict[str, str] = {}
        for name in values:
            other = seen.setdefault(name.upper(), shared.get(name.upper(), name) if section != GLOBAL else name)
            if other != name:
                report.add(where / name, f"'{other}' and '{name}' differ only in case; rename one")


def workflows(report: Report, found: Sequence[Workflow]) -> None:
    """Check everything about the workflows except their variables."""
    _names(report, found)
    _dependencies(report, found)
    for workflow, where in _fields(found):
        artifacts = [artifact.path for artifact in workflow.outputs]
        _each(report, where / "artifacts", artifacts, lambda path: artifact_trouble(path) or pattern_trouble(path))
        _overlap(report, where / "artifacts", "artifacts", artifacts)
        _each(report, where / "depends-on" / "repo" / "include", workflow.needs.include, locations.trouble)
        _each(report, where / "cache", workflow.cache, lambda p: None if p.startswith("$") else cache_trouble(p))
        _overlap(report, where / "cache", "caches", workflow.cache)
        for name in [name for name in workflow.env if name in environment.READONLY]:
            report.refuse(where / "env" / name, "can't be set because shells reserve the name; rename it")
        _signal(report, workflow, where)
        _sizes(report, workflow.resources, where / "resources")
        _durations(report, workflow, where)
        _mounts(report, workflow, where / "mounts")
        _metrics(report, workflow, where / "metrics")
        if workflow.sweep:
            sweep_checks.params(report, workflow.sweep, where / "sweep")
        if workflow.image and "$" not in workflow.image:
            report.refuse(where / "image", image_reference.trouble(workflow.image))


def variables(report: Report, found: Sequence[Workflow], shared: Values, own: Mapping[str, Values]) -> None:
    """Check that every variable a workflow uses is defined."""
    for workflow, where in _fields(found):
        values = ChainMap(own.get(workflow.name, {}), shared)
        names = ChainMap(*values.maps, dict.fromkeys(environment.RESERVED))
        config = where / "depends-on" / "config"
        for index, name in enumerate(workflow.needs.config or ()):
            if name and name not in values:
                report.add(config / index, f"unknown variable '{name}' in {config}{did_you_mean(name, values)}")
        if workflow.sweep:
            sweep_checks.variables(report, workflow.sweep, where / "sweep", values)
        for inner, text, early in _texts(workflow, where):
            for name in environment.PLACED - values.keys() if early else ():
                if interpolation.mentions(text, name):
                    words = f"'${name}' can't be used in {inner}: it has no value before the job has a runner"
                    report.add(inner, words)
            for trouble in interpolation.troubles(text, names, f" in {inner}"):
                report.add(inner, trouble)


def images(report: Report, found: Sequence[Workflow], shared: Values, own: Mapping[str, Values]) -> None:
    """Check the images that contain variables, with the values in the configs. A run may have others."""
    for workflow, where in _fields(found):
        values = {**shared, **own.get(workflow.name, {}), **dict.fromkeys(environment.RESERVED, "1")}
        with suppress(UsageError):  # a null variable, which a run must set
            report.refuse(where / "image", image_reference.trouble(interpolation.expand(workflow.image, values)))


def _fields(found: Sequence[Workflow]) -> Iterator[tuple[Workflow, FieldPath]]:
    for index, workflow in enumerate(found):
        yield workflow, FieldPath(("workflows", index)).named(f"workflow '{workflow.name}'")


def _names(report: Report, found: Sequence[Workflow]) -> None:
    first: dict[str, int] = {}
    for workflow, where in _fields(found):
        if not workflow.name:
            continue
        at = report.lines[(where / "name").path]
        if workflow.name == GLOBAL:
            report.add(at, f"a workflow can't be named '{GLOBAL}', which means all workflows in the configs; rename it")
        if workflow.name in first:
            earlier = first[workflow.name]
            report.add(at, f"two workflows are named '{workflow.name}'; rename this one or the one on line {earlier}")
        first.setdefault(workflow.name, at)


def _dependencies(report: Report, found: Sequence[Workflow]) -> None:
    edges: dict[str, tuple[str, ...]] = {}
    at: dict[tuple[str, str], FieldPath] = {}
    for workflow, where in _fields(found):
        edges.setdefault(workflow.name, workflow.needs.names)
        listed = where / "depends-on"
        if not isinstance(workflow.depends_on, tuple):
            listed /= "workflows"
        for index, needed in enumerate(workflow.needs.workflows):
            at.setdefault((workflow.name, needed), listed / index)
    for (name, needed), there in at.items():
        if is_tag(needed):
            if why := tag_trouble(needed):
                report.add(there, f"'depends-on.workflows' in workflow '{name}': {why}")
        elif needed and needed not in edges:
            near = did_you_mean(needed, edges)
            report.add(there, f"workflow '{name}' depends on unknown workflow '{needed}'{near}")
    for cycle in walk(edges, edges)[1]:
        there = at[cycle[0], cycle[1]]
        if len(cycle) == 2:
            report.add(there, f"workflow '{cycle[0]}' depends on itself; remove it from its own 'depends-on'")
        else:
            report.add(there, f"workflows depend on each other in a cycle: {' -> '.join(cycle)}; remove one dependency")


def _each(report: Report, where: FieldPath, texts: Sequence[str], trouble: Callable[[str], str | None]) -> None:
    """Check the entries of a list, except empty ones, which decoding has reported."""
    for index, text in enumerate(texts):
        if text:
            report.refuse(where / index, trouble(text))


def _overlap(report: Report, where: FieldPath, kind: str, paths: Sequence[str]) -> None:
    pair = overlap(paths)
    if pair:
        both = f"'{paths[pair[1]]}' and '{paths[pair[0]]}'"
        report.add(where / pair[0], f"{kind} {both} in {where.owner} overlap; keep only the outer one")


def _signal(report: Report, workflow: Workflow, where: FieldPath) -> None:
    """Check that `max-duration` is set and leaves time for the signal."""
    if workflow.signal is None:
        return
    before, limit = workflow.signal.before, workflow.max_duration
    if limit is None:
        report.refuse(where / "signal", "needs 'max-duration'; add it, or remove 'signal'")
    elif is_span(before) and is_span(limit) and span(before) >= span(limit):
        report.add(where / "signal", f"{where / 'signal' / 'before'} must be shorter than 'max-duration'")


def _sizes(report: Report, resources: Resources, where: FieldPath) -> None:
    """Check that every size has a unit (`memory: 16` would be 16 bytes), and that Docker accepts it."""
    sizes = {where / "memory": resources.memory, where / "shm-size": resources.shm_size, where / "disk": resources.disk}
    if isinstance(resources.gpu, GpuRequest):
        sizes[where / "gpu" / "memory"] = resources.gpu.memory
    for inner, size in sizes.items():
        if not size or not is_size(size):
            continue
        if lacks_unit(size):
            report.add(inner, f"{inner}: '{size}' has no unit; write a unit, such as {size}GB")
        elif memory_bytes(size) > LARGEST_SIZE:
            report.add(inner, f"{inner}: '{size}' is more than any machine has; write a smaller size, such as 16GB")
    memory = resources.memory or ""
    if is_size(memory) and not lacks_unit(memory) and 0 < memory_bytes(memory) < LEAST_MEMORY:
        inner = where / "memory"
        report.add(inner, f"{inner}: '{memory}' is less than Docker's minimum of 6 MB; write 6MB or more")


def _durations(report: Report, workflow: Workflow, where: FieldPath) -> None:
    """Check that every duration has a unit (`max-duration: 6` would be 6 seconds), and can be waited for."""
    for inner, text in _spans(workflow, where):
        if not text or not is_span(text):
            continue
        if lacks_unit(text):
            report.add(inner, f"{inner}: '{text}' has no unit; write a unit, such as {text}h, {text}m or {text}s")
        elif span(text) > LONGEST_SPAN:
            report.add(inner, f"{inner}: '{text}' is too long; write at most 3650d")
    limit = workflow.max_duration
    if limit and is_span(limit) and span(limit) == 0:
        report.refuse(where / "max-duration", "leaves no time to run; write a longer one, or remove it for no limit")


def _spans(workflow: Workflow, where: FieldPath) -> Iterator[tuple[FieldPath, str | None]]:
    """The durations of a workflow."""
    yield where / "max-duration", workflow.max_duration
    yield where / "stop-grace", workflow.stop_grace
    if workflow.signal:
        yield where / "signal" / "before", workflow.signal.before
    for index, artifact in enumerate(workflow.artifacts):
        if isinstance(artifact, Artifact):
            yield where / "artifacts" / index / "sync", artifact.sync
    for index, entry in enumerate(workflow.notify or ()):
        if isinstance(entry, LongWait):
            yield where / "notify" / index / "waiting", entry.waiting


def _mounts(report: Report, workflow: Workflow, where: FieldPath) -> None:
    """Check the mounts without variables. The others are checked on submission."""
    targets = {cache_path(path) for path in workflow.cache}
    for index, text in enumerate(workflow.mounts):
        if not text or "$" in text:
            continue
        try:
            target = mounts.parse(text).target
        except ValueError as trouble:
            report.refuse(where / index, str(trouble))
            continue
        if target in targets:
            report.refuse(where / index, f"has the target {target}, which another mount or cache uses")
        targets.add(target)


def _metrics(report: Report, workflow: Workflow, where: FieldPath) -> None:
    """Check that every expression can be used, and that there is one besides that of the step."""
    if not isinstance(workflow.metrics, dict):
        return
    from dstack.model.metrics.named import STEP, trouble  # most projects don't need the library

    if not workflow.metrics.keys() - {STEP}:
        report.refuse(where, "names no metric; add one, such as loss: 'loss=(\\S+)', or write metrics: auto")
    if len(workflow.metrics) > MOST_SERIES:
        report.refuse(where, f"has {len(workflow.metrics)} entries; it may have {MOST_SERIES}")
    for name, expression in workflow.metrics.items():
        if expression:
            report.refuse(where / name, trouble(expression))


def _texts(workflow: Workflow, where: FieldPath) -> Iterator[tuple[FieldPath, str, bool]]:
    """The texts whose variables are replaced, and whether that happens before the job has a runner."""
    yield where / "image", workflow.image, True
    if workflow.registry_auth:
        yield where / "registry-auth" / "username", workflow.registry_auth.username, True
    for name, text in workflow.env.items():
        yield where / "env" / name, text, False
    lists = {
        where / "artifacts": [artifact.path for artifact in workflow.outputs],
        where / "cache": workflow.cache,
        where / "mounts": workflow.mounts,
        where / "depends-on" / "repo" / "include": workflow.needs.include,
    }
    for place, texts in lists.items():
        for index, text in enumerate(texts):
            yield place / index, text, True
