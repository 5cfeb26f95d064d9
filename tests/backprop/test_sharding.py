from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sparse_hyper_jax.backprop import (
    AdaptiveLadder,
    AdaptiveTopK,
    BlockTopK,
    CandidateTopK,
    Memory,
    TopK,
    UnifiedTopK,
    empty_compact,
    error_feedback,
    init_memory,
    next_memory,
    sparse_dense,
    sparsify,
    sparsify_cotangent,
)
from tests.backprop.examples import (
    ADAPTIVE,
    FIXED,
    KEY,
    N_IN,
    RANDOM,
    SPARSIFIERS,
    N,
    random_array,
)
from tests.ops.examples import assert_close, assert_names_itself_and_its_cure

ROWS = 16
PARAMETERS = (random_array(N, N_IN), random_array(N, seed=1))
X, TARGET = random_array(3, ROWS, N_IN, seed=2), random_array(3, ROWS, N, seed=3)
# On one device, then where the rows are spread over the axis "data".
ONE_AND_MANY = {
    "TopK": (TopK(3), TopK(3)),
    "UnifiedTopK": (UnifiedTopK(3), UnifiedTopK(3, "data")),
    "CandidateTopK": (CandidateTopK(2, 4), CandidateTopK(2, 4, "data")),
    "BlockTopK": (BlockTopK(4, 2), BlockTopK(4, 2, "data")),
    "AdaptiveTopK": (AdaptiveTopK(0.1, 0.6), AdaptiveTopK(0.1, 0.6)),
    "AdaptiveLadder": (
        AdaptiveLadder(0.1, 0.6),
        AdaptiveLadder(0.1, 0.6, axis_name="data"),
    ),
}


def layer(x, parameters, memory, sparsifier):
    return sparse_dense(None, x, *parameters, memory, sparsifier=sparsifier)


def after(x, parameters, memory, sparsifier):
    y = x @ parameters[0].T + parameters[1]
    return sparsify_cotangent(None, y, memory, sparsifier=sparsifier)


def step(parameters, memory, x, target, *, sparsifier, operation=layer, mean=jnp.mean):
    def loss(parameters, memory):
        return mean((operation(x, parameters, memory, sparsifier) - target) ** 2)

    gradient, following = jax.grad(loss, argnums=(0, 1))(parameters, memory)
    return gradient, next_memory(memory, following)


def global_mean(errors):
    return jax.lax.pmean(jnp.mean(errors), "data")


def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def placement(memory, slot):
    same = jax.tree.map(lambda _: P(), memory)
    return same if memory.residue is None else same._replace(residue=P("data") if slot else P())


def start(kind):
    memory = init_memory(kind, (ROWS, N), adaptive=True, count=True)
    return memory, placement(memory, kind == "slot")


def run(step, memory, steps=3):
    results = []
    for number in range(steps):
        gradient, memory = step(PARAMETERS, memory, X[number], TARGET[number])
        results.append((gradient, memory))
    return jax.tree.map(np.asarray, results)


@cache
def one_device(name, kind, operation=layer):
    once = partial(step, sparsifier=ONE_AND_MANY[name][0], operation=operation)
    return run(jax.jit(once), start(kind)[0])


def many_devices(name, kind, operation=layer):
    memory, specs = start(kind)
    once = partial(step, sparsifier=ONE_AND_MANY[name][1], operation=operation, mean=global_mean)
    rows = P("data")
    spread = jax.shard_map(
        once, mesh=mesh(), in_specs=(P(), specs, rows, rows), out_specs=(P(), specs)
    )
    return run(jax.jit(spread), memory)


def test_there_are_several_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "slot") for name in ONE_AND_MANY),
        ("UnifiedTopK", "shared"),
        ("AdaptiveLadder", "shared"),
        ("UnifiedTopK", "none"),
    ],
)
def test_data_parallel_layers_are_one_layer(name, kind):
    ours = many_devices(name, kind)
    assert_close(ours, one_device(name, kind))
    assert ours[-1][1].uses == 1
    assert ours[-1][1].peak > 0
    assert ours[-1][1].counts.sum() > 0


@pytest.mark.parametrize("kind", ["slot", "shared"])
def test_data_parallel_cotangents_are_one_cotangent(kind):
    ours = many_devices("UnifiedTopK", kind, after)
    assert_close(ours, one_device("UnifiedTopK", kind, after))
    assert ours[-1][1].residue.any()


def test_without_an_axis_name_each_device_chooses_for_its_rows():
    memory, specs = start("slot")
    once = partial(step, sparsifier=UnifiedTopK(3), mean=global_mean)
    rows = P("data")
    spread = jax.shard_map(
        once, mesh=mesh(), in_specs=(P(), specs, rows, rows), out_specs=(P(), specs)
    )
    gradient, following = jax.jit(spread)(PARAMETERS, memory, X[0], TARGET[0])
    assert following.counts.sum() == 3 * ROWS
    assert (np.asarray(gradient[0]).any(1) == (np.asarray(following.counts) > 0)).all()
    assert (following.counts > 0).sum() > 3


def test_a_compact_gradient_is_refused_where_rows_are_spread():
    rule = UnifiedTopK(3, "data")
    compact = empty_compact(PARAMETERS[0], rule)
    assert compact.rows.shape == (3, N_IN)

    def once(x, compact):
        def loss(compact):
            return sparse_dense(None, x, *PARAMETERS, sparsifier=rule, compact=compact).sum()

        return jax.grad(loss)(compact)

    spread = jax.shard_map(once, mesh=mesh(), in_specs=(P("data"), P()), out_specs=P())
    assert_names_itself_and_its_cure(
        lambda: spread(X[0], compact), "inside shard_map", "ordinary", "compact=None"
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("TopK", "slot"), ("UnifiedTopK", "shared"), ("AdaptiveLadder", "slot")]
)
def test_sharded_arrays_need_nothing_under_plain_jit(name, kind):
    memory, specs = start(kind)
    devices = mesh()

    def put(array, spec):
        return jax.device_put(array, NamedSharding(devices, spec))

    def once(parameters, memory, x, target):
        x, target = put(x, P("data")), put(target, P("data"))
        parameters = jax.tree.map(lambda leaf: put(leaf, P()), parameters)
        return compiled(parameters, memory, x, target)

    compiled = jax.jit(partial(step, sparsifier=ONE_AND_MANY[name][0]))
    ours = run(once, Memory(*map(put, memory, specs)))
    assert_close(ours, one_device(name, kind))
    assert ours[-1][1].uses == 1


@partial(jax.jit, static_argnames="which")
def on_a_mesh(which, x, kernel, memory, matrix):
    """Gradients of a layer, its next memory; a sparsified matrix; a step of error feedback."""

    def loss(x, kernel, memory):
        y = sparse_dense(KEY, x, kernel, None, memory, sparsifier=SPARSIFIERS[which])
        return jnp.mean(jnp.tanh(y) ** 2)

    results = [*jax.grad(loss, (0, 1, 2))(x, kernel, memory)]
    if which not in ADAPTIVE:
        results.append(sparsify(KEY, matrix, SPARSIFIERS[which]))
    if which in FIXED:
        feedback = error_feedback(SPARSIFIERS[which])
        results.append(feedback.update([matrix], feedback.init([matrix])))
    return results


@pytest.mark.parametrize("which", ["TopK", "BlockTopK", "ImportanceSampling", "AdaptiveLadder"])
def test_rows_or_columns_spread_over_any_kind_of_mesh(which):
    """Under plain jit; the kinds of column and of row, with and without weights and a ladder."""
    x = random_array(ROWS, N_IN, seed=4)
    kernel, matrix = random_array(N, N_IN, seed=5), random_array(8, N, seed=6)
    kind_of = "none" if which in RANDOM else "slot"
    memory = init_memory(kind_of, (ROWS, N), adaptive=which in ADAPTIVE, count=True)
    expected = on_a_mesh(which, x, kernel, memory, matrix)
    for kind in AxisType.Explicit, AxisType.Auto:
        mesh = jax.make_mesh((4,), ("d",), axis_types=(kind,))
        rows, columns = (NamedSharding(mesh, spec) for spec in (P("d"), P(None, "d")))
        placed = jax.device_put(x, rows), jax.device_put(matrix, columns)
        with jax.set_mesh(mesh):
            got = on_a_mesh(which, placed[0], kernel, memory, placed[1])
        assert_close(got, expected, rtol=1e-4, atol=1e-5)
