"""Pairs of numbers kept one by one, for what no sum can tell: ranks, medians, distances from the final mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.inputs import as_float, as_weight, same_shape
from jaxdl.metrics.metric import Reduce
from jaxdl.metrics.scores import order_of


class PairBuffer(NamedTuple):
    """What `Pairs` remembers.

    Attributes:
        preds: float32 [..., capacity].
        target: float32 [..., capacity].
        weight: float32 [..., capacity], 0 where nothing is stored.
        length: int32 [...], how many examples were seen; capacity + 1 means that they did not fit.
        undefined: bool [...], whether a number was NaN or a weight negative or not finite.
    """

    preds: jax.Array
    target: jax.Array
    weight: jax.Array
    length: jax.Array
    undefined: jax.Array


@dataclass(frozen=True)
class Pairs:
    """Remembers every pair (preds, target), up to `capacity` pairs of weight above 0: 12 bytes each.

    More pairs than `capacity` make every value NaN, never a silent drop; `overflowed` tells. preds and target of one
    shape [...], any real dtype, read as float32; every number of [...] is an example. The statistic of Spearman,
    Kendall, the median absolute error and the relative absolute error.
    """

    capacity: int
    name: str = field(default="pairs", compare=False)
    reduce: ClassVar[Reduce] = "gather"
    inputs: ClassVar[tuple[str, ...]] = ("preds", "target")

    def __post_init__(self) -> None:
        capacity = self.capacity
        if isinstance(capacity, bool) or not isinstance(capacity, int | np.integer) or not 1 <= capacity < 2**30:
            raise ValueError(
                f"{self.name}: capacity must be an integer from 1 to 2^30 - 1, the most examples one evaluation "
                f"counts; it is {capacity!r}"
            )

    def init(self, batch_shape: tuple[int, ...] = ()) -> PairBuffer:
        """The empty buffer."""
        empty = jnp.zeros((*batch_shape, self.capacity), jnp.float32)
        return PairBuffer(empty, empty, empty, jnp.zeros(batch_shape, jnp.int32), jnp.zeros(batch_shape, jnp.bool_))

    def update(self, state: PairBuffer, *, preds: Any, target: Any, weight: Any = None, mask: Any = None) -> PairBuffer:
        """Adds numbers [...]."""
        preds, target = as_float(preds, f"{self.name}: preds"), as_float(target, f"{self.name}: target")
        same_shape(preds, target, self.name)
        given = as_weight(target.shape, weight, mask, self.name)
        weights = jnp.ones(target.size, jnp.float32) if given is None else given.reshape(-1)
        preds, target = preds.reshape(-1), target.reshape(-1)
        keep = weights != 0
        broken = jnp.isnan(preds) | jnp.isnan(target) | ~(jnp.isfinite(weights) & (weights > 0))
        stored = self._append(state, preds=preds, target=target, weight=weights, keep=keep)
        return stored._replace(undefined=state.undefined | jnp.any(keep & broken))

    def _append(
        self, state: PairBuffer, *, preds: jax.Array, target: jax.Array, weight: jax.Array, keep: jax.Array
    ) -> PairBuffer:
        """Puts the kept pairs [n] behind those stored; what does not fit is dropped and shows in the length."""
        count = jnp.cumsum(keep, dtype=jnp.int32)
        place = jnp.where(keep, state.length + count - 1, jnp.full_like(count, self.capacity))
        new = count[-1] if count.shape[0] else jnp.zeros((), jnp.int32)
        return state._replace(
            preds=state.preds.at[place].set(preds, mode="drop"),
            target=state.target.at[place].set(target, mode="drop"),
            weight=state.weight.at[place].set(weight, mode="drop"),
            length=jnp.minimum(state.length + new, jnp.int32(self.capacity + 1)),
        )

    def merge(self, a: PairBuffer, b: PairBuffer) -> PairBuffer:
        """Both in one; b's pairs stand behind a's, which no result shows."""

        def one(a: PairBuffer, b: PairBuffer) -> PairBuffer:
            keep = lax.iota(jnp.int32, self.capacity) < b.length
            return self._append(a, preds=b.preds, target=b.target, weight=b.weight, keep=keep)

        for _ in range(a.length.ndim):
            one = jax.vmap(one)
        # b may have overflowed itself: its length then says so, though its buffer holds only `capacity`
        seen = jnp.minimum(a.length + b.length, jnp.int32(self.capacity + 1))
        return one(a, b)._replace(length=seen, undefined=a.undefined | b.undefined)

    def overflowed(self, state: PairBuffer) -> jax.Array:
        """Whether more pairs came than `capacity`, bool []: every value is then NaN."""
        return state.length > self.capacity

    def checked(self, state: PairBuffer, value: jax.Array) -> jax.Array:
        """`value` as float32, or NaN where the buffer overflowed or held a NaN."""
        broken = self.overflowed(state) | state.undefined
        return jnp.where(broken, jnp.float32(jnp.nan), value.astype(jnp.float32))


class Order(NamedTuple):
    """Numbers [n] in rising order.

    Attributes:
        place: int32 [n], where each stood before.
        tie: int32 [n], the number of its group of equal numbers, in this order, from 0.
    """

    place: jax.Array
    tie: jax.Array


def sorted_order(values: jax.Array) -> Order:
    """The rising order of float32 [n], by one sort of (number, index) packed in a uint64; needs 64-bit numbers on."""
    shift = np.uint64(32)
    places = lax.iota(jnp.uint64, values.shape[0])
    packed = lax.sort((order_of(values).astype(jnp.uint64) << shift) | places, dimension=0, is_stable=False)
    key = (packed >> shift).astype(jnp.uint32)
    new = jnp.concatenate([jnp.zeros((1,), jnp.bool_), key[1:] != key[:-1]])
    return Order(packed.astype(jnp.uint32).astype(jnp.int32), jnp.cumsum(new, dtype=jnp.int32))


def capacity_of(inputs: Mapping[str, Any]) -> dict[str, int]:
    """A capacity for all examples of a call."""
    return {"capacity": max(1, int(np.size(inputs["target"])))}
