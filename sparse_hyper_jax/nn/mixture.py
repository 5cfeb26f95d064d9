"""A mixture of experts whose router learns by one of several gradients."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparse_hyper_jax import checks
from sparse_hyper_jax.entrance import as_array
from sparse_hyper_jax.estimators.balance import (
    balance_loss,
    router_z_loss,
    update_router_bias,
)
from sparse_hyper_jax.estimators.default_vectors import (
    check_decay,
    fill_with_defaults,
    update_defaults,
)
from sparse_hyper_jax.estimators.load import LoadReport, Placed, load_report, within_capacity
from sparse_hyper_jax.estimators.routing import (
    RULES,
    Route,
    check_jitter,
    sparse_mixer,
    top_route,
)
from sparse_hyper_jax.nn.expert_options import (
    ROUTERS,
    ChoiceOptions,
    Product,
    Router,
    check_options,
)
from sparse_hyper_jax.nn.expert_products import all_experts, experts_in_slots, ragged_experts
from sparse_hyper_jax.nn.expert_results import DefaultVectors, Mixed, RouterBias
from sparse_hyper_jax.nn.keys import Randomness, check_rngs, draw_key
from sparse_hyper_jax.nn.options import (
    check_float_dtype,
    check_no_container,
    in_evaluation,
    initialised,
)
from sparse_hyper_jax.nn.placement import leave_to_compiler, reshape_like, spread_like
from sparse_hyper_jax.nn.promotion import promote
from sparse_hyper_jax.precision import at_least_float32, wide_dtype

KERNEL_INIT = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=(0,))


class Mixture(nnx.Module):
    """Experts with one hidden layer, of which each token sees a few, chosen by a linear router.

    ``y = gate * E_D(x)`` with ``E_i(x) = relu(x A_i + a_i) B_i + b_i`` and ``D`` from the logits
    ``x R``; with ``num_chosen``, the sum of that over several ``D``. How the router is trained:

    - ``"top"``: the most probable expert, or several, the ordinary gradient of their gates.
    - ``"gate"``, ``"first_order"``, ``"midpoint"``, ``"heun"``: an expert drawn at random, see
      :func:`~sparse_hyper_jax.estimators.sparse_mixer`.
    - ``"default"``: the most probable expert, and constant vectors for the others, also in
      evaluation, see :func:`~sparse_hyper_jax.estimators.fill_with_defaults`.
    - ``"dense"``: all experts, weighted by their probability, also in evaluation; E times the work.

    In evaluation mode (``layer.eval()`` or ``deterministic=True``) all but ``"dense"`` take the
    most probable expert and nothing is random. Neither default vectors nor the router's bias change
    in a call: the training step stores what comes back::

        mixed = mixture(x)
        mixture.defaults[...] = mixed.defaults  # router="default"
        mixture.router_bias[...] = mixed.router_bias  # bias_rate=0.001

    The router is computed in float32 or wider whatever ``dtype`` says.

    Args:
        in_features: length of the last axis of the input.
        hidden_features: units of an expert's hidden layer.
        out_features: length of the last axis of the output.
        num_experts: how many, E.
        router: one of the above.
        exact_at_argmax: see :func:`~sparse_hyper_jax.estimators.sparse_mixer`.
        jitter: see there; in training only.
        decay: share of the default vectors that a batch leaves as it is.
        num_chosen: how many experts of each token, k, by router ``"top"``; None for one, without an
            axis of its own.
        renormalise: divide the gates of a token by their sum; for two or more experts.
        capacity_factor: an expert has room for ``ceil(capacity_factor n k / E)`` of ``n`` tokens
            and drops the others, in evaluation too: their part of ``y`` is 0. None for any number.
        bias_rate: by how much a training call moves the bias of the choices towards an even load,
            for router ``"top"``, see :func:`~sparse_hyper_jax.estimators.update_router_bias`.
        product: ``"ragged"`` sorts tokens by expert and computes each with its own
            (``jax.lax.ragged_dot``), so that work does not grow with E on devices with such a
            kernel; a CPU computes all and masks. It supports ``jax.vmap`` only over tokens and
            parameters together. ``"slots"`` computes as many tokens for every expert as it has room
            for, which needs a ``capacity_factor``: the work is that of ``capacity_factor k``
            experts for all tokens, on every device. ``"all"`` computes every expert for every token
            and picks. The last two support every transform.
        dtype: of the experts' computation; None infers it from input and parameters.
        param_dtype: of the parameters.
        kernel_init: initializer of ``(E, in, out)``; by default each expert as ``nnx.Linear``.
        bias_init: initializer of ``(E, out)``.
        deterministic: evaluate instead of train.
        rngs: stream ``params``; and ``sample`` for a random router.

    Raises:
        ValueError: an option is wrong.

    Reference: Shazeer et al. 2017, arXiv 1701.06538; Fedus et al. 2021, arXiv 2101.03961; Liu et
    al. 2023, arXiv 2310.00811; Panda et al. 2025, arXiv 2504.12463; Lepikhin et al. 2020, arXiv
    2006.16668, for the capacity.

    Example:
        >>> from flax import nnx
        >>> from sparse_hyper_jax import nn
        >>> mixture = nn.Mixture(4, 8, 2, num_experts=3, rngs=nnx.Rngs(0))
        >>> mixed = mixture(jnp.ones((5, 4)))
        >>> mixed.y.shape, mixed.expert.shape
        ((5, 2), (5,))
        >>> two = {"router": "top", "num_chosen": 2, "capacity_factor": 1.5, "product": "slots"}
        >>> mixed = nn.Mixture(4, 8, 2, 3, **two, rngs=nnx.Rngs(0))(jnp.ones((6, 4)))
        >>> mixed.expert.shape, sorted(mixed.load.load.tolist()), int(mixed.dropped)  # all alike
        ((6, 2), [0, 6, 6], 0)
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        num_experts: int,
        *,
        router: Router = "midpoint",
        exact_at_argmax: bool = True,
        jitter: float | None = None,
        decay: float = 0.9,
        num_chosen: int | None = None,
        renormalise: bool = False,
        capacity_factor: float | None = None,
        bias_rate: float | None = None,
        product: Product = "ragged",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        kernel_init: Any = KERNEL_INIT,
        bias_init: Any = nnx.initializers.zeros_init(),  # noqa: B008 (pure)
        deterministic: bool = False,
        rngs: nnx.Rngs,
    ):
        self.in_features = checks.check_count("in_features", in_features, least=1)
        self.num_experts = checks.check_count("num_experts", num_experts, least=1)
        hidden = checks.check_count("hidden_features", hidden_features, least=1)
        outputs = checks.check_count("out_features", out_features, least=1)
        checks.check_choice("router", router, ROUTERS)
        check_no_container(product=product, decay=decay, exact_at_argmax=exact_at_argmax)
        check_no_container(jitter=jitter, dtype=dtype, deterministic=deterministic)
        self.method, self.product, self.decay = router, product, decay
        self.exact_at_argmax, self.jitter = exact_at_argmax, jitter
        check_no_container(num_chosen=num_chosen, renormalise=renormalise, bias_rate=bias_rate)
        check_no_container(capacity_factor=capacity_factor)
        self.num_chosen, self.renormalise, self.bias_rate = num_chosen, renormalise, bias_rate
        self.capacity_factor = capacity_factor
        self.dtype, self.deterministic = dtype, deterministic
        kept = jnp.zeros((self.num_experts, outputs), _kept_dtype(param_dtype))
        self.defaults = DefaultVectors(kept) if router == "default" else None
        zeros = jnp.zeros(self.num_experts, kept.dtype)
        self.router_bias = None if bias_rate is None else RouterBias(zeros)
        self._check_options()
        check_rngs(rngs, "params", *(["sample"] if router in RULES else []))

        def experts(name: str, init: Any, *shape: int) -> nnx.Param:
            shape = (self.num_experts, *shape)
            return nnx.Param(initialised(name, init, rngs.params(), shape, param_dtype))

        shapes = ((self.in_features, hidden), (hidden, outputs))
        kernels = [experts("kernel_init", kernel_init, *shape) for shape in shapes]
        self.kernels = nnx.List(kernels)
        self.biases = nnx.List([experts("bias_init", bias_init, shape[1]) for shape in shapes])
        self.router = nnx.Linear(
            self.in_features,
            self.num_experts,
            use_bias=False,
            param_dtype=param_dtype,
            promote_dtype=promote,
            rngs=rngs,
        )
        self.rngs = rngs["sample"].fork() if router in RULES else None

    def _check_options(self) -> None:
        checks.check_choice("method", self.method, ROUTERS)
        checks.require(
            (self.method == "default") == (self.defaults is not None),
            f"method={self.method!r} in a mixture "
            f"{'without' if self.defaults is None else 'with'} default vectors",
            "default vectors for the method 'default', and for no other",
            "make the mixture with another router",
        )
        check_options(self.method, self.num_experts, self._options())
        checks.require(
            (self.bias_rate is None) == (self.router_bias is None),
            f"bias_rate={self.bias_rate} in a mixture "
            f"{'without' if self.router_bias is None else 'with'} a bias of its router",
            "a rate for the bias, and none without it",
            "make the mixture with another bias_rate",
        )
        check_jitter(self.jitter)
        check_decay(self.decay)
        checks.check_flag("exact_at_argmax", self.exact_at_argmax)
        checks.check_flag("deterministic", self.deterministic)
        check_float_dtype("dtype", self.dtype, inferred=True)

    def __call__(
        self,
        x: jax.Array,
        *,
        deterministic: bool | None = None,
        rngs: Randomness | None = None,
    ) -> Mixed:
        """Map tokens.

        Args:
            x: ``(..., in_features)``, all leading axes tokens.
            deterministic: overrides the mode of the layer.
            rngs: overrides the stored stream; a typed key works too.

        Returns:
            the output and what training needs beside it.

        Raises:
            ValueError: no tokens, or tokens of another length.
        """
        self._check_options()
        x = as_array("x", x)
        checks.require(
            x.ndim >= 1 and x.shape[-1] == self.in_features and 0 not in x.shape,
            f"x of shape {x.shape}",
            f"(..., {self.in_features}), at least one token",
            "change x or in_features",
        )
        hard = in_evaluation(self.deterministic, deterministic)
        tokens = reshape_like(x, (-1, self.in_features), x, 1)
        logits = self.router(at_least_float32(tokens))
        route = self._route(logits, hard=hard, rngs=rngs)
        load = load_report(route.expert, self.num_experts)
        loss, z_loss = balance_loss(logits, route.expert), router_z_loss(logits)
        room = self._capacity(route.expert.size)
        placed = self._place(route.expert, room)
        y, defaults = self._mix(tokens, logits, route.gate, placed, room, hard=hard)
        lead = x.shape[:-1]
        y = reshape_like(y, (*lead, y.shape[1]), x, len(lead))
        expert = reshape_like(placed.expert, (*lead, *route.expert.shape[1:]), x, len(lead))
        bias = self._next_bias(load, hard=hard)
        return Mixed(y, expert, loss, defaults, z_loss, load, placed.dropped, bias)

    def _options(self) -> ChoiceOptions:
        return {
            "num_chosen": self.num_chosen,
            "renormalise": self.renormalise,
            "capacity_factor": self.capacity_factor,
            "bias_rate": self.bias_rate,
            "product": self.product,
        }

    def _capacity(self, choices: int) -> int | None:
        if self.capacity_factor is None:
            return None
        return math.ceil(self.capacity_factor * choices / self.num_experts)

    def _place(self, expert: jax.Array, room: int | None) -> Placed:
        if room is None:
            return Placed(expert, expert, jnp.zeros((), jnp.int32))
        placed = within_capacity(expert, num_experts=self.num_experts, capacity=room)
        return placed._replace(
            expert=spread_like(placed.expert, expert), place=spread_like(placed.place, expert)
        )

    def _next_bias(self, load: LoadReport, *, hard: bool) -> jax.Array | None:
        if self.router_bias is None or self.bias_rate is None:
            return None
        bias = self.router_bias[...]
        return bias if hard else update_router_bias(bias, load.load, rate=self.bias_rate)

    def _route(self, logits: jax.Array, *, hard: bool, rngs: Randomness | None) -> Route:
        if hard or self.method not in RULES:
            bias = None if self.router_bias is None else self.router_bias[...]
            return top_route(logits, k=self.num_chosen, bias=bias, renormalise=self.renormalise)
        key = draw_key(rngs, self.rngs)
        return sparse_mixer(
            key,
            logits,
            method=self.method,
            exact_at_argmax=self.exact_at_argmax,
            jitter=self.jitter,
        )

    def _mix(
        self,
        tokens: jax.Array,
        logits: jax.Array,
        gate: jax.Array,
        placed: Placed,
        room: int | None,
        *,
        hard: bool,
    ) -> tuple[jax.Array, jax.Array | None]:
        x, *kernels = self._promote(tokens)
        biases = [bias[...] for bias in self.biases]
        if self.method == "dense":
            outputs = all_experts(x, kernels, biases)
            shares = jax.nn.softmax(logits).astype(outputs.dtype)
            return jnp.einsum("te,teo->to", shares, outputs), None
        several = placed.expert.ndim == 2
        index, place = (one if several else one[:, None] for one in placed[:2])
        if self.product == "all":
            every = all_experts(x, kernels, biases)
            outputs = jnp.take_along_axis(every, jnp.maximum(index, 0)[..., None], axis=1)
            outputs = outputs if room is None else jnp.where((index >= 0)[..., None], outputs, 0)
        elif self.product == "ragged" or room is None:
            given = (x, index, kernels, biases)
            outputs = leave_to_compiler(ragged_experts, given, batch=tokens)
        else:
            in_slots = partial(experts_in_slots, capacity=room)
            given = (x, index, place, kernels, biases)
            outputs = leave_to_compiler(in_slots, given, batch=tokens)
        if several:
            return jnp.sum(gate.astype(outputs.dtype)[..., None] * outputs, axis=1), None
        outputs = outputs[:, 0]
        if self.defaults is None:
            return gate.astype(outputs.dtype)[:, None] * outputs, None
        defaults = self.defaults[...]
        y = fill_with_defaults(logits, outputs, placed.expert, defaults)
        if hard:
            return y, defaults
        return y, update_defaults(defaults, outputs, placed.expert, decay=self.decay)

    def _promote(self, tokens: jax.Array) -> tuple[jax.Array, ...]:
        kernels = (kernel[...] for kernel in self.kernels)
        return promote((tokens, *kernels), dtype=self.dtype)


def _kept_dtype(param_dtype: Any) -> jnp.dtype:
    check_float_dtype("param_dtype", param_dtype)
    return wide_dtype(jnp.dtype(param_dtype))
