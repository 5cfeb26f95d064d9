"""The package by itself: rooms that are imported when they are asked for."""

import pkgutil
import subprocess
import sys

import pytest

import sparse_hyper_jax
from sparse_hyper_jax import ops, types

PROGRAM = """
import sys
import sparse_hyper_jax as s
assert "jax" not in sys.modules
assert {"ops", "nn", "ContinuousTuples"} <= set(dir(s))
assert s.ops.sample_tuples is sys.modules["sparse_hyper_jax.ops"].sample_tuples
assert s.SparseEntries.__module__ == "sparse_hyper_jax.types"
from sparse_hyper_jax import *
assert ContinuousTuples is s.ContinuousTuples
"""


def test_rooms_and_types_are_attributes_without_an_import():
    words = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_every_room_is_an_attribute():
    rooms = {
        name for _, name, is_room in pkgutil.iter_modules(sparse_hyper_jax.__path__) if is_room
    }
    assert rooms <= set(dir(sparse_hyper_jax))
    assert sparse_hyper_jax.ops is ops
    assert sparse_hyper_jax.ContinuousTuples is types.ContinuousTuples


def test_a_misspelt_room_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sparse_hyper_jax' has no attribute 'opps'"):
        sparse_hyper_jax.opps  # noqa: B018
