"""The block of a Transformer: attention, attention to a memory, dense layers, each beside a residual path."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
from jax.ad_checkpoint import checkpoint_name

from jaxdl.nn.activations import activation
from jaxdl.nn.attention import Attention
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import Dropout
from jaxdl.nn.experts import MixtureOfExperts, Routing
from jaxdl.nn.norm import LayerNorm, RMSNorm
from jaxdl.nn.tap import tap
from jaxdl.parallel import constrain

Array = jax.Array
KeysValues = tuple[Array, Array]

_NORMS: dict[str, Any] = {"layer": LayerNorm, "rms": RMSNorm}


def norm_of(kind: str, epsilon: float, name: str | None = None) -> Any:
    """A LayerNorm ("layer") or RMSNorm ("rms") module; `name` is its name in the parameters.

    Raises:
        ValueError: another name; the nearest is suggested.
    """
    if kind not in _NORMS:
        near = difflib.get_close_matches(str(kind), _NORMS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no norm of a Transformer is called {kind!r}{hint} (it is one of {', '.join(_NORMS)})")
    return _NORMS[kind](epsilon=epsilon, name=name)


class FeedForward(linen.Module):
    """down(activation(up(x))), or down(silu(gate(x)) * up(x)) for activation "swiglu".

    Attributes:
        width: features that come out.
        hidden: features between.
        activation: a name (`jaxdl.nn.list_activations()`), "swiglu" or a function.
        use_bias: biases in all.
        dropout: rate on the hidden features.
        kernel_init, out_init: initialisers of up and gate, and of down.

    Source: Shazeer, "GLU Variants Improve Transformer", 2020 (swiglu).
    """

    width: int
    hidden: int
    activation: str | Callable[[Array], Array] = "gelu"
    use_bias: bool = True
    dropout: float | Array = 0.0
    kernel_init: Any = linen.initializers.xavier_uniform()
    out_init: Any = linen.initializers.xavier_uniform()

    logical_axes = (
        ("(up|gate)/kernel", ("embed", "mlp")),
        ("(up|gate)/bias", ("mlp",)),
        ("down/kernel", ("mlp", "embed")),
        ("down/bias", ("embed",)),
    )

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: [..., features]; returns [..., width]."""
        options = {"use_bias": self.use_bias, "kernel_init": self.kernel_init}
        hidden = Dense(self.hidden, name="up", **options)(x)
        if self.activation == "swiglu":
            hidden = jax.nn.silu(Dense(self.hidden, name="gate", **options)(x)) * hidden
        else:
            hidden = activation(self.activation)(hidden)
        hidden = constrain(hidden, *("batch", "length")[: x.ndim - 1], *(None,) * (x.ndim - 3), "mlp")
        hidden = Dropout(self.dropout)(hidden, train=train)
        return Dense(self.width, use_bias=self.use_bias, kernel_init=self.out_init, name="down")(hidden)


class TransformerBlock(linen.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); between them, with `cross`, attention to a memory.

    Its stages are called "attention_out", "cross_out" and "mlp_out" (what is added to the residual path): names for the
    debugger (`tap`) and for remat policies ("names:attention_out,mlp_out").

    Attributes:
        width: features of x.
        heads, kv_heads, head_size, causal, window, rotary_base, implementation: see `Attention`.
        mlp_width: hidden features; None: 4 * width.
        experts: of the mixture that takes the place of the feed-forward layer; 0: there is none.
        experts_per_token, capacity_factor, eval_capacity_factor: see `MixtureOfExperts`.
        cross: attend to a memory too.
        norm: "layer" or "rms"; norm_epsilon: its epsilon.
        norm_first: norm before each part (True, "pre-norm") or after each sum (False, the first Transformer).
        activation: see `FeedForward`.
        use_bias: biases in all dense layers.
        dropout: rate on what is added to the residual path.
        attention_dropout, mlp_dropout: rates on attention weights and on hidden features.
        kernel_init: initialiser of all kernels but the two below.
        out_init: of attention's `out` and of `mlp/down`; None: kernel_init.
    """

    width: int
    heads: int
    kv_heads: int | None = None
    head_size: int | None = None
    mlp_width: int | None = None
    experts: int = 0
    experts_per_token: int = 2
    capacity_factor: float | None = 1.25
    eval_capacity_factor: float | None = None
    causal: bool = False
    window: int | None = None
    cross: bool = False
    rotary_base: float | None = None
    norm: str = "layer"
    norm_epsilon: float = 1e-5
    norm_first: bool = True
    activation: str | Callable[[Array], Array] = "gelu"
    use_bias: bool = True
    dropout: float | Array = 0.0
    attention_dropout: float | Array = 0.0
    mlp_dropout: float | Array = 0.0
    implementation: str = "auto"
    kernel_init: Any = linen.initializers.xavier_uniform()
    out_init: Any = None

    logical_axes = (
        *((f"(attention|cross)/{path}", names) for path, names in Attention.logical_axes),
        *((f"mlp/{path}", names) for path, names in FeedForward.logical_axes),
        *((f"experts/{path}", names) for path, names in MixtureOfExperts.logical_axes),
        ("norm[a-z_0-9]*/(scale|bias)", ("embed",)),
    )

    def setup(self) -> None:
        shared = {
            "width": self.width,
            "use_bias": self.use_bias,
            "kernel_init": self.kernel_init,
            "out_init": self.kernel_init if self.out_init is None else self.out_init,
        }
        attention = {
            **shared,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_size": self.head_size,
            "dropout": self.attention_dropout,
            "implementation": self.implementation,
        }
        self.attention = Attention(causal=self.causal, window=self.window, rotary_base=self.rotary_base, **attention)
        self.norm1 = norm_of(self.norm, self.norm_epsilon)
        if self.cross:
            self.cross_attention = Attention(**attention, name="cross")
            self.norm_cross = norm_of(self.norm, self.norm_epsilon)
        hidden = 4 * self.width if self.mlp_width is None else self.mlp_width
        if self.experts:
            if not isinstance(self.mlp_dropout, float) or self.mlp_dropout:
                raise ValueError("a mixture of experts has no dropout on hidden features: leave mlp_dropout at 0.0")
            self.mixture = MixtureOfExperts(
                hidden=hidden,
                activation=self.activation,
                experts=self.experts,
                k=self.experts_per_token,
                capacity_factor=self.capacity_factor,
                eval_capacity_factor=self.eval_capacity_factor,
                router_init=self.kernel_init,
                name="experts",
                **shared,
            )
        else:
            self.mlp = FeedForward(hidden=hidden, activation=self.activation, dropout=self.mlp_dropout, **shared)
        self.norm2 = norm_of(self.norm, self.norm_epsilon)
        self.drop = Dropout(self.dropout)

    def keys_values(self, memory: Array) -> KeysValues:
        """The memory as cross attention reads it: computed once, it serves every token that is decoded."""
        return self.cross_attention.keys_values(memory)

    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        padding: Array | None = None,
        mask: Array | None = None,
        memory: Array | KeysValues | None = None,
        memory_padding: Array | None = None,
        cache: KeysValues | None = None,
        index: Array | int = 0,
        routed: Array | None = None,
    ) -> Any:
        """x: [batch, length, width].

        Args:
            padding: [batch, length] bool, True where x is real.
            mask: bool that broadcasts to [batch, heads, length, length].
            memory: with `cross`, [batch, s, features] or its `keys_values`.
            memory_padding: [batch, s] bool.
            cache, index: see `Attention`.
            routed: with `experts`, [batch, length] bool, False where x takes no expert's place.

        Returns:
            [batch, length, width]; with a cache also the new keys and values; with `experts`, in training and without
            a cache, also the `Routing`.
        """
        new: list[Any] = []
        routing: list[Routing] = []

        def attend(x: Array) -> Array:
            y = self.attention(x, train=train, padding=padding, mask=mask, cache=cache, index=index)
            if cache is None:
                return y
            new.append(y[1])
            return y[0]

        x = self._beside(x, "attention_out", self.norm1, attend, train)
        if self.cross:
            if memory is None:
                raise ValueError("a block with cross=True needs a memory [batch, s, features]")

            def look(x: Array) -> Array:
                return self.cross_attention(x, memory, train=train, padding=memory_padding)

            x = self._beside(x, "cross_out", self.norm_cross, look, train)

        def feed_forward(x: Array) -> Array:
            if not self.experts:
                return self.mlp(x, train=train)
            y, done = self.mixture(x, train=train, routed=routed)
            routing.append(done)
            return y

        x = self._beside(x, "mlp_out", self.norm2, feed_forward, train)
        if new:
            return x, new[0]
        return (x, routing[0]) if routing and train else x

    def _beside(self, x: Array, name: str, norm: Any, part: Callable[[Array], Array], train: bool) -> Array:
        """x plus what the part makes of it, normed before or after."""
        y = part(norm(x) if self.norm_first else x)
        y = tap(self, name, checkpoint_name(y, name))
        x = constrain(x + self.drop(y, train=train), "batch", "length", "embed")
        return x if self.norm_first else norm(x)


def scaled_normal(deviation: float, layers: int) -> Any:
    """GPT-2's initialiser of what ends on the residual path: normal, deviation / sqrt(2 * layers)."""
    return linen.initializers.normal(deviation / math.sqrt(2 * layers))
