"""Sparse training as an optax transformation around any optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array, check_instance, check_random_key
from sparse_hyper_jax.parameter_paths import (
    Selector,
    check_selector,
    is_kernel,
    is_left_out,
    replace_selected,
    selected_leaves,
)
from sparse_hyper_jax.precision import wide_dtype
from sparse_hyper_jax.pruning.distributions import Distribution, check_share, uniform
from sparse_hyper_jax.pruning.grown import (
    first_parameters,
    move_grown,
    moved_by,
    renew_grown,
    spread_as,
)
from sparse_hyper_jax.pruning.masks import Masks, replace_entries
from sparse_hyper_jax.pruning.method import Kept, Leaves, Method, Snapshot
from sparse_hyper_jax.pruning.training_checks import (
    PLACEHOLDER,
    check_gradient,
    check_jacobians,
)
from sparse_hyper_jax.reparam import Reparametrization


class SparseState(NamedTuple):
    """What sparse training carries from step to step.

    Attributes:
        masks: what the model uses, for :func:`apply_masks`.
        updated: what may change; the same as ``masks`` for most methods.
        inner: state of the optimizer.
        steps: finished ones, int32.
        average: running mean of the gradients of pruned leaves, in float32 or wider, for a method
            with a momentum; None for the others.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import Prune, SparseState, sparse_training
        >>> params = {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.zeros(2)}
        >>> state = sparse_training(optax.sgd(0.1), Prune(), density=0.5).init(params)
        >>> isinstance(state, SparseState), state.masks
        (True, {'bias': MaskedNode(), 'kernel': Array([[False,  True]], dtype=bool)})
    """

    masks: Masks
    updated: Masks
    inner: Any
    steps: jax.Array
    average: Any = None


class SparseTraining(optax.GradientTransformationExtraArgs):
    """A transformation whose state says which masks to use."""

    # Narrower than in optax, which is safe: the fields of a tuple cannot be set.
    init: "_Init"  # pyright: ignore[reportIncompatibleVariableOverride]
    update: "_Update"  # pyright: ignore[reportIncompatibleVariableOverride]


class _Init(Protocol):
    def __call__(self, params: Any) -> SparseState: ...


class _Update(Protocol):
    def __call__(
        self, updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, SparseState]: ...


def sparse_training(
    inner: optax.GradientTransformation,
    method: Method,
    *,
    density: float | None = None,
    distribution: Distribution = uniform,
    select: Selector = is_kernel,
    reparam: Reparametrization | None = None,
    key: jax.Array | None = None,
) -> SparseTraining:
    """Train with masks that a method makes anew from time to time.

    The gradient has to be the one of the *masked weights*, at dropped entries too::

        weights = apply_masks(params, state.masks)
        gradient = jax.grad(loss)(weights, batch)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)

    With a reparametrisation, ``params`` are theta and ``weights`` come from
    ``apply_masks(reparam.to_weights(theta), state.masks)``. The gradient is still that of the
    weights: it is multiplied with the reparametrisation's Jacobian here, so that ``inner`` is a
    plain optimizer of theta (or of the weights, see
    :meth:`~sparse_hyper_jax.reparam.Reparametrization.optimizer`).

    With ``nnx.Optimizer``, the model to differentiate is one of masked weights::

        graph, params = nnx.split(model, nnx.Param)
        masks = nnx.as_pure(optimizer.opt_state.masks)
        masked = nnx.merge(graph, apply_masks(nnx.as_pure(params), masks))
        optimizer.update(model, nnx.grad(loss)(masked, batch))

    Updates are masked last, after momentum and decay of the inner optimizer, so that dropped
    entries keep their values exactly (numbers below the smallest normal one become 0 where a device
    flushes them, as a CPU does); they are not set to zero, and masks may let them come back.

    Where entries grow (SET, RigL) the optimizer's state is the one that ``inner.init`` gives for
    them there. Updates are then float32 at the least, so that weights of 16 bits get exactly their
    first value: ``optax.apply_updates`` adds in the wider type and rounds once.

    Parameters may be spread over a mesh of any kind: masks are spread like them. To give the state
    shardings of your own, map over it by ``optax.tree_utils.tree_map_params(optimizer, f, state)``
    (with more trees: ``is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode)``).

    Args:
        inner: any optimizer; with SET and RigL one whose moments are arrays (not ``optax.sm3``).
        method: ``Prune``, ``SET``, ``RigL``, ``SRigL``, ``TopKAST`` or ``Fixed``.
        density: share of the entries that is kept in the end, a static number from 0 to 1; all but
            ``Fixed`` need one.
        distribution: how it is shared among arrays, ``uniform`` or ``erk``;
            ``partial(erk, dense=...)`` leaves some whole.
        select: which leaves are pruned.
        reparam: of the parameters, or None. It brings its Jacobian: neither ``inner`` nor a link
            before may multiply with it.
        key: random key, for methods that draw; every step derives its own from it.

    Returns:
        the transformation; its state is a :class:`SparseState`.

    Raises:
        ValueError: an option is wrong; the method needs a key or a density, or brings its own
            masks; entries would grow from zero, or in groups, under a reparametrisation; where it
            is initialised, ``inner`` multiplies with a Jacobian, or given masks do not fit;
            ``update`` is called without ``params``; a gradient has another shape than its
            parameter.

    Example:
        >>> import optax
        >>> from sparse_hyper_jax.pruning import Prune, apply_masks, sparse_training
        >>> optimizer = sparse_training(optax.sgd(0.25), Prune(), density=0.5)
        >>> params = {"kernel": jnp.array([[2.0, -3.0, 0.5, 0.25]])}
        >>> state = optimizer.init(params)
        >>> gradient = jax.tree.map(lambda w: 2 * (w - 1), apply_masks(params, state.masks))
        >>> updates, state = optimizer.update(gradient, state, params)
        >>> apply_masks(optax.apply_updates(params, updates), state.masks)["kernel"].tolist()
        [[1.5, -1.0, 0.0, 0.0]]
    """
    check_instance("inner", inner, optax.GradientTransformation)
    check_instance("method", method, Method)
    density = _density_for(method, density, distribution)
    check_selector("select", select)
    check_instance("reparam", reparam, Reparametrization, NoneType)
    if key is not None:
        check_random_key(key)
    checks.require(
        key is not None or not method.random,
        f"{type(method).__name__} without a key",
        "a key: it draws random numbers",
        "pass key=jax.random.key(seed)",
    )
    method.check_reparam(reparam)
    masking = _Masking(method, density, distribution, select, reparam, key)
    whole = inner if reparam is None else reparam.optimizer(inner)
    training = _Training(optax.with_extra_args_support(whole), method, masking)
    return SparseTraining(training.init, training.update)


def _density_for(method: Method, density: Any, distribution: Any) -> float:
    """Return the density that a method asks for, 1 if it asks for none."""
    checks.require(
        callable(distribution),
        f"distribution={distribution!r:.80}",
        "a function like uniform or erk",
        "pass distribution=erk",
    )
    name = type(method).__name__
    if method.needs_density:
        return check_share(
            "density",
            checks.require_given(
                density, f"{name} without a density", "the share to keep", "pass density=0.1"
            ),
        )
    checks.require(
        density is None and distribution is uniform,
        f"density={density!r} and distribution={distribution!r:.80} with {name}",
        "neither: its masks say what is kept",
        "leave them out",
    )
    return 1.0


class _Made(NamedTuple):
    """What a method kept, as trees like the parameters."""

    forward: Masks
    updated: Masks
    grown: Any


@dataclass(frozen=True)
class _Masking:
    """How a method's masks are made, whatever the state of training."""

    method: Method
    density: float
    distribution: Distribution
    select: Selector
    reparam: Reparametrization | None
    key: jax.Array | None

    def leaves(self, tree: Any) -> list[jax.Array]:
        """List what is pruned of a tree like the parameters."""
        return selected_leaves(self.select, tree)

    def weights(self, params: Any) -> list[jax.Array]:
        """Give the weights of all leaves that are pruned."""
        weights = params if self.reparam is None else self.reparam.to_weights(params)
        return [as_array("params", leaf, "floats") for leaf in self.leaves(weights)]

    def first(self, params: Any) -> _Made:
        """Make the masks of the first step."""
        leaves = self.weights(params)
        everything = [jnp.ones_like(leaf, bool) for leaf in leaves]
        nothing = [jnp.zeros_like(leaf) for leaf in leaves]
        return self._make(self.method.start, params, jnp.zeros((), jnp.int32), nothing, everything)

    def next(self, params: Any, gradient: Any, state: SparseState) -> _Made:
        """Make the masks that follow those of a state."""
        average = state.average
        seen = self.leaves(gradient) if average is None else jax.tree.leaves(average)
        masks = jax.tree.leaves(state.masks)
        return self._make(self.method.change, params, state.steps, seen, masks)

    def _make(
        self,
        rule: Callable[[Any, Snapshot], Kept],
        params: Any,
        steps: jax.Array,
        gradients: Leaves,
        masks: Leaves,
    ) -> _Made:
        """Ask a method; give trees like the parameters in place of its lists of leaves."""
        densities = self.distribution(params, self.density, select=self.select)
        self.method.check_params(params, densities)
        shares, structure = jax.tree.flatten(densities)
        shares = [check_share("a density of the distribution", share) for share in shares]
        key = None if self.key is None else jax.random.fold_in(self.key, steps)
        kept = rule(key, Snapshot(steps, self.weights(params), gradients, masks, shares))
        return _Made(*(None if part is None else structure.unflatten(part) for part in kept))


@dataclass(frozen=True)
class _Training:
    """The transformation: what happens to a gradient, and then to the masks."""

    inner: optax.GradientTransformationExtraArgs
    method: Method
    masking: _Masking

    def init(self, params: Any) -> SparseState:
        """Begin with the first masks."""
        inner, steps = self.inner.init(params), jnp.zeros((), jnp.int32)
        check_jacobians(inner, int(self.masking.reparam is not None))
        averages = self.method.averages
        if isinstance(params, PLACEHOLDER):
            return SparseState(params, params, inner, steps, params if averages else None)
        kept = self.masking.first(params)
        # Two arrays even where they are equal, so that the state can be donated.
        updated = jax.tree.map(jnp.copy, kept.updated)
        average = jax.tree.map(_nothing, params, updated) if averages else None
        return SparseState(kept.forward, updated, inner, steps, average)

    def update(
        self, updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, SparseState]:
        """Take a step of the inner optimizer; where masks are due, make them anew."""
        checks.require(
            params is not None,
            "update called without params",
            "the parameters, from which masks are made",
            "call update(gradient, state, params)",
        )
        check_gradient(updates, params)
        step, moments = self._step(updates, state, params, extra_args)
        average = self._averaged(updates, state)
        after = state._replace(inner=moments, steps=state.steps + 1, average=average)
        change = self._grow if self.method.grows else self._prune
        return jax.lax.cond(
            self.method.schedule.due(after.steps),
            lambda: change(step, updates, state.inner, after, params),
            lambda: (step, after),
        )

    def _step(
        self, gradient: Any, state: SparseState, params: Any, extra_args: dict[str, Any]
    ) -> tuple[Any, Any]:
        """Ask the inner optimizer, and let it move nothing but what is to be updated."""
        # A method may add to the gradient of weights; a reparametrisation makes them costly to get.
        leaves, masks = self.masking.leaves(gradient), jax.tree.leaves(state.masks)
        added = self.method.adjust(leaves, lambda: self.masking.weights(params), masks)
        gradient = replace_selected(self.masking.select, gradient, added)
        seen = replace_entries(gradient, state.updated, 0.0, where=False)
        step, moments = self.inner.update(seen, state.inner, params, **extra_args)
        # Adding -0.0 leaves every number as it is, bit for bit; adding 0.0 changes -0.0.
        step = jax.tree.map(self._widened, step, params)
        return replace_entries(step, state.updated, -0.0, where=False), moments

    def _averaged(self, gradient: Any, state: SparseState) -> Any:
        """Move the running mean towards a gradient."""
        if state.average is None:
            return None
        means, structure = jax.tree.flatten(state.average)
        pairs = zip(means, self.masking.leaves(gradient), strict=True)
        decays = [jnp.asarray(self.method.momentum, mean.dtype) for mean in means]
        return structure.unflatten(
            decay * mean + (1 - decay) * jnp.asarray(leaf).astype(mean.dtype)
            for decay, (mean, leaf) in zip(decays, pairs, strict=True)
        )

    def _prune(
        self, step: Any, gradient: Any, old: Any, after: SparseState, params: Any
    ) -> tuple[Any, SparseState]:
        """Make masks from the parameters after the step."""
        del old
        kept = self.masking.next(moved_by(step, params), gradient, after)
        return step, after._replace(masks=kept.forward, updated=kept.updated)

    def _grow(
        self, step: Any, gradient: Any, old: Any, after: SparseState, params: Any
    ) -> tuple[Any, SparseState]:
        """Make masks in place of the step, whose moments count for nothing; let entries grow."""
        kept = self.masking.next(params, gradient, after)
        grown = spread_as(params, kept.grown)
        target = first_parameters(self.masking.select, self.masking.reparam, params, grown)
        moved = jax.tree.map(move_grown, params, target, grown, step)
        # Not at the target: a way of 32 bits may miss it by a rounding error.
        fresh = self.inner.init(moved_by(moved, params))
        inner = renew_grown(self.inner, old, fresh, grown)
        return moved, after._replace(masks=kept.forward, updated=kept.updated, inner=inner)

    def _widened(self, update: jax.Array, param: jax.Array) -> jax.Array:
        """Give updates the wider type; where entries grow, at least float32."""
        update, param = jnp.asarray(update), jnp.asarray(param)
        if update.dtype == param.dtype and not self.method.grows:
            return update
        return update.astype(wide_dtype(update, param))


def _nothing(leaf: Any, mask: Any) -> Any:
    """Give zeros of a pruned leaf's shape, in which small gradients add up."""
    return mask if is_left_out(mask) else jnp.zeros_like(jnp.asarray(leaf), wide_dtype(leaf))
