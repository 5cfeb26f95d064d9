"""The suite's own settings: nothing breaks without a cache, and a fold answers as its cases do."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import compiling, folding
from tests.folding import folded


def test_flags_are_only_for_those_who_know_them():
    cheap = compiling.CHEAP_FLAGS["0.10"]
    assert compiling.with_cheap_flags({}, "0.10.2") == cheap
    assert compiling.with_cheap_flags({}, "0.12.0.1") == compiling.ONE_PART
    assert compiling.with_cheap_flags({}, "0.99.0") == ""
    chosen = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=true"}
    flags = compiling.with_cheap_flags(chosen, "0.10.2")
    assert flags == f"{chosen['XLA_FLAGS']} {compiling.ONE_PART}"
    other = {"XLA_FLAGS": "--xla_dump_to=here"}
    assert compiling.with_cheap_flags(other, "0.10.2") == f"--xla_dump_to=here {cheap}"


def test_the_cache_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv(compiling.CACHE, str(tmp_path / "named"))
    folder = compiling.cache_folder()
    assert folder.parent == tmp_path / "named"
    assert folder.is_dir()
    monkeypatch.delenv(compiling.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert compiling.cache_folder().is_relative_to(tmp_path / "user" / "sparse_hyper_jax")


@pytest.mark.parametrize("named", ["off", "/proc/none", "{tmp}/file/below"])
def test_without_a_place_for_it_there_is_no_cache(tmp_path, monkeypatch, named):
    (tmp_path / "file").touch()
    monkeypatch.setenv(compiling.CACHE, named.format(tmp=tmp_path))
    assert compiling.cache_folder() is None
    assert compiling.cheap_settings()["jax_enable_compilation_cache"] is False


def test_the_oldest_programs_go_first(tmp_path):
    for age, version in enumerate(("jaxlib-2", "jaxlib-2", "jaxlib-1")):
        (tmp_path / version).mkdir(exist_ok=True)
        program = tmp_path / version / f"{age}-cache"
        program.write_bytes(bytes(100))
        os.utime(program, (0, 1000 - age))
    (tmp_path / "mine").touch()
    compiling.trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "0-cache",
        "1-cache",
        "mine",
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_a_fold_answers_as_its_cases_do(monkeypatch, apart):
    monkeypatch.setattr(folding, "apart", apart)
    traced = []

    def total(x):
        traced.append(x.shape)
        return jnp.sum(x)

    @folded
    def sums():
        return {(size,): (total, np.ones(size)) for size in (2, 3)}

    assert sums(3) == 3
    assert traced == ([(3,)] if apart else [(2,), (3,)])
    assert sums(2) == 2
    assert len(traced) == 2


def test_a_case_that_fails_in_a_fold_fails_alone(monkeypatch):
    monkeypatch.setattr(folding, "apart", False)

    @folded
    def products():
        return {(size,): (lambda x: x @ jnp.ones(2), np.ones(size)) for size in (2, 3)}

    assert products(2) == 2
    with pytest.raises(TypeError, match="dot"):
        products(3)


def test_processes_that_tests_start_compile_in_the_same_way():
    for name in ("jax_enable_compilation_cache", "jax_compilation_cache_dir"):
        assert os.environ.get(name.upper(), str(jax.config.values[name])) == str(
            jax.config.values[name]
        )
    cheap = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    assert cheap == str(jax.config.values["jax_disable_most_optimizations"])
