"""TPE proposes good values, never the same twice, and has no memory but the recorded trials."""

from __future__ import annotations

from statistics import median

import pytest
from msgspec.structs import replace

from dstack.engine.sweeps import tpe
from dstack.errors import UsageError
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import Interval, Params
from dstack.model.sweep import space
from dstack.model.sweep.status import SweepMethod
from dstack.model.sweep.sweep import Trial
from tests.unit.engine.sweeps.simulated import (
    BRANIN,
    TRAINING,
    Function,
    best,
    branin,
    planned,
    played,
    training,
)

SEEDS = 20


def test_the_same_trials_give_the_same_values() -> None:
    plan = planned(SweepMethod.TPE, TRAINING, seed=3, most=14)

    assert played(plan, training) == played(plan, training)


def test_it_proposes_values_of_the_space_and_none_twice() -> None:
    # given trials of which some run, failed or were beaten
    plan = planned(SweepMethod.TPE, TRAINING, seed=4, most=30)
    trials = played(replace(plan, max_runs=12), training)
    beaten = Reason(ReasonCode.BEATEN, "beaten")
    trials[2] = replace(trials[2], status=Status.STOPPED, beaten=beaten, step=5.0)
    trials[4] = replace(trials[4], status=Status.FAILED, value=None)
    trials[6] = replace(trials[6], status=Status.QUEUED, value=None)

    for number in range(13, 22):
        point = tpe.ask(plan, trials)
        assert point is not None
        assert all(space.contains(TRAINING[name], value) for name, value in point.items())
        trials.append(Trial(sweep="s", number=number, values=point))

    assert len({space.key(TRAINING, trial.values) for trial in trials}) == 21


def test_a_space_that_is_used_up_gives_nothing() -> None:
    params: Params = {"lr": ("a", "b"), "n": Interval(min="1", max="4", scale="log")}
    plan = planned(SweepMethod.TPE, params, seed=1, most=8)
    trials = played(plan, lambda point: float(point["n"]))

    assert tpe.ask(plan, trials) is None


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    tpe.require_optuna()
    monkeypatch.setattr(tpe, "find_spec", lambda name: None)

    with pytest.raises(UsageError) as refused:
        tpe.require_optuna()

    assert (refused.value.exit_code, "pip install 'dstack[sweep]'" in (refused.value.hint or "")) == (2, True)


@pytest.mark.long
@pytest.mark.parametrize(("function", "params"), [(branin, BRANIN), (training, TRAINING)])
@pytest.mark.parametrize("parallel", [1, 4])
def test_it_is_better_than_random(function: Function, params: Params, parallel: int) -> None:
    found = {
        method: [best(played(planned(method, params, seed), function, parallel)) for seed in range(SEEDS)]
        for method in (SweepMethod.TPE, SweepMethod.RANDOM)
    }
    print({method.value: round(median(values), 4) for method, values in found.items()})

    assert median(found[SweepMethod.TPE]) < median(found[SweepMethod.RANDOM])
