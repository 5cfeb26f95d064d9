"""Damaged and hostile files: what a reader must tell in three parts, and at no cost."""

import io
import struct
import zipfile

import numpy as np


def npy(array, *, header=None):
    """Give the bytes of an npy file, maybe with another dict in its header."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    if header is None:
        return stream.getvalue()
    text = repr(header).encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()


def write_npz(path, arrays, *, raw=None, method=zipfile.ZIP_DEFLATED):
    """Write arrays, and bytes under names of their own."""
    with zipfile.ZipFile(path, "w", method) as file:
        for name, array in arrays.items():
            file.writestr(f"{name}.npy", npy(array))
        for name, content in (raw or {}).items():
            file.writestr(name, content)


def header_of(array, **changes):
    return {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | changes


def hostile_npz(good, name):
    """Give, by the name of the damage, functions that write a bad version of some good arrays.

    Args:
        good: arrays by name.
        name: the array that is hostile, where only one is.
    """
    array = np.asarray(good[name])
    rest = {other: value for other, value in good.items() if other != name}

    def with_bytes(change):
        def write(path):
            write_npz(path, good)
            path.write_bytes(change(path.read_bytes()))

        return write

    def with_array(value):
        return lambda path: write_npz(path, rest | {name: value})

    def with_member(content, suffix=".npy"):
        return lambda path: write_npz(path, rest, raw={name + suffix: content})

    def with_header(**changes):
        return with_member(npy(array, header=header_of(array, **changes)))

    records = np.zeros(array.shape, [("a", "i4")])
    bytes_of = {
        "empty": lambda _: b"",
        "text": lambda _: b"no npz file",
        "begins like one": lambda _: b"PK\x03\x04 cut off",
        "a single array": lambda _: npy(array),
        "cut off": lambda data: data[:-100],
        "cut in half": lambda data: data[: len(data) // 2],
        "zeros inside": lambda data: data[:40] + bytes(80) + data[120:],
    }
    arrays = {
        "complex": array.astype(complex),
        "text inside": np.full(array.shape, "text"),
        "dates": np.zeros(array.shape, "M8[s]"),
        "records": records,
        "objects": np.full(array.shape, None),
        "void": np.zeros(array.shape, "V4"),
    }
    headers = {
        "shape too large": {"shape": (10**13, 1600)},
        "shape past int64": {"shape": (2**62, 2**62)},
        "negative shape": {"shape": (-1, -1)},
        "shape too small": {"shape": (*array.shape, 0)},
        "no dtype": {"descr": "<nothing"},
    }
    return {
        **{damage: with_bytes(change) for damage, change in bytes_of.items()},
        **{damage: with_array(value) for damage, value in arrays.items()},
        **{damage: with_header(**changes) for damage, changes in headers.items()},
        "no npy member": with_member(b"plain text"),
        "empty member": with_member(b""),
        "member without its ending": with_member(npy(array), suffix=""),
        "missing": lambda path: write_npz(path, rest),
        "bomb": with_member(npy(np.zeros(2**25, np.uint8))),
        "bomb in the header": with_member(
            b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**26) + bytes(2**26)
        ),
    }
