"""Attention over queries, keys and values: multi-head, grouped-query and cross, with masks and a cache for decoding."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.nn.dense import Dense
from jaxdl.nn.embed import rotary
from jaxdl.nn.precision import widened
from jaxdl.parallel import constrain, current
from jaxdl.parallel.ring import ring_attention

Array = jax.Array

_NEVER = np.float32(-1e30)  # finite: a query that may see nothing gets the mean of all values, not NaN
_IMPLEMENTATIONS = ("auto", "xla", "cudnn")
_LARGEST_HEAD = 128  # of cuDNN's fused attention on every GPU that has it


class Cache(NamedTuple):
    """Keys and values of what has been read, of every layer: `Stack` and `jax.lax` loops carry it as it is.

    Attributes:
        key: [layers, batch, length, kv_heads, size].
        value: the same shape.
        filled: [] int32, how many positions hold something.
    """

    key: Array
    value: Array
    filled: Array


#: Where the batch is in a Cache, for `beam_search(batch_axes=)`.
CACHE_AXES = Cache(1, 1, None)  # type: ignore[arg-type]


def empty_cache(
    layers: int, batch: int, length: int, kv_heads: int, size: int, dtype: jnp.dtype | type = jnp.float32
) -> Cache:
    """A cache with room for `length` positions, none of them filled."""
    shape = (layers, batch, length, kv_heads, size)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.int32(0))


def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    causal: bool = False,
    window: int | None = None,
    padding: Array | None = None,
    mask: Array | None = None,
    offset: Array | int = 0,
    dropout: float | Array = 0.0,
    dropout_key: Array | None = None,
    implementation: str = "auto",
) -> Array:
    """softmax(query @ key / sqrt(size)) @ value, for each head, over the keys that the masks let through.

    The masks act together; softmax is computed in at least float32.

    Args:
        query: [batch, t, heads, size].
        key, value: [batch, s, kv_heads, size]; heads is a multiple of kv_heads; those in a row share.
        causal: a query sees no key after its own position.
        window: a query sees keys at a distance below `window` only (its own position and window - 1 before it; without
            `causal` as many after it).
        padding: [batch, s] bool, True where the key is real.
        mask: bool that broadcasts to [batch, heads, t, s], True where the query may see the key.
        offset: the position of the first query among the keys, a number or a traced scalar.
        dropout: probability at which a weight is zeroed, where `dropout_key` is given.
        implementation: "cudnn" (fused, on NVIDIA GPUs, bfloat16 and float16 only), "xla", or "auto": cuDNN where the
            backend is a GPU, it can do what is asked and no sequence is split between devices, else XLA, chosen while
            tracing.

    Returns:
        [batch, t, heads, size] in the dtype of query.

    Raises:
        ValueError: shapes that do not go together, a window below 1, an implementation that is unknown or cannot do it.

    Source: Vaswani et al., "Attention Is All You Need", 2017; Ainslie et al., "GQA", 2023.
    """
    _check(query, key, value, padding, window, implementation)
    obstacle = _cudnn_obstacle(query, causal, window, offset, dropout_key)
    if implementation == "cudnn" and obstacle:
        raise ValueError(f"cuDNN's attention {obstacle}: use implementation='xla' (or 'auto', which chooses)")
    now = current()
    if now is not None and (now.context == 1 or now.mesh is None):
        now = None  # no sequence is split
    automatic = implementation == "auto" and not obstacle and jax.default_backend() == "gpu" and now is None
    if implementation == "cudnn" or automatic:
        return _cudnn(query, key, value, causal, window, padding, mask)
    if now is not None and now.mesh is not None:
        plain = mask is None and dropout_key is None and isinstance(offset, int) and offset == 0
        if query.shape[1] % now.context == 0:
            now.used.add("context")
        if now.ring and plain and key.shape[1] == query.shape[1] and key.shape[1] % now.context == 0:
            return ring_attention(query, key, value, now.mesh, causal=causal, window=window, padding=padding)
        # What the ring cannot do, or is not asked to: queries stay split, and meet all keys and values.
        key, value = (constrain(x, "batch", "keys", "kv", None) for x in (key, value))
    seen = _together(mask, _visible(query.shape[1], key.shape[1], causal, window, offset), padding)
    return _xla(query, key, value, seen, dropout, dropout_key)


def _xla(
    query: Array, key: Array, value: Array, seen: Array | None, dropout: float | Array, dropout_key: Array | None
) -> Array:
    batch, t, heads, size = query.shape
    kv_heads = key.shape[2]
    scaled = query * jnp.asarray(size**-0.5, query.dtype)
    wide = widened(query[:1, :1, :1, :1]).dtype
    grouped = heads != kv_heads
    if grouped:
        scaled = scaled.reshape(batch, t, kv_heads, heads // kv_heads, size)
        scores = jnp.einsum("btkgd,bskd->bkgts", scaled, key, preferred_element_type=wide)
        scores = scores.reshape(batch, heads, t, -1)
    else:
        scores = jnp.einsum("bthd,bshd->bhts", scaled, key, preferred_element_type=wide)
    if seen is not None:
        scores = jnp.where(seen, scores, _NEVER.astype(wide))
    weights = jax.nn.softmax(scores, axis=-1)
    if dropout_key is not None:
        keep = 1.0 - jnp.clip(jnp.asarray(dropout, jnp.float32), 0.0, 0.99)
        kept = jax.random.bernoulli(dropout_key, keep, weights.shape)
        weights = jnp.where(kept, weights / keep.astype(wide), jnp.zeros((), wide))
    weights = weights.astype(query.dtype)
    if grouped:
        weights = weights.reshape(batch, kv_heads, heads // kv_heads, t, -1)
        return jnp.einsum("bkgts,bskd->btkgd", weights, value).reshape(batch, t, heads, size)
    return jnp.einsum("bhts,bshd->bthd", weights, value)


def _cudnn(
    query: Array,
    key: Array,
    value: Array,
    causal: bool,
    window: int | None,
    padding: Array | None,
    mask: Array | None,
) -> Array:
    seen = _together(mask, None, padding)
    if seen is not None:
        seen = jnp.broadcast_to(seen, (*seen.shape[:2], query.shape[1], key.shape[1]))
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        mask=seen,
        is_causal=causal,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn",
    )


def _cudnn_obstacle(
    query: Array, causal: bool, window: int | None, offset: Array | int, dropout_key: Array | None
) -> str:
    """What keeps cuDNN from it, as the end of a sentence; "" where nothing does."""
    if query.dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16 or float16 only, not in {query.dtype}"
    if query.shape[-1] > _LARGEST_HEAD or query.shape[-1] % 8:
        return f"takes heads of a multiple of 8 up to {_LARGEST_HEAD} numbers, not {query.shape[-1]}"
    if window is not None and not causal:
        return "has a sliding window only where it is causal"
    if dropout_key is not None:
        return "draws no dropout that XLA could repeat"
    if (causal or window is not None) and not (isinstance(offset, int) and offset == 0):
        return "is causal from the first key on, without an offset"
    return ""


def _visible(t: int, s: int, causal: bool, window: int | None, offset: Array | int) -> Array | np.ndarray | None:
    """[1, 1, t, s] bool of which key a query may see by position; None where it is all of them."""
    if not causal and window is None:
        return None
    rows, columns = np.arange(t, dtype=np.int32)[:, None], np.arange(s, dtype=np.int32)[None]
    distance = (rows - columns) + offset if isinstance(offset, int) else jnp.asarray(rows - columns) + offset
    seen = (distance >= 0) if causal else (distance > -_width(window))
    if window is not None:
        seen = seen & (distance < window)
    return seen[None, None]


def _width(window: int | None) -> int:
    assert window is not None
    return window


def _together(mask: Array | None, visible: Array | np.ndarray | None, padding: Array | None) -> Array | None:
    parts = [
        part for part in (mask, visible, None if padding is None else padding[:, None, None, :]) if part is not None
    ]
    if not parts:
        return None
    seen = jnp.asarray(parts[0])
    for part in parts[1:]:
        seen = seen & part
    return seen


def _check(
    query: Array, key: Array, value: Array, padding: Array | None, window: int | None, implementation: str
) -> None:
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(f"attention is implemented by {', '.join(_IMPLEMENTATIONS)}, not by {implementation!r}")
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape:
        raise ValueError(
            "attention takes query [batch, t, heads, size] and key and value [batch, s, kv_heads, size], "
            f"not {query.shape}, {key.shape} and {value.shape}"
        )
    if query.shape[0] != key.shape[0] or query.shape[-1] != key.shape[-1] or query.shape[2] % key.shape[2]:
        raise ValueError(
            f"query {query.shape} and key {key.shape} differ in batch or size, or {query.shape[2]} heads are no "
            f"multiple of {key.shape[2]} kv_heads"
        )
    if padding is not None and padding.shape != key.shape[:2]:
        raise ValueError(f"padding says for each key whether it is real, {key.shape[:2]}, not {padding.shape}")
    if window is not None and window < 1:
        raise ValueError(f"a window holds at least the query's own position: 1 or more, not {window}")


class Attention(linen.Module):
    """Multi-head attention: of x over itself, or over a memory.

    Parameters: `query`, `key`, `value`, `out`, each a kernel [in, out] and a bias; heads lie side by side in the
    columns of the first three and in the rows of the last.

    Attributes:
        width: features that come out, and of x.
        heads: query heads; they share `width` unless head_size is given.
        kv_heads: heads of keys and values; None: as many as `heads`; 1: multi-query; between: grouped-query.
        head_size: features of one head; None: width / heads.
        use_bias: biases in all four.
        causal, window: see `dot_product_attention`.
        rotary_base: turn queries and keys by their positions (`jaxdl.nn.rotary`) at rates of this base; None: do not.
        dropout: rate on the attention weights; 0 draws nothing.
        implementation: see `dot_product_attention`.
        kernel_init, out_init: initialisers of the first three kernels and of the last.
    """

    width: int
    heads: int
    kv_heads: int | None = None
    head_size: int | None = None
    use_bias: bool = True
    causal: bool = False
    window: int | None = None
    rotary_base: float | None = None
    dropout: float | Array = 0.0
    implementation: str = "auto"
    kernel_init: linen.initializers.Initializer = linen.initializers.xavier_uniform()
    out_init: linen.initializers.Initializer = linen.initializers.xavier_uniform()

    logical_axes = (
        ("query/kernel", ("embed", "heads")),
        ("(key|value)/kernel", ("embed", "kv")),
        ("query/bias", ("heads",)),
        ("(key|value)/bias", ("kv",)),
        ("out/kernel", ("heads", "embed")),
        ("out/bias", ("embed",)),
    )

    def setup(self) -> None:
        if self.head_size is None and self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not share {self.width} features evenly: give head_size")
        size = self.size
        kv = size * (self.heads if self.kv_heads is None else self.kv_heads)
        if kv and self.heads * size % kv:
            raise ValueError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        self.query = Dense(self.heads * size, use_bias=self.use_bias, kernel_init=self.kernel_init)
        self.key = Dense(kv, use_bias=self.use_bias, kernel_init=self.kernel_init)
        self.value = Dense(kv, use_bias=self.use_bias, kernel_init=self.kernel_init)
        self.out = Dense(self.width, use_bias=self.use_bias, kernel_init=self.out_init)

    @property
    def size(self) -> int:
        """Features of one head."""
        return self.width // self.heads if self.head_size is None else self.head_size

    def keys_values(self, memory: Array, index: Array | int = 0) -> tuple[Array, Array]:
        """Keys and values of a memory [batch, s, features], [batch, s, kv_heads, size] each, for `memory=` below."""
        key, value = (dense(memory).reshape(*memory.shape[:2], -1, self.size) for dense in (self.key, self.value))
        if self.rotary_base is not None:
            key = rotary(key, _positions(memory.shape[1], index), base=self.rotary_base)
        return constrain(key, "batch", "length", "kv", None), constrain(value, "batch", "length", "kv", None)

    def __call__(
        self,
        x: Array,
        memory: Array | tuple[Array, Array] | None = None,
        *,
        train: bool,
        padding: Array | None = None,
        mask: Array | None = None,
        cache: tuple[Array, Array] | None = None,
        index: Array | int = 0,
    ) -> Any:
        """What x gathers from itself, or from a memory.

        Args:
            x: [batch, t, width].
            memory: what is attended to: [batch, s, features], or its `keys_values`; None: x.
            padding: [batch, s] bool, True where x (the memory) is real.
            mask: bool that broadcasts to [batch, heads, t, s].
            cache: keys and values [batch, length, kv_heads, size] of the positions before `index`; x is then the
                positions from `index` on, and sees those before it too.
            index: [] int32, the position of x's first.

        Returns:
            [batch, t, width]; with a cache also the keys and values of x, [batch, t, kv_heads, size] each, which the
            caller writes into the cache at `index`.
        """
        query = self.query(x).reshape(*x.shape[:2], self.heads, self.size)
        if self.rotary_base is not None:
            query = rotary(query, _positions(x.shape[1], index), base=self.rotary_base)
        query = constrain(query, "batch", "length", "heads", None)
        if isinstance(memory, tuple):
            key, value = memory
        else:
            key, value = self.keys_values(x if memory is None else memory, index)
        new = (key, value)
        causal = self.causal
        if cache is not None:
            key, value = (
                jax.lax.dynamic_update_slice_in_dim(old.astype(now.dtype), now, index, axis=1)
                for old, now in zip(cache, new, strict=True)
            )
            causal = True  # what lies behind `index` + t is not filled
        key_for_dropout = None
        if train and not (isinstance(self.dropout, (int, float)) and self.dropout == 0):
            key_for_dropout = self.make_rng("dropout")
        gathered = dot_product_attention(
            query,
            key,
            value,
            causal=causal,
            window=self.window,
            padding=padding,
            mask=mask,
            offset=0 if cache is None else index,
            dropout=self.dropout,
            dropout_key=key_for_dropout,
            implementation=self.implementation,
        )
        y = self.out(gathered.reshape(*x.shape[:2], -1))
        y = constrain(y, "batch", "length", "embed")
        return y if cache is None else (y, new)


def _positions(length: int, index: Array | int) -> Array:
    return jnp.arange(length, dtype=jnp.int32) + index
