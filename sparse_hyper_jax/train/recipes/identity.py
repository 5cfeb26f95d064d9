"""Learn the identity as a sparse matrix: n tuples on n x n cells find the diagonal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import dist
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.ops import (
    ContinuousTuples,
    bound_means,
    bound_variances,
    invert_means,
    leaving_gains,
    relax,
    relocate,
    settle,
)
from sparse_hyper_jax.train.epoch_state import Metrics
from sparse_hyper_jax.train.limits import Count, NotNegative, Positive, Whole, at_least, said
from sparse_hyper_jax.train.models.sampled_matrix import (
    LOSSES,
    gains_of_all,
    measure,
    sampling_of,
    value_gradients,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder
from sparse_hyper_jax.train.snapshots import read_snapshots, save_snapshot

FRAMES = 60
OF_MOVES = (
    *("relocation_points", "relocation_batches", "move_anywhere", "move_wrong"),
    *("lost", "moved_spread"),
)
"""Options that mean nothing where no tuples move."""


class IdentityState(NamedTuple):
    """What training changes."""

    parameters: Any
    """Dict of ``means (n, 2)`` and ``spreads (n,)``, before bounding."""

    optimizer: optax.OptState
    count: jax.Array
    """Finished steps, int32."""


@dataclass(frozen=True, kw_only=True)
class IdentityRecipe(Recipe):
    """Learn the identity matrix as a sparse one, from random vectors (Bloem 2018, figure 2)."""

    name: ClassVar[str] = "identity"

    size: Count = 32
    """Number n of inputs, outputs and tuples."""

    steps: Count | None = None
    """Number of training steps; by default 4,000 or 125 per tuple, whichever is more."""

    animate: bool = False
    """Also write a GIF of the tuples settling."""

    method: Literal["hyperlayer", "reinforce", "rloo", "arsm", "arm"] = "hyperlayer"
    """How the gradient is made: relaxation of this library; the score function of Gaussians; or an
    unbiased estimator of the choice of one point per tuple (arm: among its neighbours, by axis)."""

    num_samples: Annotated[int, at_least(2)] = 4
    """Choices per vector and step, for rloo."""

    batch: Count = 64
    """Random vectors per step."""

    sample_groups: Count = 1
    """Groups of vectors, each with sampled points of its own; 1 shares them by the whole batch."""

    learning_rate: Positive = 0.005
    """Of Adam; for means from 128 tuples on 128 over their number of it: a raw mean of a larger
    matrix moves over more cells, and settled tuples would be shaken off theirs."""

    num_global: Whole = 4
    """Points per tuple drawn from all cells."""

    num_local: Whole = 4
    """Points per tuple drawn from the window around its mean."""

    region: Count = 4
    """Length of that window on both axes."""

    chunk_size: Count | None = None
    """Tuples that share their points, for hyperlayer; by default all of them."""

    tuple_density: Literal["gaussian", "laplace", "student_t"] = "gaussian"
    """Shape of a tuple."""

    variance_floor: NotNegative = 0.0
    """Least variance, in squared cells."""

    relocate_every: Whole = 250
    """Steps between moves of surplus tuples to the cells that gain most; 0 for never."""

    relocation_points: Whole | None = None
    """Points per tuple drawn from all cells when tuples move; by default --num-global. A missing
    cell is found where a point happens to fall, which takes long in a large matrix."""

    move_anywhere: bool = False
    """Look for gains on all cells when tuples move, not on sampled ones: a dense gradient now and
    then, as RigL takes it."""

    relocation_batches: Count = 1
    """Batches over which it is measured what gains, when tuples move."""

    move_wrong: bool = False
    """Also move settled tuples that clearly do harm, by --relocation-batches: those on wrong cells,
    which are not surplus otherwise."""

    lost: Positive = 0.25
    """Variance, in units of the size, from which on a tuple is lost and moves; fresh ones have
    about 0.22."""

    moved_spread: float = 0.0
    """Raw spread of a tuple that was moved: with 0 it is as wide as a fresh one, with -4 it settles
    soon, and with -9 at once, so that the cell has to be the right one."""

    mesh: str | None = None
    """Devices, for instance data=4,tuples=2: data divides the batch and tuples the tuples."""

    coordinator: str | None = None
    """HOST:PORT at which the first of several processes listens, the same for all of them."""

    rank: int = 0
    """Number of this process, counted from 0."""

    num_processes: int = 1
    """Number of processes."""

    def check(self) -> None:
        """Raise also if points, chunks or groups do not fit together."""
        super().check()
        require(
            self.method != "arm" or not (self.num_global or self.num_local),
            said(self, "method", "num_global", "num_local"),
            "the neighbours alone, which are a choice of two on every axis",
            "pass --num-global 0 --num-local 0",
        )
        require(
            self.size % (self.chunk_size or self.size) == 0,
            said(self, "chunk_size", "size"),
            "a divisor of the size",
            "change --chunk-size or leave it out",
        )
        require(
            not self.move_wrong or self.relocation_batches >= 2,
            said(self, "move_wrong", "relocation_batches"),
            "two or more, as one batch has no standard error",
            "pass for instance --relocation-batches 16",
        )
        require(
            self.batch % self.sample_groups == 0,
            said(self, "batch", "sample_groups"),
            "a number of groups that divides the batch",
            "change one of the two",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Relocation, chunks and groups are of the hyperlayer; some methods draw no points."""
        if self.method != "hyperlayer":
            yield "method", ("sample_groups", "chunk_size", "relocate_every", *OF_MOVES)
        if self.method != "rloo":
            yield "method", ("num_samples",)
        if self.method == "reinforce":
            yield "method", ("num_global", "num_local")
        if self.method in ("reinforce", "arm"):
            yield "method", ("region", "tuple_density")
        if not self.num_local:
            yield "num_local", ("region",)
        if not self.relocate_every:
            yield "relocate_every", OF_MOVES
        if self.move_anywhere:
            yield "move_anywhere", ("relocation_points",)

    def load(self) -> None:
        """Join the other processes; there is no data."""
        dist.join_processes(self.coordinator, self.rank, self.num_processes)

    def settle(self, data: None) -> Self:
        """Settle the steps."""
        return replace(self, steps=self.steps or max(4000, 125 * self.size))

    def tuples(self, parameters: Mapping[str, jax.Array]) -> ContinuousTuples:
        """Bound the parameters; all values are 1."""
        shape = (self.size, self.size)
        return ContinuousTuples(
            bound_means(parameters["means"], shape),
            bound_variances(parameters["spreads"], shape, floor=self.variance_floor),
            jnp.ones(self.size),
        )

    def plan(self, data: None) -> Plan:
        """Judge rounded tuples, and keep them for the drawing."""
        spread, gather = placement(self)

        def evaluate(folder: RunFolder, step: int, state: IdentityState) -> dict[str, float]:
            tuples = self.tuples(gather(state.parameters))
            save_snapshot(folder, step, tuples)
            return measure(tuples)

        def finish(folder: RunFolder, state: IdentityState) -> dict[str, Any]:
            figures = measure(self.tuples(gather(state.parameters)))
            if folder.writes:
                draw(self, folder)
            return {f"test_{name}": value for name, value in figures.items()}

        every = max(100, (self.steps or 0) // FRAMES // 100 * 100)
        state = spread(initial_state(self))
        return Plan(make_step(self), state, finish, evaluate=evaluate, evaluate_every=every)


def placement(recipe: IdentityRecipe) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Give the functions that spread the state over the mesh, and parameters to all of it."""
    require(
        recipe.mesh is not None or recipe.num_processes == 1,
        said(recipe, "num_processes") + " without a mesh",
        "a mesh of the devices of all processes",
        f"pass for instance --mesh tuples={recipe.num_processes}",
    )
    if recipe.mesh is None:
        return lambda state: state, lambda parameters: parameters
    mesh = dist.make_mesh(recipe.mesh)
    data, tuples = mesh.shape["data"], mesh.shape["tuples"]
    own, chunk = recipe.size // tuples, recipe.chunk_size or recipe.size
    groups = recipe.batch // recipe.sample_groups
    for name, valid, expected in (
        ("size", recipe.size % tuples == 0, f"a multiple of tuples={tuples}"),
        ("batch", groups % data == 0, f"groups divided by {data}"),
        ("chunk_size", chunk == recipe.size or own % chunk == 0, f"a divisor of {own}, or all"),
    ):
        message = said(recipe, name, "mesh")
        require(valid, message, expected, f"change the {name.replace('_', ' ')} or the mesh")
    return partial(dist.shard_tuples, mesh=mesh), partial(dist.replicate, mesh=mesh)


def draw(recipe: IdentityRecipe, folder: RunFolder) -> None:
    """Draw, and if asked for animate, how the tuples settled."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    snapshots = read_snapshots(folder)
    shape = (recipe.size, recipe.size)
    figure = plots.plot_settling(snapshots, shape, plots.read_curve(folder, "eval_mse"))
    folder.save_figure(figure, "tuples")
    if recipe.animate:
        plots.animate_tuples(snapshots, shape, folder.path / "tuples.gif")


def optimizer_of(recipe: IdentityRecipe) -> optax.GradientTransformation:
    """Give the recipe's optimizer."""
    factor = min(1.0, 128 / recipe.size)

    def slow_means(updates: Any, _: Any) -> Any:
        return updates | {"means": factor * updates["means"]}

    return optax.chain(optax.adam(recipe.learning_rate), optax.stateless(slow_means))


def initial_state(recipe: IdentityRecipe) -> IdentityState:
    """Draw means and spreads from a standard normal, as the paper's code does."""
    means_key, spreads_key = jax.random.split(jax.random.key(recipe.seed))
    parameters = {
        "means": jax.random.normal(means_key, (recipe.size, 2)),
        "spreads": jax.random.normal(spreads_key, (recipe.size,)),
    }
    optimizer = optimizer_of(recipe).init(parameters)
    return IdentityState(parameters, optimizer, jnp.zeros((), jnp.int32))


def make_step(
    recipe: IdentityRecipe,
) -> Callable[..., tuple[IdentityState, Metrics]]:
    """Make the pure training step of a recipe."""
    loss = LOSSES[recipe.method]
    moves = recipe.relocate_every > 0 and recipe.method == "hyperlayer"
    optimizer = optimizer_of(recipe)

    def step(state: IdentityState, key: jax.Array) -> tuple[IdentityState, Metrics]:
        loss_key, move_key = jax.random.split(key)
        value, gradient = jax.value_and_grad(loss, argnums=2)(recipe, loss_key, state.parameters)
        updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        state = IdentityState(parameters, moments, state.count + 1)
        if moves:
            due = state.count % recipe.relocate_every == 0
            state = jax.lax.cond(due, lambda: move_surplus(recipe, move_key, state), lambda: state)
        return state, {"loss": value}

    return step


def move_surplus(recipe: IdentityRecipe, key: jax.Array, state: IdentityState) -> IdentityState:
    """Move up to one tuple in sixteen to the cell where it lowers the loss most."""
    input_key, sample_key = jax.random.split(key)
    shape = (recipe.size, recipe.size)
    tuples = recipe.tuples(state.parameters)
    placed = {} if recipe.mesh is None else {"mesh": dist.make_mesh(recipe.mesh)}
    sampled = relax if recipe.mesh is None else dist.relax
    sampling = sampling_of(recipe)
    if recipe.relocation_points is not None:
        sampling["num_global"] = recipe.relocation_points
    entries = sampled(sample_key, tuples, shape, **placed, **sampling)
    batches = recipe.relocation_batches
    # The same key on purpose: all is measured on the same batches.
    gradients = partial(value_gradients, recipe, input_key, batches=batches)
    if recipe.move_anywhere:
        where, gains = None, gains_of_all(recipe, input_key, entries, batches=batches)
    else:
        where, gains = entries, -gradients(entries).mean(axis=0)
    leaving = None
    if recipe.move_wrong:
        # Errors of rounding are no reason to leave.
        least = 1e-3 * jnp.max(gains)
        leaving = leaving_gains(tuples, gradients(settle(tuples, shape)), least=least)
    chosen, cells, moved = relocate(
        tuples,
        where,
        gains,
        shape,
        limit=max(1, recipe.size // 16),
        leaving=leaving,
        lost=recipe.lost,
    )
    fresh = {"means": invert_means(cells, shape), "spreads": recipe.moved_spread}

    def write(leaf: jax.Array, new: jax.Array | float) -> jax.Array:
        keep = moved.reshape(-1, *(1,) * (leaf.ndim - 1))
        return leaf.at[chosen].set(jnp.where(keep, new, leaf[chosen]), unique_indices=True)

    # A moved tuple starts afresh: the moments of its old place would push it away again.
    moments = jax.tree.map(lambda leaf: write(leaf, 0.0) if leaf.ndim else leaf, state.optimizer)
    parameters = {name: write(leaf, fresh[name]) for name, leaf in state.parameters.items()}
    return IdentityState(parameters, moments, state.count)
