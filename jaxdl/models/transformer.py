"""Transformers over tokens: a decoder (GPT) and an encoder that classifies; seq2seq_transformer.py joins the two kinds.

All stack their blocks by `nn.Stack`: parameters "blocks/..." have a leading axis of layers.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, ClassVar, cast

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.decoding import Step
from jaxdl.models.rules import Peer, Peers, embed, linear, norm
from jaxdl.models.stages import Stages
from jaxdl.nn.attention import Cache, empty_cache
from jaxdl.nn.block import TransformerBlock, norm_of, scaled_normal
from jaxdl.parallel import constrain

Array = jax.Array
LogicalAxes = tuple[tuple[str, tuple[str | None, ...]], ...]

POSITIONS = ("learned", "sinusoid", "rotary", "none")


def stacked_axes(*names: str) -> LogicalAxes:
    """Logical axes of the parameters of stacks of `TransformerBlock` under these names."""
    chosen = "|".join(names)
    return tuple((f"({chosen})/{path}", ("layers", *axes)) for path, axes in TransformerBlock.logical_axes)


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


class GPT(linen.Module):
    """A Transformer decoder over tokens: the logits of the next token at each position, which sees no later one.

    Defaults are GPT-2's (124 million parameters). `positions="rotary", norm="rms", activation="swiglu", use_bias=False`
    with `kv_heads` is the later recipe.

    Attributes:
        num_classes: the vocabulary.
        width: features; depth: blocks; heads: of attention.
        kv_heads: heads of keys and values, fewer for grouped-query attention; None: `heads`.
        mlp_width: hidden features of a block; None: 4 * width.
        experts: feed-forward layers in each block, of which a token visits `experts_per_token` (`nn.MixtureOfExperts`);
            0: one that all tokens visit. In training the model then returns a mapping, see `__call__`.
        capacity_factor, eval_capacity_factor: places of the experts, see `nn.MixtureOfExperts`.
        pad: with `experts`, the token that pads: it takes no expert's place. None: nothing is padding.
        length: the longest text (learned and sinusoid positions).
        positions: "learned", "sinusoid", "rotary" or "none".
        norm: "layer" or "rms".
        activation: a name, "swiglu" or a function.
        use_bias: biases in the blocks.
        tied: the logits' weights are the tokens' vectors.
        window: see at most so many tokens back, the own one counted; None: all.
        dropout: rate on the tokens' vectors and on what is added to the residual path.
        attention_dropout: rate on attention weights.
        remat, unroll: see `nn.Stack`.
        implementation: of attention, "auto", "xla" or "cudnn".
        features: return these stages by name instead: "embedding", "hidden" (after the blocks), "final".

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    num_classes: int
    width: int = 768
    depth: int = 12
    heads: int = 12
    kv_heads: int | None = None
    mlp_width: int | None = None
    experts: int = 0
    experts_per_token: int = 2
    capacity_factor: float | None = 1.25
    eval_capacity_factor: float | None = None
    pad: int | None = None
    length: int = 1024
    positions: str = "learned"
    norm: str = "layer"
    activation: str | Callable[[Array], Array] = "gelu_tanh"
    use_bias: bool = True
    tied: bool = True
    window: int | None = None
    dropout: float | Array = 0.0
    attention_dropout: float | Array = 0.0
    remat: str = "none"
    unroll: bool | None = None
    implementation: str = "auto"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[LogicalAxes] = (
        ("input/tokens/embedding", ("vocab", "embed")),
        ("input/positions/embedding", (None, "embed")),
        *stacked_axes("blocks"),
        ("norm/(scale|bias)", ("embed",)),
        ("logits/kernel", ("embed", "vocab")),
        ("logits/bias", ("vocab",)),
    )

    def setup(self) -> None:
        self.input = TokenInput(self.num_classes, self.width, self.positions, self.length)
        self.drop = nn.Dropout(self.dropout)
        block = TransformerBlock(
            self.width,
            self.heads,
            kv_heads=self.kv_heads,
            mlp_width=self.mlp_width,
            experts=self.experts,
            experts_per_token=self.experts_per_token,
            capacity_factor=self.capacity_factor,
            eval_capacity_factor=self.eval_capacity_factor,
            causal=True,
            window=self.window,
            rotary_base=10_000.0 if self.positions == "rotary" else None,
            norm=self.norm,
            activation=self.activation,
            use_bias=self.use_bias,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            implementation=self.implementation,
            kernel_init=linen.initializers.normal(0.02),
            out_init=scaled_normal(0.02, self.depth),
        )
        self.blocks = nn.Stack(block, self.depth, remat=self.remat, unroll=self.unroll)
        self.last_norm = norm_of(self.norm, 1e-5, name="norm")
        if not self.tied:
            kernel_init = linen.initializers.normal(0.02)
            self.head = nn.Dense(self.num_classes, use_bias=False, kernel_init=kernel_init, name="logits")

    def __call__(
        self,
        tokens: Array,
        *,
        train: bool,
        padding: Array | None = None,
        cache: Cache | None = None,
        mask: Array | None = None,
    ) -> Any:
        """Logits of the token after each.

        Args:
            tokens: [batch, length] integers.
            padding: [batch, length] bool, True where a token is real; needed only where padding comes before the
                text, since no token sees a later one.
            cache: `decoder`'s: the tokens go on from what it holds.
            mask: [batch] bool, False for rows that only fill the batch up: with `experts` they take no place.

        Returns:
            [batch, length, num_classes]; with a cache also the cache after them. With `experts`, in training and
            without a cache, a mapping: "logits", and the means over the blocks "balance" and "router_z" (see
            `nn.Routing`), and "dropped", the share of the choices that found no place.
        """
        stages = Stages(self, self.features, known=("embedding", "hidden", "final"))
        index = 0 if cache is None else cache.filled
        x = self.drop(self.input(tokens, index), train=train)
        x = stages.reached("embedding", x)
        batched = {} if padding is None else {"padding": padding}
        if self.experts:
            batched["routed"] = self._routed(tokens, padding, mask)
        routing: Any = None
        if self.experts and train and cache is None and not self.is_initializing():
            x, routing = self.blocks(x, train=train, batched=batched)
        else:
            x, cache = run_cached(self.blocks, x, cache, train=train, batched=batched)
        x = stages.reached("hidden", x)
        x = stages.reached("final", self.last_norm(x))
        if stages.complete:
            return stages.kept
        logits = self.input.logits(x) if self.tied else self.head(x)
        logits = constrain(logits, "batch", "length", "vocab")
        if routing is not None:
            dropped = jnp.sum(routing.dropped) / jnp.maximum(jnp.sum(routing.choices), 1.0)
            losses = {"balance": jnp.mean(routing.balance), "router_z": jnp.mean(routing.router_z)}
            return {"logits": logits, **losses, "dropped": dropped}
        return logits if cache is None else (logits, cache)

    @linen.nowrap
    def _routed(self, tokens: Array, padding: Array | None, mask: Array | None) -> Array:
        """[batch, length] bool: the tokens that experts serve."""
        real = jnp.ones(tokens.shape, jnp.bool_) if self.pad is None else tokens != self.pad
        if padding is not None and padding.shape == tokens.shape:
            real = real & padding
        return real if mask is None else real & mask[:, None]

    @linen.nowrap
    def decoder(self, variables: Any, batch: int, length: int) -> tuple[Step, Cache]:
        """What `jaxdl.models.decoding` needs: the step, and the empty cache that it starts from.

        A prompt without padding is read in one call by `model.apply(variables, tokens, train=False, cache=cache)`,
        which gives the cache after it.

        Args:
            variables: {"params": ...}.
            batch: rows of the cache.
            length: the longest text, prompt and all. What goes on beyond it has logits, and so scores, of NaN.

        Raises:
            ValueError: more than the model has positions.
        """
        check_length(self, length)
        kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        dtype = jax.tree.leaves(variables["params"])[0].dtype
        cache = empty_cache(self.depth, batch, length, kv_heads, self.width // self.heads, dtype)

        def step(cache: Cache, tokens: Array) -> tuple[Array, Cache]:
            logits, moved = self.apply(variables, tokens[:, None], train=False, cache=cache)
            return logits[:, 0], cast(Cache, moved)

        return step, cache


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


class TransformerEncoder(linen.Module):
    """A Transformer encoder over tokens that classifies the text, or gives its features.

    Attributes:
        num_classes: classes; 0: the pooled features [batch, width].
        vocabulary: tokens are 0 to vocabulary - 1.
        width, depth, heads, kv_heads, mlp_width, length, positions, norm, activation, use_bias, window, dropout,
            attention_dropout, remat, unroll, implementation: see `GPT`; `window` looks both ways.
        norm_first: norms before the parts of a block and one at the end (True), or after each sum (False).
        pad: the token that pads; None: nothing is padding.
        pool: "mean" of the real tokens, the "first" token, or "none": logits for each token.
        features: return these stages by name instead: "embedding", "hidden" (after the blocks), "final",
            "pooled".

    Source: Vaswani et al., "Attention Is All You Need", 2017; blocks as in torch.nn.TransformerEncoder.
    """

    num_classes: int
    vocabulary: int = 32_000
    width: int = 512
    depth: int = 6
    heads: int = 8
    kv_heads: int | None = None
    mlp_width: int | None = None
    length: int = 512
    positions: str = "sinusoid"
    norm: str = "layer"
    norm_first: bool = True
    activation: str | Callable[[Array], Array] = "gelu"
    use_bias: bool = True
    window: int | None = None
    dropout: float | Array = 0.0
    attention_dropout: float | Array = 0.0
    pad: int | None = 0
    pool: str = "mean"
    remat: str = "none"
    unroll: bool | None = None
    implementation: str = "auto"
    features: tuple[str, ...] = ()

    logical_axes: ClassVar[LogicalAxes] = (
        *GPT.logical_axes[:2],
        *stacked_axes("blocks"),
        ("norm/(scale|bias)", ("embed",)),
        ("logits/kernel", ("embed", "classes")),
        ("logits/bias", ("classes",)),
    )
    peers: ClassVar[Peers] = {
        "torch": lambda model: Peer(
            (
                # A module of torch: embedding `tokens`, torch.nn.TransformerEncoder `encoder`, dense `logits`.
                *embed("input/tokens", "tokens"),
                *encoder_rules("blocks", "encoder"),
                *norm("norm", "encoder.norm"),
                *linear("logits", "logits"),
            ),
            head=r"logits\..*",
        )
    }

    @linen.compact
    def __call__(self, tokens: Array, *, train: bool) -> Any:
        """tokens: [batch, length] integers; returns [batch, num_classes] ("none": [batch, length, num_classes])."""
        if self.pool not in ("mean", "first", "none"):
            raise ValueError(f"pool is 'mean', 'first' or 'none', not {self.pool!r}")
        stages = Stages(self, self.features, known=("embedding", "hidden", "final", "pooled"))
        x = TokenInput(self.vocabulary, self.width, self.positions, self.length, name="input")(tokens)
        x = stages.reached("embedding", nn.Dropout(self.dropout)(x, train=train))
        block = TransformerBlock(
            self.width,
            self.heads,
            kv_heads=self.kv_heads,
            mlp_width=self.mlp_width,
            window=self.window,
            rotary_base=10_000.0 if self.positions == "rotary" else None,
            norm=self.norm,
            norm_first=self.norm_first,
            activation=self.activation,
            use_bias=self.use_bias,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            implementation=self.implementation,
        )
        real = None if self.pad is None else tokens != self.pad
        batched = {} if real is None else {"padding": real}
        x = nn.Stack(block, self.depth, remat=self.remat, unroll=self.unroll, name="blocks")(
            x, train=train, batched=batched
        )
        x = stages.reached("hidden", x)
        x = stages.reached("final", norm_of(self.norm, 1e-5, name="norm")(x) if self.norm_first else x)
        if self.pool == "first":
            x = x[:, 0]
        elif self.pool == "mean":
            x = masked_mean(x, real)
        x = stages.reached("pooled", x)
        if stages.complete:
            return stages.kept
        return nn.Dense(self.num_classes, name="logits")(x) if self.num_classes else x


def masked_mean(x: Array, real: Array | None) -> Array:
    """[batch, length, features] -> [batch, features], the mean over the real positions (zeros where there are none)."""
    if real is None:
        return jnp.mean(x, axis=1)
    share = real.astype(x.dtype) / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1).astype(x.dtype)
    return jnp.sum(x * share[..., None], axis=1)


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
