"""Attention over a sequence that is split between devices: keys and values go round, one device at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxdl.parallel.mesh import mesh_here

Array = jax.Array

_NEVER = np.float32(-1e30)  # finite, so that a block that hides everything is no NaN


def ring_attention(
    query: Array,
    key: Array,
    value: Array,
    mesh: Mesh,
    *,
    axis: str = "context",
    causal: bool = False,
    window: int | None = None,
    padding: Array | None = None,
) -> Array:
    """softmax(query @ key / sqrt(size)) @ value, each device with its part of the sequence.

    Each device keeps its queries; keys, values and their padding travel round the ring in as many turns as there are
    devices, and the softmax is put together as they pass (the running maximum and sum of flash attention). A device
    never holds more than one other part. Differentiable: the backward pass goes round the other way.

    Args:
        query: [batch, length, heads, size]; key, value: [batch, length, kv_heads, size], length divides by the axis.
        mesh: with `axis`; all other axes stay as XLA has them.
        causal: a query sees no key after its own position.
        window: a query sees keys at a distance below it only.
        padding: [batch, length] bool, True where the key is real.

    Returns:
        [batch, length, heads, size] in the dtype of query.

    Raises:
        ValueError: the length does not divide over the axis.

    Source: Liu et al., "Ring Attention with Blockwise Transformers for Near-Infinite Context", 2023.
    """
    count = mesh.shape[axis]
    if query.shape[1] % count or key.shape[1] != query.shape[1]:
        raise ValueError(
            f"ring attention splits {query.shape[1]} queries and {key.shape[1]} keys over {axis}={count}: they must be "
            "equally many and divide by it"
        )
    if padding is None:
        padding = jnp.ones(key.shape[:2], jnp.bool_)
    parts = PartitionSpec(None, axis)
    run = jax.shard_map(
        partial(_ring, axis=axis, count=count, causal=causal, window=window),
        mesh=mesh_here(mesh), in_specs=(parts, parts, parts, parts), out_specs=parts, axis_names={axis},
        check_vma=False,
    )  # fmt: skip
    return run(query, key, value, padding)


def _ring(
    query: Array, key: Array, value: Array, padding: Array, *, axis: str, count: int, causal: bool, window: int | None
) -> Array:
    """On one device: its queries [batch, part, heads, size], and the keys that are here now."""
    me = jax.lax.axis_index(axis)
    batch, part, heads, size = query.shape
    kv_heads = key.shape[2]
    grouped = (query * jnp.asarray(size**-0.5, query.dtype)).reshape(batch, part, kv_heads, heads // kv_heads, size)
    pass_on = partial(jax.lax.ppermute, axis_name=axis, perm=[(i, (i + 1) % count) for i in range(count)])
    rows = me * part + jnp.arange(part, dtype=jnp.int32)

    def visit(carry: Any, turn: Array) -> tuple[Any, None]:
        key, value, padding, out, top, norm = carry
        columns = ((me - turn) % count) * part + jnp.arange(part, dtype=jnp.int32)
        distance = rows[:, None] - columns[None, :]
        seen = padding[:, None, None, None, :]
        if causal:
            seen = seen & (distance >= 0)[None, None, None]
        if window is not None:
            seen = seen & (jnp.abs(distance) < window)[None, None, None]
        scores = jnp.einsum("btkgd,bskd->bkgts", grouped, key, preferred_element_type=jnp.float32)
        scores = jnp.where(seen, scores, _NEVER)
        new_top = jnp.maximum(top, scores.max(-1))
        weights = jnp.exp(scores - new_top[..., None])
        rescale = jnp.exp(top - new_top)
        gathered = jnp.einsum("bkgts,bskd->bkgtd", weights.astype(value.dtype), value)
        out = out * rescale[..., None] + gathered.astype(jnp.float32)
        norm = norm * rescale + weights.sum(-1)
        return (pass_on(key), pass_on(value), pass_on(padding), out, new_top, norm), None

    shape = (batch, kv_heads, heads // kv_heads, part)
    start = (
        key, value, padding, jnp.zeros((*shape, size), jnp.float32), jnp.full(shape, _NEVER), jnp.zeros(shape)
    )  # fmt: skip
    (_, _, _, out, _, norm), _ = jax.lax.scan(visit, start, jnp.arange(count, dtype=jnp.int32))
    out = out / norm[..., None]
    return jnp.moveaxis(out, 3, 1).reshape(batch, part, heads, size).astype(query.dtype)
