"""A recipe that is killed and resumed ends as one that was not."""

import dataclasses
from functools import partial

import pytest

from sparse_hyper_jax.train import recipe as skeleton
from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.recipes import packnet

UNLIKE = {"seconds", "out", "resume"}


class Kill(BaseException):
    """Nothing catches this."""


def assert_ends_the_same(recipe, result, folder, *, saves=1):
    """Kill a copy of a finished recipe after some checkpoints, resume it, compare results."""
    again = dataclasses.replace(recipe, out=folder)
    save, left = Checkpoints.save, [saves]

    def save_and_die(self, *arguments):
        save(self, *arguments)
        left[0] -= 1
        if not left[0]:
            raise Kill

    with pytest.MonkeyPatch.context() as patch:
        for module in (skeleton, packnet):
            patch.setattr(module, "train", partial(train, checkpoint_seconds=0.0))
        with patch.context() as inner:
            inner.setattr(Checkpoints, "save", save_and_die)
            with pytest.raises(Kill):
                again.run()
        assert not (folder / "result.json").exists()
        resumed = dataclasses.replace(again, resume=True).run()
    assert told(resumed) == told(result)


def told(result):
    return {name: value for name, value in result.items() if name not in UNLIKE}
