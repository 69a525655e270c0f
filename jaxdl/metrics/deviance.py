"""Deviances: the loss of models of counts (Poisson), of positive amounts (gamma) and of all in between (Tweedie)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.metrics.call import one_call
from jaxdl.metrics.means import MeanOf
from jaxdl.metrics.regression import errors

# Below this relative error the deviance is summed as a series: the closed form is a difference of nearly equal numbers.
_NEAR = 0.25
_TERMS = 14


def _gap(above: jax.Array, below: jax.Array) -> jax.Array:
    """x - log(1 + x) with 1 + x = above / below, positive numbers; by its series near 0."""
    share = (above - below) / below
    near = jnp.abs(share) < jnp.float32(_NEAR)
    small = jnp.where(near, share, jnp.zeros_like(share))
    series = jnp.zeros_like(share)
    for power in range(_TERMS, 1, -1):  # Horner: x^2 (1/2 - x/3 + x^2/4 - ...)
        series = jnp.float32((-1) ** power / power) + small * series
    # of the quotient itself: where it is small, 1 + x has no digits left, and is 0 from 6e-8 down
    return jnp.where(near, small * small * series, share - _log_ratio(above, below))


def _log_ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """log(above / below) of positive numbers, also where their quotient is none of float32."""
    ratio = above / below
    plain = (ratio > jnp.float32(1e-37)) & (ratio < jnp.float32(1e37))
    return jnp.where(plain, jnp.log(jnp.where(plain, ratio, jnp.ones_like(ratio))), jnp.log(above) - jnp.log(below))


def _poisson(preds: jax.Array, target: jax.Array) -> jax.Array:
    nothing = target == 0
    count = jnp.where(nothing, jnp.ones_like(target), target)
    return jnp.float32(2) * jnp.where(nothing, preds, target * _gap(preds, count))


def _gamma(preds: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.float32(2) * _gap(target, preds)


def _tweedie(preds: jax.Array, target: jax.Array, power: float) -> jax.Array:
    """preds^(2 - p) * 2 * (u^(2 - p) - 1 - (2 - p)(u - 1)) / ((1 - p)(2 - p)) with u = target / preds."""
    degree = 2.0 - power
    share = (target - preds) / preds
    growth = jnp.log1p(share)
    near = jnp.abs(growth) < jnp.float32(_NEAR)
    small = jnp.where(near, growth, jnp.zeros_like(growth))
    series, factorial = jnp.zeros_like(growth), [1.0]
    for order in range(1, _TERMS + 1):
        factorial.append(factorial[-1] * order)
    # exp(d y) - 1 - d (exp(y) - 1) = sum over k >= 2 of (d^k - d) y^k / k!, divided by d (d - 1)
    for order in range(_TERMS, 1, -1):
        rise = sum(degree**i for i in range(order - 1))
        series = jnp.float32(rise / factorial[order]) + small * series
    some = target > 0
    ratio = jnp.where(some, target / preds, jnp.zeros_like(target))
    log = jnp.where(
        some, _log_ratio(jnp.where(some, target, jnp.ones_like(target)), preds), jnp.full_like(target, -jnp.inf)
    )
    # u^d - 1 - d (u - 1) over d (d - 1), with the difference that is small where d is near 1 or 0 by expm1
    if abs(degree - 1.0) < 0.5:
        lifted = jnp.where(some, ratio * jnp.expm1(jnp.float32(degree - 1.0) * log), jnp.zeros_like(ratio))
        closed = (lifted / jnp.float32(degree - 1.0) - share) / jnp.float32(degree)
    else:
        closed = (jnp.expm1(jnp.float32(degree) * log) / jnp.float32(degree) - share) / jnp.float32(degree - 1.0)
    return jnp.float32(2) * preds ** jnp.float32(degree) * jnp.where(near, small * small * series, closed)


def _of_power(preds: jax.Array, target: jax.Array, power: float) -> jax.Array:
    if power == 0:
        return (preds - target) ** 2
    if power == 1:
        value = _poisson(preds, target)
    elif power == 2:
        value = _gamma(preds, target)
    else:
        value = _tweedie(preds, target, power)
    nothing = jnp.float32(0)
    allowed = preds > nothing
    if power >= 2:
        allowed &= target > nothing
    elif power >= 1:
        allowed &= target >= nothing
    return jnp.where(allowed, value, jnp.full_like(value, jnp.nan))


@dataclass(frozen=True)
class TweedieDeviance(MeanOf):
    """The mean deviance of a Tweedie distribution: of a model whose variance grows as mean^power.

    power 0: (preds - target)^2, the normal; 1: 2 (t log(t / p) - t + p), Poisson; 2: 2 (log(p / t) + t / p - 1), gamma;
    else 2 (max(t, 0)^(2-power) / ((1-power)(2-power)) - t p^(1-power) / (1-power) + p^(2-power) / (2-power)): above 2
    stable distributions of positive numbers, 3 the inverse Gaussian; between 1 and 2 amounts with an atom at 0; below 0
    extreme stable ones (Jorgensen, 1987). There is none between 0 and 1.

    preds and target of one shape [...]. preds must be above 0 (except for power 0); target too where power >= 2, and at
    least 0 where 1 <= power < 2; else NaN (scikit-learn refuses them). Close to the target the value is summed as a
    series, so that good models keep their digits.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import tweedie_deviance
    >>> round(float(tweedie_deviance(jnp.array([2.0]), jnp.array([1.0]), power=1.5)), 6)
    0.485281
    """

    power: float = 1.5
    name: str = "tweedie_deviance"

    def __post_init__(self) -> None:
        if not (self.power <= 0 or self.power >= 1):
            raise ValueError(
                f"{self.name}: no distribution has a power between 0 and 1; it is {self.power!r}. Give 0 (normal), "
                "1 (Poisson), from 1 to 2 (amounts with zeros), 2 (gamma) or 3 (inverse Gaussian)"
            )

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target, _ = errors(preds, target, self.name)
        return _of_power(preds, target, self.power), None


@dataclass(frozen=True)
class PoissonDeviance(MeanOf):
    """The mean Poisson deviance, for counts: 2 (t log(t / p) - t + p), where t = 0 gives 2 p.

    preds and target of one shape [...]; NaN where preds <= 0 or target < 0.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import poisson_deviance
    >>> float(poisson_deviance(jnp.array([1.5]), jnp.array([0.0])))
    3.0
    """

    name: str = "poisson_deviance"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target, _ = errors(preds, target, self.name)
        return _of_power(preds, target, 1.0), None


@dataclass(frozen=True)
class GammaDeviance(MeanOf):
    """The mean gamma deviance, for positive amounts of constant relative error: 2 (log(p / t) + t / p - 1).

    preds and target of one shape [...]; NaN where one of them is not above 0.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import gamma_deviance
    >>> round(float(gamma_deviance(jnp.array([2.0]), jnp.array([1.0]))), 6)
    0.386294
    """

    name: str = "gamma_deviance"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target, _ = errors(preds, target, self.name)
        return _of_power(preds, target, 2.0), None


tweedie_deviance = one_call(TweedieDeviance, "tweedie_deviance")
poisson_deviance = one_call(PoissonDeviance, "poisson_deviance")
gamma_deviance = one_call(GammaDeviance, "gamma_deviance")
