"""A workflow as written in `.dstack/workflows.yaml`: the types that decoding, error messages and JSON Schemas share.

`description` is what editors show. `x-expected` is for errors: it completes the sentence "'VALUE' is not ...".
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from dstack.model.metrics.values import NAME as NAME_OF_METRIC
from dstack.model.text.tag import is_tag
from dstack.model.text.units import SIZE, SPAN


def _about(description: str) -> Meta:
    return Meta(description=description)


def _form(pattern: str, expected: str, *, scalar: bool = True, max_length: int | None = None) -> Meta:
    """Text that must match a pattern. In Python, `$` also matches before a final newline; `(?!\\n)` prevents that."""
    extra = {"x-expected": expected} | ({"x-scalar": True} if scalar else {})
    return Meta(pattern=pattern, max_length=max_length, extra_json_schema=extra)


NAME = "a valid workflow name; use letters, digits, '-' and '_', and don't start with '-'"
IDENTIFIER = "a valid name; use letters, digits and '_', and don't start with a digit"
USER = "a valid user; write a uid, a user name, or 'image' for the image's own user"
CPUS = "a number of CPUs; write a number such as 4 or 0.5"
CAUSE = "a cause for a retry; write lost, error, out-of-memory, or an exit code from 1 to 255"
CAUSES = r"^(lost|error|out-of-memory|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$(?!\n)"
NUMBERS = r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$(?!\n)"
METRIC = "a valid metric name; use up to 100 letters, digits and _ . / @ -, and don't start with a digit"
OUTCOME = "a reason for a message; write done, failed, stopped, lost, or {waiting: 1h}"
BRANCH = "a valid branch name (git-check-ref-format); write it as in: git switch BRANCH"
OVERLAP = "a rule; write skip, queue, replace or allow"
CODE = "a kind of code; write snapshot, or {branch: NAME}"
MISSED = "a rule; write last, skip or all"
SIGNAL = "a supported signal; write USR1, USR2, HUP or INT"

Text = Annotated[str, Meta(min_length=1, extra_json_schema={"x-scalar": True})]
"""Any single value, as its author wrote it: `1.15` stays `1.15`."""
Texts = tuple[Text, ...]
Value = Annotated[str, Meta(extra_json_schema={"x-scalar": True})]
"""Text that may be empty."""
Name = Annotated[str, _form(r"^[A-Za-z0-9_][A-Za-z0-9_-]*$(?!\n)", NAME, scalar=False, max_length=100)]
Identifier = Annotated[str, _form(r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)", IDENTIFIER, scalar=False)]
User = Annotated[str, _form(r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$(?!\n)", USER)]
Count = Annotated[int, Meta(ge=0, le=1024)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Runs = Annotated[int, Meta(ge=1, le=10_000)]
Seed = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Size = Annotated[str, _form(SIZE, "a size; write 512MB, 16GB or 1TB")]
Cpus = Annotated[str, _form(r"^(?!0+(\.0+)?$)[0-9]{1,4}(\.[0-9]{1,3})?$(?!\n)", CPUS)]
Span = Annotated[str, _form(SPAN, "a duration; write 30s, 10m, 1h30m or 2d")]
SignalName = Annotated[str, _form(r"^(USR1|USR2|HUP|INT)$(?!\n)", SIGNAL, scalar=False)]
Cause = Annotated[str, _form(CAUSES, CAUSE)]
Number = Annotated[str, _form(NUMBERS, "a number; write 8, 0.5 or 1e-5", max_length=40)]
Scale = Annotated[str, _form(r"^(linear|log)$(?!\n)", "a scale; write linear or log", scalar=False)]
Method = Annotated[str, _form(r"^(grid|random|tpe)$(?!\n)", "a method; write grid, random or tpe", scalar=False)]
Goal = Annotated[str, _form(r"^(minimize|maximize)$(?!\n)", "a goal; write minimize or maximize", scalar=False)]
Which = Annotated[str, _form(r"^(last|min|max|best)$(?!\n)", "a value; write last, min, max or best", scalar=False)]
StopRule = Annotated[str, _form(r"^(median|asha)$(?!\n)", "a rule; write median or asha", scalar=False)]
Auto = Annotated[str, _form(r"^auto$(?!\n)", "a way to read metrics; write auto, or a map", scalar=False)]
MetricName = Annotated[str, _form(NAME_OF_METRIC, METRIC, scalar=False)]
Outcome = Annotated[str, _form(r"^(done|failed|stopped|lost)$(?!\n)", OUTCOME, scalar=False)]
Branch = Annotated[str, _form(r"^(?![-/.])(?!.*(\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]{1,255}(?<![/.])$(?!\n)", BRANCH)]
Overlap = Annotated[str, _form(r"^(skip|queue|replace|allow)$(?!\n)", OVERLAP, scalar=False)]
Missed = Annotated[str, _form(r"^(last|skip|all)$(?!\n)", MISSED, scalar=False)]
Vendor = Annotated[str, _form(r"^(nvidia|amd)$(?!\n)", "a supported GPU vendor; write nvidia or amd", scalar=False)]


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """Base of everything in a project file: keys in kebab-case, unknown keys refused."""


class Artifact(Definition, frozen=True, kw_only=True):
    """A file or folder that the workflow produces, relative to the folder that holds `.dstack`."""

    path: Annotated[Text, _about("A file or folder inside the working directory; $variables are replaced")]
    optional: Annotated[bool, _about("If true, the job succeeds even when this is missing")] = False
    sync: Annotated[
        Span | None, _about("How often to store changes while the job runs, such as 5m; default: never")
    ] = None


class RepoDependency(Definition, frozen=True, kw_only=True):
    """The files of the repository that the workflow's result depends on."""

    include: Annotated[
        Texts, _about("Files, folders and patterns (*, ?, [..], **), relative to the folder that holds .dstack")
    ]


class DependsOn(Definition, frozen=True, kw_only=True):
    """What the result depends on. A key left out has its default: all files, all variables, no workflows."""

    repo: RepoDependency | None = None
    config: Annotated[tuple[str, ...] | None, _about("Names of the variables that change the result")] = None
    workflows: Annotated[
        tuple[str, ...], _about("Workflows whose artifacts this one needs, by name; or tags of runs, written :NAME")
    ] = ()

    @property
    def include(self) -> Texts:
        """What `repo` includes; empty for all files."""
        return self.repo.include if self.repo else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The workflows of this project that it needs, without the tags."""
        return tuple(name for name in self.workflows if not is_tag(name))


class GpuRequest(Definition, frozen=True, kw_only=True):
    """Which GPUs the workflow needs."""

    count: Annotated[Count, _about("Number of GPUs")] = 1
    name: Annotated[Text | None, _about("Part of the model name, such as A100")] = None
    memory: Annotated[Size | None, _about("Minimum memory per GPU, such as 40GB")] = None
    vendor: Annotated[Vendor | None, _about("nvidia or amd; default: nvidia, unless a name is given")] = None


class Resources(Definition, frozen=True, kw_only=True):
    """What the workflow needs from a runner. CPU and memory are also its limits."""

    cpu: Annotated[Cpus | None, _about("Number of CPUs, such as 4 or 0.5")] = None
    memory: Annotated[Size | None, _about("Memory, such as 16GB; a job that uses more is killed")] = None
    shm_size: Annotated[Size | None, _about("Size of /dev/shm; default: half of the runner's memory")] = None
    disk: Annotated[Size | None, _about("Free disk space required on the runner, such as 50GB")] = None
    gpu: Annotated[Count | GpuRequest, _about("Number of GPUs, or a map that says which kind")] = 0


class RegistryAuth(Definition, frozen=True, kw_only=True):
    """The login for the image's registry."""

    username: Annotated[Text, _about("User name at the registry; $variables are replaced, $$ is a dollar sign")]
    password: Annotated[
        Identifier, _about("Name of the secret that holds the password; set it with: dstack secrets set NAME")
    ]


class WarningSignal(Definition, frozen=True, kw_only=True):
    """A signal that warns the job before `max-duration` ends it."""

    name: Annotated[SignalName, _about("USR1, USR2, HUP or INT")] = "USR1"
    before: Annotated[Span, _about("How long before max-duration the signal is sent, such as 5m")]


class Retry(Definition, frozen=True, kw_only=True):
    """When to run the job again."""

    attempts: Annotated[int, Meta(ge=1, le=100, description="Maximum number of attempts, including the first")]
    on: Annotated[
        tuple[Cause, ...], Meta(min_length=1, description="Retry after these: lost, error, out-of-memory, exit codes")
    ] = ("lost", "error")


class Interval(Definition, frozen=True, kw_only=True):
    """Numbers from `min` to `max`, both included. They are whole if all that is written here is."""

    min: Annotated[Number, _about("The smallest value; 2 and 8 give whole numbers, 2.0 and 8.0 fractions")]
    max: Annotated[Number, _about("The largest value")]
    step: Annotated[Number | None, _about("The distance between two values; default: 1 for whole numbers")] = None
    scale: Annotated[Scale, _about("log tries each order of magnitude equally often")] = "linear"


Params = dict[Identifier, tuple[Text, ...] | Interval]
"""What a sweep varies, by variable: the values to choose from, or an interval."""


class MetricGoal(Definition, frozen=True, kw_only=True):
    """The metric that decides which trial is the best."""

    name: Annotated[MetricName, _about("A metric that the workflow prints; without its key metrics, auto reads it")]
    goal: Annotated[Goal | None, _about("minimize or maximize; default: what its name says, if it has loss or acc")] = (
        None
    )
    of: Annotated[Which, _about("Which value of a trial counts: last, min, max, or the best of all")] = "last"


class StopEarly(Definition, frozen=True, kw_only=True):
    """When a trial is stopped because others do better."""

    rule: Annotated[StopRule, _about("median: worse than half of the others; asha: not among the best third")]
    warmup: Annotated[int, Meta(ge=0, le=10**9, description="No trial is stopped before this step")] = 1


class SweepSettings(Definition, frozen=True, kw_only=True):
    """What `dstack sweep` tries. Options of the command replace these keys."""

    method: Annotated[Method | None, _about("grid, random or tpe; default: grid if it fits in max-runs")] = None
    metric: Annotated[MetricGoal | None, _about("The metric that decides which trial is the best")] = None
    params: Annotated[Params, _about("Variables of the workflow: a list of values, or an interval")] = {}
    try_first: Annotated[
        tuple[dict[Identifier, Value], ...], _about("Values to begin with; those left out are chosen")
    ] = ()
    seed: Annotated[
        Seed | None, _about("The same seed gives the same random values; default: another one each time")
    ] = None
    max_runs: Annotated[Runs | None, _about("How many trials there are at most; default: all of a grid")] = None
    parallel: Annotated[Runs, _about("How many trials are in the queue or running at the same time")] = 4
    stop_early: Annotated[StopEarly | None, _about("When to stop a trial that others beat; default: never")] = None
    max_failures: Annotated[Runs | None, _about("No new trials after so many have failed; default: no limit")] = None


class LongWait(Definition, frozen=True, kw_only=True):
    """A run that has waited for so long."""

    waiting: Annotated[Span, _about("How long a run waits in the queue before a message says so, such as 1h")]


class Workflow(Definition, frozen=True, kw_only=True):
    """One workflow, as written: its variables are not replaced yet."""

    name: Annotated[Name, _about("Name of the workflow: letters, digits, '-' and '_'")]
    image: Annotated[Text, _about("The Docker image; $variables are replaced")]
    commands: Annotated[
        Texts,
        Meta(
            min_length=1, description="All run in one `bash -e` (sh if the image has no bash): cd and export carry over"
        ),
    ]
    help: Annotated[str | None, _about("Shown by dstack run --help")] = None
    depends_on: Annotated[
        tuple[str, ...] | DependsOn, _about("What the result depends on; a list is short for its workflows")
    ] = DependsOn()
    artifacts: Annotated[
        tuple[Artifact | Text, ...], _about("Files and folders to keep, relative to the working directory")
    ] = ()
    env: Annotated[dict[Identifier, Value], _about("Environment variables; $variables are replaced")] = {}
    cache: Annotated[
        Texts, _about("Folders in the container that the runner keeps between jobs of this repository")
    ] = ()
    user: Annotated[User, _about("A uid, a user name, or 'image' for the image's own user")] = "root"
    secrets: Annotated[
        tuple[Identifier, ...], _about("Secrets for the environment; to set one: dstack secrets set NAME")
    ] = ()
    registry_auth: Annotated[
        RegistryAuth | None, _about("Login for a private image; default: the runner's own docker login")
    ] = None
    resources: Resources = Resources()
    runners: Annotated[Texts, _about("Names or labels of the runners that may run it")] = ()
    mounts: Annotated[
        Texts, _about("Folders of the runner, SOURCE:TARGET or SOURCE:TARGET:ro; the runner must allow them")
    ] = ()
    priority: Annotated[
        int, Meta(ge=0, le=100, description="From 0 to 100; jobs with a higher priority start first")
    ] = 0
    preemptible: Annotated[
        bool, _about("If true, a job of higher priority may stop it; it keeps its artifacts and is queued again")
    ] = False
    max_duration: Annotated[Span | None, _about("Time limit, such as 6h; the job is then stopped")] = None
    stop_grace: Annotated[Span, _about("Time between SIGTERM and SIGKILL when the job is stopped")] = "30s"
    signal: Annotated[WarningSignal | None, _about("A signal before max-duration, to save work")] = None
    retry: Annotated[Retry | None, _about("When to run the job again, and how often; default: never")] = None
    metrics: Annotated[
        Auto | dict[MetricName, Text] | None,
        _about("Numbers to read from the log: auto, or a map from names to regular expressions with one group"),
    ] = None
    fetch_depth: Annotated[
        int, Meta(ge=0, le=2**31 - 1, description="How many commits of history the job sees; 0 means all")
    ] = 1
    sweep: Annotated[SweepSettings | None, _about("What dstack sweep tries with this workflow")] = None

    ports: Annotated[
        tuple[Port, ...], _about("Ports of the container that are forwarded while dstack run or dstack attach follows")
    ] = ()
    notify: Annotated[
        tuple[Outcome | LongWait, ...] | None,
        _about("What to send a message about: done, failed, stopped, lost, {waiting: 1h}; default: failed and lost"),
    ] = None

    @property
    def needed_secrets(self) -> tuple[str, ...]:
        """The secrets that must be set before it can start."""
        return self.secrets + ((self.registry_auth.password,) if self.registry_auth else ())

    @property
    def needs(self) -> DependsOn:
        """What it depends on, in the long form."""
        return DependsOn(workflows=self.depends_on) if isinstance(self.depends_on, tuple) else self.depends_on

    @property
    def outputs(self) -> tuple[Artifact, ...]:
        """The artifacts in their long form."""
        return tuple(Artifact(path=a) if isinstance(a, str) else a for a in self.artifacts)


Values = dict[Identifier, Value | None]
"""Variables by name, in file order: the text as written, None for YAML's null."""


class CodeBranch(Definition, frozen=True, kw_only=True):
    """The branch of the remote whose newest commit a trigger runs."""

    branch: Annotated[Branch, _about("A branch of the repository's remote, fetched each time")]


class Push(Definition, frozen=True, kw_only=True):
    """The pushes that start a run."""

    branch: Annotated[Branch, _about("The branch of the repository's remote")]
    paths: Annotated[
        Texts, _about("Only pushes that change one of these files, folders or patterns, as in depends-on.repo.include")
    ] = ()
    every: Annotated[Span, _about("How often to ask the remote for new commits, such as 1m")] = "1m"
    secret: Annotated[Identifier | None, _about("Name of the secret that signs webhooks (POST /hooks/NAME)")] = None


class Trigger(Definition, frozen=True, kw_only=True):
    """What starts runs of a workflow. Either `cron` or `push` says when."""

    name: Annotated[Name, _about("Name of the trigger, unique on the server")]
    workflow: Annotated[Name, _about("The workflow to run")]
    cron: Annotated[Text | None, _about("When to run: five fields as cron's, or @daily, @hourly, @weekly")] = None
    timezone: Annotated[Text | None, _about("Time zone of cron, such as Europe/Berlin; default: the server's")] = None
    push: Annotated[Push | None, _about("Run when a branch of the remote gets new commits")] = None
    code: Annotated[
        Annotated[str, _form(r"^snapshot$(?!\n)", CODE, scalar=False)] | CodeBranch,
        _about("What to run: snapshot is the code as it was when the trigger was applied"),
    ] = "snapshot"
    variables: Annotated[
        dict[Identifier, Value], _about("Values of variables, as on the command line of dstack run")
    ] = {}
    overlap: Annotated[Overlap, _about("If the run before has not ended: skip, queue, replace it, or allow both")] = (
        "skip"
    )
    missed: Annotated[Missed, _about("Which times to make up for after the server was down: last, skip or all")] = (
        "last"
    )
    deadline: Annotated[Span | None, _about("Don't make up for a time that is longer ago, such as 6h")] = None
    max_failures: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None, _about("Pause after so many failures in a row; default: never")
    ] = None

    @property
    def branch(self) -> str | None:
        """The branch whose code it runs; None for the snapshot."""
        return self.push.branch if self.push else None if isinstance(self.code, str) else self.code.branch


class WorkflowsFile(Definition, frozen=True, kw_only=True):
    """`.dstack/workflows.yaml`."""

    workflows: Annotated[tuple[Workflow, ...], Meta(min_length=1, max_length=10_000)]
    triggers: Annotated[tuple[Trigger, ...], Meta(max_length=1000)] = ()


class ConfigsFile(Definition, frozen=True, kw_only=True):
    """`.dstack/configs.yaml`: variables by workflow. Those under `global` apply to every workflow."""

    configs: dict[str, Values | None] | None


class Variables(Struct, frozen=True):
    """A workflow's variables, with overrides from the command line applied."""

    shared: Values = {}
    own: Values = {}

    @property
    def all(self) -> Values:
        """Shared and own variables together; own ones win."""
        return {**self.shared, **self.own}
