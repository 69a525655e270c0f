"""What Transformers are made of: tokens and positions, the stack of blocks and its cache, torch's names for them."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.rules import linear, norm
from jaxdl.nn.attention import Cache
from jaxdl.nn.block import TransformerBlock
from jaxdl.parallel import constrain

Array = jax.Array
LogicalAxes = tuple[tuple[str, tuple[str | None, ...]], ...]

POSITIONS = ("learned", "sinusoid", "rotary", "none")


def stacked_axes(*names: str) -> LogicalAxes:
    """Logical axes of the parameters of stacks of `TransformerBlock` under these names."""
    chosen = "|".join(names)
    return tuple((f"({chosen})/{path}", ("layers", *axes)) for path, axes in TransformerBlock.logical_axes)


def stack_of(model: Any, *, depth: int | None = None, name: str | None = None, **options: Any) -> nn.Stack:
    """The stack of blocks that a model describes, which has fields of `TransformerBlock` and `nn.Stack` by their names.

    Args:
        model: with width, heads, remat, unroll and whatever else of the blocks can be chosen; where it has `positions`,
            "rotary" turns queries and keys.
        depth: blocks; None: the model's.
        name: of the stack.
        options: of the blocks, beside the model's fields.
    """
    known = {field.name for field in dataclasses.fields(TransformerBlock)} - {"parent", "name"}
    shared = {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name in known}
    rotary = 10_000.0 if getattr(model, "positions", "none") == "rotary" else None
    block = TransformerBlock(**{**shared, "rotary_base": rotary, **options})
    return nn.Stack(block, model.depth if depth is None else depth, remat=model.remat, unroll=model.unroll, name=name)


class TokenInput(linen.Module):
    """Tokens as vectors with their positions: what Transformers read, and the tied logits that they give.

    Attributes:
        vocabulary: tokens are 0 to vocabulary - 1.
        width: features.
        positions: "learned", "sinusoid" (added here), "rotary" (turned in attention) or "none".
        length: the longest sequence, for learned and sinusoid positions.
        scale: multiply the vectors of tokens by sqrt(width), as the first Transformer does.
        deviation: of the initial vectors.
    """

    vocabulary: int
    width: int
    positions: str
    length: int
    scale: bool = False
    deviation: float = 0.02

    def setup(self) -> None:
        if self.positions not in POSITIONS:
            near = difflib.get_close_matches(str(self.positions), POSITIONS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no positions are called {self.positions!r}{hint} (one of {', '.join(POSITIONS)})")
        self.tokens = nn.Embed(
            self.vocabulary, self.width, embedding_init=linen.initializers.normal(self.deviation), name="tokens"
        )
        if self.positions == "learned":
            self.learned = nn.LearnedPositions(self.length, name="positions")

    def __call__(self, tokens: Array, index: Array | int = 0) -> Array:
        """tokens: [batch, length] integers, the first at position `index`; returns [batch, length, width]."""
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(f"a Transformer reads integers [batch, length], not {tokens.dtype} {tokens.shape}")
        at_start = isinstance(index, int) and index == 0
        if self.positions in ("learned", "sinusoid") and tokens.shape[1] > self.length:
            raise ValueError(f"{tokens.shape[1]} tokens are more than the {self.length} positions: choose length=")
        x = self.tokens(tokens)
        if self.scale:
            x = x * jnp.asarray(self.width**0.5, x.dtype)
        steps = None if at_start else jnp.arange(tokens.shape[1], dtype=jnp.int32) + index
        if self.positions == "learned":
            x = self.learned(x, steps)
        elif self.positions == "sinusoid":
            table = nn.sinusoidal_positions(self.length, self.width, interleaved=True).astype(x.dtype)
            x = x + (table[: tokens.shape[1]] if steps is None else jnp.take(table, steps, axis=0))[None]
        return constrain(x, "batch", "length", "embed")

    def logits(self, x: Array) -> Array:
        """[batch, length, width] -> [batch, length, vocabulary] with the vectors of the tokens as weights."""
        return self.tokens.attend(x)


def check_length(model: Any, length: int) -> None:
    """Refuse texts longer than a model's learned or sinusoid positions."""
    if model.positions in ("learned", "sinusoid") and length > model.length:
        raise ValueError(f"a text of {length} tokens is longer than the model's {model.length} positions")


def run_cached(
    stack: Any,
    x: Array,
    cache: Cache | None,
    *,
    train: bool,
    batched: dict[str, Any] | None = None,
    per_layer: dict[str, Any] | None = None,
) -> tuple[Array, Cache | None]:
    """x through a stack of blocks, which read the cache of their layer; the cache with x written into it.

    Where x does not fit behind what the cache holds, it becomes NaN: it would be written over what was read before.
    """
    if cache is None or stack.is_initializing():
        return stack(x, train=train, batched=batched, per_layer=per_layer), cache
    room = cache.key.shape[2]
    if x.shape[1] > room:
        raise ValueError(f"{x.shape[1]} tokens do not fit into a cache of {room} positions")
    index = jnp.broadcast_to(cache.filled, (stack.layers,))
    own = {**(per_layer or {}), "cache": (cache.key, cache.value), "index": index}
    x, (key, value) = stack(x, train=train, batched=batched, per_layer=own)
    written = [
        jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), cache.filled, axis=2)
        for old, new in ((cache.key, key), (cache.value, value))
    ]
    filled = cache.filled + x.shape[1]
    return jnp.where(filled > room, jnp.asarray(jnp.nan, x.dtype), x), Cache(written[0], written[1], filled)


def encoder_rules(ours: str, peer: str) -> tuple[Any, ...]:
    """A stack of blocks against torch.nn.TransformerEncoder's layers (norm1, self_attn, linear1, linear2, norm2)."""
    layer = f"{peer}.layers.*"
    return (
        *_attention_rules(f"{ours}/attention", f"{layer}.self_attn"),
        *linear(f"{ours}/mlp/up", f"{layer}.linear1"),
        *linear(f"{ours}/mlp/down", f"{layer}.linear2"),
        *norm(f"{ours}/norm1", f"{layer}.norm1"),
        *norm(f"{ours}/norm2", f"{layer}.norm2"),
    )


def decoder_rules(ours: str, peer: str) -> tuple[Any, ...]:
    """The same against torch.nn.TransformerDecoder's layers, whose norm2 belongs to cross attention."""
    layer = f"{peer}.layers.*"
    return (
        *_attention_rules(f"{ours}/attention", f"{layer}.self_attn"),
        *_attention_rules(f"{ours}/cross", f"{layer}.multihead_attn"),
        *linear(f"{ours}/mlp/up", f"{layer}.linear1"),
        *linear(f"{ours}/mlp/down", f"{layer}.linear2"),
        *norm(f"{ours}/norm1", f"{layer}.norm1"),
        *norm(f"{ours}/norm_cross", f"{layer}.norm2"),
        *norm(f"{ours}/norm2", f"{layer}.norm3"),
    )


def _attention_rules(ours: str, peer: str) -> tuple[Any, ...]:
    parts = (
        linear(f"{ours}/{name}", f"{peer}.in_proj", part=(number, 3), separator="_")
        for number, name in enumerate(("query", "key", "value"))
    )
    return (*(rule for part in parts for rule in part), *linear(f"{ours}/out", f"{peer}.out_proj"))
