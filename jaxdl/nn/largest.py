"""The largest number along an axis, with a gradient that does not depend on how XLA rounds."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def largest(x: Array, axis: int) -> Array:
    """`jnp.max(x, axis)`; where several are equal and largest, they share the gradient.

    The gradient of `jnp.max` goes to what equals the maximum. XLA may compute x twice, once for the maximum and once
    for the comparison, and round differently (a product and a sum as one fused operation, or as two); then nothing is
    equal and gradients vanish or double, as they did behind batch norm on several devices. Here each number is compared
    with another one, halves with halves: a difference in the last bit cannot lose a gradient.

    Args:
        x: any shape, at least one number along the axis.
    """
    while x.shape[axis] > 1:
        count = x.shape[axis]
        half = count // 2
        first, second = (jax.lax.slice_in_dim(x, at, at + half, axis=axis) for at in (0, half))
        folded = jnp.maximum(first, second)
        rest = jax.lax.slice_in_dim(x, 2 * half, count, axis=axis)
        x = jnp.concatenate([folded, rest], axis=axis) if count % 2 else folded
    return jax.lax.squeeze(x, (axis % x.ndim,))
