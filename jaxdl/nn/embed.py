"""Embeddings of integers, and of positions."""

from __future__ import annotations

from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.parallel import gathered

Array = jax.Array


class Embed(linen.Module):
    """A learned vector for each of `num_embeddings` integers.

    Parameters: `embedding` [num_embeddings, features].

    `jaxdl.row_sparse_step` trains it by the rows that a batch looks up, without a gradient of the whole table. For that
    it hands in a collection "lookups": then each call adds its ids to `lookups/ids` and, where there are, the entry of
    `lookups/rows` of the same number to the vectors, so that the gradient of that entry is the vectors' own.

    Attributes:
        num_embeddings: ids lie in [0, num_embeddings).
        features: length of a vector.
        embedding_init: initialiser; the default has variance 1 / features, as flax's.
        dtype: of the vectors that come out.
    """

    num_embeddings: int
    features: int
    embedding_init: Any = linen.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)

    def setup(self) -> None:
        shape = (self.num_embeddings, self.features)
        self.embedding = self.param("embedding", self.embedding_init, shape, jnp.float32)

    def __call__(self, ids: Array) -> Array:
        """ids: [...] integers; returns [..., features] in the dtype of the parameter. TypeError for other dtypes.

        An id outside [0, num_embeddings) gives NaN, since any vector would be a wrong one.
        """
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"an embedding looks up integers, not {ids.dtype}: cast the ids, or use a Dense")
        # a table in parts is gathered first: XLA looks up in parts only by detours, and in a shard_map not at all
        rows_of = gathered(self.embedding).at[ids]
        vectors = rows_of.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
        if self.is_initializing() or not self.is_mutable_collection("lookups"):
            return vectors
        earlier = self.get_variable("lookups", "ids", ())
        self.put_variable("lookups", "ids", (*earlier, ids))
        if self.has_variable("lookups", "rows"):
            rows: Array = self.get_variable("lookups", "rows")[len(earlier)]
            vectors = vectors.astype(rows.dtype) + rows
        return vectors

    def attend(self, x: Array) -> Array:
        """Logits over the ids with the same table, [..., features] -> [..., num_embeddings] ("tied" weights)."""
        if not self.is_initializing() and self.is_mutable_collection("lookups"):
            self.put_variable("lookups", "tied", jnp.zeros((), jnp.bool_))
        return x @ self.embedding.astype(x.dtype).T


def sinusoidal_positions(length: int, features: int, interleaved: bool = False, base: float = 10_000.0) -> Array:
    """The fixed position vectors of the first Transformer, [length, features] float32.

        sin(t / base**(2 i / features)) and cos(...) for i < features / 2

    Args:
        length: positions 0 to length - 1.
        features: even.
        interleaved: sine and cosine in turn (the paper's formula), instead of all sines and then all cosines (the
            paper's own code). The two differ by a permutation of the features only.

    Source: Vaswani et al., "Attention Is All You Need", 2017.
    """
    if features % 2:
        raise ValueError(f"sinusoidal positions come in pairs of sine and cosine: features={features} must be even")
    angles = np.arange(length)[:, None] / base ** (np.arange(0, features, 2) / features)
    pair = (np.sin(angles), np.cos(angles))
    table = np.stack(pair, axis=-1).reshape(length, features) if interleaved else np.concatenate(pair, axis=-1)
    return jnp.asarray(table, dtype=jnp.float32)


class LearnedPositions(linen.Module):
    """Add a learned vector for each position: x + embedding[:length].

    Parameters: `embedding` [max_length, features].

    Attributes:
        max_length: the longest sequence.
        embedding_init: initialiser; normal with deviation 0.02 unless given.
    """

    max_length: int
    embedding_init: Any = linen.initializers.normal(0.02)

    @linen.compact
    def __call__(self, x: Array, positions: Array | None = None) -> Array:
        """x: [batch, length, features]; positions: [length] or [batch, length] integers, 0, 1, 2... unless given.

        Raises:
            ValueError: x is longer than max_length.
        """
        length, features = x.shape[-2:]
        table = self.param("embedding", self.embedding_init, (self.max_length, features), jnp.float32).astype(x.dtype)
        if positions is not None:
            rows = jnp.take(gathered(table), positions, axis=0)
        elif length > self.max_length:
            raise ValueError(f"a sequence of {length} has no learned positions beyond max_length={self.max_length}")
        else:
            rows = table[:length]
        return x + rows.reshape((1,) * (x.ndim - rows.ndim) + rows.shape)


def rotary(x: Array, positions: Array, interleaved: bool = False, base: float = 10_000.0) -> Array:
    """Turn pairs of features by an angle that grows with the position; dot products then see distances only.

    Feature pair i of a head of size d turns by position / base**(2 i / d).

    Args:
        x: [batch, length, heads, features], queries or keys; features even.
        positions: [length] or [batch, length] integers.
        interleaved: pairs are neighbours (the paper) instead of first half with second half (most released models).

    Returns:
        The same shape and dtype; the angles are computed in float32.

    Source: Su et al., "RoFormer", 2021.
    """
    features = x.shape[-1]
    if features % 2:
        raise ValueError(f"rotary positions turn pairs of features: {features} features a head must be even")
    rates = jnp.asarray(base ** (-np.arange(0, features, 2) / features), dtype=jnp.float32)
    angles = positions.astype(jnp.float32)[..., None] * rates.reshape((1,) * positions.ndim + (-1,))
    angles = angles[..., None, :]  # the same for every head
    angles = angles.reshape((1,) * (x.ndim - angles.ndim) + angles.shape)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    wide = x.astype(cos.dtype)
    if interleaved:
        pairs = wide.reshape(*x.shape[:-1], features // 2, 2)
        a, b = pairs[..., 0], pairs[..., 1]
        return jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape).astype(x.dtype)
    a, b = wide[..., : features // 2], wide[..., features // 2 :]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
