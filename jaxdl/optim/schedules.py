"""Schedules: functions from the step to a factor of the learning rate, in [0, 1]."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Schedule = Callable[[Any], Array]


def is_number(value: object) -> bool:
    """A real number that is no truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def linear(steps: int, *, warmup: int = 0, end: float = 0.0) -> Schedule:
    """1 falls to `end` in a straight line over `steps` steps, after a rise from 0 over the first `warmup` of them."""
    _check(steps, warmup, end)

    def factor(step: Array) -> Array:
        fall = 1 - (1 - end) * _fraction(step, warmup, steps)
        return _warm(step, warmup) * fall

    return factor


def cosine(steps: int, *, warmup: int = 0, end: float = 0.0) -> Schedule:
    """1 falls to `end` along half a cosine (Loshchilov and Hutter 2017), after a linear rise over `warmup` steps:
    end + (1 - end) * (1 + cos(pi * t)) / 2."""
    _check(steps, warmup, end)

    def factor(step: Array) -> Array:
        fall = end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * _fraction(step, warmup, steps)))
        return _warm(step, warmup) * fall

    return factor


def warmup_cosine(warmup: int, steps: int, *, end: float = 0.0) -> Schedule:
    """`cosine(steps, warmup=warmup, end=end)` under its usual name."""
    return cosine(steps, warmup=warmup, end=end)


def exponential(steps: int, rate: float, *, staircase: bool = False) -> Schedule:
    """rate ** (step / steps); in whole stairs when `staircase`."""
    _check(steps, 0, 0.0)
    if not is_number(rate) or not 0 < rate < math.inf:
        raise ValueError(f"rate={rate}: an exponential schedule needs a rate above 0, usually below 1")

    def factor(step: Array) -> Array:
        power = jnp.asarray(step, jnp.float32) / steps
        return jnp.float32(rate) ** (jnp.floor(power) if staircase else power)

    return factor


def piecewise(boundaries: Mapping[int, float]) -> Schedule:
    """The product of the factors of all boundaries reached: {1000: 0.1, 2000: 0.1} is 1, then 0.1, then 0.01."""
    if not boundaries or any(step < 0 or not 0 <= factor < math.inf for step, factor in boundaries.items()):
        raise ValueError(f"piecewise({dict(boundaries)}): give at least one boundary, step -> factor, both at least 0")

    def factor(step: Array) -> Array:
        value = jnp.float32(1)
        for boundary, ratio in boundaries.items():
            value = value * jnp.where(jnp.asarray(step) >= boundary, jnp.float32(ratio), jnp.float32(1))
        return value

    return factor


def _fraction(step: Array, warmup: int, steps: int) -> Array:
    """How much of the fall is done, 0 to 1."""
    return jnp.clip((jnp.asarray(step, jnp.float32) - warmup) / max(steps - warmup, 1), 0.0, 1.0)


def _warm(step: Array, warmup: int) -> Array:
    """The rise: (step + 1) / warmup up to 1, so that the first step is not lost to a rate of 0."""
    if not warmup:
        return jnp.float32(1)
    return jnp.minimum((jnp.asarray(step, jnp.float32) + 1) / warmup, 1.0)


def _check(steps: int, warmup: int, end: float) -> None:
    whole = all(isinstance(each, numbers.Integral) for each in (steps, warmup))
    if not whole or steps < 1 or warmup < 0 or warmup > steps:
        raise ValueError(f"steps={steps}, warmup={warmup}: a schedule needs whole steps >= 1 and 0 <= warmup <= steps")
    if not 0 <= end <= 1:
        raise ValueError(f"end={end}: the last factor must be in [0, 1]")
