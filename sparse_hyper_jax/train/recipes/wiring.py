"""Find who drives whom in a network of coupled nodes, from how they move."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import optax

from sparse_hyper_jax import graph
from sparse_hyper_jax.checks import require
from sparse_hyper_jax.train.data.wiring import LENGTH, Wiring, make_wiring
from sparse_hyper_jax.train.limits import Count, Positive, Several, Whole, said
from sparse_hyper_jax.train.models.wired_nodes import (
    Method,
    WiredModel,
    WiredState,
    importance_of,
    init_parameters,
    loss_of,
    make_step,
    rollout_error,
    share_found,
    start_wired,
    strongest,
)
from sparse_hyper_jax.train.recipe import Plan, Recipe
from sparse_hyper_jax.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class WiringRecipe(Recipe):
    """Find a hidden wiring: a few edges come into every node, and are placed by exact gains."""

    name: ClassVar[str] = "wiring"

    task: Literal["maps", "springs"] = "maps"
    """Coupled chaotic maps, which move nearly together, so that linear methods hardly tell a sender
    from others; or masses on springs, which are linear."""

    method: Method = "pursuit"
    """Place edges where the gain is largest; take the true ones, or random ones; or weigh all
    pairs of nodes, of which the strongest count as found."""

    nodes: Several = 50
    """How many nodes there are."""

    edges: Count = 4
    """How many edges come into each node: of the hidden wiring, and of the model."""

    samples: Count = 1000
    """Pairs of states to train on."""

    swaps: Whole = 4
    """Probes after the slots are full, in which the least important edge of every node competes
    with all others."""

    probe_samples: Count = 500
    """Pairs of states of a probe, at most all."""

    messages: Count = 3
    """Features of what a node sends."""

    width: Count = 16
    """Units of the two networks that all nodes share."""

    batch: Count = 50
    """Pairs per step, at most all."""

    learning_rate: Positive = 0.01
    """Of Adam, falling to 0 along a cosine."""

    steps: Count = 1500
    """Number of training steps."""

    evaluate_every: Count = 100
    """Steps between validations."""

    def check(self) -> None:
        """Raise also if a node has not enough others."""
        super().check()
        require(
            self.edges < self.nodes,
            said(self, "edges", "nodes"),
            "fewer edges of a node than there are other nodes",
            "lower --edges",
        )
        require(
            self.samples >= 4 * LENGTH,
            said(self, "samples"),
            f"at least {4 * LENGTH}, so that a trajectory is left for validation",
            "raise --samples",
        )
        probes = self.edges + self.swaps
        require(
            self.method != "pursuit" or self.steps > probes,
            f"{said(self, 'steps')} with {probes} probes",
            "a step before and after each probe",
            "raise --steps, or lower --swaps",
        )

    def ignored(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Only pursuit makes probes."""
        if self.method != "pursuit":
            yield "method", ("swaps", "probe_samples")

    def load(self) -> Wiring:
        """Draw the wiring and trajectories."""
        return make_wiring(
            self.task, self.seed, nodes=self.nodes, edges=self.edges, samples=self.samples
        )

    def settle(self, data: Wiring) -> Self:
        """Take no more samples than there are."""
        samples = data.train.now.shape[1]
        return replace(
            self,
            batch=min(self.batch, samples),
            probe_samples=min(self.probe_samples, samples),
        )

    def model(self) -> WiredModel:
        """Give the sizes; probes are spread over all of training but its end."""
        assert self.steps is not None, "settled"
        probes = self.edges + self.swaps if self.method == "pursuit" else 0
        return WiredModel(
            nodes=self.nodes,
            edges=self.edges,
            hidden=self.width,
            messages=self.messages,
            batch=self.batch,
            probe_samples=self.probe_samples,
            probe_every=max(1, self.steps // (probes + 2)),
            probes=probes,
        )

    def share_of_edges(self, state: WiredState, data: Wiring) -> jax.Array:
        """Give the share of true edges that were found; of dense weights the strongest count."""
        if self.method != "dense":
            return share_found(state.edges, data.senders)
        worth = importance_of(state.parameters, state.edges, data.train)
        return share_found(strongest(worth, self.edges), data.senders)

    def plan(self, data: Wiring) -> Plan:
        """Train the model; judge it by its edges, one step, and what it does by itself."""
        assert self.steps is not None, "settled"
        model = self.model()
        optimizer = optax.adam(optax.cosine_decay_schedule(self.learning_rate, self.steps))
        key, edge_key = jax.random.split(jax.random.key(self.seed + 1))
        parameters = init_parameters(
            key, model, data.rollout.shape[-1], dense=self.method == "dense"
        )
        edges = start_edges(self.method, edge_key, model, data)

        @jax.jit
        def judge(state: WiredState) -> dict[str, jax.Array]:
            loss = loss_of(state.parameters, state.edges, data.validation)
            return {"mse": loss, "edges_found": self.share_of_edges(state, data)}

        def evaluate(folder: RunFolder, number: int, state: WiredState) -> dict[str, float]:
            return {name: float(value) for name, value in judge(state).items()}

        def finish(folder: RunFolder, state: WiredState) -> dict[str, Any]:
            draw(folder)
            errors = jax.jit(rollout_error)(state.parameters, state.edges, data.rollout)
            test = jax.jit(loss_of)(state.parameters, state.edges, data.test)
            share = jax.jit(lambda state: self.share_of_edges(state, data))(state)
            return {
                "edges_found": float(share),
                "test_mse": float(test),
                "test_variance": float(jnp.var(data.test.after)),
                "rollout_errors": [round(float(error), 5) for error in errors],
            }

        every = self.evaluate_every
        state = start_wired(parameters, optimizer, edges)
        return Plan(
            make_step(model, optimizer),
            state,
            finish,
            (data.train,),
            evaluate,
            every,
            longest_dispatch=every,
        )


def draw(folder: RunFolder) -> None:
    """Draw loss and edges over training."""
    from sparse_hyper_jax.train import plots  # matplotlib is slow to import

    names = {"loss": "loss", "eval_edges_found": "edges found"}
    curves = {label: plots.read_curve(folder, name) for name, label in names.items()}
    folder.save_figure(plots.plot_curves(curves), "wiring")


def start_edges(method: Method, key: jax.Array, model: WiredModel, data: Wiring) -> graph.InEdges:
    """Give the edges before training: none, the true ones, random ones; no slots if dense."""
    if method == "known":
        # A copy: what training starts with is given away.
        return graph.InEdges(jnp.array(data.senders), jnp.ones(data.senders.shape, bool))
    if method == "random":
        shape = model.nodes, model.edges
        steps = jax.random.randint(key, shape, 1, model.nodes)
        senders = (jnp.arange(model.nodes)[:, None] + steps) % model.nodes
        return graph.InEdges(senders.astype(jnp.int32), jnp.ones(shape, bool))
    return graph.empty_edges(model.nodes, 0 if method == "dense" else model.edges)
