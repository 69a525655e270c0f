"""Counting n-grams of padded token ids in the graph, with memory that grows with the length, not with its square."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxdl.metrics.inputs import as_ids
from jaxdl.metrics.text.tokens import ABSENT, PAD


def token_ids(preds: Any, target: Any, name: str, *, as_they_are: bool = False) -> tuple[jax.Array, jax.Array]:
    """preds int32 [batch, length] and target int32 [batch, references, length]; [batch, length] is one reference.

    Tokens come first in each row, wherever the filling stood, unless the rows are to stay `as_they_are`.

    Raises:
        TypeError, ValueError: for strings, floats, and shapes that do not fit.
    """
    if isinstance(preds, str) or (isinstance(preds, list | tuple) and any(isinstance(text, str) for text in preds)):
        raise TypeError(
            f"{name}: update takes token ids, not strings; make them by {name}'s metric.encode(texts, refs)"
        )
    preds, target = as_ids(preds, f"{name}: preds"), as_ids(target, f"{name}: target")
    if not as_they_are:
        preds, target = tokens_first(preds), tokens_first(target)
    if target.ndim == 2:
        target = target[:, None, :]
    if preds.ndim != 2 or target.ndim != 3 or preds.shape[0] != target.shape[0]:
        raise ValueError(
            f"{name}: preds have shape {preds.shape} and target {target.shape}; token ids have shape [batch, length], "
            "references [batch, references, length] or [batch, length], filled up with -1"
        )
    return _not_empty(preds), _not_empty(target)


def tokens_first(ids: jax.Array) -> jax.Array:
    """Ids [..., length] with what is negative behind the tokens, as -1; rows of -2, which are absent, stay."""
    if ids.ndim < 2 or not ids.size:
        return ids
    rows = ids.reshape(-1, ids.shape[-1])
    token, length = rows >= 0, jnp.int32(rows.shape[1])
    absent = jnp.all(rows == ABSENT, axis=1, keepdims=True)
    place = jnp.where(token, jnp.cumsum(token, axis=1, dtype=jnp.int32) - jnp.int32(1), length)
    row = lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    filled = jnp.broadcast_to(jnp.where(absent, jnp.int32(ABSENT), jnp.int32(PAD)), rows.shape)
    return filled.at[row, place].set(rows, mode="drop").reshape(ids.shape)


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


def occurrences(text: jax.Array, references: jax.Array, order: int) -> tuple[jax.Array, jax.Array]:
    """How often the n-gram at each place of `text` [L] occurs before, and in each of `references` [R, M].

    int32 [L, order], its rank among equal n-grams of the text, and int32 [R, L, order]. Place i of the text and place j
    of another begin a common run of run(i, j) tokens: 1 + run(i + 1, j + 1) where the tokens are equal, else 0; and the
    n-gram at i occurs as often as run(i, .) >= n. One row of runs is kept at a time.
    """
    size = max(text.shape[0], references.shape[1])
    others = jnp.concatenate([_widened(references, size), _widened(text[None], size)])
    places = jnp.arange(size, dtype=jnp.int32)
    everywhere = jnp.arange(others.shape[0], dtype=jnp.int32)[:, None] < jnp.int32(references.shape[0])

    def row(below: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        token, place = at
        longer = jnp.pad(below[:, 1:], ((0, 0), (0, 1))) + jnp.int32(1)
        runs = jnp.where((others == token) & (token >= 0), jnp.minimum(longer, jnp.int32(order)), jnp.int32(0))
        counted = jnp.where(everywhere | (places < place)[None], runs, jnp.int32(0))
        found = [jnp.sum(counted >= jnp.int32(n), axis=1, dtype=jnp.int32) for n in range(1, order + 1)]
        return runs, jnp.stack(found, axis=1)

    # zeros made of the input keep the carry's type under vmap and shard_map
    start = (jnp.zeros_like(others), (text, jnp.arange(text.shape[0], dtype=jnp.int32)))
    counts = lax.scan(row, *start, reverse=True)[1]
    return counts[:, -1], jnp.moveaxis(counts[:, :-1], 0, 1)


def _widened(ids: jax.Array, size: int) -> jax.Array:
    return jnp.pad(ids, ((0, 0), (0, size - ids.shape[1])), constant_values=PAD)


@partial(jax.jit, static_argnames=("order", "together"))
def clipped(texts: jax.Array, target: jax.Array, *, order: int, together: bool) -> jax.Array:
    """Clipped matches: n-grams of texts [batch, L] that references [batch, R, M] have, at most as often as there.

    together: -> int32 [batch, order], against the largest count over all references (BLEU); otherwise int32
    [batch, R, order], against each reference alone (chrF, ROUGE).
    """

    def one(text: jax.Array, references: jax.Array) -> jax.Array:
        rank, counts = occurrences(text, references, order)
        if together:
            return jnp.sum(rank < jnp.max(counts, axis=0), axis=0, dtype=jnp.int32)
        return jnp.sum(rank[None] < counts, axis=1, dtype=jnp.int32)

    return jax.vmap(one)(texts, target)


def cut_at(ids: Any, end: int) -> jax.Array:
    """Generated ids up to, and without, the first `end` of each row: int [..., length] -> int32, the rest -1.

    >>> cut_at([[5, 6, 2, 7], [5, 6, 7, 8]], end=2).tolist()
    [[5, 6, -1, -1], [5, 6, 7, 8]]
    """
    ids = as_ids(ids, "cut_at: ids")
    over = jnp.cumsum((ids == end).astype(jnp.int32), axis=-1) > 0
    return jnp.where(over, jnp.int32(PAD), ids)
