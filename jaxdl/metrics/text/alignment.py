"""The cheapest alignment of two token sequences, along anti-diagonals of the table: each is one vector operation."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxdl.metrics.text.ngrams import lengths


class Costs(NamedTuple):
    """What a step of an alignment costs, numpy scalars of one dtype, int32 or float32.

    An insertion is a token of the text that the reference has not, a deletion the reverse.
    """

    insertion: np.int32 | np.float32
    deletion: np.int32 | np.float32
    substitution: np.int32 | np.float32
    match: np.int32 | np.float32


# No table reaches it, and one step more does not overflow.
_FAR = np.iinfo(np.int32).max - (1 << 17)
_SUBSEQUENCE = Costs(np.int32(0), np.int32(0), np.int32(0), np.int32(-1))


def alignment_cost(text: jax.Array, reference: jax.Array, costs: Costs) -> jax.Array:
    """The least cost of turning `reference` [M] into `text` [L], a scalar of the costs' dtype.

    cost(i, j), of the first i tokens of the text and the first j of the reference, is the least of cost(i - 1, j) +
    insertion, cost(i, j - 1) + deletion, and cost(i - 1, j - 1) + match or substitution (Wagner and Fischer, 1974).
    All (i, j) of one i + j depend on the two diagonals before only: memory is linear, and costs are only ever added.
    """
    return _diagonals(text, reference, costs, keep=False)[0]


@partial(jax.jit, static_argnames="costs")
def alignment_costs(texts: jax.Array, references: jax.Array, *, costs: Costs) -> jax.Array:
    """`alignment_cost` of each pair of rows: int32 [batch, L], [batch, M] -> [batch]."""
    return jax.vmap(lambda text, reference: alignment_cost(text, reference, costs))(texts, references)


def common_subsequence(text: jax.Array, reference: jax.Array) -> jax.Array:
    """The length of the longest common subsequence of two rows of ids: int32 [L], [M] -> int32 []."""
    return -alignment_cost(text, reference, _SUBSEQUENCE)


def subsequence_places(text: jax.Array, reference: jax.Array) -> jax.Array:
    """Which tokens of `reference` [M] one longest common subsequence with `text` [L] takes: bool [M].

    Of several, the one that is read off from the ends: equal tokens are taken; else the last token of the text is
    dropped where dropping that of the reference would cost length, and that of the reference in all other cases.
    ROUGE-Lsum counts the tokens of unions of these. Needs memory for the whole table, [L + M, L] int32.
    """
    _, table = _diagonals(text, reference, _SUBSEQUENCE, keep=True)
    places = jnp.arange(reference.shape[0], dtype=jnp.int32)
    one = jnp.int32(1)

    def back(carry: Any, _: None) -> tuple[Any, None]:
        i, j, taken = carry
        inside = (i > 0) & (j > 0)
        i_in, j_in = jnp.maximum(i, one), jnp.maximum(j, one)
        before = table[i_in + j_in - one]  # minus the lengths
        same = text[i_in - one] == reference[j_in - one]
        drop_text = before[i_in - one] < before[i_in]
        taken = taken | (inside & same & (places == j - one))
        i = i - (inside & (same | drop_text)).astype(jnp.int32)
        j = j - (inside & (same | ~drop_text)).astype(jnp.int32)
        return (i, j, taken), None

    start = (lengths(text), lengths(reference), reference < jnp.int32(-2))
    return lax.scan(back, start, None, length=text.shape[0] + reference.shape[0])[0][2]


def _diagonals(text: jax.Array, reference: jax.Array, costs: Costs, *, keep: bool) -> tuple[jax.Array, jax.Array]:
    """The cost of aligning all of both, and the table, if it is kept: [i + j, i] is the cost of i and j tokens."""
    size, other = text.shape[0], reference.shape[0]
    dtype = costs.match.dtype
    far = jnp.asarray(_FAR if dtype == np.int32 else np.inf, dtype)
    index = jnp.arange(size + 1, dtype=jnp.int32)
    own, its = lengths(text), lengths(reference)
    last = jnp.concatenate([text[:1], text])  # at i: the token that the step to i takes; i = 0 takes none
    # at i of diagonal k stands the reference's token k - i - 1
    mirrored = jnp.pad(reference[::-1], (size, size), constant_values=-2)

    def shifted(diagonal: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.full_like(diagonal[:1], far), diagonal[:-1]])

    def step(carry: Any, k: jax.Array) -> tuple[Any, Any]:
        before, second, found = carry
        token = lax.dynamic_slice(mirrored, (jnp.int32(size + other) - k,), (size + 1,))
        along = shifted(second) + jnp.where(token == last, costs.match, costs.substitution)
        beside = jnp.minimum(shifted(before) + costs.insertion, before + costs.deletion)
        outside = (index > k) | (k - index > other)
        diagonal = jnp.where(outside, far, jnp.minimum(along, beside))
        found = jnp.where((k == own + its) & (index == own), diagonal, found)
        return (diagonal, before, found), diagonal if keep else None

    # zeros made of the input keep the carry's type under vmap and shard_map
    zero = jnp.zeros_like(last, dtype) + jnp.zeros_like(reference, dtype)[0]
    first = jnp.where(index == 0, zero, far)
    start = (first, jnp.full_like(zero, far), zero)
    (_, _, found), rest = lax.scan(step, start, jnp.arange(1, size + other + 1, dtype=jnp.int32))
    return jnp.sum(found), jnp.concatenate([first[None], rest]) if keep else first[None]
