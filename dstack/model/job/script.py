"""A job's script, and its definition with the variables replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model.project import locations
from dstack.model.project.environment import PLACED, build, check_sizes, replacements, reserved_values
from dstack.model.project.interpolation import expand, replace_config_args
from dstack.model.project.locations import artifact_trouble, cache_path, cache_trouble, normal, overlap
from dstack.model.project.variables import config_args
from dstack.model.project.workflow import RegistryAuth, Values, Variables, Workflow
from dstack.model.runner import mounts
from dstack.model.text import image_reference


def script(workflow: Workflow, variables: Variables, job_id: str, run_name: str) -> str:
    """Return the script that one `bash -e` runs: the commands in order, below a line that names the job."""
    args = config_args(variables.own)
    commands = [replace_config_args(command, args) for command in workflow.commands]
    title = f"# workflow {workflow.name}, job {job_id} of run {run_name}"
    # Without this, the warning signal would end the shell. Its child processes still get the signal.
    trap = [f"trap : {workflow.signal.name}"] if workflow.signal else []
    return "\n".join([title, *trap, *commands]) + "\n"


def expanded(workflow: Workflow, variables: Variables, job_id: str, run_name: str) -> Workflow:
    """Return the workflow with image, artifacts, mounts, cache and include expanded for one job, and paths in their
    shortest form.

    `env` is checked but not expanded, because it may use values that depend on the job's runner; `environment.build`
    expands it later.
    Raises UsageError for a variable that is undefined or null, and for a value that makes an image or path invalid.
    """
    args = config_args(variables.own)
    reserved = reserved_values(
        run=run_name, job=job_id, workflow=workflow.name, config_args=args, runner="", gpus=(), attempt=1
    )
    late = replacements(variables, reserved)
    texts = _Texts(workflow.name, {name: value for name, value in late.items() if name not in PLACED})
    for name, text in workflow.env.items():
        _Texts(workflow.name, late).expand(f"env.{name}", text)
    image = texts.valid("image", [workflow.image], image_reference.trouble)[0]
    paths = texts.paths("artifacts", [artifact.path for artifact in workflow.outputs], artifact_trouble)
    artifacts = tuple(
        normal(path) if isinstance(written, str) else replace(written, path=normal(path))
        for written, path in zip(workflow.artifacts, paths, strict=True)
    )
    caches = tuple(map(cache_path, texts.paths("cache", workflow.cache, cache_trouble)))
    repo = workflow.needs.repo
    include = texts.valid("depends-on.repo.include", workflow.needs.include, locations.trouble)
    return replace(
        workflow,
        image=image,
        artifacts=artifacts,
        mounts=_mounts(texts, workflow.mounts, caches),
        registry_auth=workflow.registry_auth and _registry_auth(texts, workflow.registry_auth),
        depends_on=replace(workflow.needs, repo=repo and replace(repo, include=include)),
        cache=caches,
    )


def check_environment(
    workflow: Workflow, variables: Variables, extra: Mapping[str, str], job_id: str, run_name: str
) -> None:
    """Raise UsageError if no program could start with the job's environment, its secrets apart."""
    args = config_args(variables.own)
    reserved = reserved_values(
        run=run_name, job=job_id, workflow=workflow.name, config_args=args, runner="", gpus=(), attempt=1
    )
    try:
        check_sizes(build(variables, workflow.env, extra, reserved))
    except UsageError as error:
        raise UsageError(f"workflow '{workflow.name}' can't run: {error.message}", hint=error.hint) from error


class _Texts(Struct, frozen=True):
    """Replaces the variables in a workflow's texts. Raises UsageError with the text's key."""

    workflow: str
    values: Values

    def expand(self, key: str, text: str) -> str:
        try:
            return expand(text, self.values)
        except UsageError as error:
            raise UsageError(f"'{key}' in workflow '{self.workflow}': {error.message}") from error

    def refuse(self, key: str, trouble: str | None) -> None:
        if trouble:
            raise UsageError(f"'{key}' in workflow '{self.workflow}' {trouble}")

    def valid(self, key: str, texts: Sequence[str], trouble: Callable[[str], str | None]) -> tuple[str, ...]:
        found = tuple(self.expand(key, text) for text in texts)
        for text in found:
            self.refuse(key, trouble(text))
        return found

    def paths(self, key: str, texts: Sequence[str], trouble: Callable[[str], str | None]) -> tuple[str, ...]:
        found = self.valid(key, texts, trouble)
        if pair := overlap(found):
            self.refuse(key, f"has overlapping paths: '{found[pair[1]]}' and '{found[pair[0]]}'")
        return found


def _registry_auth(texts: _Texts, auth: RegistryAuth) -> RegistryAuth:
    key = "registry-auth.username"
    username = texts.expand(key, auth.username)
    if not username or ":" in username or not username.isprintable():
        texts.refuse(key, "is not a valid user name: it is empty, or contains ':' or a control character")
    return replace(auth, username=username)


def _mounts(texts: _Texts, written: Sequence[str], caches: Sequence[str]) -> tuple[str, ...]:
    found = texts.valid("mounts", written, mounts.trouble)
    target = mounts.twice([*(mounts.parse(text).target for text in found), *caches])
    texts.refuse("mounts", target and f"has the target {target}, which another mount or cache uses")
    return found
