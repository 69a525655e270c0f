"""The exact statistic of all curves: a padded buffer of scores, sorted as packed integers in the graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.corners import Sorted, running, scaled
from jaxdl.metrics.inputs import as_array
from jaxdl.metrics.labels import labelled, saturating, two_columns
from jaxdl.metrics.metric import Reduce


class ScoreBuffer(NamedTuple):
    """What an exact curve remembers.

    Attributes:
        key: uint32 [..., capacity], the scores in an order-preserving code.
        weight: float32 [..., capacity], positive for label 1, negative for label 0, 0 where nothing is stored.
        length: int32 [...], how many examples were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a score was NaN or a weight negative or not finite.
        invalid: int32 [...], how many labels were neither 0 nor 1 (left out).
    """

    key: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array
    invalid: jax.Array


@dataclass(frozen=True)
class Exact:
    """Remembers every score, up to `capacity` examples of weight above 0: the curve is exact.

    More examples than `capacity` give NaN, never a silent drop; `overflowed` tells. preds: scores [...] of any scale
    (only their float32 order counts), or [..., 2], of which the score is preds[..., 1] - preds[..., 0], which orders
    two logits or two log probabilities as their softmax does. target: 0 or 1 [...], of any real dtype; other labels are
    left out and counted in `invalid`.

    The state holds 8 bytes an example. Every metric of an equal statistic reads the same one sort of (score, weight),
    packed in one uint64 each; 64-bit numbers are turned on for it alone.
    """

    capacity: int
    name: str = field(default="scores", compare=False)
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        capacity = self.capacity
        if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or not 1 <= capacity < 2**30:
            raise ValueError(
                f"{self.name}: capacity must be an integer from 1 to 2^30 - 1, the most examples one evaluation "
                f"counts; it is {capacity!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> ScoreBuffer:
        """The empty buffer."""
        return ScoreBuffer(
            key=jnp.zeros((*batch_shape, self.capacity), jnp.uint32),
            weight=jnp.zeros((*batch_shape, self.capacity), jnp.float32),
            length=jnp.zeros(batch_shape, jnp.int32),
            undefined=jnp.zeros(batch_shape, jnp.bool_),
            invalid=jnp.zeros(batch_shape, jnp.int32),
        )

    def update(
        self, state: ScoreBuffer, *, preds: Any, target: Any, weight: Any = None, mask: Any = None
    ) -> ScoreBuffer:
        """Adds scores [...] or [..., 2] with labels [...]."""
        preds, target = as_array(preds, f"{self.name}: preds"), as_array(target, f"{self.name}: target")
        if not jnp.issubdtype(preds.dtype, jnp.complexfloating):
            preds = preds.astype(jnp.float32)
        if two_columns(preds, target):
            preds = preds[..., 1] - preds[..., 0]
        batch = labelled(preds, target, weight, mask, self.name)
        one = jnp.ones(batch.scores.shape, jnp.float32)
        sign = jnp.where(batch.positive, one, -one)
        broken = batch.counted & jnp.isnan(batch.scores)
        if batch.broken is not None:
            broken |= batch.broken & batch.counted
        stored = self._append(
            state,
            key=order_of(batch.scores),
            weight=sign if batch.weight is None else sign * batch.weight,
            keep=batch.counted,
        )
        return stored._replace(
            undefined=state.undefined | jnp.any(broken),
            invalid=saturating(state.invalid, jnp.sum(batch.wrong, dtype=jnp.int32)),
        )

    def _append(self, state: ScoreBuffer, *, key: jax.Array, weight: jax.Array, keep: jax.Array) -> ScoreBuffer:
        """Puts the kept entries [n] behind those stored; what does not fit is dropped and shows in the length."""
        count = running(keep.astype(jnp.float32), jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            key=state.key.at[place].set(key, mode="drop"),
            weight=state.weight.at[place].set(weight, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: ScoreBuffer, b: ScoreBuffer) -> ScoreBuffer:
        """Both in one; b's examples stand behind a's, which no result shows."""
        append = self._append
        for _ in range(a.length.ndim):
            append = _over_leading(append)
        places = lax.broadcasted_iota(jnp.int32, b.key.shape, b.key.ndim - 1)
        keep = places < jnp.broadcast_to(b.length[..., None], b.key.shape)
        stored = append(a, key=b.key, weight=b.weight, keep=keep)
        # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
        seen = jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1))
        return stored._replace(
            length=seen, undefined=a.undefined | b.undefined, invalid=saturating(a.invalid, b.invalid)
        )

    def sort(self, state: ScoreBuffer) -> Sorted:
        """The stored scores from the highest to the lowest, by one sort; undefined when they did not fit."""
        with jax.enable_x64(True):
            shift = np.uint64(32)
            weight = lax.bitcast_convert_type(state.weight, jnp.uint32).astype(jnp.uint64)
            packed = lax.sort(((~state.key).astype(jnp.uint64) << shift) | weight, is_stable=False)
            key = (packed >> shift).astype(jnp.uint32)
            weight = lax.bitcast_convert_type(packed.astype(jnp.uint32), jnp.float32)
        none = jnp.zeros_like(weight)
        positive, negative = scaled(jnp.maximum(weight, none), jnp.maximum(-weight, none))
        return Sorted(key, score_of(~key), positive, negative, self.undefined(state))

    def support(self, state: ScoreBuffer) -> jax.Array:
        """The weight of label 1, float32 []."""
        with jax.enable_x64(True):
            weight = state.weight.astype(jnp.float64)
            return jnp.sum(jnp.maximum(weight, jnp.zeros_like(weight))).astype(jnp.float32)

    def undefined(self, state: ScoreBuffer) -> jax.Array:
        """Whether all values are NaN, bool []: a score or weight is no number that counts, or there were too many."""
        return state.undefined | self.overflowed(state)

    def overflowed(self, state: ScoreBuffer) -> jax.Array:
        """Whether more examples came than `capacity`, bool []: all values are then NaN."""
        return state.length > self.capacity

    def invalid(self, state: ScoreBuffer) -> jax.Array:
        """How many labels were neither 0 nor 1, int32 []."""
        return state.invalid


def order_of(scores: jax.Array) -> jax.Array:
    """float32 as uint32 that sorts the same way; -0.0 becomes +0.0, or the two would not be ties."""
    bits = lax.bitcast_convert_type(scores, jnp.uint32)
    sign = jnp.uint32(0x80000000)
    bits = jnp.where(bits == sign, jnp.zeros_like(bits), bits)
    return jnp.where(bits >= sign, ~bits, bits | sign)


def score_of(order: jax.Array) -> jax.Array:
    """The float32 score of a code made by `order_of`."""
    sign = jnp.uint32(0x80000000)
    return lax.bitcast_convert_type(jnp.where(order >= sign, order ^ sign, ~order), jnp.float32)


def _over_leading(append: Any) -> Any:
    mapped = jax.vmap(lambda state, key, weight, keep: append(state, key=key, weight=weight, keep=keep))
    return lambda state, *, key, weight, keep: mapped(state, key, weight, keep)
