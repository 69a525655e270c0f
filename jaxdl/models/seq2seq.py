"""Encoder and decoder of recurrent layers with attention between them: translation and its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.decoding import Decoded, Step, likeliest
from jaxdl.models.rnn import Axes, lengths_of
from jaxdl.parallel import constrain

Array = jax.Array
PyTree = Any


class Encoded(NamedTuple):
    """A source that has been read; the first axis of every leaf is the batch.

    Attributes:
        memory: [batch, sources, memory], the encoder's states.
        keys: what the decoder's queries are compared with.
        mask: [batch, sources] bool, False in padding.
    """

    memory: Array
    keys: Array
    mask: Array


class RNNSeq2Seq(linen.Module):
    """A recurrent encoder and a recurrent decoder that looks back at the source by attention.

        h_t = decoder(embed(y_t), h_t-1),  a_t = tanh([h_t, attention(h_t, source)] W + b),  logits = a_t V

    With `input_feeding` the decoder also reads a_t-1, so that it knows what it has looked at; it then takes one
    attention a step, where otherwise one product serves all steps of a target. The debugger may listen to "memory", the
    encoder's states, and "looked", a_t.

    Attributes:
        num_classes: the target's vocabulary.
        source_vocabulary: the source's; None: the same number (not the same embedding).
        cell: "lstm", "gru", "gru_reset_before", "vanilla" or "vanilla_relu".
        width: hidden numbers of the decoder, and of each direction of the encoder.
        depth: layers of each.
        embed: width of both embeddings; None: `width`.
        bidirectional: the encoder reads both ways; its last states go through a dense layer each to the decoder.
        attention: "additive", "dot", "bilinear", or "none": only the last states pass (encoder-decoder).
        input_feeding: see above.
        dropout: rate after the embeddings, between layers and before the logits.
        pad: the padding token of sources and targets.
        backend: of the loops over time, see `nn.RNN`.

    Sources: Sutskever et al., "Sequence to Sequence Learning with Neural Networks", 2014; Luong et al., "Effective
    Approaches to Attention-based Neural Machine Translation", 2015.
    """

    num_classes: int
    source_vocabulary: int | None = None
    cell: str = "lstm"
    width: int = 256
    depth: int = 1
    embed: int | None = None
    bidirectional: bool = True
    attention: str = "bilinear"
    input_feeding: bool = False
    dropout: float | Array = 0.0
    pad: int = 0
    backend: str = "scan"

    logical_axes: ClassVar[Axes] = (
        (r"(source|target)_embed/embedding", ("vocab", "embed")),
        *nn.RNN.logical_axes,
        *nn.RNNAttention.logical_axes,
        (r"(combine|bridge_.*)/kernel", (None, "hidden")),
        (r"(combine|bridge_.*)/bias", ("hidden",)),
        (r"logits/kernel", ("hidden", "vocab")),
        (r"logits/bias", ("vocab",)),
    )

    def setup(self) -> None:
        embed = self.embed or self.width
        options: dict[str, Any] = {"dropout": self.dropout, "backend": self.backend}
        self.source_embed = nn.Embed(self.source_vocabulary or self.num_classes, embed)
        self.target_embed = nn.Embed(self.num_classes, embed)
        self.encoder = nn.RNN(self.width, self.cell, self.depth, self.bidirectional, **options)
        self.decoder_rnn = nn.RNN(self.width, self.cell, self.depth, **options)
        if self.attention != "none":
            memory = 2 * self.width if self.bidirectional else self.width
            self.query = nn.Dense(memory, use_bias=False) if self.attention == "dot" and memory != self.width else None
            self.attend = nn.RNNAttention(self.attention, self.width)
        self.combine = nn.Dense(self.width)
        self.head = nn.Dense(self.num_classes, name="logits")
        self.drop = nn.Dropout(self.dropout)
        if self.bidirectional:
            self.bridge = {
                f"layer{layer}_{name}": nn.Dense(self.width, name=f"bridge_layer{layer}_{name}")
                for layer in range(self.depth)
                for name in self.encoder.carries
            }

    def __call__(self, x: Mapping[str, Array], *, train: bool) -> Array:
        """Teacher forcing: the true target is read, and the token after each of its tokens is told.

        Args:
            x: "source" [batch, sources] and "target" [batch, targets] token numbers; a target begins with the token
                that decoding starts from.
            train: draws dropout.

        Returns:
            logits [batch, targets, num_classes].

        Raises:
            ValueError: x lacks one of them, or they are no token numbers.
        """
        if not isinstance(x, Mapping) or not {"source", "target"} <= set(x):
            raise ValueError('an encoder and decoder read {"source": tokens, "target": tokens}')
        encoded, carry = self.encode(x["source"], train=train)
        embedded = self.drop(self.target_embed(_tokens("target", x["target"])), train=train)
        embedded = constrain(embedded, "batch", "length", "embed")
        if not self.input_feeding:
            hidden, _ = self.decoder_rnn(embedded, train=train, carry=carry["rnn"])
            return self._logits(nn.tap(self, "looked", self._look(encoded, hidden)), train)

        def advance(module: RNNSeq2Seq, carry: PyTree, embedded: Array) -> tuple[PyTree, Array]:
            looked, carry = module._advance(encoded, carry, embedded[:, None], train)
            return carry, looked[:, 0]

        loop = linen.scan(
            advance, variable_broadcast="params", split_rngs={"params": False, "dropout": True}, in_axes=1, out_axes=1
        )
        _, looked = loop(self, carry, embedded)
        return self._logits(nn.tap(self, "looked", looked), train)

    def encode(self, source: Array, *, train: bool = False) -> tuple[Encoded, PyTree]:
        """Read sources [batch, sources] -> what decoding looks at, and the carry that it starts from."""
        source = _tokens("source", source)
        embedded = constrain(self.drop(self.source_embed(source), train=train), "batch", "length", "embed")
        memory, last = self.encoder(embedded, train=train, lengths=lengths_of(source, self.pad))
        memory = nn.tap(self, "memory", memory)
        keys = memory if self.attention == "none" else self.attend.keys(memory)
        carry = {f"layer{layer}": self._bridged(last, layer) for layer in range(self.depth)}
        start: PyTree = {"rnn": carry}
        if self.input_feeding:
            start["fed"] = jnp.zeros((source.shape[0], self.width), memory.dtype)
        return Encoded(memory, keys, source != self.pad), start

    def step(self, encoded: Encoded, carry: PyTree, tokens: Array) -> tuple[Array, PyTree]:
        """One token a row, [batch] -> the logits of the next [batch, num_classes], and the carry."""
        looked, carry = self._advance(encoded, carry, self.target_embed(tokens[:, None]), False)
        return self._logits(looked[:, 0], False), carry

    @linen.nowrap
    def decoder(self, variables: Any, source: Array, *, beams: int = 1) -> tuple[Step, PyTree]:
        """What `jaxdl.models.decoding` needs: the step, for `beams` rows an example, and the carry it starts from."""
        encoded, carry = self.apply(variables, source, method="encode")
        if beams > 1:
            encoded = jax.tree.map(lambda leaf: jnp.repeat(leaf, beams, axis=0), encoded)
        return lambda carry, tokens: self.apply(variables, encoded, carry, tokens, method="step"), carry

    @linen.nowrap
    def decode(
        self, variables: Any, source: Array, *, begin: int, end: int, steps: int, beams: int = 1,
        length_penalty: float = 0.0,
    ) -> Decoded:  # fmt: skip
        """Targets of sources [batch, sources]: the likeliest token at each step; with beams > 1 the best of a search.

        Args:
            variables: {"params": ...}.
            begin, end: the tokens that targets begin and end with.
            steps: tokens a target has at most.
            beams, length_penalty: see `jaxdl.models.decoding.beam_search`; the best is returned.
        """
        step, carry = self.decoder(variables, source, beams=beams)
        first = jnp.full(source.shape[:1], begin, jnp.int32)
        return likeliest(
            step, carry, first, steps=steps, beams=beams, eos=end, pad=self.pad, length_penalty=length_penalty
        )

    # ---- parts -------------------------------------------------------------------------------------------------------

    def _bridged(self, last: PyTree, layer: int) -> dict[str, Array]:
        ahead = last[f"layer{layer}"]
        if not self.bidirectional:
            return ahead
        back = last[f"layer{layer}_backward"]
        return {
            name: jnp.tanh(self.bridge[f"layer{layer}_{name}"](jnp.concatenate([ahead[name], back[name]], -1)))
            for name in ahead
        }

    def _advance(self, encoded: Encoded, carry: PyTree, embedded: Array, train: bool) -> tuple[Array, PyTree]:
        """One step: embedded [batch, 1, embed] -> a_t [batch, 1, width] and the carry."""
        if self.input_feeding:
            embedded = jnp.concatenate([embedded, carry["fed"][:, None]], -1)
        hidden, rnn = self.decoder_rnn(embedded, train=train, carry=carry["rnn"])
        looked = self._look(encoded, hidden)
        return looked, {"rnn": rnn} | ({"fed": looked[:, 0]} if self.input_feeding else {})

    def _look(self, encoded: Encoded, hidden: Array) -> Array:
        if self.attention == "none":
            return jnp.tanh(self.combine(hidden))
        queries = hidden if self.query is None else self.query(hidden)
        context, _ = self.attend(queries, encoded.memory, mask=encoded.mask, keys=encoded.keys)
        return jnp.tanh(self.combine(jnp.concatenate([hidden, context], -1)))

    def _logits(self, looked: Array, train: bool) -> Array:
        return self.head(self.drop(looked, train=train))


def _tokens(what: str, x: Array) -> Array:
    if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"the {what} is token numbers, [batch, time] integers, not {x.dtype} {list(x.shape)}")
    return x
