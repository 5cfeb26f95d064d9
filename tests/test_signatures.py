from pathlib import Path

from tests.signatures import misfits

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_a_call_that_does_not_fit_is_named():
    source = """
from sparse_hyper_jax import ops
from sparse_hyper_jax.ops import log_densities as density

ops.mix_nearby(no_such=1)
density()
density(*given)
other.density()
"""
    named = [said.split(":")[0] for said in misfits(source)]
    assert named == ["line 5", "line 6"]


def test_calls_in_benchmarks_fit():
    programs = sorted(BENCHMARKS.rglob("*.py"))
    assert len(programs) > 20
    found = {path.name: list(misfits(path.read_text(encoding="utf-8"))) for path in programs}
    assert not {name: said for name, said in found.items() if said}
