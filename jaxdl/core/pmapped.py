"""The same program by jax.pmap: each device has the whole state and its rows of each batch, and reduces at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxdl.core.island import map_rows, numbered, reduced, with_residual
from jaxdl.core.state import State
from jaxdl.core.step import Array, Measure, Step
from jaxdl.core.task import Batch, PyTree
from jaxdl.core.trials import trials
from jaxdl.parallel import Layout, tracing

#: The one axis of a pmap, called as the mesh's own.
PMAP_AXIS = "data"


def pmapped(
    function: Callable[..., Any], donated: tuple[int, ...], item: PyTree, batch_size: int, layout: Layout
) -> Any:
    """`function(state, [rows,] data, block)` by pmap: all whole on each device but the rows of the block.

    Args:
        donated: the arguments that are given up; those before data.
        item: shapes of one row of a block.
        batch_size: by which the leaves with rows are known.
    """
    split = jax.tree.map(lambda x: 0 if _has_rows(x, 0, batch_size) else None, item)
    return jax.pmap(
        function, PMAP_AXIS, in_axes=(*[None] * (len(donated) + 1), split), out_axes=(None, None),
        devices=list(layout.mesh.devices.flat), donate_argnums=donated,
    )  # fmt: skip


def put_split(block: PyTree, batch_size: int, layout: Layout) -> PyTree:
    """A block [steps, batch, ...] as pmap takes it, [devices, steps, batch / devices, ...], each part on its device."""
    count = layout.mesh.size

    def cut(x: np.ndarray) -> np.ndarray:
        if not _has_rows(x, 1, batch_size):
            return x
        return np.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)

    split = NamedSharding(layout.mesh, PartitionSpec(PMAP_AXIS))
    shardings = jax.tree.map(lambda x: split if _has_rows(x, 1, batch_size) else layout.replicated, block)
    return layout.put(jax.tree.map(cut, block), shardings)


def within_pmap(step: Step, layout: Layout) -> Step:
    """The step as each device of a pmap runs it on its part of a batch: reduced at the end, the same state on all."""
    if step.single is not None:
        return trials(within_pmap(step.single, layout), step.trials)
    count, compress = layout.mesh.size, layout.parallel.compress if layout.parallel else None

    def local(x: Array) -> Array:
        rows = x.shape[0] // count
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(PMAP_AXIS) * rows, rows)

    def measure(state: State, batch: Batch) -> Measure:
        mine = map_rows(local, state)
        with tracing(layout.tracing(manual=(PMAP_AXIS,), reduce=() if step.parts > 1 else (PMAP_AXIS,))):
            measured = step.measure(mine, numbered(batch, (PMAP_AXIS,), layout))
        measured = reduced(measured, mine, (PMAP_AXIS,), count, compress, layout)
        rows = jax.tree.map(lambda x: jax.lax.all_gather(x, PMAP_AXIS, tiled=True), measured.rows)
        return measured._replace(rows=rows)

    return with_residual(step._replace(measure=measure), layout)


def _has_rows(x: Any, axis: int, batch_size: int) -> bool:
    return x.ndim > axis and x.shape[axis] == batch_size
