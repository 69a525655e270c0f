"""Normalisation: statistics are at least float32 whatever the dtype of x; parameters are `scale` and `bias`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp

from jaxdl.nn.precision import widened
from jaxdl.parallel import reduce_axes

Array = jax.Array
AxisNames = str | Sequence[str]


class BatchNorm(linen.Module):
    """Normalise each channel by the mean and variance of the batch, of the running averages outside training.

    Rows whose mask is False (padding) take no part in the statistics; when no row takes part, the running averages stay
    as they are and nothing becomes NaN. Statistics are at least float32 whatever the dtype of x.

        y = scale * (x - mean) / sqrt(variance + epsilon) + bias
        running = momentum * running + (1 - momentum) * batch

    The variance is the biased one, in the batch and in the running average, as in flax (torch's running average is
    the unbiased one). Parameters are `scale` and `bias`, statistics `mean` and `var` in "batch_stats", as in flax.

    Attributes:
        momentum: the share of the running average that stays at each step (1 minus torch's `momentum`).
        epsilon: added to the variance.
        axis_name: mapped axes whose devices share their statistics; `jaxdl.parallel.reducing_over` says it for all
            layers at once. None: those of the rows at hand, under `jax.jit` all rows, however they are sharded.
        scale_init: initialiser of `scale`; zeros make a residual branch start as nothing.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: AxisNames | None = None
    scale_init: Any = linen.initializers.ones

    @linen.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """x: [batch, ..., channels]; mask: [batch] bool, True where the row is a real example."""
        channels = (x.shape[-1],)
        inputs = widened(x)
        wide = inputs.dtype
        scale = self.param("scale", self.scale_init, channels, jnp.float32).astype(wide)
        bias = self.param("bias", linen.initializers.zeros, channels, jnp.float32).astype(wide)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if train:
            over = self.axis_name if self.axis_name is not None else reduce_axes() or None
            mean, var, count = _moments(inputs, mask, None if self.is_initializing() else over)
            if not self.is_initializing():
                for running, batch in ((running_mean, mean), (running_var, var)):
                    moved = self.momentum * running.value + (1.0 - self.momentum) * batch.astype(running.value.dtype)
                    running.value = moved if mask is None else jnp.where(count > 0, moved, running.value)
        else:
            mean, var = running_mean.value.astype(wide), running_var.value.astype(wide)
        row = (1,) * (x.ndim - 1) + channels
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return ((inputs - mean.reshape(row)) * factor.reshape(row) + bias.reshape(row)).astype(x.dtype)


def _moments(x: Array, mask: Array | None, over: AxisNames | None) -> tuple[Array, Array, Any]:
    """Mean and variance per channel over the rows of the mask, and how many numbers each was made of."""
    axes = tuple(range(x.ndim - 1))
    if mask is None and over is None:
        return jnp.mean(x, axes), jnp.var(x, axes), math.prod(x.shape[:-1])
    if mask is None:
        mask = jnp.ones(x.shape[:1], jnp.bool_)
    if mask.shape != x.shape[:1]:
        raise ValueError(f"the mask of batch norm is [batch], here {x.shape[:1]}, not {mask.shape}")

    def total(number: Array) -> Array:
        return number if over is None else jax.lax.psum(number, over)

    chosen = mask.reshape(-1, *(1,) * (x.ndim - 1))
    count = total(jnp.sum(mask, dtype=x.dtype)) * math.prod(x.shape[1:-1])
    divisor = jnp.maximum(count, 1.0)
    zero = jnp.zeros((), x.dtype)
    mean = total(jnp.sum(jnp.where(chosen, x, zero), axes)) / divisor
    centred = jnp.where(chosen, x - mean.reshape((1,) * (x.ndim - 1) + mean.shape), zero)
    return mean, total(jnp.sum(centred * centred, axes)) / divisor, count


class LayerNorm(linen.Module):
    """Normalise each position over its features: (x - mean) / sqrt(variance + epsilon) * scale + bias.

    Attributes:
        epsilon: 1e-5 as in torch (flax 1e-6, torchvision's ViT 1e-6, BERT 1e-12).
        use_scale, use_bias: learn the two parameters.

    Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """

    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [..., features]; the same shape and dtype."""
        wide = widened(x)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
        return _affine(self, centred * jax.lax.rsqrt(variance + self.epsilon)).astype(x.dtype)


class RMSNorm(linen.Module):
    """Divide each position by the root of its features' mean square: x / sqrt(mean(x * x) + epsilon) * scale.

    Attributes:
        epsilon: added to the mean square.
        use_scale: learn `scale`.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = False

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [..., features]; the same shape and dtype."""
        wide = widened(x)
        square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        return _affine(self, wide * jax.lax.rsqrt(square + self.epsilon)).astype(x.dtype)


class GroupNorm(linen.Module):
    """Normalise each example over space and over each group of channels; independent of the batch.

    Attributes:
        groups: parts of equal size into which the channels are cut; 1 is layer norm over space and channels, the number
            of channels is instance norm.
        epsilon: added to the variance.
        use_scale, use_bias: learn the two parameters, [channels] each.

    Source: Wu and He, "Group Normalization", 2018.
    """

    groups: int = 32
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [batch, *space, channels]; the same shape and dtype. ValueError when the groups do not divide them."""
        channels = x.shape[-1]
        if self.groups < 1 or channels % self.groups:
            raise ValueError(f"group norm of {self.groups} groups needs channels that divide by them, not {channels}")
        wide = widened(x).reshape(x.shape[0], -1, self.groups, channels // self.groups)
        centred = wide - jnp.mean(wide, axis=(1, 3), keepdims=True)
        variance = jnp.mean(centred * centred, axis=(1, 3), keepdims=True)
        y = (centred * jax.lax.rsqrt(variance + self.epsilon)).reshape(x.shape)
        return _affine(self, y).astype(x.dtype)


class LocalResponseNorm(linen.Module):
    """Divide each number by its neighbouring channels' mean square: x / (k + alpha * mean over size of x**2)**beta.

    The neighbours beyond the first and last channel count as zeros. The formula and defaults are torch's; the AlexNet
    paper sums instead of averaging (its alpha 1e-4 is 5e-4 here) and has k = 2, size = 5.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [..., channels]; the same shape and dtype."""
        wide = widened(x)
        reach = ((0, 0),) * (x.ndim - 1) + ((self.size // 2, (self.size - 1) // 2),)
        squares = jnp.pad(wide * wide, reach)
        total = sum(squares[..., i : i + x.shape[-1]] for i in range(self.size))
        return (wide * (self.k + self.alpha / self.size * total) ** -self.beta).astype(x.dtype)


class L2Norm(linen.Module):
    """Give the channels of each position the length `scale`, learned per channel: scale * x / (|x| + epsilon).

    Attributes:
        initial_scale: 20 in SSD; 1 gives unit vectors.
        learned: False keeps the scale as it starts, without a parameter.
        epsilon: keeps a position of zeros finite.

    Source: Liu, Rabinovich, Berg, "ParseNet", 2015.
    """

    initial_scale: float = 20.0
    learned: bool = True
    epsilon: float = 1e-10

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """x: [..., channels]; the same shape and dtype."""
        wide = widened(x)
        # The root of a sum that is exactly 0 has no gradient; below epsilon**2 the length does not matter.
        squares = jnp.maximum(jnp.sum(wide * wide, axis=-1, keepdims=True), self.epsilon**2)
        unit = wide / (jnp.sqrt(squares) + self.epsilon)
        if not self.learned:
            return (unit * self.initial_scale).astype(x.dtype)
        constant = linen.initializers.constant(self.initial_scale)
        scale = self.param("scale", constant, (x.shape[-1],), jnp.float32).astype(wide.dtype)
        return (unit * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def _affine(module: Any, y: Array) -> Array:
    """y * scale + bias per feature, each where the module has it."""
    row = (1,) * (y.ndim - 1) + (-1,)
    if module.use_scale:
        y = y * module.param("scale", linen.initializers.ones, (y.shape[-1],), jnp.float32).astype(y.dtype).reshape(row)
    if module.use_bias:
        y = y + module.param("bias", linen.initializers.zeros, (y.shape[-1],), jnp.float32).astype(y.dtype).reshape(row)
    return y
