"""Sums over devices in fewer bytes: gradients as bfloat16, or as int8 whose rounding is made up for later."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array

#: Smaller arrays are summed as they are: their bytes do not count, and their rounding would.
LEAST = 1024


def sum_bf16(x: Array, axes: tuple[str, ...], count: int) -> Array:
    """The sum over the axes, sent as bfloat16 and summed as float32: half the bytes, relative error about 2**-8.

    Each device owns the sum of one part: an all-to-all brings it the summands, an all-gather takes the sums to all. (An
    all-reduce of bfloat16 would round after each addition; XLA widens it on CPU.)

    To be called inside shard_map. x: any shape, float32; the result is the same on each of the `count` devices.
    """
    flat = jnp.pad(x.reshape(-1), (0, -x.size % count)).astype(jnp.bfloat16)
    parts = jax.lax.all_to_all(flat.reshape(count, -1), axes, 0, 0, tiled=True)
    mine = parts.astype(x.dtype).sum(0).astype(jnp.bfloat16)
    return jax.lax.all_gather(mine, axes, tiled=True).astype(x.dtype)[: x.size].reshape(x.shape)


def sum_int8(x: Array, residual: Array, axes: tuple[str, ...], count: int) -> tuple[Array, Array]:
    """The sum over the axes, sent as int8: a quarter of the bytes; what rounding took away is kept for the next sum.

    Each device adds its residual to x and rounds to 255 levels of the largest number on any device; the levels are
    summed exactly where each part has its owner, and the sum is rounded once more and sent to all. Both roundings stay
    in the residuals: over many updates the sums of what was sent are the sums of what was meant (error feedback;
    Seide et al., "1-Bit Stochastic Gradient Descent", 2014; Karimireddy et al., 2019). A number that is not finite
    makes the whole sum NaN and leaves the residual as it was.

    To be called inside shard_map.

    Args:
        x: any shape, float32: this device's summand.
        residual: the same shape: what this device owes.
        axes: mesh axes.
        count: how many devices they have.

    Returns:
        The sum, the same on each device; and the new residual.
    """
    owed = x + residual
    finite = jax.lax.pmin(jnp.isfinite(owed).all().astype(jnp.int32), axes) > 0
    flat = jnp.pad(owed.reshape(-1), (0, -owed.size % count))
    levels, step = _rounded(flat, axes)
    parts = jax.lax.all_to_all(levels.reshape(count, -1), axes, 0, 0, tiled=True)
    mine = parts.astype(jnp.int32).sum(0).astype(jnp.float32) * step  # the part of the sum that this device owns
    again, coarse = _rounded(mine, axes)
    total = jax.lax.all_gather(again, axes, tiled=True).astype(jnp.float32) * coarse
    left = flat - levels.astype(jnp.float32) * step
    place = jax.lax.axis_index(axes) * mine.size
    own = jax.lax.dynamic_slice_in_dim(left, place, mine.size) + mine - again.astype(jnp.float32) * coarse
    left = jax.lax.dynamic_update_slice_in_dim(left, own, place, 0)
    total = jnp.where(finite, total[: x.size].reshape(x.shape), jnp.nan)
    return total, jnp.where(finite, left[: x.size].reshape(x.shape), residual)


def _rounded(x: Array, axes: tuple[str, ...]) -> tuple[Array, Array]:
    """x as int8 in steps of the largest magnitude on any device over 127, and that step."""
    step = jax.lax.pmax(jnp.abs(x).max(), axes) / 127.0
    levels = jnp.round(x / jnp.where(step > 0, step, 1.0))
    return jnp.clip(levels, -127, 127).astype(jnp.int8), step
