"""Layers that leave something out in training: numbers, channels, whole branches. Rates may be traced scalars."""

from __future__ import annotations

import flax.linen as linen
import jax
import jax.numpy as jnp

Array = jax.Array


class Dropout(linen.Module):
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

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: any shape; the same shape."""
        return _drop(self, self.rate, x, x.shape, train)


class SpatialDropout(linen.Module):
    """Dropout of whole channels: one draw for each example and channel, the same everywhere in space.

    Attributes:
        rate: as in `Dropout`.

    Source: Tompson et al., "Efficient Object Localization Using Convolutional Networks", 2015.
    """

    rate: float | Array

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: [batch, *space, channels]; the same shape."""
        return _drop(self, self.rate, x, (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]), train)


class StochasticDepth(linen.Module):
    """Dropout of a residual branch for whole examples: `x + StochasticDepth(rate)(branch(x), train=train)`.

    Attributes:
        rate: as in `Dropout`.

    Source: Huang et al., "Deep Networks with Stochastic Depth", 2016; the branch is divided by 1 - rate in training, as
    in torchvision, instead of multiplied in evaluation.
    """

    rate: float | Array

    @linen.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """x: [batch, ...]; the same shape."""
        return _drop(self, self.rate, x, (x.shape[0], *(1,) * (x.ndim - 1)), train)


def _drop(module: linen.Module, rate: float | Array, x: Array, draws: tuple[int, ...], train: bool) -> Array:
    """Zeros where one of `draws` (a shape that broadcasts to x's) says so, the rest divided by the share kept."""
    if isinstance(rate, (int, float)):
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a dropout rate lies in [0, 1), not {rate}")
        if rate == 0:
            return x
    if not train:
        return x
    dropped = jnp.asarray(rate, dtype=jnp.float32)
    keep = 1.0 - (dropped if isinstance(rate, (int, float)) else jnp.clip(dropped, 0.0, 0.99))
    kept = jax.random.bernoulli(module.make_rng("dropout"), keep, draws)
    return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))
