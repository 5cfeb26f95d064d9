"""Arrays from an npz file that is not believed: headers are checked before anything is unpacked.

An npz file is a zip file of npy files, and each of these a short header (type, order, shape) and
then the bytes. ``numpy.load`` uses as much memory as a header asks for, unpacks before it knows the
type, and may run code; here only numbers come in, and never more bytes than have been announced in
both places.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.reading import check_expansion, reading

NUMBERS = "biuf"
"""Kinds of dtypes that are read: booleans, integers with or without sign, floats."""

KIND, SUFFIX = "npz file", ".npy"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_HEADER = 2**16


def read_npz(
    path: Path, *, change: str, names: Sequence[str] | None = None, kinds: str = NUMBERS
) -> dict[str, np.ndarray]:
    """Read arrays of numbers from an npz file.

    Args:
        path: the file.
        change: what the user can do if the file is damaged.
        names: the arrays to read, by default all.
        kinds: kinds of dtypes to accept, of those that hold plain bytes.

    Returns:
        The arrays by name.

    Raises:
        ValueError: a damaged file, one that lacks an array, or an array that is none of numbers, or
            larger than what there is of it.
        OSError: the system refuses the file.
    """
    with reading(path, KIND, change):
        file = zipfile.ZipFile(path)
    with file:
        with reading(path, KIND, change):
            found = {info.filename: info for info in file.infolist()}
        members = list(found) if names is None else [name + SUFFIX for name in names]
        missing = [name.removesuffix(SUFFIX) for name in members if name not in found]
        require(
            not missing,
            f"no {', '.join(missing)} in {path}",
            f"arrays {', '.join(name.removesuffix(SUFFIX) for name in members)}",
            change,
        )
        other = [name for name in members if not name.endswith(SUFFIX)]
        require(not other, f"{', '.join(other)} in {path}", "members that are npy files", change)
        for name in members:
            _check_member(path, file, found[name], kinds, change)
        with reading(path, KIND, change):
            return {name.removesuffix(SUFFIX): _array(file, found[name]) for name in members}


def _check_member(
    path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str, change: str
) -> None:
    name = f"{info.filename!r} in {path}"
    packed, unpacked = info.compress_size, info.file_size
    check_expansion(name, packed=packed, unpacked=unpacked, change=change)
    with reading(path, KIND, change), file.open(info) as member:
        shape, dtype, offset = _header(member)
    require(
        dtype.kind in kinds and not dtype.hasobject,
        f"{name} of dtype {dtype}",
        "an array of numbers",
        change,
    )
    announced = offset + math.prod(shape) * dtype.itemsize
    require(
        announced == unpacked and all(length >= 0 for length in shape),
        f"{name} of shape {shape} and dtype {dtype} in {unpacked} bytes",
        f"{announced} bytes",
        change,
    )


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    head = io.BytesIO(member.read(_LONGEST_HEADER))
    shape, _, dtype = _HEADERS[np.lib.format.read_magic(head)](head)
    return shape, dtype, head.tell()


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with file.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
