"""A job's script, and its definition with the variables replaced."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model.project import locations
from dstack.model.project.checks import image_trouble
from dstack.model.project.environment import PLACED, replacements
from dstack.model.project.interpolation import expand, replace_config_args
from dstack.model.project.locations import artifact_trouble, cache_path, cache_trouble, normal, overlap
from dstack.model.project.variables import config_args
from dstack.model.project.workflow import Artifact, DependsOn, RegistryAuth, RepoDependency, Values, Variables, Workflow
from dstack.model.runner import mounts


def script(workflow: Workflow, variables: Variables, job_id: str, run_name: str) -> str:
    """Return the script that one `bash -e` runs: the commands in order, below a line that names the job."""
    args = config_args(variables.own)
    commands = [replace_config_args(command, args) for command in workflow.commands]
    title = f"# workflow {workflow.name}, job {job_id} of run {run_name}"
    # Without this, the warning signal would end the shell. Its child processes still get the signal.
    trap = [f"trap : {workflow.signal.name}"] if workflow.signal else []
    return "\n".join([title, *trap, *commands]) + "\n"


def expanded(workflow: Workflow, variables: Variables, reserved: Mapping[str, str]) -> Workflow:
    """Return the workflow with image, artifacts, mounts, cache and include expanded for one job, and paths in their
    shortest form.

    `reserved` needs `run_name` and `job_id`; the rest follows from them. `env` is checked but not expanded, because it
    may use values that depend on the job's runner; `environment.build` expands it later.
    Raises UsageError for a variable that is undefined or null, and for a value that makes an image or path invalid.
    """
    values = early_values(workflow, variables, reserved)
    late = {**values, **dict.fromkeys(PLACED, "")}
    for name, text in workflow.env.items():
        _expand(text, late, f"env.{name}", workflow)
    return replace(
        workflow,
        image=image(workflow, values),
        artifacts=_artifacts(workflow, values),
        mounts=_mounts(workflow, values),
        registry_auth=_registry_auth(workflow, values),
        depends_on=_depends_on(workflow, values),
        cache=_cache(workflow, values),
    )


def early_values(workflow: Workflow, variables: Variables, reserved: Mapping[str, str]) -> Values:
    """Return what `$x` stands for before the job has a runner. `reserved` has `run_name` and `job_id`."""
    known = {"config_args": config_args(variables.own), "DSTACK_WORKFLOW": workflow.name}
    for name in reserved.keys() & {"run_name", "job_id"}:
        known[f"DSTACK_{name.upper()}"] = reserved[name]
    return replacements(variables, {**known, **reserved})


def image(workflow: Workflow, values: Mapping[str, str | None]) -> str:
    """Return the image with its variables replaced. `values` come from `early_values`."""
    name = _expand(workflow.image, values, "image", workflow)
    trouble = image_trouble(name)
    if trouble:
        raise UsageError(f"'image' in workflow '{workflow.name}' {trouble}")
    return name


def include(workflow: Workflow, values: Mapping[str, str | None]) -> tuple[str, ...] | None:
    """Return the entries of `include` with their variables replaced; None for all files. `values` as for `image`."""
    repo = workflow.depends_on.repo
    if repo is None:
        return None
    entries = tuple(_expand(entry, values, "depends-on.repo.include", workflow) for entry in repo.include)
    for entry in entries:
        _refuse(locations.trouble(entry), "depends-on.repo.include", workflow)
    return entries


def _registry_auth(workflow: Workflow, values: Values) -> RegistryAuth | None:
    auth = workflow.registry_auth
    if auth is None:
        return None
    username = _expand(auth.username, values, "registry-auth.username", workflow)
    if not username or ":" in username or not username.isprintable():
        why = "is not a valid user name: it is empty, or contains ':' or a control character"
        _refuse(why, "registry-auth.username", workflow)
    return replace(auth, username=username)


def _artifacts(workflow: Workflow, values: Values) -> tuple[Artifact | str, ...]:
    paths = [_expand(artifact.path, values, "artifacts", workflow) for artifact in workflow.outputs]
    for path in paths:
        _refuse(artifact_trouble(path), "artifacts", workflow)
    pair = overlap(paths)
    if pair:
        _refuse(f"has overlapping paths: '{paths[pair[1]]}' and '{paths[pair[0]]}'", "artifacts", workflow)
    return tuple(
        normal(path) if isinstance(written, str) else replace(written, path=normal(path))
        for written, path in zip(workflow.artifacts, paths, strict=True)
    )


def _cache(workflow: Workflow, values: Values) -> tuple[str, ...]:
    paths = [_expand(path, values, "cache", workflow) for path in workflow.cache]
    for path in paths:
        _refuse(cache_trouble(path), "cache", workflow)
    pair = overlap(paths)
    if pair:
        _refuse(f"has overlapping paths: '{paths[pair[1]]}' and '{paths[pair[0]]}'", "cache", workflow)
    return tuple(map(cache_path, paths))


def _mounts(workflow: Workflow, values: Values) -> tuple[str, ...]:
    texts = tuple(_expand(text, values, "mounts", workflow) for text in workflow.mounts)
    try:
        found = [mounts.parse(text) for text in texts]
    except ValueError as trouble:
        _refuse(str(trouble), "mounts", workflow)
        raise
    caches = _cache(workflow, values)
    target = mounts.twice([*(each.target for each in found), *caches])
    _refuse(f"has the target {target}, which another mount or cache uses" if target else None, "mounts", workflow)
    return texts


def _depends_on(workflow: Workflow, values: Values) -> DependsOn:
    entries = include(workflow, values)
    repo = None if entries is None else RepoDependency(include=entries)
    return replace(workflow.depends_on, repo=repo)


def _expand(text: str, values: Mapping[str, str | None], key: str, workflow: Workflow) -> str:
    try:
        return expand(text, values)
    except UsageError as error:
        raise UsageError(f"'{key}' in workflow '{workflow.name}': {error.message}") from error


def _refuse(trouble: str | None, key: str, workflow: Workflow) -> None:
    if trouble:
        raise UsageError(f"'{key}' in workflow '{workflow.name}' {trouble}")
