"""A small recipe, also run as a process of its own: Adam finds the mean of random vectors."""

import contextlib
import dataclasses
import hashlib
import math
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache

from sparse_hyper_jax.train.cli import Entry, main
from sparse_hyper_jax.train.loop import train
from sparse_hyper_jax.train.run_folder import RunFolder, open_run

RECIPES = {"toy": Entry("tests.train.toy:ToyRecipe", "fit the mean of random vectors")}
OPTIMIZER = optax.adam(1e-2)
STEPS, DISPATCH = 45, 10
FAULTS = {"value": ValueError, "type": TypeError, "stop": KeyboardInterrupt}
API = "found data_dir=3 with resume=True; expected an int; pass a static int as data_dir"


class ToyState(NamedTuple):
    params: dict[str, jax.Array]
    optimizer: optax.OptState
    count: jax.Array


def toy_state() -> ToyState:
    params = {"w": jnp.zeros((2, 3))}
    return ToyState(params, OPTIMIZER.init(params), jnp.zeros((), jnp.int32))


def toy_step(state, key):
    noise = jax.random.uniform(key, (2, 3))

    def loss_of(params):
        return jnp.mean((params["w"] - noise) ** 2)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    updates, optimizer = OPTIMIZER.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    return ToyState(params, optimizer, state.count + 1), {"loss": loss, "noise": noise[0, 0]}


def norm(step, state):
    return {"norm": jnp.linalg.norm(state.params["w"])}


def toy_run(path, **options):
    defaults = {"steps": STEPS, "seed": 3, "steps_per_dispatch": DISPATCH, "quiet": True}
    defaults |= {"evaluate_every": DISPATCH, "checkpoint_seconds": 0.0}
    return train(toy_step, toy_state(), folder=RunFolder(path), **(defaults | options))


def configure(options):
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@contextlib.contextmanager
def compiled_once(path):
    """Keep compiled programs in a folder: every run is a new function to JAX's cache in memory."""
    options = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    try:
        configure(options)
        yield
    finally:
        configure(before)


def digest(state) -> str:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    return hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()


@dataclasses.dataclass(frozen=True)
class ToyRecipe:
    """Fit the mean of random vectors."""

    seed: int = 0
    """Seed of the random numbers."""

    steps: int = 25
    """Number of training steps."""

    out: Path | None = None
    """Run folder."""

    resume: bool = False
    """Go on with the run in the folder."""

    quiet: bool = False
    """Show no progress bar."""

    pause: float = 0.0
    """Seconds that every evaluation takes."""

    data_dir: Path | None = None
    """Folder of files that are not read."""

    rates: tuple[float, ...] = (math.inf, 0.5)
    """Numbers that are not used, nor refused where they are not finite by default."""

    fault: str = ""
    """Name of an error to raise."""

    def run(self) -> dict:
        """Train and return the digest of the final state."""
        with open_run(self, recipe="toy", out=self.out, resume=self.resume) as folder:
            print("a line that belongs on standard error")
            if self.fault:
                if self.fault == "end":
                    signal.raise_signal(signal.SIGTERM)
                if self.fault == "api":
                    raise ValueError(API)
                raise FAULTS[self.fault]("a fault")
            return self._train(folder)

    def _train(self, folder) -> dict:
        def evaluate(step, state):
            time.sleep(self.pause)
            return {"norm": jnp.linalg.norm(state.params["w"])}

        trained = train(
            toy_step,
            toy_state(),
            steps=self.steps,
            seed=self.seed,
            folder=folder,
            evaluate=evaluate,
            evaluate_every=10,
            steps_per_dispatch=10,
            checkpoint_seconds=0.0,
            resume=self.resume,
            quiet=self.quiet,
            description="toy",
        )
        result = {"digest": digest(trained.state), "count": trained.state.count}
        return folder.write_result(result)


if __name__ == "__main__":
    sys.exit(main(recipes=RECIPES))
