"""Keys whose draws compile ten times faster than threefry's, for initial weights and nothing else.

XLA inlines threefry once for every distinct shape that is drawn: on CPU the initial weights of a two-layer network take
1.5 CPU-seconds to compile, more than its training step. With these keys it is 0.15. The network's own initialisers are
used as they are, since jax.random accepts any implementation of its key type.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: consecutive counters land far apart


def light_key(key: Array) -> Array:
    """A key that draws quickly-compiled numbers, made from a typed key of any implementation.

    It is for initial weights: the stream is a hash of (key, position), good enough to start from and not a generator to
    sample posteriors with.

    Args:
        key: [] typed key (`jax.random.key`) or [n] uint32 (`jax.random.PRNGKey`).

    Returns:
        [] typed key of another implementation, accepted by every function of jax.random.
    """
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    first, second = jnp.uint32(_GOLDEN), jnp.uint32(0)  # not (0, 0): the hash of all zeros is zero
    for index in range(data.shape[-1]):
        first, second = _mix(first ^ data[index]), _mix(second + data[index] + first)
    return jax.random.wrap_key_data(jnp.stack([first, second]), impl=_implementation())


def _mix(h: Array) -> Array:
    """The 32-bit finaliser of MurmurHash3 (Appleby, public domain): every input bit reaches every output bit."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def _seed(seed: Any) -> Array:
    words = jnp.asarray(seed).astype(jnp.uint32)
    return jnp.stack([_mix(words), _mix(words + _GOLDEN)])


def _fold_in(key: Array, data: Any) -> Array:
    word = jnp.asarray(data).astype(jnp.uint32)
    first = _mix(key[0] ^ _mix(word + _GOLDEN))
    return jnp.stack([first, _mix(key[1] + first)])


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    counters = jax.lax.iota(jnp.uint32, math.prod(shape))
    key = _fold_in(key, ~_GOLDEN)  # else the keys of a split would be those of fold_in(key, 0), fold_in(key, 1) ...
    return jax.vmap(lambda counter: _fold_in(key, counter))(counters).reshape(*shape, 2)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    counters = jax.lax.iota(jnp.uint32, math.prod(shape)) * _GOLDEN
    words = _mix(_mix(counters + key[0]) ^ key[1]).reshape(shape)
    if bit_width == 64:
        low = _mix(_mix(counters + key[1]) ^ key[0]).reshape(shape)
        return (words.astype(jnp.uint64) << np.uint64(32)) | low.astype(jnp.uint64)
    return words.astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[bit_width])


@functools.cache
def _implementation() -> Any:
    from jax.extend.random import define_prng_impl

    return define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=_split,
        random_bits=_random_bits,
        fold_in=_fold_in,
        name="jaxdl_light",
        tag="jdl",
    )
