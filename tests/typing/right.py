"""A user's script: a type checker has nothing to say about it, and it runs."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import sparse_hyper_jax as shj
from sparse_hyper_jax.backprop import TopK
from sparse_hyper_jax.estimators import RLOO, cell_choices, expectation
from sparse_hyper_jax.glimpse import affine_corners, extract, grid_means
from sparse_hyper_jax.nn import FreeHyperLayer, SparseBackpropLinear, parameter_labels
from sparse_hyper_jax.ops import ContinuousTuples, hyperlayer
from sparse_hyper_jax.pruning import RigL, apply_masks, erk, sparse_training
from sparse_hyper_jax.reparam import powerprop
from sparse_hyper_jax.sort import soft_sort

key, x = jax.random.key(0), jnp.ones((4, 8))
layer = FreeHyperLayer((8,), (8,), 8, num_global=2, fixed_values=None, rngs=nnx.Rngs(0))
rates = {"means": 5e-3, "variances": 5e-3, "values": 1e-2}
optimizer = nnx.Optimizer(
    layer,
    optax.partition(
        {name: optax.adam(rate) for name, rate in rates.items()},
        parameter_labels(nnx.state(layer, nnx.Param)),
    ),
    wrt=nnx.Param,
)


@nnx.jit
def train_step(layer: FreeHyperLayer, optimizer: nnx.Optimizer, x: jax.Array) -> jax.Array:
    loss, gradient = nnx.value_and_grad(lambda layer: jnp.mean((layer(x) - x) ** 2))(layer)
    optimizer.update(layer, gradient)
    return loss


loss: jax.Array = train_step(layer, optimizer, x)
y: jax.Array = layer(x, deterministic=True) + layer(x, rngs=key)

tuples = ContinuousTuples(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3))
y = hyperlayer(key, tuples, jnp.ones(8), (8,), num_local=1, region=(2, 2), density="laplace")
ordered: jax.Array = soft_sort(jnp.arange(4.0), x, certainty=2.0)
window = extract(
    key,
    jnp.ones((9, 9)),
    grid_means(affine_corners(jnp.zeros(6), (9, 9)), (3, 3)),
    jnp.ones(2),
    num_global=1,
    region=[4, 4],
)
choices = cell_choices(key, tuples, (8, 8), num_global=2)
value, slope = jax.value_and_grad(
    lambda logits: expectation(key, logits, jnp.sum, estimator=RLOO(4))
)(choices.logits)

params = {"kernel": jnp.ones((8, 8)), "bias": jnp.zeros(8)}
whole = partial(erk, dense=lambda path, leaf: leaf.ndim < 2)
sparse = sparse_training(optax.sgd(0.1), RigL(9, every=2), density=0.5, distribution=whole, key=key)
state = sparse.init(params)
updates, state = sparse.update(apply_masks(params, state.masks), state, params)
params = optax.apply_updates(params, updates)
theta = powerprop(2.0, select=lambda path, leaf: leaf.ndim == 2).to_theta(params)

linear = SparseBackpropLinear(8, 4, sparsifier=TopK(0.5), use_bias=False, rngs=nnx.Rngs(0))
gradient = jax.grad(lambda x: jnp.sum(linear(x)))(x)

entries: shj.SparseEntries = shj.ops.settle(shj.ContinuousTuples(*tuples), (8, 8))
dense: jax.Array = shj.ops.to_dense(entries, (8, 8))
ranks: jax.Array = shj.sort.soft_ranks(dense[0], certainty=2.0)
head = shj.nn.SparseBackpropLinear(8, 2, sparsifier=shj.backprop.TopK(0.5), rngs=nnx.Rngs(0))
logits: jax.Array = head(dense)
