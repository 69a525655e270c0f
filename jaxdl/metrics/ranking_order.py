"""Documents in the order of their scores, with ties: what all metrics of ranking are computed from."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Ties = Literal["average", "first"]


class Ranked(NamedTuple):
    """Documents [queries, documents] from the highest score to the lowest, padding last; made under x64.

    Attributes:
        relevance: float64, 0 where there is no document.
        present: bool, whether there is a document.
        start: int32, the place (from 0) at which the run of equal scores begins; its own place when ties are not
            averaged.
        end: int32, the place at which that run ends.
        undefined: bool [queries], whether a score or a relevance is NaN.
    """

    relevance: jax.Array
    present: jax.Array
    start: jax.Array
    end: jax.Array
    undefined: jax.Array


def ranked(scores: jax.Array, relevance: jax.Array, present: jax.Array, ties: Ties) -> Ranked:
    """Sorts float32 [queries, documents] by one packed key: the score, then what must travel with it."""
    shift = np.uint64(32)
    documents = scores.shape[-1]
    places = jnp.broadcast_to(jnp.arange(documents, dtype=jnp.int32), scores.shape)
    key = jnp.where(present, ~ordered(scores), jnp.full(scores.shape, 0xFFFFFFFF, jnp.uint32))
    clean = jnp.where(present, relevance, jnp.zeros_like(relevance))
    # among equal scores the sum over the run is all that counts, so the relevance itself may be the lower half
    load = lax.bitcast_convert_type(clean, jnp.uint32) if ties == "average" else places.astype(jnp.uint32)
    packed = (key.astype(jnp.uint64) << shift) | load.astype(jnp.uint64)
    packed = lax.sort(packed, dimension=packed.ndim - 1, is_stable=False)
    key, load = (packed >> shift).astype(jnp.uint32), packed.astype(jnp.uint32)
    start = end = places
    if ties == "average":
        found = lax.bitcast_convert_type(load, jnp.float32)
        changes = key[..., 1:] != key[..., :-1]
        edge = jnp.ones_like(key[..., :1], jnp.bool_)
        first, last = (jnp.concatenate(parts, axis=-1) for parts in ([edge, changes], [changes, edge]))
        axis = key.ndim - 1
        start = lax.cummax(jnp.where(first, places, jnp.zeros_like(places)), axis=axis)
        end = lax.cummin(jnp.where(last, places, jnp.full_like(places, documents)), axis=axis, reverse=True)
    else:
        found = jnp.take_along_axis(clean, load.astype(jnp.int32), axis=-1)
    count = jnp.sum(present, axis=-1, keepdims=True, dtype=jnp.int32)
    return Ranked(
        relevance=found.astype(jnp.float64),
        present=places < count,
        start=start,
        end=end,
        undefined=jnp.any(present & (jnp.isnan(scores) | jnp.isnan(relevance)), axis=-1),
    )


def ordered(scores: jax.Array) -> jax.Array:
    """float32 as uint32 that sorts the same way; -0.0 becomes +0.0, or the two would not be ties."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    sign = jnp.uint32(0x80000000)
    bits = jnp.where(bits == sign, jnp.zeros_like(bits), bits)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def best_first(relevance: jax.Array, present: jax.Array) -> jax.Array:
    """float32 relevances [queries, documents] from the highest to the lowest as float64; 0 where no document is."""
    key = jnp.where(present, ~ordered(relevance), jnp.full(relevance.shape, 0xFFFFFFFF, jnp.uint32))
    bits = ~lax.sort(key, dimension=key.ndim - 1, is_stable=False)
    sign = jnp.uint32(0x80000000)
    values = lax.bitcast_convert_type(jnp.where(bits >= sign, bits ^ sign, ~bits), jnp.float32)
    count = jnp.sum(present, axis=-1, keepdims=True, dtype=jnp.int32)
    places = jnp.broadcast_to(jnp.arange(key.shape[-1], dtype=jnp.int32), key.shape)
    return jnp.where(places < count, values, jnp.zeros_like(values)).astype(jnp.float64)


def tied_sum(values: jax.Array, order: Ranked) -> tuple[jax.Array, jax.Array]:
    """(the sum of float64 values before each place's run of equal scores, the sum over that run)."""
    upto = lax.cumsum(values, axis=values.ndim - 1)
    before = jnp.take_along_axis(upto, jnp.maximum(order.start - 1, jnp.int32(0)), axis=-1)
    before = jnp.where(order.start > 0, before, jnp.zeros_like(before))
    return before, jnp.take_along_axis(upto, order.end, axis=-1) - before


def tied_mean(values: jax.Array, order: Ranked, ties: Ties) -> jax.Array:
    """What is expected at each place when equal scores stand in any order with the same probability."""
    if ties == "first":
        return values
    return tied_sum(values, order)[1] / (order.end - order.start + jnp.int32(1)).astype(jnp.float64)


def without_relevant(order: Ranked) -> jax.Array:
    """The probability that no relevant document stands at a place or before it, float64 [queries, documents].

    In a run of n equal scores with r relevant, the j-th place is the first relevant one of the run with a chance that
    follows from drawing without replacement: the product of (n - r - i) / (n - i) over i < j is that of none so far.
    """
    relevant = (order.relevance > 0).astype(jnp.float64)
    run = tied_sum(relevant, order)[1]
    length = (order.end - order.start + jnp.int32(1)).astype(jnp.float64)
    drawn = (places(order) - order.start).astype(jnp.float64)
    none = jnp.maximum(length - run - drawn, jnp.zeros_like(drawn)) / (length - drawn)
    return lax.cumprod(none, axis=none.ndim - 1)


def places(order: Ranked) -> jax.Array:
    """0, 1, 2, ... along the documents, int32 [queries, documents]."""
    return jnp.broadcast_to(jnp.arange(order.start.shape[-1], dtype=jnp.int32), order.start.shape)
