"""Checks across the parts of a project, beyond what their types check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dstack.model.project import environment, interpolation, locations
from dstack.model.project.decode import FieldPath, Path
from dstack.model.project.graph import walk
from dstack.model.project.locations import artifact_trouble, cache_path, cache_trouble, overlap, pattern_trouble
from dstack.model.project.nodes import Report
from dstack.model.project.workflow import GpuRequest, Resources, Values, Workflow
from dstack.model.runner import mounts
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.tag import is_tag
from dstack.model.text.tag import trouble as tag_trouble
from dstack.model.text.units import lacks_unit, span

GLOBAL = "global"
"""The section of the configs that applies to every workflow."""

Lines = Mapping[Path, int]


def configs(report: Report, lines: Lines, sections: Mapping[str, Values], names: Sequence[str]) -> None:
    """Check that every section names a workflow, and that no two variables differ only in case. `names` is empty if
    the workflows could not be read."""
    shared = {name.upper(): name for name in sections.get(GLOBAL, {})}
    for section, values in sections.items():
        if section != GLOBAL and names and section not in names:
            near = did_you_mean(section, [*names, GLOBAL])
            report.add(lines["configs", section], f"no workflow is named '{section}'{near}")
        seen = {} if section == GLOBAL else dict(shared)
        for name in values:
            other = seen.setdefault(name.upper(), name)
            if other != name:
                report.add(lines["configs", section, name], f"'{other}' and '{name}' differ only in case; rename one")


def workflows(report: Report, lines: Lines, found: Sequence[Workflow]) -> None:
    """Check everything about the workflows except their variables."""
    _names(report, lines, found)
    _dependencies(report, lines, found)
    for workflow, where in _fields(found):
        _paths(report, lines, workflow, where)
        _caches(report, lines, workflow, where)
        for name in workflow.env:
            if name in environment.READONLY:
                inner = where / "env" / name
                report.add(lines[inner.path], f"{inner} can't be set because shells reserve the name; rename it")
        _signal(report, lines, workflow, where)
        _sizes(report, lines, workflow.resources, where / "resources")
        _mounts(report, lines, workflow, where)
        trouble = image_trouble(workflow.image)
        if workflow.image and trouble:
            inner = where / "image"
            report.add(lines[inner.path], f"{inner} {trouble}")


def variables(
    report: Report, lines: Lines, found: Sequence[Workflow], shared: Values, own: Mapping[str, Values]
) -> None:
    """Check that every variable a workflow uses is defined."""
    for workflow, where in _fields(found):
        values = {**shared, **own.get(workflow.name, {})}
        for index, name in enumerate(workflow.depends_on.config or ()):
            if name and name not in values:
                inner = where / "depends-on" / "config" / index
                near = did_you_mean(name, values)
                report.add(lines[inner.path], f"unknown variable '{name}' in {where / 'depends-on' / 'config'}{near}")
        for inner, text, early in _texts(workflow, where):
            names = {*values, *(environment.RESERVED - environment.PLACED if early else environment.RESERVED)}
            for name in environment.PLACED - names:
                if interpolation.mentions(text, name):
                    words = f"'${name}' can't be used in {inner}: it has no value before the job has a runner"
                    report.add(lines[inner.path], words)
            for trouble in interpolation.troubles(text, names | environment.PLACED, f" in {inner}"):
                report.add(lines[inner.path], trouble)


def _signal(report: Report, lines: Lines, workflow: Workflow, where: FieldPath) -> None:
    """Check that `max-duration` is set and leaves time for the signal."""
    if workflow.signal is None:
        return
    inner = where / "signal"
    if workflow.max_duration is None:
        report.add(lines[inner.path], f"{inner} needs 'max-duration'; add it, or remove 'signal'")
    elif span(workflow.signal.before) >= span(workflow.max_duration):
        report.add(lines[inner.path], f"{inner / 'before'} must be shorter than 'max-duration'")


def _sizes(report: Report, lines: Lines, resources: Resources, where: FieldPath) -> None:
    """Check that every size has a unit: `memory: 16` would be 16 bytes."""
    gpu = resources.gpu if isinstance(resources.gpu, GpuRequest) else GpuRequest()
    sizes = {
        where / "memory": resources.memory,
        where / "shm-size": resources.shm_size,
        where / "disk": resources.disk,
        where / "gpu" / "memory": gpu.memory,
    }
    for inner, size in sizes.items():
        if size and lacks_unit(size):
            report.add(lines[inner.path], f"{inner}: '{size}' has no unit; write a unit, such as {size}GB")


def _mounts(report: Report, lines: Lines, workflow: Workflow, where: FieldPath) -> None:
    """Check the mounts without variables. The others are checked on submission."""
    targets = {cache_path(path) for path in workflow.cache}
    for index, text in enumerate(workflow.mounts):
        inner = where / "mounts" / index
        if not text or "$" in text:
            continue
        try:
            target = mounts.parse(text).target
        except ValueError as trouble:
            report.add(lines[inner.path], f"{inner} {trouble}")
            continue
        if target in targets:
            report.add(lines[inner.path], f"{inner} has the target {target}, which another mount or cache uses")
        targets.add(target)


def image_trouble(image: str) -> str | None:
    """Why this is not a valid image name, as the end of a sentence; None if it is valid."""
    if not image:
        return "is empty; name a Docker image"
    if any(letter.isspace() or not letter.isprintable() for letter in image):
        return f"contains a space or a control character; remove it from '{image}'"
    if image.startswith("-"):
        return f"starts with '-': '{image}'; write the name of a Docker image"
    return None


def _fields(found: Sequence[Workflow]) -> Iterator[tuple[Workflow, FieldPath]]:
    for index, workflow in enumerate(found):
        yield workflow, FieldPath(("workflows", index)).named(f"workflow '{workflow.name}'")


def _names(report: Report, lines: Lines, found: Sequence[Workflow]) -> None:
    first: dict[str, int] = {}
    for workflow, where in _fields(found):
        if not workflow.name:
            continue
        at = lines[(where / "name").path]
        if workflow.name == GLOBAL:
            report.add(at, f"a workflow can't be named '{GLOBAL}', which means all workflows in the configs; rename it")
        if workflow.name in first:
            earlier = first[workflow.name]
            report.add(at, f"two workflows are named '{workflow.name}'; rename this one or the one on line {earlier}")
        first.setdefault(workflow.name, at)


def _dependencies(report: Report, lines: Lines, found: Sequence[Workflow]) -> None:
    edges: dict[str, tuple[str, ...]] = {}
    at: dict[tuple[str, str], int] = {}
    for workflow, where in _fields(found):
        edges.setdefault(workflow.name, workflow.depends_on.names)
        for index, needed in enumerate(workflow.depends_on.workflows):
            at.setdefault((workflow.name, needed), lines[(where / "depends-on" / "workflows" / index).path])
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


def _paths(report: Report, lines: Lines, workflow: Workflow, where: FieldPath) -> None:
    artifacts = [artifact.path for artifact in workflow.outputs]
    for index, path in enumerate(artifacts):
        inner = where / "artifacts" / index
        trouble = artifact_trouble(path) or pattern_trouble(path)
        if path and trouble:
            report.add(lines[inner.path], f"{inner} {trouble}")
    pair = overlap(artifacts)
    if pair:
        later, earlier = pair
        at = lines[(where / "artifacts" / later).path]
        words = f"artifacts '{artifacts[earlier]}' and '{artifacts[later]}' in workflow '{workflow.name}'"
        report.add(at, f"{words} overlap; keep only the outer one")
    repo = workflow.depends_on.repo
    for index, entry in enumerate(repo.include if repo else ()):
        inner = where / "depends-on" / "repo" / "include" / index
        trouble = locations.trouble(entry)
        if entry and trouble:
            report.add(lines[inner.path], f"{inner} {trouble}")


def _caches(report: Report, lines: Lines, workflow: Workflow, where: FieldPath) -> None:
    for index, path in enumerate(workflow.cache):
        inner = where / "cache" / index
        trouble = None if path.startswith("$") else cache_trouble(path)
        if path and trouble:
            report.add(lines[inner.path], f"{inner} {trouble}")
    pair = overlap(list(workflow.cache))
    if pair:
        later, earlier = pair
        words = f"caches '{workflow.cache[earlier]}' and '{workflow.cache[later]}' in workflow '{workflow.name}'"
        report.add(lines[(where / "cache" / later).path], f"{words} overlap; keep only the outer one")


def _texts(workflow: Workflow, where: FieldPath) -> Iterator[tuple[FieldPath, str, bool]]:
    """The texts whose variables are replaced, and whether that happens before the job has a runner."""
    yield where / "image", workflow.image, True
    for index, artifact in enumerate(workflow.outputs):
        yield where / "artifacts" / index, artifact.path, True
    for index, path in enumerate(workflow.cache):
        yield where / "cache" / index, path, True
    for index, mount in enumerate(workflow.mounts):
        yield where / "mounts" / index, mount, True
    for name, text in workflow.env.items():
        yield where / "env" / name, text, False
    if workflow.registry_auth:
        yield where / "registry-auth" / "username", workflow.registry_auth.username, True
    repo = workflow.depends_on.repo
    for index, entry in enumerate(repo.include if repo else ()):
        yield where / "depends-on" / "repo" / "include" / index, entry, True
