"""How the comparison of ways to find lags chooses rates, counts lags and keeps time."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import lags_quality
from benchmarks.lines import Lines
from benchmarks.programs import lag_depth
from benchmarks.programs.lag_training import Clock
from benchmarks.programs.lags_quality import compared
from benchmarks.runner import Asked

JUDGED = list(lags_quality.BENCHMARK.seeds)


@pytest.mark.parametrize(
    ("lags", "true", "expected"),
    [
        ([5, 20], [5, 20], (2, 2, 0)),
        ([6, 20, 21, 90], [5, 20], (4, 2, 1)),  # a step away still counts, two do not
        ([7, 22], [5, 20], (2, 0, 2)),
        ([], [5, 20], (0, 0, 0)),
    ],
)
def test_lags_are_counted_within_a_step(lags, true, expected):
    found = compared(lags, true)
    assert (found["taps"], found["found"], found["false"]) == expected


def test_a_pattern_of_two_layers_is_known_up_to_a_shift():
    true = np.array([[17, 37], [0, 7]])
    shifted = lag_depth.compared([14, 34], [3, 90], true)
    assert shifted == {"found": 3, "sums": 4, "sums_found": 2}
    assert lag_depth.compared([17, 37], [0, 7], true)["found"] == 4
    assert lag_depth.compared([20, 40], [0, 7], true)["found"] == 2


def measured(settings):
    """Lines whose loss on validation is lowest for a rate of 0.001, a penalty of 0.016."""
    lines = Lines()
    for facts in settings(lines):
        far = abs(np.log(facts["rate"] / 0.001)) + abs(np.log(facts.get("penalty", 0.016) / 0.016))
        lines.append(facts | {"valid": 1 + far})
    return lines


def test_every_method_is_judged_with_the_rates_that_its_tuning_chose():
    asked = Asked(seeds=JUDGED, fsdd=Path("spoken digits"))
    lines = measured(lambda lines: lags_quality.settings(asked, lines))
    assert lags_quality.TUNED_AT not in JUDGED
    tuned = lines.where(seed=lags_quality.TUNED_AT)
    judged = [line for line in lines if line["seed"] in JUDGED]
    assert len(tuned) + len(judged) == len(lines)
    for task, methods in lags_quality.STEPS:
        for method in methods:
            runs = [line for line in judged if (line["task"], line["method"]) == (task, method)]
            assert len({line["seed"] for line in runs}) >= 2
            known = lines.where(task="coloured", method=method, seed=lags_quality.TUNED_AT)
            if task not in lags_quality.BORROWED or known:
                assert {line["rate"] for line in runs} == {0.001}
            assert {line.get("penalty") for line in runs} <= {None, 0.016}
    tries = {
        method: len(tuned.where(task="coloured", method=method))
        for method in tuned.where(task="coloured").each("method")
    }
    assert tries.pop("group lasso") == 16
    assert set(tries.values()) == {4}


def test_what_is_not_counted_does_not_use_up_the_budget():
    def work():
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass

    clock = Clock(1.0)
    clock.uncounted(work)
    assert clock.share() < 0.03
    work()
    assert 0.05 <= clock.share() < 0.09
