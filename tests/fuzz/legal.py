"""Run plans: many cases through one compiled program, each against its oracle."""

import traceback

import jax
import jax.numpy as jnp
import numpy as np

from tests.fuzz.compare import RIGHT, Verdict, brief, judge

ONE_BY_ONE = 0.2
"""Share of plans whose cases run one after the other, without `jax.vmap`."""


def run_plan(family, room, number, *, seed, count, findings):
    """Draw a plan of a family, run its cases and judge them.

    Args:
        family: draws the plan.
        room: its name.
        number: of the plan, which together with the seed makes it what it is.
        seed: of the whole run.
        count: of cases.
        findings: where the result goes.
    """
    rng = np.random.default_rng([seed, number, *room.encode()])
    program = family(rng)
    where = f"--room {room} --seed {seed} --plan {number} --per-plan {count}"
    where += f": {program.name} {dict(program.options)}"
    findings.count(room, "cases", count)
    done = 0
    try:
        cases = [program.draw(rng) for _ in range(count)]
        for case, got, weight in zip(cases, *compute(program, cases, rng), strict=True):
            verdict, name = judge_case(program, case, got, weight)
            done += 1
            if verdict.words:
                kind = "nan" if verdict.is_nan else "mismatches"
                told = ", ".join(f"{key}={brief(value)}" for key, value in case.items())[:1500]
                about = f"{program.name}, {name}"
                findings.add(room, kind, about, f"{where}; {told}; {name}: {verdict.words}")
    except Exception as error:  # a legal call that raises is a finding, whatever it raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{type(error).__name__}: {str(error)[:300]} ({last.filename}:{last.lineno})"
        findings.add(room, "mismatches", f"{program.name} raises", f"{where} {words}")
        findings.count(room, "mismatches", count - done - 1)


def compute(program, cases, rng):
    """Give the outputs of all cases, and the weights by which they were differentiated."""
    batch = {name: np.stack([case[name] for case in cases]) for name in cases[0]}
    inputs = {name: jnp.asarray(array) for name, array in batch.items()}
    if program.keyed:
        inputs["key"] = jax.random.split(jax.random.key(rng.integers(2**31)), len(cases))
    if program.slopes:
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs)
        y = jax.eval_shape(lambda arguments: program.run(**arguments)["y"], one)
        drawn = rng.integers(-8, 9, (len(cases), *y.shape)) / 4
        inputs["weights"] = jnp.asarray(drawn, y.dtype)

    def with_slopes(arguments):
        weights = arguments.pop("weights", None)
        if weights is None:
            return program.run(**arguments)

        def of(chosen):
            outputs = program.run(**(arguments | chosen))
            return outputs["y"], outputs

        chosen = {name: arguments[name] for name in program.slopes}
        _, pull, outputs = jax.vjp(of, chosen, has_aux=True)
        return outputs | {f"d_{name}": slope for name, slope in pull(weights)[0].items()}

    weights = np.asarray(inputs.get("weights", np.zeros(len(cases))))
    if rng.random() < ONE_BY_ONE:
        compiled = jax.jit(with_slopes)
        rows = [jax.tree.map(lambda leaf, n=n: leaf[n], inputs) for n in range(len(cases))]
        return [jax.device_get(compiled(row)) for row in rows], weights
    results = jax.device_get(jax.jit(jax.vmap(with_slopes))(inputs))
    return [{name: leaf[n] for name, leaf in results.items()} for n in range(len(cases))], weights


def judge_case(program, case, got, weights):
    """Give the first thing that is wrong with a case, and the name of the output."""
    wide = {name: in_double(array) for name, array in case.items()}
    with np.errstate(all="ignore"):
        expected = program.expect(wide | {"weights": in_double(weights)}, got)
    for name, array in got.items():
        verdict = judge_dtype(program, case, name, array)
        verdict = verdict if verdict.words else judge(array, expected.get(name))
        if verdict.words:
            return verdict, name
    return RIGHT, ""


def judge_dtype(program, case, name, array):
    """Floats are float32, unless they stand for an argument."""
    if not jnp.issubdtype(array.dtype, jnp.inexact) or name.startswith("d_"):
        return RIGHT
    wanted = case[program.like[name]].dtype if name in program.like else np.float32
    if array.dtype == wanted:
        return RIGHT
    return Verdict(f"found dtype {array.dtype}; expected {wanted}")


def in_double(array):
    """Floats as float64, exactly; all else as it is."""
    array = np.asarray(array)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.inexact) else array
