"""What detection metrics remember: one record for each detection, and the ground truth counted by class and area."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics import sums

#: Bits of a word of outcomes: right at IoU threshold t is bit t, wrong at it is bit 16 + t; neither means ignored.
HALF = 16


class DetectionRecords(NamedTuple):
    """The state of the detection metrics.

    Attributes:
        key: uint32 [..., capacity], the scores in an order-preserving code.
        place: int32 [..., capacity], class * levels + level: level m says that the detection is among the
            max_detections[m] best ones of its class in its image, and not among the max_detections[m - 1] best.
        outcome: uint32 [..., areas, capacity], whether right or wrong at each IoU threshold.
        weight: float32 [..., capacity], the weight of the image.
        length: int32 [...], how many detections came; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a score or box was NaN, or a weight negative or not finite.
        truths: `Sums` [..., classes * areas + 1], the weight of the boxes to be found in each class and area, and last
            the weight of detections and true boxes whose label is no class.
    """

    key: jax.Array
    place: jax.Array
    outcome: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array
    truths: sums.Sums


class Entries(NamedTuple):
    """New detections, as `DetectionRecords` without its counts: [n], and outcome [areas, n]."""

    key: jax.Array
    place: jax.Array
    outcome: jax.Array
    weight: jax.Array


def empty(batch_shape: tuple[int, ...], capacity: int, areas: int, classes: int) -> DetectionRecords:
    """No records yet."""
    return DetectionRecords(
        key=jnp.zeros((*batch_shape, capacity), jnp.uint32),
        place=jnp.zeros((*batch_shape, capacity), jnp.int32),
        outcome=jnp.zeros((*batch_shape, areas, capacity), jnp.uint32),
        weight=jnp.zeros((*batch_shape, capacity), jnp.float32),
        length=jnp.zeros(batch_shape, jnp.int32),
        undefined=jnp.zeros(batch_shape, jnp.bool_),
        truths=sums.zeros((*batch_shape, classes * areas + 1)),
    )


@jax.jit
def append(state: DetectionRecords, new: Entries, keep: jax.Array) -> DetectionRecords:
    """Puts the kept entries [n] behind those stored; what does not fit shows in the length."""
    capacity = state.key.shape[-1]
    count = jnp.cumsum(keep, dtype=jnp.int32)
    place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, capacity))

    def put(stored: jax.Array, entries: jax.Array) -> jax.Array:
        return stored.at[..., place].set(entries, mode="drop")

    length = jnp.minimum(state.length + count[-1], jnp.int32(capacity + 1))
    old = Entries(state.key, state.place, state.outcome, state.weight)
    return state._replace(**jax.tree.map(put, old, new)._asdict(), length=length)


def merge(a: DetectionRecords, b: DetectionRecords) -> DetectionRecords:
    """Both in one, b's records behind a's."""
    capacity = a.key.shape[-1]
    behind = lax.broadcasted_iota(jnp.int32, a.key.shape, a.key.ndim - 1) - a.length[..., None]
    source = jnp.clip(behind, 0, capacity - 1)

    def join(left: jax.Array, right: jax.Array) -> jax.Array:
        where, index = behind, source
        if left.ndim > behind.ndim:  # outcomes, which have one axis more
            where = jnp.broadcast_to(behind[..., None, :], left.shape)
            index = jnp.broadcast_to(source[..., None, :], left.shape)
        return jnp.where(where < 0, left, jnp.take_along_axis(right, index, axis=-1))

    return DetectionRecords(
        key=join(a.key, b.key),
        place=join(a.place, b.place),
        outcome=join(a.outcome, b.outcome),
        weight=join(a.weight, b.weight),
        length=jnp.minimum(a.length + b.length, jnp.int32(capacity + 1)),
        undefined=a.undefined | b.undefined,
        truths=sums.add(a.truths, b.truths),
    )


def order_key(scores: jax.Array) -> jax.Array:
    """float32 as uint32 that sorts the same way; -0.0 becomes +0.0, or the two would not be ties."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    sign = jnp.uint32(0x80000000)
    bits = jnp.where(bits == sign, jnp.zeros_like(bits), bits)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def stable_order(descending: jax.Array) -> jax.Array:
    """The permutation that sorts uint32 [..., n] downwards, ties in order of place: int32 [..., n].

    One sort of one packed operand, (complement of the key, place); needs 64-bit numbers turned on.
    """
    place = lax.broadcasted_iota(jnp.uint64, descending.shape, descending.ndim - 1)
    packed = ((~descending).astype(jnp.uint64) << jnp.uint64(32)) | place
    return lax.sort(packed, is_stable=False).astype(jnp.uint32).astype(jnp.int32)
