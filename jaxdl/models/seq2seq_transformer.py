"""The Transformer of "Attention Is All You Need": an encoder reads, a decoder that looks at what it read writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.decoding import Decoded, Step, likeliest
from jaxdl.models.rules import Peer, Peers, embed, norm
from jaxdl.models.transformer_parts import (
    LogicalAxes,
    TokenInput,
    check_length,
    decoder_rules,
    encoder_rules,
    run_cached,
    stack_of,
    stacked_axes,
)
from jaxdl.nn.attention import CACHE_AXES, Cache, empty_cache
from jaxdl.nn.block import norm_of
from jaxdl.parallel import constrain

Array = jax.Array


class Encoded(NamedTuple):
    """A source that has been read, as the decoder's layers look at it.

    Attributes:
        key, value: [layers, batch, sources, kv_heads, size].
        real: [batch, sources] bool, False in padding.
    """

    key: Array
    value: Array
    real: Array


class Transformer(linen.Module):
    """A Transformer encoder and decoder: from one sequence of tokens to another, as in translation.

    Defaults are the paper's base model with the norms before the parts, which trains without care; `norm_first=False`
    is the paper's.

    Attributes:
        num_classes: the target's vocabulary.
        source_vocabulary: the source's; None: one vocabulary and one table of vectors for both.
        width, heads, kv_heads, mlp_width, norm, activation, use_bias, remat, unroll, implementation: see `GPT`.
        depth: blocks of the encoder, and of the decoder where decoder_depth is None.
        length: the longest source or target.
        positions: "sinusoid", "learned", "rotary" or "none".
        norm_first: norms before the parts of a block and one at the end of each stack; False: after each sum, and none
            at the end.
        tied: the logits' weights are the target tokens' vectors.
        dropout: rate on the tokens' vectors and on what is added to the residual path.
        attention_dropout, mlp_dropout: rates on attention weights and on hidden features.
        pad: the token that pads sources and targets.

    Source: Vaswani et al., 2017.
    """

    num_classes: int
    source_vocabulary: int | None = None
    width: int = 512
    depth: int = 6
    decoder_depth: int | None = None
    heads: int = 8
    kv_heads: int | None = None
    mlp_width: int | None = None
    length: int = 512
    positions: str = "sinusoid"
    norm: str = "layer"
    norm_first: bool = True
    activation: str | Callable[[Array], Array] = "relu"
    use_bias: bool = True
    tied: bool = True
    dropout: float | Array = 0.1
    attention_dropout: float | Array = 0.0
    mlp_dropout: float | Array = 0.0
    pad: int = 0
    remat: str = "none"
    unroll: bool | None = None
    implementation: str = "auto"

    logical_axes: ClassVar[LogicalAxes] = (
        ("(input|source_input)/tokens/embedding", ("vocab", "embed")),
        ("(input|source_input)/positions/embedding", (None, "embed")),
        *stacked_axes("encoder", "decoder"),
        ("(encoder|decoder)_norm/(scale|bias)", ("embed",)),
        ("logits/kernel", ("embed", "vocab")),
    )
    peers: ClassVar[Peers] = {
        "torch": lambda model: Peer(
            (
                # A module of torch with an embedding `tokens` and a torch.nn.Transformer `transformer`.
                *embed("input/tokens", "tokens"),
                *encoder_rules("encoder", "transformer.encoder"),
                *decoder_rules("decoder", "transformer.decoder"),
                *norm("encoder_norm", "transformer.encoder.norm"),
                *norm("decoder_norm", "transformer.decoder.norm"),
            )
        )
    }

    def setup(self) -> None:
        options: dict[str, Any] = {"scale": True, "deviation": self.width**-0.5}
        self.input = TokenInput(self.num_classes, self.width, self.positions, self.length, **options)
        if self.source_vocabulary is not None:
            self.source_input = TokenInput(self.source_vocabulary, self.width, self.positions, self.length, **options)
        self.drop = nn.Dropout(self.dropout)
        self.encoder = stack_of(self)
        self.target_decoder = stack_of(self, depth=self._decoder_depth, name="decoder", causal=True, cross=True)
        if self.norm_first:
            self.encoder_norm, self.decoder_norm = norm_of(self.norm, 1e-5), norm_of(self.norm, 1e-5)
        if not self.tied:
            self.head = nn.Dense(self.num_classes, use_bias=False, name="logits")

    @property
    def _decoder_depth(self) -> int:
        return self.depth if self.decoder_depth is None else self.decoder_depth

    def __call__(self, x: Mapping[str, Array], *, train: bool) -> Array:
        """Teacher forcing: the true target is read, and the token after each of its tokens is told.

        Args:
            x: "source" [batch, sources] and "target" [batch, targets] token numbers; a target begins with the token
                that decoding starts from. Padding comes after the tokens.
            train: draws dropout.

        Returns:
            logits [batch, targets, num_classes].

        Raises:
            ValueError: x lacks one of them, or they are no token numbers.
        """
        if not isinstance(x, Mapping) or not {"source", "target"} <= set(x):
            raise ValueError('an encoder and decoder read {"source": tokens, "target": tokens}')
        memory, real = self.read(x["source"], train=train)
        y = self.drop(self.input(x["target"]), train=train)
        y = self.target_decoder(y, train=train, batched={"memory": memory, "memory_padding": real})
        return self._logits(y)

    def read(self, source: Array, *, train: bool) -> tuple[Array, Array]:
        """Sources [batch, sources] -> what the encoder makes of them [batch, sources, width], and which are real."""
        real = source != self.pad
        reader = self.input if self.source_vocabulary is None else self.source_input
        x = self.encoder(self.drop(reader(source), train=train), train=train, batched={"padding": real})
        return (self.encoder_norm(x) if self.norm_first else x), real

    def encode(self, source: Array) -> Encoded:
        """Sources as the decoder's layers look at them, computed once for all tokens that are decoded."""
        memory, real = self.read(source, train=False)
        key, value = self.target_decoder.each("keys_values", memory)
        return Encoded(key, value, real)

    def step(self, encoded: Encoded, cache: Cache, tokens: Array) -> tuple[Array, Cache]:
        """One token a row, [rows] -> the logits of the next [rows, num_classes], and the cache with it in it."""
        y = self.input(tokens[:, None], cache.filled)
        y, moved = run_cached(
            self.target_decoder,
            y,
            cache,
            train=False,
            batched={"memory_padding": encoded.real},
            per_layer={"memory": (encoded.key, encoded.value)},
        )
        assert moved is not None
        return self._logits(y)[:, 0], moved

    @linen.nowrap
    def decoder(self, variables: Any, source: Array, *, steps: int, beams: int = 1) -> tuple[Step, Cache]:
        """What `jaxdl.models.decoding` needs: the step, for `beams` rows an example, and the cache it starts from.

        Beam search is told `batch_axes=jaxdl.nn.attention.CACHE_AXES`.

        Raises:
            ValueError: more steps than the model has positions.
        """
        check_length(self, steps)
        encoded: Any = self.apply(variables, source, method="encode")
        kv_heads, size = encoded.key.shape[-2:]
        cache = empty_cache(self._decoder_depth, source.shape[0], steps, kv_heads, size, encoded.key.dtype)
        if beams > 1:
            key, value = (jnp.repeat(leaf, beams, axis=1) for leaf in encoded[:2])
            encoded = Encoded(key, value, jnp.repeat(encoded.real, beams, axis=0))
        return lambda cache, tokens: self.apply(variables, encoded, cache, tokens, method="step"), cache

    @linen.nowrap
    def decode(
        self, variables: Any, source: Array, *, begin: int, end: int, steps: int, beams: int = 1,
        length_penalty: float = 0.0,
    ) -> Decoded:  # fmt: skip
        """Targets of sources [batch, sources]: the likeliest token at each step, or the best of a search by beams.

        Args:
            variables: {"params": ...}.
            begin, end: the tokens that targets begin and end with.
            steps: tokens a target has at most.
            beams, length_penalty: see `jaxdl.models.decoding.beam_search`; the best is returned.
        """
        step, cache = self.decoder(variables, source, steps=steps, beams=beams)
        first = jnp.full(source.shape[:1], begin, jnp.int32)
        return likeliest(
            step, cache, first, steps=steps, beams=beams, eos=end, pad=self.pad, length_penalty=length_penalty,
            batch_axes=CACHE_AXES,
        )  # fmt: skip

    def _logits(self, y: Array) -> Array:
        y = self.decoder_norm(y) if self.norm_first else y
        return constrain(self.input.logits(y) if self.tied else self.head(y), "batch", "length", "vocab")
