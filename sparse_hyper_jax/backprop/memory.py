"""What a sparsified layer carries from one backward pass to the next."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer

from sparse_hyper_jax import checks
from sparse_hyper_jax.backprop.choice import Choice, Sparsifier, count_units, left_over, take
from sparse_hyper_jax.entrance import check_instance
from sparse_hyper_jax.placement import placed_like
from sparse_hyper_jax.precision import wide_dtype

MemoryKind = Literal["none", "slot", "shared"]
KINDS = get_args(MemoryKind)
SelectOn = Literal["corrected", "gradient"]
SELECT_ON = get_args(SelectOn)


def is_wide(dtype: Any) -> bool:
    """Say whether this is a type of real floats with 32 bits or more."""
    try:
        # NumPy takes None for float64.
        known = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
        return known and jnp.dtype(dtype).itemsize >= 4
    except TypeError:
        return False


class Memory(NamedTuple):
    """State of one call site; its gradient IS its next value (see :func:`next_memory`).

    Fields that are not asked for are None. A memory is of float32 or wider, whatever the layer.

    Attributes:
        residue: what was not propagated, in units of the cotangent. The shape of the layer's
            output: row b keeps that of slot b of the batch (``slot``). Or that of one instance of
            it: the sum over the batch, which the next step spreads evenly (``shared``).
        peak: scalar, the largest row sum of magnitudes so far, for adaptive sparsifiers.
        counts: ``(n,)``, how often each unit was propagated, counted over rows and steps (in
            float32 up to 2**24).
        uses: scalar, backward passes that the last gradient went through: 0 at first, then 1.

    Example:
        >>> from sparse_hyper_jax.backprop import Memory, TopK, sparsify_cotangent
        >>> memory = Memory(jnp.array([[0.0, 9.0]]), peak=None, counts=None, uses=jnp.zeros(()))
        >>> loss = lambda y, memory: jnp.sum(sparsify_cotangent(
        ...     None, y, memory, sparsifier=TopK(1), eta=0.5))
        >>> gradient, memory = jax.grad(loss, argnums=(0, 1))(jnp.zeros((1, 2)), memory)
        >>> gradient.tolist(), memory.residue.tolist()  # of 1 and 1 + 9; half of the 1 is kept
        ([[0.0, 10.0]], [[0.5, 0.0]])
    """

    residue: jax.Array | None
    peak: jax.Array | None
    counts: jax.Array | None
    uses: jax.Array


def init_memory(
    kind: MemoryKind,
    shape: tuple[int, ...] = (),
    *,
    event_ndim: int = 1,
    adaptive: bool = False,
    count: bool = False,
    dtype: Any = jnp.float32,
) -> Memory:
    """Make the memory of one call site, all zeros.

    Args:
        kind: ``"slot"``, ``"shared"`` or ``"none"`` (no residue).
        shape: of the layer's output, batch first; ``"shared"`` and ``count`` use the last
            ``event_ndim`` lengths alone.
        event_ndim: number of last axes that make up the units of a row.
        adaptive: with a peak.
        count: with counts.
        dtype: of all fields, float32 or wider: in 16 bits what is small would never add up.

    Returns:
        zeros.

    Raises:
        ValueError: an unknown kind, a shape with too few axes, or 16 bits.

    Example:
        >>> from sparse_hyper_jax.backprop import init_memory
        >>> memory = init_memory("shared", (32, 10), adaptive=True, count=True)
        >>> jax.tree.map(jnp.shape, memory)._asdict()
        {'residue': (10,), 'peak': (), 'counts': (10,), 'uses': ()}
    """
    checks.check_choice("kind", kind, KINDS)
    event_ndim = checks.check_count("event_ndim", event_ndim, least=1)
    adaptive, count = checks.check_flag("adaptive", adaptive), checks.check_flag("count", count)
    checks.require(
        is_wide(dtype), f"dtype={dtype!r}", "float32 or wider", "leave dtype out, or pass float64"
    )
    if kind != "none" or count:
        shape = checks.check_index_shape("shape", shape)
        checks.require(
            len(shape) >= event_ndim,
            f"shape={shape} with event_ndim={event_ndim}",
            "at least as many axes",
            "pass the shape of the layer's output",
        )
    units = tuple(shape[-event_ndim:])
    residue = {"none": None, "slot": tuple(shape), "shared": units}[kind]
    return Memory(
        None if residue is None else jnp.zeros(residue, dtype),
        jnp.zeros((), dtype) if adaptive else None,
        jnp.zeros(math.prod(units), dtype) if count else None,
        jnp.zeros((), dtype),
    )


def next_memory(memory: Memory, gradient: Memory) -> Memory:
    """Take the gradient with respect to a memory as its next value, after checking it.

    A memory whose layer took no part in the loss stays as it was. One that went through several
    backward passes (two call sites, a layer inside ``scan``, microbatches) has the sum of several
    next values for a gradient, which means nothing; nor does one that was clipped or scaled with
    the other gradients. Outside ``jit`` that is an error, inside all of it becomes NaN, and so do
    the gradients of the next step. A gradient that is not finite leaves a memory that is not:
    start a new one with :func:`init_memory`.

    Args:
        memory: of this step.
        gradient: of the loss with respect to it.

    Returns:
        the memory of the next step.

    Raises:
        ValueError: memories of different kinds or shapes; outside ``jit``, a memory that was used
            more than once, or scaled.

    Example:
        >>> from sparse_hyper_jax.backprop import TopK, init_memory, next_memory, sparse_dense
        >>> x, kernel, memory = jnp.ones((1, 2)), jnp.ones((2, 2)), init_memory("slot", (1, 2))
        >>> loss = lambda kernel, memory: jnp.vdot(jnp.array([3.0, 2.0]), sparse_dense(
        ...     None, x, kernel, None, memory, sparsifier=TopK(1), eta=1.0))
        >>> for _ in range(3):  # unit 1 has its turn when 2 + 2 is more than 3
        ...     gradient, following = jax.grad(loss, argnums=(0, 1))(kernel, memory)
        ...     memory = next_memory(memory, following)
        ...     print(gradient[:, 0].tolist(), memory.residue.tolist())
        [3.0, 0.0] [[0.0, 2.0]]
        [0.0, 4.0] [[3.0, 0.0]]
        [6.0, 0.0] [[0.0, 2.0]]
    """
    check_instance("memory", memory, Memory)
    check_instance("gradient", gradient, Memory)
    shapes = [jax.tree.map(jnp.shape, tuple(one)) for one in (memory, gradient)]
    checks.require(
        shapes[0] == shapes[1],
        f"a gradient with fields of shapes {shapes[1]} for a memory with {shapes[0]}",
        "the same shapes",
        "pass the gradient with respect to this memory",
    )
    unused = gradient.uses == 0
    broken = ~(unused | used_once(gradient.uses))
    if not isinstance(broken, Tracer):
        checks.require(
            not bool(jnp.any(broken)),
            f"a memory that went through {float(jnp.max(gradient.uses)):g} backward passes",
            "one call of the layer per gradient, each with a memory of its own",
            "make one memory per call site (in a scan: one per step, as a scanned input), keep it"
            " out of clipping and scaling, or pass memory=None",
        )

    def renew(old: jax.Array, new: jax.Array) -> jax.Array:
        def fit(flag: jax.Array) -> jax.Array:
            return flag.reshape(flag.shape + (1,) * (new.ndim - flag.ndim))

        new = new.astype(old.dtype)
        return jnp.where(fit(broken), jnp.nan, jnp.where(fit(unused), old, new))

    return jax.tree.map(renew, memory, gradient)


def used_once(uses: jax.Array) -> jax.Array:
    """Tell whether a gradient went through one backward pass and was not scaled."""
    # On several devices it is a sum of their parts, with rounding errors.
    return jnp.abs(uses - 1) < 1e-3


class Sparse(NamedTuple):
    """A sparsified cotangent.

    Attributes:
        taken: ``(rows, c)`` propagated components.
        choice: where they belong.
        memory: the next memory, or None.
    """

    taken: jax.Array
    choice: Choice
    memory: Memory | None


class Rule(NamedTuple):
    """Static options of a sparsified backward pass.

    Attributes:
        sparsifier: what chooses.
        select_on: choose by the ``"corrected"`` cotangent a or by the ``"gradient"`` g alone;
            components of a are propagated either way.
        shared: the residue is the sum over the rows.
        axes: mesh axes over which the rows are spread, while the memory is the same everywhere:
            gradients with respect to it are added up over them.
    """

    sparsifier: Sparsifier
    select_on: str
    shared: bool = False
    axes: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """Number of parts that the rows are spread over."""
        return math.prod(jax.lax.axis_size(name) for name in self.axes)


class Draw(NamedTuple):
    """What a backward pass needs besides arrays of the layer, and what gets no gradient.

    Attributes:
        key: random key, or None.
        eta: how much of what is left over is remembered, float32 scalar.
    """

    key: jax.Array | None
    eta: jax.Array


def correct(rule: Rule, cotangent: jax.Array, memory: Memory | None) -> jax.Array:
    """Add the residue: ``a = g + m``, or ``g + m / rows`` for a shared one.

    Args:
        rule: the options.
        cotangent: ``(rows, n)``.
        memory: of the call site.

    Returns:
        ``(rows, n)``, at least as wide as the memory if there is one; NaN if the memory is not
        that of one backward pass.
    """
    if memory is None:
        return cotangent
    wide = cotangent.astype(wide_dtype(cotangent, memory.uses))
    whole = (memory.uses == 0) | used_once(memory.uses)
    wide = wide + jnp.where(whole, 0, jnp.nan).astype(wide.dtype)
    if memory.residue is None:
        return wide
    if rule.shared:
        residue = memory.residue.reshape(1, -1) / (cotangent.shape[0] * rule.devices)
        return wide + residue.astype(wide.dtype)
    return wide + memory.residue.reshape(cotangent.shape).astype(wide.dtype)


def next_peak(rule: Rule, source: jax.Array, memory: Memory | None) -> jax.Array | None:
    """Raise the running maximum of the row sums of magnitudes, leaving out what is not finite."""
    if memory is None or memory.peak is None:
        return None
    sums = jnp.sum(jnp.abs(source.astype(memory.peak.dtype)), axis=-1)
    peak = jnp.maximum(memory.peak, jnp.max(jnp.where(jnp.isfinite(sums), sums, 0)))
    if not rule.axes:
        return peak
    return jax.lax.pcast(jax.lax.pmax(peak, rule.axes), rule.axes, to="varying")


def share_of_units_used(memory: Memory) -> jax.Array:
    """Give the share of units that were propagated at least once.

    Args:
        memory: made with ``count=True``.

    Returns:
        scalar from 0 to 1.

    Raises:
        ValueError: a memory without counts.

    Example:
        >>> from sparse_hyper_jax.backprop import TopK, init_memory, share_of_units_used
        >>> from sparse_hyper_jax.backprop import sparsify_cotangent
        >>> loss = lambda memory: jnp.sum(jnp.array([1.0, 5.0, 2.0, 3.0]) * sparsify_cotangent(
        ...     None, jnp.ones((2, 4)), memory, sparsifier=TopK(1)))
        >>> memory = jax.grad(loss)(init_memory("none", (2, 4), count=True))
        >>> memory.counts.tolist(), share_of_units_used(memory).item()  # both rows took unit 1
        ([0.0, 2.0, 0.0, 0.0], 0.25)
    """
    check_instance("memory", memory, Memory)
    counts = checks.require_given(
        memory.counts,
        "a memory without counts",
        "one that counts",
        "make it with init_memory(..., count=True)",
    )
    return jnp.mean(counts > 0)


class Corrected(NamedTuple):
    """A cotangent with what was left over before.

    Attributes:
        cotangent: ``a``, ``(rows, n)``, whose components are propagated.
        source: ``a`` or ``g``, by which they are chosen.
        peak: scalar or None.
    """

    cotangent: jax.Array
    source: jax.Array
    peak: jax.Array | None


def prepare(rule: Rule, cotangent: jax.Array, memory: Memory | None) -> Corrected:
    """Correct the cotangent ``(rows, n)`` and raise the peak."""
    cotangent = jnp.asarray(cotangent)
    corrected = correct(rule, cotangent, memory)
    source = corrected if rule.select_on == "corrected" else cotangent
    return Corrected(corrected, source, next_peak(rule, source, memory))


def propagate(rule: Rule, draw: Draw, corrected: Corrected, memory: Memory | None) -> Sparse:
    """Choose, take, and remember the rest: ``m' = eta (a - S(a))``."""
    key, eta = draw
    cotangent, source, peak = corrected
    choice = rule.sparsifier.choose(key, source, peak)
    taken = take(cotangent, choice)
    if memory is None:
        return Sparse(taken, choice, None)
    # Fields that are the same on all devices are added up over them: each contributes its part.
    residue, counts = memory.residue, memory.counts
    if residue is not None:
        rest = left_over(cotangent, taken, choice)
        eta = eta.astype(rest.dtype)
        # Zero times infinity would not be zero.
        rest = jnp.where(eta == 0, 0, eta * rest)
        rest = jnp.sum(rest, axis=0) if rule.shared else rest
        rest = rest.reshape(residue.shape).astype(residue.dtype)
        residue = placed_like(rest, residue)
    if counts is not None:
        new = count_units(choice, cotangent.shape).astype(counts.dtype)
        counts = counts / rule.devices + new
    if peak is not None:
        peak = peak / rule.devices
    return Sparse(taken, choice, Memory(residue, peak, counts, 1 / rule.devices + 0 * memory.uses))
