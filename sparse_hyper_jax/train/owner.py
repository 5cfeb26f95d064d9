"""The owner of a run folder: the one process that writes there, told by a lock on a small file.

The kernel takes the lock off when the process ends, in whatever way, so that a killed run leaves
nothing to clean up; what remains of the file means nothing without the lock. Without locks in the
file system, or on a platform that has none of this kind, a folder has no owner, which is said.
"""

import contextlib
import errno
import os
import socket
import warnings
import weakref
from pathlib import Path

from sparse_hyper_jax.checks import require

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

OWNER = "owner.lock"
"""Name of the file in the run folder."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_LONGEST_NAME = 200


class Owner:
    """Owns a folder from construction to :meth:`release`, to the end of the process, or its own.

    Args:
        folder: one that exists.

    Raises:
        ValueError: another owner is alive, in this process or another.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        self.path = folder / OWNER
        descriptor = _lock(self.path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._release = weakref.finalize(self, _unlock, self.path, descriptor)
        # A child made by fork has the descriptor too, but must not remove the file as it exits.
        self._release.atexit = False

    def release(self) -> None:
        """Let the next one in; doing it again does nothing."""
        self._release()


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_now(descriptor, path)
            # An owner that leaves removes the file: a lock on what it removed is worth nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock_now(descriptor: int, path: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no locks on this platform")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        name = os.read(descriptor, _LONGEST_NAME).decode(errors="replace").strip()
        require(
            False,
            f"{path.parent} in use by {name or 'another process'}",
            "a folder that nobody else writes to",
            "wait for that run or stop it, or pass another --out DIR",
        )
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent} cannot be locked ({error}): take care that no other process uses it",
            stacklevel=6,
        )


def _unlock(path: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)
