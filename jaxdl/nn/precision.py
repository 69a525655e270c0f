"""Floating-point numbers of at least 32 bits, for sums, statistics and losses of lower-precision networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def widened(x: Array) -> Array:
    """bfloat16 and float16 -> float32; float32, float64 and everything that is no float as they are."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4 else x
