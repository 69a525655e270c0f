"""Attention for recurrent decoders: which states of the encoder a decoder's state looks at."""

from __future__ import annotations

import difflib
from typing import ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl.nn.dense import Dense
from jaxdl.nn.precision import widened

Array = jax.Array

SCORES = ("additive", "dot", "bilinear")


class RNNAttention(linen.Module):
    """A mean of the encoder's states, weighed by how well each one answers the decoder's state.

        additive (Bahdanau): v . tanh(q W_query + k W_key + b)
        dot:                 q . k / sqrt(width)
        bilinear (Luong):    q . (k W_key)

    Attributes:
        score: "additive", "dot" or "bilinear".
        features: width of the additive form's hidden layer; width of the queries in the bilinear form; unused by the
            dot product, which needs queries and memory of one width.

    Parameters: additive: `key/kernel` [memory, features], `key/bias`, `query/kernel` [query, features], `vector`
    [features]; bilinear: `key/kernel` [memory, features]; dot: none.

    Raises:
        ValueError: an unknown score.

    Sources: Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate", 2015; Luong et
    al., "Effective Approaches to Attention-based Neural Machine Translation", 2015.
    """

    score: str = "additive"
    features: int = 128

    logical_axes: ClassVar[tuple[tuple[str, tuple[str | None, ...]], ...]] = (
        (r"(.*/)?(key|query)/kernel", (None, "hidden")),
        (r"(.*/)?(key/bias|vector)", ("hidden",)),
    )

    def setup(self) -> None:
        if self.score not in SCORES:
            near = difflib.get_close_matches(str(self.score), SCORES, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no attention is called {self.score!r}{hint} (known: {', '.join(SCORES)})")
        if self.score != "dot":
            self.key = Dense(self.features, use_bias=self.score == "additive")
        if self.score == "additive":
            self.query = Dense(self.features, use_bias=False)
            start = linen.initializers.normal(self.features**-0.5)
            self.vector = self.param("vector", start, (self.features,), jnp.float32)

    def keys(self, memory: Array) -> Array:
        """What queries are compared with, once for all steps of a decoder: [batch, sources, width]."""
        if self.score == "dot":
            return memory * jnp.asarray(memory.shape[-1] ** -0.5, memory.dtype)
        return self.key(memory)

    def __call__(
        self, queries: Array, memory: Array, *, mask: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array]:
        """Look at the memory.

        Args:
            queries: [batch, targets, query] the decoder's states.
            memory: [batch, sources, memory] the encoder's states.
            mask: [batch, sources] bool, False where the source is padding; a row without any source gives zeros.
            keys: `self.keys(memory)`, where it is at hand.

        Returns:
            contexts [batch, targets, memory], and the weights [batch, targets, sources], at least float32; they sum
            to 1.

        Raises:
            ValueError: queries and keys that cannot be compared; a mask of another shape.
        """
        if mask is not None and mask.shape != memory.shape[:2]:
            raise ValueError(f"the mask of attention is {list(memory.shape[:2])} here, not {list(mask.shape)}")
        keys = self.keys(memory) if keys is None else keys
        if self.score == "additive":
            asked = self.query(queries)
            scores = jnp.tanh(asked[:, :, None] + keys[:, None]) @ self.vector.astype(keys.dtype)
        elif queries.shape[-1] == keys.shape[-1]:
            scores = jnp.einsum("btf,bsf->bts", queries, keys)
        else:
            raise ValueError(
                f"{self.score} attention compares queries of width {queries.shape[-1]} with keys of width "
                f"{keys.shape[-1]}: make them equal (bilinear: features={queries.shape[-1]})"
            )
        scores = widened(scores)
        if mask is not None:
            scores = jnp.where(mask[:, None], scores, jnp.asarray(-1e30, scores.dtype))
        weights = jax.nn.softmax(scores, axis=-1)
        if mask is not None:
            weights = weights * mask[:, None].astype(weights.dtype)
        return jnp.einsum("bts,bsm->btm", weights.astype(memory.dtype), memory), weights
