"""Whatever is typed: words after `dstack run`, values of variables, images, sizes, durations and times."""

from __future__ import annotations

import re
import shlex

import click
from hypothesis import example, given
from hypothesis import strategies as st

from dstack.cli.commands.run.arguments import Walk
from dstack.cli.commands.run.command import command as run
from dstack.cli.commands.run.command import parse_environment as environment_of
from dstack.cli.output import words
from dstack.cli.parameters import SIZE, SPAN
from dstack.commands.machine.pull import named, pull, registry
from dstack.errors import UsageError
from dstack.model.job import script
from dstack.model.job.names import check_run_name
from dstack.model.paths import HostLayout
from dstack.model.project.environment import build, reserved_values
from dstack.model.project.project import Project
from dstack.model.project.variables import apply, config_args
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.host_context import HostContext
from dstack.model.text import tag, units
from dstack.model.text.suggest import nearest
from tests.fuzz import fuzz, in_time, outcome, storable

TEXTS = (
    *(
        "",
        "-",
        "--",
        "--lr",
        "--learning-rate=1",
        "-e",
        "-dq",
        "-1",
        "-1e5",
        "--help",
        "-h",
        "train",
        "A=1",
        "=",
        "--name",
    ),
    *(
        "--from",
        "brave-otter-7",
        "--gpus",
        "--timeout",
        "9" * 400,
        "\udcff",
        "\0",
        "\u202e",
        "\x1b[2J",
        "$x",
        "'",
        "\n",
        "x" * 5000,
    ),
)
typed = st.sampled_from(TEXTS) | st.text(max_size=10)
WORKFLOW = Workflow(name="train", image="busybox:$tag", commands=("true $config_args",), env={"A": "$lr"})
PROJECT = Project({"train": WORKFLOW}, {"tag": "1"}, {"train": {"lr": "1", "learning_rate": "2", "run_name": "x"}})


@fuzz
@given(st.lists(typed, max_size=8))
def test_any_words_after_run(given_words: list[str]) -> None:
    def known(workflow: str) -> list[str]:
        if workflow != "train":
            raise UsageError(f"no workflow is named '{workflow}'")
        return ["lr", "learning_rate", "tag"]

    def read() -> dict[str, Variables]:
        sorted_words = Walk(given_words, run.params, known, known)
        try:
            click.Command("run", params=run.params, add_help_option=False).make_context(
                "run", list(sorted_words.options)
            )
        except click.ClickException as refused:
            raise UsageError(refused.format_message()) from refused
        return apply(PROJECT, "train", sorted_words.overrides)

    outcome(read, size=sum(map(len, given_words)))


@fuzz
@given(st.sampled_from(("lr", "learning-rate", "tag")), st.text() | typed)
def test_any_value_of_a_variable_reaches_the_job(name: str, value: str) -> None:
    variables = outcome(lambda: apply(PROJECT, "train", [(name, value)]), "the value of --")
    if not variables:
        return
    own = variables["train"]

    arguments = shlex.split(config_args(own.own))
    if name != "tag" and value not in ("True", "true", "TRUE", "False", "false", "FALSE", "None"):
        flag = f"--{name.replace('-', '_')}"
        assert arguments[arguments.index(flag) + 1] == value
    storable(own)
    reserved = reserved_values(run="r", job="j", workflow="train", config_args="", runner="m", gpus=(0,), attempt=1)
    environment = build(own, WORKFLOW.env, {}, reserved)
    assert environment[name.replace("-", "_")] == value
    outcome(lambda: script.expanded(WORKFLOW, own, "0123456789ab", "r"), "'image' in workflow 'train'")


@fuzz
@given(st.lists(st.tuples(st.sampled_from(("A", "1", "a b", "PATH", "ä")), typed).map("=".join) | typed, max_size=3))
def test_any_environment(given_texts: list[str]) -> None:
    outcome(lambda: environment_of(given_texts), "-e: ")


@fuzz
@given(st.text(alphabet="abz09./:@-_A $\n\u202e", max_size=60) | typed)
def test_any_image(text: str) -> None:
    workflow = Workflow(name="train", image=text.replace("$", "$$"), commands=("true",))

    found = outcome(lambda: script.expanded(workflow, Variables(), "0123456789ab", "r"), "'image' in workflow 'train'")

    if found:
        registry(found.image)
        named(found.image)
        pull(HostContext(HostLayout(root="/r", machine="0", server="s")), found.image)
        storable(found)


numbers = st.from_regex(r"[0-9]{0,20}(\.[0-9]{0,20})? ?[kmgtKMGTsmhd]?i?[bB]?", fullmatch=True)


@fuzz
@given(numbers | typed)
@example("9" * 400)
@example("9" * 400 + "TB")
@example("1" + "0" * 5000 + "d")
def test_any_size_and_duration(text: str) -> None:
    with in_time(len(text)):
        for read in (units.memory_bytes, units.disk_bytes):
            try:
                assert 0 <= read(text) < 2**63
            except ValueError as refused:
                assert "is not a size" in str(refused)  # noqa: PT017
    size = outcome(lambda: SIZE.convert(text, None, None))
    assert size is None or 0 <= size < 2**63
    seconds = outcome(lambda: SPAN.convert(text, None, None))
    if seconds is not None:
        assert 0 <= seconds < 10**11
        assert units.span_words(seconds)
        assert units.took_words(seconds)
        assert units.age_words(seconds)


@fuzz
@given(
    numbers
    | typed
    | st.datetimes().map(str)
    | st.from_regex(
        r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](Z|z|[+-][0-9]{2}:[0-9]{2})?", fullmatch=True
    )
)
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59-23:59")
def test_any_time(text: str) -> None:
    found = outcome(lambda: words.since(text), "'")

    assert found is None or re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", found)


@fuzz
@given(typed | st.text(alphabet="abc-_.:0Z", max_size=110))
def test_any_name(text: str) -> None:
    outcome(lambda: check_run_name(text))
    outcome(lambda: tag.name_of(text), "'")
    with in_time(len(text)):
        nearest(text, ["train", "encode", "a" * 1000])
