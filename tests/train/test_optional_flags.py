import dataclasses
from pathlib import Path

import pytest
import tyro

from sparse_hyper_jax.train.limits import Count, Counts, Positive
from sparse_hyper_jax.train.optional_flags import optional_flags


@dataclasses.dataclass(frozen=True)
class Options:
    """Fields of every kind that may be absent, and one that may not."""

    steps: Count | None = None
    rate: Positive | None = None
    out: Path | None = None
    mesh: str | None = "data=1"
    layers: Counts | None = None
    seed: int = 0


def read(*words):
    with optional_flags():
        return tyro.cli(Options, args=list(words))


def test_values_are_read_by_their_type():
    words = "--steps 3 --rate .5 --out a/b --mesh data=2 --layers 4 5 --seed 1"
    expected = Options(3, 0.5, Path("a/b"), "data=2", (4, 5), 1)
    assert repr(read(*words.split())) == repr(expected)
    assert read() == Options()


def test_none_is_a_value_too():
    assert read("--mesh", "None", "--steps", "None", "--out", "None") == Options(mesh=None)


def test_help_speaks_of_the_type_alone(capsys):
    with pytest.raises(SystemExit):
        read("--help")
    told = capsys.readouterr().out
    for flag in ("--steps INT", "--rate FLOAT", "--out PATH", "--mesh STR", "--layers [INT"):
        assert flag in told


@pytest.mark.parametrize("words", [("--steps", "inf"), ("--rate", ""), ("--layers", "x")])
def test_a_word_that_does_not_fit_is_refused_by_its_flag(words, capsys):
    with pytest.raises(SystemExit) as ended:
        read(*words)
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"Error parsing {words[0]}" in told
    assert "Limit" not in told
    assert "NoneType" not in told
