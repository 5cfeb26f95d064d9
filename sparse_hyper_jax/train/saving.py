"""When a run saves, and when it stops: all its processes at the same boundary."""

import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from sparse_hyper_jax.train.checkpoint import Checkpoints
from sparse_hyper_jax.train.dispatch import check_state
from sparse_hyper_jax.train.start import Start
from sparse_hyper_jax.train.stopping import Stopping


class Saving:
    """Decides at each boundary between dispatches whether to save, and whether to stop there.

    Args:
        checkpoints: where to save.
        stopping: what has been asked for.
        run: the numbers on which every step depends, with ``steps``.
        began: where this process began.
        every: seconds between checkpoints.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        stopping: Stopping,
        run: Mapping[str, int],
        began: Start,
        *,
        every: float,
    ):
        self.checkpoints, self.stopping, self.run, self.every = checkpoints, stopping, run, every
        self.zero = time.monotonic() - began.seconds
        self.seconds_at_last = began.seconds
        # The first boundary is saved, too: what the metrics tell of can be gone on from.
        self.saved = time.monotonic() if began.step else -math.inf

    def seconds(self) -> float:
        """Return the wall-clock time of the run, added up over its parts."""
        return time.monotonic() - self.zero

    def at_boundary(self, stop: int, state: Any) -> None:
        """Save if it is time to, or the end; and stop if that was asked for.

        Args:
            stop: number of finished steps.
            state: the state after them.

        Raises:
            FloatingPointError: the state is undefined, and not saved.
            KeyboardInterrupt: after Ctrl-C, or whatever else a signal does.
        """
        late = time.monotonic() - self.saved >= self.every
        due, asked = agreed(stop == self.run["steps"] or late, self.stopping.asked)
        if due or asked:
            check_state(state, stop, self.checkpoints)
            self.seconds_at_last = self.seconds()
            self.checkpoints.save(stop, state, {**self.run, "seconds": self.seconds_at_last})
            self.saved = time.monotonic()
        if asked:
            self.stopping.deliver(asked)


def agreed(due: bool, asked: int) -> tuple[bool, int]:
    """Give what the first process says about its clock, and a signal that any of them received.

    Args:
        due: whether it is time to save.
        asked: number of a signal, 0 for none.
    """
    if jax.process_count() == 1:
        return due, asked
    said = multihost_utils.process_allgather(np.array([due, asked], np.int32))
    return bool(said[0, 0]), int(said[:, 1].max())
