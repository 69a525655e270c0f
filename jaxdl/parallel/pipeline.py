"""A stack of layers over the stages of a pipeline: microbatches follow each other from device to device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxdl.parallel.mesh import mesh_here

Array = jax.Array
PyTree = Any


class Schedule(NamedTuple):
    """How a pipeline runs.

    Attributes:
        stages: devices in a row.
        repeats: how often a microbatch passes all of them; each holds so many chunks of layers (interleaved schedule).
        microbatches: parts of a batch, at least as many as stages.
    """

    stages: int
    repeats: int
    microbatches: int

    @property
    def ticks(self) -> int:
        """Turns of a forward pass: microbatches * repeats + stages - 1."""
        return self.microbatches * self.repeats + self.stages - 1

    @property
    def bubble(self) -> float:
        """The share of turns in which a device waits: (stages - 1) / ticks."""
        return (self.stages - 1) / self.ticks

    def check(self, layers: int, batch: int) -> None:
        """A sentence where layers or batch do not fit.

        Raises:
            ValueError: fewer microbatches than stages; layers or a batch that do not divide.
        """
        chunks = self.stages * self.repeats
        if layers % chunks:
            raise ValueError(
                f"{layers} layers do not divide into stage={self.stages} x repeats={self.repeats} chunks: take a model "
                f"of {max(1, layers // chunks) * chunks} or {(layers // chunks + 1) * chunks} layers, or other sizes"
            )
        if self.microbatches < self.stages:
            raise ValueError(f"microbatches={self.microbatches} leave stages of stage={self.stages} without work: "
                             f"give at least {self.stages}")  # fmt: skip
        if batch % self.microbatches:
            raise ValueError(f"a batch of {batch} does not divide into microbatches={self.microbatches}")


def pipeline(
    run_chunk: Callable[[PyTree, PyTree, PyTree, PyTree, Array], PyTree],
    stacked_params: PyTree,
    x: PyTree,
    per_layer: PyTree,
    batched: PyTree,
    mesh: Mesh,
    schedule: Schedule,
) -> PyTree:
    """x through all layers, which are spread over the mesh axis "stage": the circular schedule.

    Stage s holds chunks s, s + stages, s + 2 stages ... of the layers. At each tick every stage runs one chunk on the
    microbatch that has arrived and hands it to the next; what leaves the last stage comes back to the first until it
    has passed `repeats` times. The backward pass is the same in reverse (by differentiation). Activations that wait for
    the backward pass are the inputs of each tick if `run_chunk` is rematerialised; this is no 1F1B.

    Args:
        run_chunk: (params [chunk, ...], x, per_layer [chunk, ...], batched, number of the microbatch []) -> x of the
            same shapes.
        stacked_params, per_layer: [layers, ...] each leaf.
        x, batched: [batch, ...] each leaf, cut into microbatches along it.
        mesh: with an axis "stage"; all other axes stay as XLA has them.

    Source: Huang et al., "GPipe", 2019; Narayanan et al., "Efficient Large-Scale Language Model Training", 2021.
    """
    stages, repeats, count = schedule
    layers = jax.tree.leaves(stacked_params)[0].shape[0]
    schedule.check(layers, jax.tree.leaves(x)[0].shape[0])

    def chunks(leaf: Array) -> Array:
        return leaf.reshape(repeats, stages, layers // (repeats * stages), *leaf.shape[1:])

    def parts(leaf: Array) -> Array:
        # every count-th row: rows that lie on one device stay there
        return leaf.reshape(leaf.shape[0] // count, count, *leaf.shape[1:]).swapaxes(0, 1)

    def run(own: PyTree, x: PyTree, batched: PyTree) -> PyTree:
        params, extras = jax.tree.map(lambda leaf: leaf[:, 0], own)
        stage = jax.lax.axis_index("stage")
        turn = [(i, (i + 1) % stages) for i in range(stages)]

        def tick(carry: tuple[PyTree, ...], t: Array) -> tuple[tuple[PyTree, ...], None]:
            arrived, waiting, out = carry
            # what comes back from the last stage waits at the first until its turn
            back = (t - stages) % count
            comes = (stage == 0) & (t >= stages)
            waiting = jax.tree.map(
                lambda w, a: jnp.where(comes, jax.lax.dynamic_update_index_in_dim(w, a, back, 0), w), waiting, arrived
            )
            unit = jnp.clip(t - stage, 0, count * repeats - 1)
            repeat, number = unit // count, unit % count
            first = jax.tree.map(lambda new, old: jnp.where(repeat == 0, new[number], old[number]), x, waiting)
            inputs = jax.tree.map(lambda f, a: jnp.where(stage == 0, f, a), first, arrived)
            mine = jax.tree.map(lambda leaf: leaf[repeat], (params, extras))
            y = run_chunk(mine[0], inputs, mine[1], jax.tree.map(lambda leaf: leaf[number], batched), number)
            done = (stage == stages - 1) & (repeat == repeats - 1) & (t >= stage) & (t - stage < count * repeats)
            out = jax.tree.map(
                lambda o, new: jnp.where(done, jax.lax.dynamic_update_index_in_dim(o, new, number, 0), o), out, y
            )
            return (jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, "stage", turn), y), waiting, out), None

        zeros = jax.tree.map(jnp.zeros_like, x)
        start = (jax.tree.map(lambda leaf: leaf[0], zeros), zeros, zeros)
        (_, _, out), _ = jax.lax.scan(tick, start, jnp.arange(schedule.ticks, dtype=jnp.int32))
        return jax.tree.map(lambda leaf: leaf[None], out)

    spread = jax.shard_map(
        run, mesh=mesh_here(mesh), in_specs=(PartitionSpec(None, "stage"), PartitionSpec(), PartitionSpec()),
        out_specs=PartitionSpec("stage"), axis_names={"stage"}, check_vma=False,
    )  # fmt: skip
    out = spread(jax.tree.map(chunks, (stacked_params, per_layer)), *jax.tree.map(parts, (x, batched)))
    return jax.tree.map(lambda leaf, like: leaf[-1].swapaxes(0, 1).reshape(like.shape), out, x)
