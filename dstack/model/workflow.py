"""A workflow as its author wrote it in `.dstack/workflows.yaml`: the types, and with them the JSON Schema.

Decoding, its error messages and the schemas are made from these types alone (`decode.py`, `schema.py`): the
description of a type with a pattern completes the sentence "must be ...".
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dstack.model.quantities import SIZE, SPAN
from dstack.model.tag import is_tag

Text = Annotated[str, Meta(min_length=1, extra_json_schema={"x-scalar": True})]
"""Any single value, as its author wrote it: `1.15` stays `1.15`."""

Value = Annotated[str, Meta(extra_json_schema={"x-scalar": True})]
"""A text that may be empty."""

# In Python, `$` also fits before a final newline.
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$(?!\n)",
        max_length=100,
        description="letters, digits, '-' and '_', not beginning with '-'",
    ),
]
Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)",
        description="letters, digits and '_', not beginning with a digit",
    ),
]
User = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$(?!\n)",
        description="a uid, a name, or 'image' for the image's own user",
        extra_json_schema={"x-scalar": True},
    ),
]
Count = Annotated[int, Meta(ge=0, le=1024)]
Size = Annotated[
    str, Meta(pattern=SIZE, description="a size such as 16GB or 512MB", extra_json_schema={"x-scalar": True})
]
Cpus = Annotated[
    str,
    Meta(
        pattern=r"^(?!0+(\.0+)?$)[0-9]{1,4}(\.[0-9]{1,3})?$(?!\n)",
        description="a number of CPUs such as 4 or 0.5",
        extra_json_schema={"x-scalar": True},
    ),
]
Span = Annotated[
    str, Meta(pattern=SPAN, description="a time such as 30s, 5m or 1h30m", extra_json_schema={"x-scalar": True})
]
SignalName = Annotated[str, Meta(pattern=r"^(USR1|USR2|HUP|INT)$(?!\n)", description="USR1, USR2, HUP or INT")]
Cause = Annotated[
    str,
    Meta(
        pattern=r"^(lost|error|out-of-memory|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$(?!\n)",
        description="lost, error, out-of-memory, or an exit code from 1 to 255",
        extra_json_schema={"x-scalar": True},
    ),
]
Vendor = Annotated[str, Meta(pattern=r"^(nvidia|amd)$(?!\n)", description="nvidia or amd")]
Attempts = Annotated[int, Meta(ge=1, le=100)]
Priority = Annotated[int, Meta(ge=0, le=100)]


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """Base of what a project file holds: keys in kebab-case, none unknown."""


class Artifact(Definition, frozen=True, kw_only=True):
    """A file or folder that the workflow makes, relative to the folder that holds `.dstack`."""

    path: Annotated[Text, Meta(description="A file or folder inside the working directory")]
    optional: Annotated[bool, Meta(description="It may be missing")] = False
    sync: Annotated[
        Span | None, Meta(description="How often what changed is stored while the job runs, such as 5m; default: never")
    ] = None


class RepoDependency(Definition, frozen=True, kw_only=True):
    """The files of the repository that the workflow's result depends on."""

    include: Annotated[
        tuple[Text, ...],
        Meta(description="Files, folders and patterns (*, ?, [..], **), relative to the folder that holds .dstack"),
    ]


class DependsOn(Definition, frozen=True, kw_only=True):
    """What the result depends on. A part that is left out: all files, all variables, no workflow."""

    repo: RepoDependency | None = None
    config: Annotated[tuple[str, ...] | None, Meta(description="Names of the variables that change the result")] = None
    workflows: Annotated[
        tuple[str, ...],
        Meta(description="Names of the workflows whose artifacts it needs, and tags of runs, written :NAME"),
    ] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The workflows of this project that it needs: all but tags."""
        return tuple(name for name in self.workflows if not is_tag(name))


class GpuRequest(Definition, frozen=True, kw_only=True):
    """Which GPUs the workflow asks for."""

    count: Annotated[Count, Meta(description="How many GPUs")] = 1
    name: Annotated[Text | None, Meta(description="A part of the model's name, such as A100")] = None
    memory: Annotated[Size | None, Meta(description="The least memory of each, such as 40GB")] = None
    vendor: Annotated[Vendor | None, Meta(description="nvidia or amd; default: nvidia, unless a name is given")] = None


class Resources(Definition, frozen=True, kw_only=True):
    """What the workflow asks of a machine, and is held to."""

    cpu: Annotated[Cpus | None, Meta(description="CPUs, such as 4 or 0.5")] = None
    memory: Annotated[Size | None, Meta(description="Memory, such as 16GB; what takes more is killed")] = None
    shm_size: Annotated[Size | None, Meta(description="Size of /dev/shm; default: half of the machine's memory")] = None
    disk: Annotated[Size | None, Meta(description="Disk that must be free on the machine, such as 50GB")] = None
    gpu: Annotated[Count | GpuRequest, Meta(description="How many GPUs, or which")] = 0


class RegistryAuth(Definition, frozen=True, kw_only=True):
    """Who fetches the image from its registry."""

    username: Annotated[Text, Meta(description="The user's name there; $variables are replaced, $$ is a dollar sign")]
    password: Annotated[Identifier, Meta(description="The name of the secret with the password; dstack secrets set")]


class WarningSignal(Definition, frozen=True, kw_only=True):
    """A signal that tells the job that its time is nearly over."""

    name: Annotated[SignalName, Meta(description="USR1, USR2, HUP or INT")] = "USR1"
    before: Annotated[Span, Meta(description="How long before max-duration, such as 5m")]


class Retry(Definition, frozen=True, kw_only=True):
    """When the job is run again."""

    attempts: Annotated[Attempts, Meta(description="How often it is run at most, the first time included")]
    on: Annotated[
        tuple[Cause, ...], Meta(min_length=1, description="After what: lost, error, out-of-memory, or exit codes")
    ] = ("lost", "error")


class Workflow(Definition, frozen=True, kw_only=True):
    """One workflow of the project, as written: variables are not replaced yet."""

    name: Name
    image: Annotated[Text, Meta(description="The Docker image; $variables are replaced")]
    commands: Annotated[
        tuple[Text, ...], Meta(min_length=1, description="Run by one bash -e (sh where the image has no bash)")
    ]
    help: Annotated[str | None, Meta(description="Shown by dstack run --help")] = None
    depends_on: DependsOn = DependsOn()
    artifacts: Annotated[
        tuple[Artifact | Text, ...], Meta(description="Files and folders to keep, relative to the working directory")
    ] = ()
    env: Annotated[dict[Identifier, Value], Meta(description="Environment variables; $variables are replaced")] = {}
    cache: Annotated[
        tuple[Text, ...],
        Meta(description="Folders in the container that the runner keeps between jobs of this repository"),
    ] = ()
    user: User = "root"
    secrets: Annotated[
        tuple[Identifier, ...], Meta(description="Secrets that it gets in its environment; dstack secrets set NAME")
    ] = ()
    registry_auth: Annotated[
        RegistryAuth | None, Meta(description="Who fetches the image; default: whoever is logged in on the machine")
    ] = None
    resources: Resources = Resources()
    runners: Annotated[tuple[Text, ...], Meta(description="Names or labels of the runners that may run it")] = ()
    mounts: Annotated[
        tuple[Text, ...],
        Meta(description="Folders of the machine, SOURCE:TARGET or SOURCE:TARGET:ro; where its owner allows them"),
    ] = ()
    priority: Annotated[Priority, Meta(description="Higher ones go first, 0 to 100")] = 0
    preemptible: Annotated[
        bool, Meta(description="It gives way to jobs of higher priority: stopped, and queued again with its artifacts")
    ] = False
    max_duration: Annotated[Span | None, Meta(description="How long it may run, such as 6h; then it is stopped")] = None
    stop_grace: Annotated[Span, Meta(description="From SIGTERM to SIGKILL")] = "30s"
    signal: Annotated[WarningSignal | None, Meta(description="A signal before max-duration is over, to save")] = None
    retry: Annotated[Retry | None, Meta(description="When it is run again, and how often; default: never")] = None
    fetch_depth: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="How many commits of history the job has; 0: all of it")
    ] = 1

    @property
    def needed_secrets(self) -> tuple[str, ...]:
        """The secrets without which it can't start."""
        return self.secrets + ((self.registry_auth.password,) if self.registry_auth else ())

    @property
    def outputs(self) -> tuple[Artifact, ...]:
        """The artifacts in their long form."""
        return tuple(Artifact(path=a) if isinstance(a, str) else a for a in self.artifacts)


Values = dict[Identifier, Value | None]
"""Variables by name: the text that the user wrote, None for YAML's null. In the order of the file."""


class WorkflowsFile(Definition, frozen=True, kw_only=True):
    """`.dstack/workflows.yaml`."""

    workflows: Annotated[tuple[Workflow, ...], Meta(min_length=1)]


class ConfigsFile(Definition, frozen=True, kw_only=True):
    """`.dstack/configs.yaml`: variables by workflow; those under `global` belong to every workflow."""

    configs: dict[str, Values | None] | None


class Variables(Struct, frozen=True):
    """A workflow's variables with the command line's overrides applied."""

    shared: Values = {}
    own: Values = {}

    @property
    def all(self) -> Values:
        """Shared and own ones together; its own win."""
        return {**self.shared, **self.own}
