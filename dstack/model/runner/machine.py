"""Which runners are one machine. Pure.

An account on a machine decides what the probe's answers say, so it may claim to be another machine. What it can't have
is that machine's host key, which ssh proves, or the id of its Docker, which only those can read who are root there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from dstack.model.runner.runner import Facts, Runner


def machines(runners: Iterable[Runner], own_keys: Collection[str] = ()) -> dict[str, str]:
    """Return each runner's machine, named by one of its runners. `own_keys` are the server's machine's host keys."""
    found: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    having: dict[tuple[str, str, str], list[Runner]] = defaultdict(list)
    for runner in runners:
        found[runner.name], members[runner.name] = runner.name, [runner.name]
        for proof in proofs(runner, own_keys):
            for other in having[proof]:
                into, other_name = found[runner.name], found[other.name]
                if into != other_name and maybe_same(runner, other):
                    members[other_name] += members.pop(into)
                    found.update(dict.fromkeys(members[other_name], other_name))
            having[proof].append(runner)
    return found


def proofs(runner: Runner, own_keys: Collection[str]) -> list[tuple[str, str, str]]:
    """Return what shows which machine it is and can't be made up by an account there: two runners that have one in
    common are the same machine, or clones of it."""
    if runner.facts is None:
        return []
    local = runner.address.local or runner.host_key in own_keys
    has = {"engine": runner.facts.engine, "key": runner.host_key or "", "local": "yes" if local else ""}
    return [(runner.facts.machine, kind, value) for kind, value in has.items() if value]


def maybe_same(one: Runner, other: Runner) -> bool:
    """Whether both say that they are one machine: enough reason to leave alone what may be the other's."""
    if one.facts is None or other.facts is None or one.facts.machine != other.facts.machine:
        return False
    return not booted_apart(one.facts, other.facts)


def booted_apart(one: Facts, other: Facts) -> bool:
    """Whether both kernels ran at the same time, so that these are clones with the same machine id. If one has been
    booted since the other was seen, that may have been the same machine before its reboot."""
    if not (one.boot and other.boot) or one.boot == other.boot:
        return False
    return one.booted < other.clock and other.booted < one.clock


def same_folder(one: Runner, other: Runner) -> bool:
    """Whether both say that they keep dstack's files in one folder of one machine."""
    if not maybe_same(one, other) or one.facts is None or other.facts is None:
        return False
    if one.facts.root and other.facts.root:
        return one.facts.root == other.facts.root
    return (one.root, one.facts.user) == (other.root, other.facts.user)


def sharing(runner: Runner, runners: Iterable[Runner]) -> Sequence[Runner]:
    """Return the other runners that may be the same machine."""
    return [each for each in runners if each.name != runner.name and maybe_same(runner, each)]
