"""Counting n-grams of padded token ids in the graph, with memory that grows with the length, not with its square."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics.inputs import as_ids
from jaxdl.metrics.text.tokens import ABSENT, PAD


def token_ids(preds: Any, target: Any, name: str) -> tuple[jax.Array, jax.Array]:
    """preds int32 [batch, length] and target int32 [batch, references, length]; [batch, length] is one reference.

    Raises:
        TypeError, ValueError: for strings, floats, and shapes that do not fit.
    """
    if isinstance(preds, str) or (isinstance(preds, list | tuple) and any(isinstance(text, str) for text in preds)):
        raise TypeError(
            f"{name}: update takes token ids, not strings; make them by {name}'s metric.encode(texts, refs)"
        )
    preds, target = as_ids(preds, f"{name}: preds"), as_ids(target, f"{name}: target")
    if target.ndim == 2:
        target = target[:, None, :]
    if preds.ndim != 2 or target.ndim != 3 or preds.shape[0] != target.shape[0]:
        raise ValueError(
            f"{name}: preds have shape {preds.shape} and target {target.shape}; token ids have shape [batch, length], "
            "references [batch, references, length] or [batch, length], filled up with -1"
        )
    return _not_empty(preds), _not_empty(target)


def _not_empty(ids: jax.Array) -> jax.Array:
    if ids.shape[-1]:
        return ids
    return jnp.full((*ids.shape[:-1], 1), PAD, jnp.int32)


def lengths(ids: jax.Array) -> jax.Array:
    """The number of tokens of each row: int32 [..., length] -> int32 [...]."""
    return jnp.sum(ids >= 0, axis=-1, dtype=jnp.int32)


def present(target: jax.Array) -> jax.Array:
    """Which references are there at all: int32 [..., references, length] -> bool [..., references]."""
    return jnp.all(target != ABSENT, axis=-1)


def totals(length: jax.Array, order: int) -> jax.Array:
    """How many n-grams of 1 .. order a text of that length has: int32 [...] -> int32 [..., order]."""
    each = length[..., None] - jnp.arange(order, dtype=jnp.int32).reshape((1,) * length.ndim + (order,))
    return jnp.maximum(each, jnp.int32(0))


def occurrences(text: jax.Array, other: jax.Array, order: int, *, earlier: bool = False) -> jax.Array:
    """How often the n-gram at each place of `text` occurs in `other`: int32 [L], [M] -> int32 [L, order].

    Place i of `text` and place j of `other` begin a common run of run(i, j) tokens, 1 + run(i + 1, j + 1) where the
    tokens are equal and 0 elsewhere; the n-gram at i occurs in `other` as often as run(i, .) >= n. One row of runs is
    kept at a time. With `earlier`, only occurrences at j < i count: among equal n-grams of one text, the rank.
    """
    size = other.shape[0]
    places = jnp.arange(size, dtype=jnp.int32)
    most = jnp.int32(order)

    def row(below: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        token, place = at
        same = (other == token) & (token >= 0)
        longer = jnp.minimum(jnp.concatenate([below[1:], jnp.zeros_like(below[:1])]) + jnp.int32(1), most)
        runs = jnp.where(same, longer, jnp.zeros_like(longer))
        counted = jnp.where(places < place, runs, jnp.zeros_like(runs)) if earlier else runs
        found = [jnp.sum(counted >= jnp.int32(n), dtype=jnp.int32) for n in range(1, order + 1)]
        return runs, jnp.stack(found)

    # zeros made of the input keep the carry's type under vmap and shard_map
    none = jnp.zeros_like(other)
    return lax.scan(row, none, (text, jnp.arange(text.shape[0], dtype=jnp.int32)), reverse=True)[1]


def clipped(text: jax.Array, references: jax.Array, order: int, *, together: bool) -> jax.Array:
    """Clipped matches: n-grams of `text` [L] that `references` [R, M] have, each at most as often as there.

    together: -> int32 [order], against the largest count over all references (BLEU); otherwise int32 [R, order],
    against each reference alone (chrF, ROUGE).
    """
    rank = occurrences(text, text, order, earlier=True)
    counts = jax.vmap(lambda reference: occurrences(text, reference, order))(references)
    if together:
        return jnp.sum(rank < jnp.max(counts, axis=0), axis=0, dtype=jnp.int32)
    return jnp.sum(rank[None] < counts, axis=1, dtype=jnp.int32)


def cut_at(ids: Any, end: int) -> jax.Array:
    """Generated ids up to, and without, the first `end` of each row: int [..., length] -> int32, the rest -1.

    >>> cut_at([[5, 6, 2, 7], [5, 6, 7, 8]], end=2).tolist()
    [[5, 6, -1, -1], [5, 6, 7, 8]]
    """
    ids = as_ids(ids, "cut_at: ids")
    over = jnp.cumsum((ids == end).astype(jnp.int32), axis=-1) > 0
    return jnp.where(over, jnp.int32(PAD), ids)
