"""What the host hands over: of several processes each reads the rows of a batch that its own devices hold."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxdl.core.task import PyTree
from jaxdl.parallel import Layout

if TYPE_CHECKING:
    from jaxdl.core.program import Feed


def block_here(feed: Feed, layout: Layout, seed: int, step: int, count: int) -> PyTree:
    """A block as this process needs it: leaves [count, batch, ...] have the rows of `layout.rows_here` only.

    The batch is the same for any number of processes. A feed whose `block` takes `rows=` reads only those; of another
    feed the whole block is made, and cut.
    """
    rows = layout.rows_here(feed.batch_size)
    if rows is None:
        return feed.block(seed, step, count)
    if "rows" in inspect.signature(feed.block).parameters:
        return feed.block(seed, step, count, rows=rows)  # type: ignore[call-arg]
    size = feed.batch_size
    whole = feed.block(seed, step, count)
    return jax.tree.map(lambda x: x[:, rows] if np.ndim(x) > 1 and x.shape[1] == size else x, whole)


def put_block(block: PyTree, item: PyTree, batch_size: int, layout: Layout) -> PyTree:
    """A block of `block_here` -> committed device arrays, global where there are several processes.

    Args:
        block: leaves [count, rows here, ...], or [count, ...] where they do not follow the batch.
        item: shapes of one whole row of the block, [batch, ...].
        batch_size: by which the leaves with rows are known.
        layout: where they go.
    """
    shapes = jax.tree.map(lambda x, one: jax.ShapeDtypeStruct((x.shape[0], *one.shape), x.dtype), block, item)
    shardings = layout.block(shapes, batch_size)
    rows = layout.rows_here(batch_size)
    if rows is None:
        return layout.put(block, shardings)

    def place(part: np.ndarray, whole: jax.ShapeDtypeStruct, sharding: Any) -> jax.Array:
        if len(whole.shape) < 2 or whole.shape[1] != batch_size:
            return layout.put(part, sharding)

        def of_device(index: Any) -> np.ndarray:
            start, stop, _ = index[1].indices(batch_size)
            first = int(np.searchsorted(rows, start))
            return part[index[0], first : first + stop - start, *index[2:]]

        return jax.make_array_from_callback(whole.shape, sharding, of_device)

    return jax.tree.map(place, block, shapes, shardings)
