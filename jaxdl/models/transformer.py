"""Transformers over tokens: a decoder (GPT) and an encoder that classifies; seq2seq_transformer.py joins the two kinds.

All stack their blocks by `nn.Stack`: parameters "blocks/..." have a leading axis of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, cast

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl import nn
from jaxdl.models.decoding import Step
from jaxdl.models.rules import Peer, Peers, embed, linear, norm
from jaxdl.models.stages import Stages
from jaxdl.models.transformer_parts import (
    LogicalAxes,
    TokenInput,
    check_length,
    encoder_rules,
    run_cached,
    stack_of,
    stacked_axes,
)
from jaxdl.nn.attention import Cache, empty_cache
from jaxdl.nn.block import norm_of, scaled_normal
from jaxdl.parallel import constrain

Array = jax.Array


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
        normal = linen.initializers.normal(0.02)
        self.blocks = stack_of(self, causal=True, kernel_init=normal, out_init=scaled_normal(0.02, self.depth))
        self.last_norm = norm_of(self.norm, 1e-5, name="norm")
        if not self.tied:
            self.head = nn.Dense(self.num_classes, use_bias=False, kernel_init=normal, name="logits")

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
        real = None if self.pad is None else tokens != self.pad
        batched = {} if real is None else {"padding": real}
        x = stack_of(self, name="blocks")(x, train=train, batched=batched)
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
