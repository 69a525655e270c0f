"""Errors as a share of the numbers themselves: percentages and logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.metrics import sums
from jaxdl.metrics.call import one_call
from jaxdl.metrics.means import MeanOf, compute_mean
from jaxdl.metrics.metric import Derived
from jaxdl.metrics.regression import errors


@dataclass(frozen=True)
class MeanAbsolutePercentageError(MeanOf):
    """The mean error as a share of the target: mean(|preds - target| / max(|target|, epsilon)); 0.1 means 10 %.

    preds and target of one shape [...]. epsilon=0 divides by the target itself: a target of 0 gives infinity, or NaN
    where the prediction is 0 too. scikit-learn puts epsilon at 2.2e-16, torchmetrics at 1.17e-6.

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_absolute_percentage_error
    >>> float(mean_absolute_percentage_error(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])))
    0.5
    """

    epsilon: float = 0.0
    name: str = "mape"

    def __post_init__(self) -> None:
        if not self.epsilon >= 0:
            raise ValueError(f"{self.name}: epsilon must not be negative; it is {self.epsilon!r}")

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        _, target, error = errors(preds, target, self.name)
        return jnp.abs(error) / jnp.maximum(jnp.abs(target), jnp.float32(self.epsilon)), None


@dataclass(frozen=True)
class SymmetricMeanAbsolutePercentageError(MeanOf):
    """The mean of 2 |preds - target| / (|preds| + |target|), from 0 to 2 (Makridakis, 1993).

    preds and target of one shape [...]. Where both are 0 it is 0 / 0: NaN, or `zero_division` (torchmetrics: 0).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import symmetric_mean_absolute_percentage_error
    >>> float(symmetric_mean_absolute_percentage_error(jnp.array([1.0, 3.0]), jnp.array([3.0, 1.0])))
    1.0
    """

    zero_division: float = float("nan")
    name: str = "smape"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        preds, target, error = errors(preds, target, self.name)
        # halved before they are added: the sum of two large numbers need not be one
        half = jnp.abs(preds) * jnp.float32(0.5) + jnp.abs(target) * jnp.float32(0.5)
        empty = (preds == 0) & (target == 0)
        share = jnp.abs(error) / jnp.where(empty, jnp.ones_like(half), half)
        return jnp.where(empty, jnp.full_like(half, self.zero_division), share), None


def _log_error(preds: Any, target: Any, name: str) -> jax.Array:
    preds, target, error = errors(preds, target, name)
    # log1p(p) - log1p(t) as one logarithm: no digits are lost where the two are close
    near = jnp.log1p(error / (jnp.float32(1) + target))
    far = jnp.log1p(preds) - jnp.log1p(target)
    return jnp.where(jnp.abs(error) < jnp.float32(0.5) * (jnp.float32(1) + target), near, far)


@dataclass(frozen=True)
class MeanSquaredLogError(MeanOf):
    """The mean of (log(1 + preds) - log(1 + target))^2, for numbers that grow by factors.

    preds and target of one shape [...], above -1; NaN where one is below (scikit-learn refuses them).

    >>> import jax.numpy as jnp
    >>> from jaxdl.metrics import mean_squared_log_error
    >>> round(float(mean_squared_log_error(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))), 6)
    0.240227
    """

    name: str = "msle"

    def _values(self, preds: Any, target: Any) -> tuple[jax.Array, None]:
        error = _log_error(preds, target, self.name)
        return error * error, None


@dataclass(frozen=True)
class RootMeanSquaredLogError(Derived):
    """The root of MeanSquaredLogError, whose state it shares."""

    name: str = "rmsle"

    @property
    def statistic(self) -> MeanSquaredLogError:
        """The mean of squared logarithms."""
        return MeanSquaredLogError()

    def compute(self, state: sums.Sums) -> jax.Array:
        """float32 []."""
        return jnp.sqrt(compute_mean(state))


mean_absolute_percentage_error = one_call(MeanAbsolutePercentageError, "mean_absolute_percentage_error")
symmetric_mean_absolute_percentage_error = one_call(
    SymmetricMeanAbsolutePercentageError, "symmetric_mean_absolute_percentage_error"
)
mean_squared_log_error = one_call(MeanSquaredLogError, "mean_squared_log_error")
root_mean_squared_log_error = one_call(RootMeanSquaredLogError, "root_mean_squared_log_error")
