import errno
import hashlib
from pathlib import Path

import pytest

from sparse_hyper_jax.train.reading import (
    EXPANSION,
    FREE_BYTES,
    check_expansion,
    noting_files,
    read_bytes,
    reading,
)


class OddError(Exception):
    """One that nobody would think of."""


@pytest.mark.parametrize("kind", [OddError, ValueError, RecursionError, OSError, EOFError])
def test_whatever_a_reader_raises_is_told_in_three_parts(kind):
    error = kind("why")
    message = r"found a.b damaged or no x file \(\w+: why\); expected a complete x file; go home"
    with (
        pytest.raises(ValueError, match=message) as caught,
        reading(Path("a.b"), "x file", "go home"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_reasons_are_one_short_line():
    with pytest.raises(ValueError) as caught, reading(Path("a"), "x", "y"):  # noqa: PT011
        raise OddError("line\n" * 1000)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(3)])
def test_what_says_nothing_about_the_file_passes(error):
    with pytest.raises(type(error)) as caught, reading(Path("a"), "x", "y"):
        raise error
    assert caught.value is error


def test_what_the_system_refuses_keeps_its_kind():
    message = "found a, which cannot be read .*; expected a x file; go home"
    with (
        pytest.raises(PermissionError, match=message) as caught,
        reading(Path("a"), "x file", "go home"),
    ):
        raise PermissionError(errno.EACCES, "not yours")
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("packed", "unpacked", "fits"),
    [
        (10, FREE_BYTES, True),
        (10, FREE_BYTES + 1, False),
        (FREE_BYTES, EXPANSION * FREE_BYTES, True),
        (FREE_BYTES, EXPANSION * FREE_BYTES + 1, False),
    ],
)
def test_few_bytes_may_not_announce_very_many(packed, unpacked, fits):
    if fits:
        check_expansion("file", packed=packed, unpacked=unpacked, change="go home")
        return
    with pytest.raises(ValueError, match=rf"found file announcing {unpacked} bytes.*; go home"):
        check_expansion("file", packed=packed, unpacked=unpacked, change="go home")


def test_files_that_are_read_are_noted_by_name_and_content(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).write_text(name)

    def read(name):
        return read_bytes(tmp_path / name, "text", "go home")

    read("one")
    with noting_files() as files:
        read("two"), read("three"), read("two")
        with noting_files() as inner:
            read("one")
        with pytest.raises(FileNotFoundError):
            read("none")
    read("one")
    expected = [[name, hashlib.sha256(name.encode()).hexdigest()] for name in ("three", "two")]
    assert files == expected
    assert [name for name, _ in inner] == ["one"]
