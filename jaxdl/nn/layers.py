"""Layers that need more than flax.linen gives: dropout at a traced rate, quick max pool, batch norm without padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdl.nn.precision import widened

Array = jax.Array


class Dropout(nn.Module):
    """Zero each number with probability `rate` in training, and divide the others by 1 - rate.

    Attributes:
        rate: a Python number in [0, 1), or a traced scalar, so that trials may vary it inside one program (flax's own
            refuses a traced rate). A Python 0 draws nothing and needs no key. A traced rate is kept at or below 0.99:
            at 1 nothing would be left and the gradient would be NaN.

    Raises:
        ValueError: a Python rate outside [0, 1).

    Source: Srivastava et al., "Dropout", 2014. The key is linen's stream "dropout".
    """

    rate: float | Array

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if isinstance(self.rate, (int, float)):
            if not 0.0 <= self.rate < 1.0:
                raise ValueError(f"a dropout rate lies in [0, 1), not {self.rate}")
            if self.rate == 0:
                return x
        if not train:
            return x
        keep = 1.0 - jnp.clip(jnp.asarray(self.rate, dtype=jnp.float32), 0.0, 0.99)
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, x.shape)
        return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


def max_pool(x: Array, window: Sequence[int] = (2, 2)) -> Array:
    """The largest number of each window, the windows side by side.

    Where the window divides the size this is a reshape and a maximum, whose gradient costs 0.3 of reduce_window's on
    CPU; otherwise the incomplete windows at the end are dropped, as flax's and torch's "valid" pooling do. Where
    several numbers of a window are equal and largest, the reshape shares the gradient between them.

    Args:
        x: [batch, *space, channels].
        window: one length per axis of space.

    Returns:
        [batch, *(size // length), channels].

    Raises:
        ValueError: the window has another number of axes than x, or is longer than x.
    """
    space = x.shape[1:-1]
    if len(window) != len(space):
        raise ValueError(f"max_pool of {x.shape} needs a window of {len(space)} lengths, not {tuple(window)}")
    if any(size < length for size, length in zip(space, window, strict=True)):
        raise ValueError(f"max_pool: the window {tuple(window)} is longer than the input {space}: use fewer pools")
    if any(size % length for size, length in zip(space, window, strict=True)):
        return nn.max_pool(x, tuple(window), strides=tuple(window))
    split = [number for size, length in zip(space, window, strict=True) for number in (size // length, length)]
    axes = tuple(range(2, 2 + len(split), 2))
    return jnp.max(x.reshape(x.shape[0], *split, x.shape[-1]), axis=axes)


class BatchNorm(nn.Module):
    """Normalise each channel by the mean and variance of the batch, of the running averages outside training.

    Rows whose mask is False (padding) take no part in the statistics; when no row takes part, the running averages stay
    as they are and nothing becomes NaN. Statistics are at least float32 whatever the dtype of x.

        y = scale * (x - mean) / sqrt(variance + epsilon) + bias
        running = momentum * running + (1 - momentum) * batch

    The variance is the biased one, in the batch and in the running average, as in flax (torch's running average is
    the unbiased one). Parameters are `scale` and `bias`, statistics `mean` and `var` in "batch_stats", as in flax.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, ..., channels]; mask: [batch] bool, True where the row is a real example."""
        channels = (x.shape[-1],)
        inputs = widened(x)
        wide = inputs.dtype
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32).astype(wide)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32).astype(wide)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if train:
            mean, var, count = _masked_moments(inputs, mask)
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    moved = self.momentum * running.value + (1.0 - self.momentum) * batch.astype(running.value.dtype)
                    running.value = moved if mask is None else jnp.where(count > 0, moved, running.value)
        else:
            mean, var = running_mean.value.astype(wide), running_var.value.astype(wide)
        row = (1,) * (x.ndim - 1) + channels
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return ((inputs - mean.reshape(row)) * factor.reshape(row) + bias.reshape(row)).astype(x.dtype)


def _masked_moments(x: Array, mask: Array | None) -> tuple[Array, Array, Any]:
    """Mean and variance per channel over the rows of the mask, and how many numbers each was made of."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        return jnp.mean(x, axes), jnp.var(x, axes), math.prod(x.shape[:-1])
    if mask.shape != x.shape[:1]:
        raise ValueError(f"the mask of batch norm is [batch], here {x.shape[:1]}, not {mask.shape}")
    chosen = mask.reshape(-1, *(1,) * (x.ndim - 1))
    count = jnp.sum(mask, dtype=x.dtype) * math.prod(x.shape[1:-1])
    divisor = jnp.maximum(count, 1.0)
    zero = jnp.zeros((), x.dtype)
    mean = jnp.sum(jnp.where(chosen, x, zero), axes) / divisor
    centred = jnp.where(chosen, x - mean.reshape((1,) * (x.ndim - 1) + mean.shape), zero)
    return mean, jnp.sum(centred * centred, axes) / divisor, count
