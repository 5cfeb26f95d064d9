"""The door through which files come in that somebody else, or a dying machine, may have written.

Readers raise what they like on damaged or hostile bytes, another kind in every version. So nothing
is enumerated here: whatever a reader raises on a file means that the file is not what it should be.
"""

import gzip
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sparse_hyper_jax.checks import require

FREE_BYTES = 2**24
"""A packed file may always unpack to this."""

EXPANSION = 100
"""Beyond ``FREE_BYTES``, what is packed unpacks to at most so many times its size; images of
digits to 5 times, mostly black ones to 50."""

LONGEST_REASON = 200

_READ: ContextVar[set[Path] | None] = ContextVar("read", default=None)


@contextmanager
def noting_files() -> Iterator[list[list[str]]]:
    """Give, at the end of the block, name and SHA-256 of every file that was read in it.

    A list, sorted, of pairs as JSON gives them back. A run keeps it: on other bytes it is another.
    """
    found: list[list[str]] = []
    token = _READ.set(set())
    try:
        yield found
        for path in _READ.get() or ():
            with path.open("rb") as stream:
                found.append([path.name, hashlib.file_digest(stream, "sha256").hexdigest()])
        found.sort()
    finally:
        _READ.reset(token)


@contextmanager
def reading(path: Path, kind: str, change: str) -> Iterator[None]:
    """Turn whatever is raised while a file is read into one error in three parts.

    Args:
        path: the file.
        kind: what it should be, for instance ``"gzip file"``.
        change: what the user can do about it.

    Raises:
        ValueError: the block raised anything that is due to what the file holds.
        OSError: the system refused the file; of the kind that the block raised.
    """
    try:
        yield
        seen = _READ.get()
        if seen is not None:
            seen.add(path)
    except MemoryError:
        raise  # says nothing about the file
    except OSError as error:
        # Readers raise this too, without a number: gzip for what is no gzip file.
        if error.errno is None:
            raise ValueError(_damaged(path, kind, error, change)) from error
        text = f"found {path}, which cannot be read ({error.strerror}); expected a {kind}; {change}"
        raise type(error)(error.errno, text) from error
    except Exception as error:
        raise ValueError(_damaged(path, kind, error, change)) from error


def read_bytes(path: Path, kind: str, change: str) -> bytes:
    """Read a whole file, unpacked by gzip if its name ends in ``.gz``.

    Args:
        path: the file.
        kind: what it should be, see :func:`reading`.
        change: what the user can do about it.

    Raises:
        ValueError: a damaged file, or one that unpacks to very much more than it is.
        OSError: the system refuses the file.
    """
    with reading(path, kind, change):
        content = path.read_bytes()
    return _unpacked(path, content, kind, change) if path.suffix == ".gz" else content


def _unpacked(path: Path, content: bytes, kind: str, change: str) -> bytes:
    with reading(path, kind, change), gzip.open(path) as stream:
        stream.read(1)  # whether it is packed at all
    said = int.from_bytes(content[-4:], "little")  # gzip ends with the length
    check_expansion(str(path), packed=len(content), unpacked=said, change=change)
    with reading(path, kind, change), gzip.open(path) as stream:
        unpacked = stream.read(said + 1)  # of several files in one, the last one alone is announced
    require(
        len(unpacked) == said,
        f"more in {path} than the {said} bytes that it announces at its end",
        f"one packed {kind}",
        change,
    )
    return unpacked


def check_expansion(what: str, *, packed: int, unpacked: int, change: str) -> None:
    """Raise if few bytes announce very many, before any of these is unpacked.

    Args:
        what: the file, or the part of one.
        packed: its bytes as they lie on disk.
        unpacked: how many bytes it says it holds.
        change: what the user can do about it.

    Raises:
        ValueError: more than :data:`FREE_BYTES` and :data:`EXPANSION` times as many.
    """
    room = max(FREE_BYTES, EXPANSION * packed)
    require(
        unpacked <= room,
        f"{what} announcing {unpacked} bytes, packed into {packed}",
        f"at most {room} bytes in a file of that size",
        change,
    )


def _damaged(path: Path, kind: str, error: Exception, change: str) -> str:
    # The reason may quote the file: one line of it is enough.
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
    return f"found {path} damaged or no {kind} ({reason}); expected a complete {kind}; {change}"
