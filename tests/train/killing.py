"""A recipe that is killed and resumed ends as one that was not."""

import dataclasses
from functools import partial

import pytest

from sparse_hyper_jax.train.loop import train

UNLIKE = {"seconds", "out"}


class Kill(BaseException):
    """Nothing catches this."""


def assert_ends_the_same(module, finished, folder, monkeypatch, *, step):
    """Kill a copy of a finished recipe when it evaluates after a step, resume it, compare.

    ``module`` is the recipe's, where it finds its training loop; ``finished`` is the recipe and
    its result.
    """
    recipe, result = finished
    again = dataclasses.replace(recipe, out=folder / "run")

    def dying(*arguments, evaluate, **options):
        def evaluate_and_die(now, state):
            if now == step:
                raise Kill
            return evaluate(now, state)

        return train(*arguments, evaluate=evaluate_and_die, checkpoint_seconds=0.0, **options)

    monkeypatch.setattr(module, "train", dying)
    with pytest.raises(Kill):
        again.run()
    monkeypatch.setattr(module, "train", partial(train, checkpoint_seconds=0.0))
    resumed = dataclasses.replace(again, resume=True).run()
    assert told(resumed) == told(result)


def told(result):
    return {name: value for name, value in result.items() if name not in UNLIKE}
