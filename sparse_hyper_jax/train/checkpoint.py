"""Checkpoints of a training state that survive a kill at any moment.

Orbax writes every checkpoint under another name and renames it at the very end, so an interrupted
save is as if it had not begun. The state is stored as a list of its leaves, with their names,
dtypes and shapes beside it. The containers are not stored: they come from the state that the
resumed program builds, so that optimizer states, NamedTuples and other pytrees keep their types.

Several processes save and restore together, each the parts of the arrays on its own devices, in a
folder that all of them see.
"""

import errno
import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from sparse_hyper_jax.checks import check_count, require
from sparse_hyper_jax.dist.processes import first_does

DAMAGED = ".damaged"
"""Ending of a checkpoint that could not be read."""

# Orbax gives its own errors no number. A part that is missing, or a folder in its place, is damage.
_FILE_IS_GONE = (None, errno.ENOENT, errno.EISDIR, errno.ENOTDIR)

# How the drivers of JAX and orbax begin a message; they raise ValueError and RuntimeError for all.
_NO_DAMAGE = (
    *("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE"),
    *("DEADLINE_EXCEEDED", "CANCELLED", "ABORTED"),
)


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    """Number of finished steps."""

    state: Any
    """Pytree of arrays like the one that was saved."""

    about: dict[str, Any]
    """JSON values that were saved with it."""


class Checkpoints:
    """The checkpoints in one folder, of which the newest are kept.

    Args:
        path: the folder; created if needed.
        keep: number of checkpoints to keep; more than one, in case the newest cannot be read.
        run: name of the run, ``RunFolder.run``; checkpoints of another one are refused. Without it
            any are taken.

    Raises:
        ValueError: ``keep`` is no int of at least 1.
    """

    def __init__(self, path: str | Path, *, keep: int = 2, run: str = ""):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=check_count("keep", keep, 1),
            create=True,
            # The state's buffers are donated to the next dispatch, so nothing may read them later.
            enable_async_checkpointing=False,
        )
        self.path = Path(path).absolute()
        self.run = run
        # Removed here: orbax's own clean-up runs in a thread, which can collide with the next save.
        first_does(self._remove_halves)
        with _silence():
            self._manager = ocp.CheckpointManager(self.path, options=options)

    def __enter__(self) -> Self:
        """Return the checkpoints, to be closed at the end of the block."""
        return self

    def __exit__(self, *unused: object) -> None:
        """Release the manager's threads."""
        with _silence():
            self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps of the complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, about: Mapping[str, Any]) -> None:
        """Save a state; return when it is complete on disk, and heed an interrupt only then.

        Args:
            step: number of finished steps, more than in any checkpoint that is there.
            state: pytree of arrays, with no typed random key in it.
            about: further values, of JSON types.

        Raises:
            ValueError: there is a checkpoint of this step, or of a later one.
        """
        steps = self.steps()
        require(
            not steps or step > steps[-1],
            f"step {step} to save in {self.path}, with checkpoints of the steps {steps}",
            f"a step after {steps[-1] if steps else step}",
            "go on from restore, or start a new run with another --out DIR",
        )
        leaves = jax.tree.leaves(state)
        arrays = {str(index): leaf for index, leaf in enumerate(leaves) if leaf.size}
        args = ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays),
            about=ocp.args.JsonSave(
                {"run": self.run, "leaves": describe(state), "about": dict(about)}
            ),
        )
        with _silence(), _uninterrupted():
            self._manager.save(step, args=args, force=True)

    def restore(self, like: Any) -> Restored | None:
        """Restore the newest checkpoint that can be read; newer ones are renamed, not deleted.

        Args:
            like: state with the containers, shapes, dtypes and shardings of the one that was saved.

        Returns:
            The checkpoint, or None if the folder holds none.

        Raises:
            ValueError: the checkpoint is of another run or state, or all are damaged.
            Exception: anything that is no damage, such as a lack of memory or of permission.
        """
        failed: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored = self._restore(step, like)
            except _MismatchError:
                raise
            except Exception as error:  # whatever orbax and its file drivers raise on damaged files
                if not is_damage(error):
                    raise
                failed[step] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                continue
            self._set_aside(failed)
            return restored
        require(
            not failed,
            f"only damaged checkpoints in {self.path} ({'; '.join(failed.values())})",
            "at least one that can be read",
            "start a new run with another --out DIR and no --resume",
        )
        return None

    def _restore(self, step: int, like: Any) -> Restored:
        saved = self._read(step, "about", ocp.args.JsonRestore())
        self._check_run(step, saved.get("run", ""))
        self._check_leaves(step, saved["leaves"], like)
        return Restored(step, self._arrays(step, like), dict(saved["about"]))

    def _set_aside(self, failed: Mapping[int, str]) -> None:
        for step, reason in failed.items():
            old, new = self.path / str(step), self.path / f"{step}{DAMAGED}"
            number = 1
            while new.exists():
                number += 1
                new = self.path / f"{step}{DAMAGED}-{number}"
            first_does(partial(old.rename, new))
            warnings.warn(
                f"damaged checkpoint {old} ({reason}): set aside as {new.name}, going on from the"
                " one before",
                stacklevel=4,
            )
        if failed:
            self._manager.reload()

    def _remove_halves(self) -> None:
        for half in self.path.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(half)

    def _read(self, step: int, item: str, args: Any) -> Any:
        with _silence():
            return self._manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]

    def _arrays(self, step: int, like: Any) -> Any:
        leaves, treedef = jax.tree.flatten(like)
        wanted = {
            str(index): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
            for index, leaf in enumerate(leaves)
            if leaf.size  # arrays without cells cannot be stored, and need not be
        }
        arrays = self._read(step, "arrays", ocp.args.StandardRestore(wanted))
        state = treedef.unflatten([arrays.get(str(i), leaf) for i, leaf in enumerate(leaves)])
        # Copied, because memory that belongs to the reader of a file cannot be donated.
        return own_arrays(state)

    def _check_run(self, step: int, run: str) -> None:
        if self.run not in ("", run):
            raise _MismatchError(
                f"found a checkpoint at step {step} in {self.path} of the run {run!r};"
                f" expected one of the run {self.run!r}, to which the folder belongs;"
                " move it away, or start a new run with another --out DIR and no --resume"
            )

    def _check_leaves(self, step: int, saved: list[str], like: Any) -> None:
        wanted = describe(like)
        if saved != wanted:
            before = ", ".join(leaf for leaf in saved if leaf not in wanted) or "in another order"
            now = ", ".join(leaf for leaf in wanted if leaf not in saved) or "none of these"
            raise _MismatchError(
                f"found a checkpoint at step {step} in {self.path} with the leaves {before};"
                f" expected {now}; resume with the program and options that wrote it,"
                " or start a new run"
            )


def describe(state: Any) -> list[str]:
    """Return name, dtype and shape of every leaf, for instance ``['w'] float32[3]``."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [
        f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".strip()
        for path, leaf in leaves
    ]


def own_arrays(state: Any) -> Any:
    """Copy a state into arrays of its own, which may be donated.

    Args:
        state: pytree of arrays and numbers.

    Returns:
        The same pytree of JAX arrays with the same dtypes, none of them weakly typed; without
        ``jax_enable_x64`` those of 64 bits become those of 32.

    Raises:
        ValueError: the state holds a typed random key, a number that 32 bits cannot hold without
            ``jax_enable_x64``, or no number at all.
    """

    def copy(path: Any, leaf: Any) -> jax.Array:
        require(
            not _is_key(leaf),
            f"a typed random key in the state at {jax.tree_util.keystr(path)}",
            "arrays of numbers, which can be saved",
            "use the key that the step receives, or store jax.random.key_data of yours",
        )
        dtype = jnp.result_type(leaf)
        _check_narrowed(jax.tree_util.keystr(path), leaf, dtype)
        # A spelled-out dtype is not a weak one: the copy has the type of the step's outputs.
        return jnp.array(leaf, dtype=dtype, copy=True)

    copied = jax.tree_util.tree_map_with_path(copy, state)
    require(
        any(leaf.size for leaf in jax.tree.leaves(copied)),
        "a state without numbers",
        "a pytree of arrays",
        "put the parameters and the optimizer's state into it",
    )
    return copied


def _check_narrowed(name: str, leaf: Any, dtype: np.dtype) -> None:
    """Raise if an array of NumPy is cast to a dtype that cannot hold what is in it."""
    if not isinstance(leaf, np.ndarray | np.generic) or leaf.dtype == dtype or not leaf.size:
        return
    with np.errstate(over="ignore"):
        cast = np.asarray(leaf).astype(dtype)
    lost = cast != leaf if np.issubdtype(dtype, np.integer) else np.isinf(cast) & np.isfinite(leaf)
    require(
        not np.any(lost),
        f"the state at {name} from {leaf.min()} to {leaf.max()}",
        f"numbers that fit into {dtype}",
        "lower them, or switch jax_enable_x64 on",
    )


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_damage(error: Exception) -> bool:
    """Tell whether an error while restoring is due to what the files hold.

    If memory, rights or a disk's patience ran out, another attempt may succeed, and going on from
    an older checkpoint would throw work away.
    """
    if isinstance(error, MemoryError):
        return False
    if isinstance(error, OSError):
        return error.errno in _FILE_IS_GONE
    return not any(status in str(error) for status in _NO_DAMAGE)


class _MismatchError(ValueError):
    """The checkpoint is readable, but of another run or state."""


@contextmanager
def _uninterrupted() -> Iterator[None]:
    # Orbax writes in threads; an exception here would leave them to fail one by one at the exit.
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        before(*caught[0])


@contextmanager
def _silence() -> Iterator[None]:
    # Orbax reports every file it touches through absl's logger.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # errors are raised, too
    try:
        yield
    finally:
        logger.setLevel(level)
