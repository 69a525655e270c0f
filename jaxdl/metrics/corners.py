"""Sorted scores and the corners of the curve that they draw: what every metric over scores is computed from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Running sums of short blocks are a product with a triangle, several times quicker than a cumulative sum on a CPU;
# benchmarks/metrics.py measures what is built on it.
_BLOCK = 32


class Sorted(NamedTuple):
    """Scores from the highest to the lowest, with the weight of each label; places of weight 0 count for nothing.

    A bootstrap multiplies `positive` and `negative` by how often each place was drawn, and needs no further sort.

    Attributes:
        key: uint32 [n], equal where scores are equal (or in one bin), rising as scores fall.
        score: float32 [n], the score; of a bin, the lowest score that falls in it.
        positive: float32 [n], weight of label 1. All weights may be scaled by one power of two, which no curve shows.
        negative: float32 [n], weight of label 0.
        undefined: bool [], whether the result is NaN whatever the weights are.
    """

    key: jax.Array
    score: jax.Array
    positive: jax.Array
    negative: jax.Array
    undefined: jax.Array


class Corners(NamedTuple):
    """For each sorted place, the weights at or above its score (one corner of the curve), and those strictly above.

    All float64 [n], whole weights of float32 exact; places with equal scores hold equal numbers. The arrays live inside
    a local 64-bit mode.
    """

    tp: jax.Array
    fp: jax.Array
    tp_above: jax.Array
    fp_above: jax.Array
    positives: jax.Array
    negatives: jax.Array


def scaled(positive: jax.Array, negative: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both float32 arrays times one power of two, so that the largest is near 1 and no sum overflows."""
    largest = jnp.maximum(jnp.max(positive, initial=0.0), jnp.max(negative, initial=0.0))
    factor = jnp.ldexp(jnp.float32(1), jnp.clip(-jnp.frexp(largest)[1], -126, 126))
    return positive * factor, negative * factor


def running(values: jax.Array, dtype: Any) -> jax.Array:
    """Cumulative sums of float32 [n] in `dtype` [n]: exact for whole numbers, else with an error of 2^-24 a block.

    Within blocks of 32 the sums are float32, between blocks they are of `dtype`.
    """
    count = values.shape[-1]
    if count <= 4 * _BLOCK:
        return lax.cumsum(values.astype(dtype), axis=values.ndim - 1)
    fill = [(0, 0)] * (values.ndim - 1) + [(0, -count % _BLOCK)]
    blocks = jnp.pad(values, fill).reshape(-1, _BLOCK)
    triangle = jnp.asarray(np.triu(np.ones((_BLOCK, _BLOCK), np.float32)))
    inside = jnp.dot(blocks, triangle, precision=lax.Precision.HIGHEST).reshape(*values.shape[:-1], -1, _BLOCK)
    whole = inside[..., -1].astype(dtype)
    before = lax.cumsum(whole, axis=whole.ndim - 1) - whole
    sums = inside.astype(dtype) + before[..., None]
    return sums.reshape(*values.shape[:-1], -1)[..., :count]


def ties(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of a sorted key [n]: the number of each place's run of equal keys, int32 [n], and where run r starts, [n + 1].

    Runs that do not exist start at n.
    """
    count = key.shape[-1]
    first = jnp.concatenate([jnp.ones((1,), jnp.bool_), key[1:] != key[:-1]])
    run = running(first.astype(jnp.float32), jnp.int32) - jnp.int32(1)
    starts = jnp.full((count + 1,), count, jnp.int32)
    return run, starts.at[run].min(jnp.arange(count, dtype=jnp.int32), mode="promise_in_bounds")


def corners(scores: Sorted) -> Corners:
    """The corners of sorted scores; call it inside `jax.enable_x64(True)`. What is not used costs nothing in jit."""
    run, starts = ties(scores.key)

    def around(weight: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        before = running(jnp.pad(weight, (1, 0)), jnp.float64)
        corner = before.at[starts].get(mode="promise_in_bounds")
        here = corner.at[run + 1].get(mode="promise_in_bounds")
        return here, corner.at[run].get(mode="promise_in_bounds"), before[-1]

    tp, tp_above, positives = around(scores.positive)
    fp, fp_above, negatives = around(scores.negative)
    return Corners(tp, fp, tp_above, fp_above, positives, negatives)


def share(part: jax.Array, whole: jax.Array, otherwise: float = 0.0) -> jax.Array:
    """part / whole, and `otherwise` where whole is 0."""
    none = whole == 0
    quotient = part / jnp.where(none, jnp.ones_like(whole), whole)
    return jnp.where(none, jnp.full_like(quotient, otherwise), quotient)


def finish(value: jax.Array, scores: Sorted, at: Corners, *, negatives: bool = True) -> jax.Array:
    """float32, and NaN where a label that the curve needs is missing or the scores are undefined."""
    defined = ~scores.undefined & (at.positives > 0)
    if negatives:
        defined &= at.negatives > 0
    return jnp.where(defined, value, jnp.full_like(value, jnp.nan)).astype(jnp.float32)
