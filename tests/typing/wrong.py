"""A user's mistakes: a type checker reports every marked line, and no other; run, each raises."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sparse_hyper_jax as shj
from sparse_hyper_jax import dist
from sparse_hyper_jax.backprop import TopK, sparse_dense
from sparse_hyper_jax.estimators import RLOO, cell_choices, cell_expectation, expectation
from sparse_hyper_jax.nn import (
    FreeHyperLayer,
    GlimpseAttention,
    HyperLayer,
    Mixture,
    SparseBackpropLinear,
    glimpse_classifier,
)
from sparse_hyper_jax.ops import ContinuousTuples, bound_means, hyperlayer, relax
from sparse_hyper_jax.pruning import SET, Prune, RigL, gradual, sparse_training, uniform
from sparse_hyper_jax.reparam import powerprop
from sparse_hyper_jax.sort import draw_sort, quicksort, soft_sort

key, rngs, x, n = jax.random.key(0), nnx.Rngs(0), jnp.ones((4, 8)), jnp.ones(8)
tuples = ContinuousTuples(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3))
layer, params = FreeHyperLayer((8,), (8,), 8, rngs=rngs), {"kernel": jnp.ones((8, 8))}
mesh = dist.make_mesh({"data": 1, "tuples": 1})

MISTAKES = (
    # Rooms and their functions, as attributes of the package.
    lambda: shj.opps,  # wrong
    lambda: shj.ops.settel(tuples, (8, 8)),  # wrong
    lambda: shj.sort.soft_sort(n, x, certanty=1.0),  # wrong
    # Options of functions.
    lambda: hyperlayer(key, tuples, n, (8,), num_gobal=4),  # wrong
    lambda: hyperlayer(key, tuples, n, (8,), num_global="4"),  # wrong
    lambda: relax(key, tuples, (8, 8), chunksize=3),  # wrong
    lambda: relax(key, tuples, (8, 8), density="gausian"),  # wrong
    lambda: bound_means(n, (8,), method="sigmod"),  # wrong
    lambda: sparse_dense(key, x, params["kernel"], layout="out_of"),  # wrong
    lambda: dist.hyperlayer(key, tuples, n, (8,), num_gobal=4, mesh=mesh),  # wrong
    lambda: dist.relax(key, tuples, (8, 8), num_gobal=4, mesh=mesh),  # wrong
    lambda: cell_choices(key, tuples, (8, 8), num_gobal=4),  # wrong
    lambda: soft_sort(n, x, certanty=1.0),  # wrong
    lambda: soft_sort(n, n, certainty="high"),  # wrong
    lambda: quicksort(key, n, n, certanty=1.0),  # wrong
    lambda: draw_sort(key, n, n, certanty=1.0),  # wrong
    lambda: sparse_dense(key, x, params["kernel"], sparsifer=TopK(0.5)),  # wrong
    lambda: uniform(params, 0.5, filter=lambda path, leaf: True),  # wrong
    lambda: powerprop(2.0, select="kernel").to_theta(params),  # wrong
    # Options of modules, at construction and at call.
    lambda: FreeHyperLayer((8,), (8,), 8, num_gobal=4, rngs=rngs),  # wrong
    lambda: FreeHyperLayer((8,), (8,), 8, num_global="4", rngs=rngs)(x),  # wrong
    lambda: HyperLayer(nnx.Linear(8, 8, rngs=rngs), (8,), share=True, rngs=rngs),  # wrong
    lambda: layer(x, determinstic=True),  # wrong
    lambda: GlimpseAttention(9, 9, (3, 3), readr="hard", rngs=rngs),  # wrong
    lambda: glimpse_classifier("conv", 9, 9, (3, 3), readr="hard", rngs=rngs),  # wrong
    lambda: SparseBackpropLinear(8, 4, use_bais=False, rngs=rngs),  # wrong
    lambda: SparseBackpropLinear(8, 4, sparsifier=0.5, rngs=rngs),  # wrong
    lambda: Mixture(8, 4, 8, 2, routr="top", rngs=rngs),  # wrong
    lambda: Mixture(8, 4, 8, 2, router="tpo", rngs=rngs),  # wrong
    lambda: FreeHyperLayer((8,), (8,), 8, mean_method="sigmod", rngs=rngs),  # wrong
    lambda: GlimpseAttention(9, 9, (3, 3), reader="had", rngs=rngs),  # wrong
    # Frozen dataclasses, and what makes them.
    lambda: RigL(9, drop_fractoin=0.1),  # wrong
    lambda: SET(9, grow="gradient"),  # wrong
    lambda: Prune(scor="magnitude"),  # wrong
    lambda: Prune(score="magnitud"),  # wrong
    lambda: TopK(share=0.5),  # wrong
    lambda: RLOO(samples=4),  # wrong
    # Optimizers and estimators.
    lambda: sparse_training(optax.sgd(0.1), Prune(), densty=0.5),  # wrong
    lambda: sparse_training(Prune(), optax.sgd(0.1), density=0.5),  # wrong
    lambda: sparse_training(optax.sgd(0.1), gradual(0, 9), density=0.5),  # wrong
    lambda: expectation(key, x, jnp.sum, estimater="rloo"),  # wrong
    lambda: expectation(key, x, jnp.sum, estimator=RLOO),  # wrong
    lambda: expectation(jnp.sum, x, key),  # wrong
    lambda: cell_expectation(key, *tuples[:2], (8, 8), jnp.sum, samples=2),  # wrong
)
