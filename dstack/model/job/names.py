"""Generates and checks the names of runs and jobs."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable

from dstack.errors import UsageError

_ADJECTIVES = (
    "able amber ample apt azure bold brave breezy bright brisk calm candid clear clever cool cosy crisp curious daring "
    "deft dewy eager early easy fair fast fine fond frank free fresh gentle glad golden grand green happy hardy honest "
    "humble jolly keen kind lively loyal lucky mellow merry mild mint modest neat nimble noble patient plucky polite "
    "proud quick quiet rapid ready robust rosy royal sage sharp shiny silent silver sincere sleek smart smooth snug "
    "spry steady sturdy sunny swift tidy tough upbeat vivid warm wise witty young zesty"
)
_ANIMALS = (
    "ant ape badger bat bear beaver bee beetle bison boar bobcat camel cat cheetah cobra condor coyote crab crane crow "
    "deer dingo dog dolphin donkey dove duck eagle eel elk falcon ferret finch fox frog gecko gibbon goat goose gull "
    "hare hawk heron horse ibex ibis iguana jackal jaguar koala lark lemur lion lizard llama lynx magpie marten mink "
    "mole moose moth mouse mule newt ocelot otter owl panda panther parrot penguin pigeon pony puffin puma python "
    "quail rabbit raven robin salmon seal shark shrew skunk snail sparrow squid stork swan tiger toad trout turtle "
    "viper walrus wasp weasel whale wolf wombat wren yak zebra"
)
ADJECTIVES, ANIMALS = _ADJECTIVES.split(), _ANIMALS.split()
ENOUGH = 50
"""Attempts before the number in the name gets another digit."""

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
JOB_ID = re.compile(r"[0-9a-f]{12}")
# YAML, JSON and many tools read these as numbers.
NUMBER = re.compile(r"[0-9]+(e[0-9]+)?")


def run_name(taken: Callable[[str], bool], rng: random.Random) -> str:
    """Return a name like `brave-otter-7` that is not taken."""
    tries = 0
    while True:
        limit = 10 ** (1 + tries // ENOUGH)
        name = f"{rng.choice(ADJECTIVES)}-{rng.choice(ANIMALS)}-{rng.randrange(1, limit)}"
        if not taken(name):
            return name
        tries += 1


def job_id() -> str:
    """Return 12 lower-case hex digits that don't read as a number."""
    while NUMBER.fullmatch(name := secrets.token_hex(6)):
        continue
    return name


def check_run_name(name: str) -> None:
    """Raise UsageError unless the run name is valid. It names a folder in storage, and must not look like a job id."""
    if not RUN_NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is not a valid run name; use up to 63 letters, digits, '-', '_' and '.', "
            "and start with a letter or digit"
        )
    if JOB_ID.fullmatch(name):
        raise UsageError(f"'{name}' is not a valid run name because it looks like a job id; choose another name")
